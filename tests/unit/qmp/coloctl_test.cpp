// SPDX-License-Identifier: Apache-2.0

// The real coloctl against the real commands over a fake daemon.

#include "coloctl_fixture.h"

namespace colo::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

TEST_F(ColoctlTest, UsageErrors)
{
    for (const char* arguments : {"", "nope", "status --bogus", "failover", "protect", "qmp web1", "status a/b",
                                  "-o xml status", "watch -n x"}) {
        const Outcome outcome = ctl(arguments);
        EXPECT_EQ(outcome.status, 2) << arguments;
        EXPECT_THAT(outcome.out, StartsWith("coloctl: usage: ")) << arguments;
        EXPECT_EQ(lines(outcome.out), 1u) << outcome.out;
    }
    EXPECT_EQ(ctl("--help").status, 0);
    EXPECT_THAT(ctl("--version").out, StartsWith("coloctl "));
}

TEST_F(ColoctlTest, UnreachableDaemons)
{
    EXPECT_EQ(ctl("status").status, 3);  // no socket at all
    const Outcome outcome = ctl("failover web1");
    EXPECT_EQ(outcome.status, 3);
    EXPECT_THAT(outcome.out, StartsWith("coloctl: web1: "));
    EXPECT_THAT(outcome.out, HasSubstr("No such file or directory (is its colod running?"));
    EXPECT_EQ(lines(outcome.out), 1u);
    EXPECT_EQ(ctl("-s /no/such/socket events").status, 3);
}

TEST_F(ColoctlTest, StatusIsOneLineADomain)
{
    auto web1 = daemon("web1");
    auto web2 = daemon("web2");
    Outcome outcome = ctl("status");
    EXPECT_EQ(outcome.status, 0) << outcome.out;
    EXPECT_EQ(lines(outcome.out), 3u) << outcome.out;
    EXPECT_THAT(outcome.out, HasSubstr("10.0.0.2:7777 (secondary, protected)"));
    EXPECT_EQ(outcome.out.find('\033'), std::string::npos);

    web2->live.run([&] {
        web2->service.report.healthy = false;
        web2->service.report.state = schema::ProtectionState::peer_lost;
        web2->service.report.reason = "no beat on 2 paths for 210 ms";
        web2->service.report.session = "0000000000000001";
        web2->service.report.remote->healthy = false;
        web2->service.report.remote->reason = "its device model died";
    });
    outcome = ctl("status");
    EXPECT_EQ(outcome.status, 4);
    EXPECT_THAT(outcome.out, HasSubstr("no beat on 2 paths for 210 ms; peer: its device model died"));
    EXPECT_EQ(ctl("status web1").status, 0);
    EXPECT_EQ(ctl("status web2").status, 4);
    EXPECT_THAT(ctl("status web2").out, HasSubstr("peer says"));

    web1.reset();
    dead_socket("web1");
    outcome = ctl("status");
    EXPECT_EQ(outcome.status, 3);
    EXPECT_THAT(outcome.out, HasSubstr("unreachable"));
    EXPECT_THAT(outcome.out, HasSubstr("web2"));
}

TEST_F(ColoctlTest, StatusAsJson)
{
    auto web1 = daemon("web1");
    dead_socket("dead");
    const Outcome outcome = ctl("-o json status");
    EXPECT_EQ(outcome.status, 3);
    const auto value = qmp::parse_json(outcome.out);
    ASSERT_TRUE(value) << outcome.out;
    EXPECT_EQ(*value->find("schema-version"), schema::Value(1));
    const schema::Array& domains = *value->find("domains")->as_array();
    ASSERT_EQ(domains.size(), 2u);
    EXPECT_EQ(*domains[0].find("domain"), schema::Value("dead"));
    EXPECT_EQ(*domains[0].find("reachable"), schema::Value(false));
    EXPECT_TRUE(domains[0].find("error"));
    EXPECT_EQ(*domains[1].find("report")->find("state"), schema::Value("protected"));
}

TEST_F(ColoctlTest, ADaemonThatHangsIsGivenUp)
{
    auto web1 = daemon("web1");
    web1->live.run([&] { web1->service.hold = true; });
    const Outcome outcome = ctl("--timeout 0.5 qmp web1 stop");
    EXPECT_EQ(outcome.status, 3);
    // On a busy machine the time may be over before the command is sent.
    EXPECT_THAT(outcome.out, StartsWith("coloctl: "));
    EXPECT_THAT(outcome.out, ::testing::EndsWith(": no answer in time\n"));
}

TEST_F(ColoctlTest, WatchPrintsPlainLinesWithoutATerminal)
{
    auto web1 = daemon("web1");
    const Outcome outcome = ctl("watch -n 0.05 -c 3");
    EXPECT_EQ(outcome.status, 0);
    EXPECT_EQ(lines(outcome.out), 3u);
    EXPECT_THAT(outcome.out, HasSubstr("web1: primary protected lock-step"));
    EXPECT_EQ(outcome.out.find('\033'), std::string::npos);
}

TEST_F(ColoctlTest, ProtectWaitsUntilItIsProtected)
{
    auto web1 = daemon("web1");
    web1->live.run([&] { web1->service.report.state = schema::ProtectionState::protected_; });
    Outcome outcome = ctl("protect web1 --to tcp:h:1");
    EXPECT_EQ(outcome.status, 0) << outcome.out;
    EXPECT_THAT(outcome.out, HasSubstr("web1: primary protected"));
    EXPECT_THAT(web1->live.run([&] { return web1->service.take_calls(); }), ::testing::ElementsAre("protect tcp:h:1"));

    outcome = ctl("protect web1");
    EXPECT_EQ(outcome.status, 1);
    EXPECT_EQ(outcome.out, "coloctl: web1: There's a migration process in progress\n");

    web1->live.run([&] {
        web1->service.report.state = schema::ProtectionState::unprotected;
        web1->control.outgoing(TransferPhase::failed, "Connection refused");
        web1->service.outcome = make_error(Errc::refused, "no peer is configured");
    });
    EXPECT_EQ(ctl("protect web1").out, "coloctl: web1: no peer is configured\n");
}

TEST_F(ColoctlTest, ProtectSaysWhyItFailedLater)
{
    auto web1 = daemon("web1");
    web1->live.run([&] { web1->service.report.state = schema::ProtectionState::connecting; });
    std::thread failure([&] {
        for (const Deadline deadline = soon(); now() < deadline;
             std::this_thread::sleep_for(std::chrono::milliseconds(2)))
            if (web1->live.run([&] { return !web1->service.take_calls().empty(); })) break;
        web1->live.run([&] { web1->control.outgoing(TransferPhase::failed, "Connection refused"); });
    });
    const Outcome outcome = ctl("protect web1");
    failure.join();
    EXPECT_EQ(outcome.status, 1);
    EXPECT_EQ(outcome.out, "coloctl: web1: not protected: Connection refused\n");
}

TEST_F(ColoctlTest, FailoverAndUnprotect)
{
    auto web1 = daemon("web1");
    web1->live.run([&] { web1->service.report.state = schema::ProtectionState::unprotected; });
    EXPECT_EQ(ctl("failover web1").status, 0);
    EXPECT_EQ(ctl("failover web1 --accept-data-loss").status, 0);
    EXPECT_EQ(ctl("-s '" + socket_of("web1") + "' unprotect").status, 0);
    EXPECT_THAT(web1->live.run([&] { return web1->service.take_calls(); }),
                ::testing::ElementsAre("failover", "failover accept-data-loss", "unprotect"));
    web1->live.run([&] { web1->service.report.state = schema::ProtectionState::failing_over; });
    const Outcome outcome = ctl("failover web1 --wait 0.1");
    EXPECT_EQ(outcome.status, 1);
    EXPECT_THAT(outcome.out, HasSubstr("still failing-over"));
}

// The command was accepted; what became of it is in the report. Nobody waits five minutes to be told nothing.
TEST_F(ColoctlTest, FailoverThatFailsLaterSaysWhy)
{
    auto web1 = daemon("web1");
    web1->live.run([&] {
        web1->service.report.state = schema::ProtectionState::waiting;
        web1->service.report.operator_command = {"x-colo-failover", false, "the primary takes over at the same time"};
    });
    Outcome outcome = ctl("failover web1");
    EXPECT_EQ(outcome.status, 1);
    EXPECT_EQ(outcome.out, "coloctl: web1: the primary takes over at the same time\n");

    web1->live.run([&] {
        web1->service.report.state = schema::ProtectionState::stopped;
        web1->service.report.reason = "the guest was lost";
        web1->service.report.operator_command.reset();
    });
    outcome = ctl("failover web1");
    EXPECT_EQ(outcome.status, 1);
    EXPECT_THAT(outcome.out, HasSubstr("the guest was lost"));

    web1->live.run([&] {
        web1->service.report.state = schema::ProtectionState::peer_lost;
        web1->service.report.reason = "no answer of the arbiter";
        web1->service.report.operator_command = {"x-colo-failover", true, {}};
    });
    outcome = ctl("failover web1 --wait 0.1");
    EXPECT_EQ(outcome.status, 1);
    EXPECT_THAT(outcome.out, HasSubstr("still peer-lost (no answer of the arbiter)"));
}

TEST_F(ColoctlTest, PrecheckPrintsTheWholeListAndItsStatusIsTheVerdict)
{
    auto web1 = daemon("web1");
    Outcome outcome = ctl("precheck web1");
    EXPECT_EQ(outcome.status, 0);
    EXPECT_EQ(outcome.out, "It can be protected.\n");
    web1->live.run([&] { web1->service.checks = {{"paging", true, "hardware assisted"}, {"drivers", false, "PV drivers are at work"}}; });
    outcome = ctl("precheck web1");
    EXPECT_EQ(outcome.status, 1);
    EXPECT_EQ(outcome.out, "ok  paging         hardware assisted\nNO  drivers        PV drivers are at work\nIt cannot be protected as it is.\n");
    outcome = ctl("-o json precheck web1");
    EXPECT_EQ(outcome.status, 1);
    EXPECT_THAT(outcome.out, HasSubstr("\"check\""));
}

TEST_F(ColoctlTest, UnprotectOnTheSecondaryEndsWhenItHasResigned)
{
    auto web1 = daemon("web1");
    web1->live.run([&] {
        web1->service.report.role = schema::DomainRole::secondary;
        web1->service.report.state = schema::ProtectionState::waiting;
        web1->service.report.operator_command = {"x-colo-unprotect", false, {}};
    });
    const Outcome outcome = ctl("unprotect web1");
    EXPECT_EQ(outcome.status, 0) << outcome.out;
    EXPECT_THAT(outcome.out, HasSubstr("web1: secondary waiting"));
}

TEST_F(ColoctlTest, DirtyRateWaitsForTheResult)
{
    auto web1 = daemon("web1");
    const auto measure = [&](const std::string& arguments) {
        Outcome outcome;
        std::thread asking([&] { outcome = ctl(arguments); });
        for (const Deadline deadline = soon(); now() < deadline;
             std::this_thread::sleep_for(std::chrono::milliseconds(2)))
            if (web1->live.run([&] { return web1->service.rate.status == schema::DirtyRateStatus::measuring; })) break;
        web1->live.run([&] {
            web1->service.rate.status = schema::DirtyRateStatus::measured;
            web1->service.rate.dirty_rate = 23;
        });
        asking.join();
        return outcome;
    };
    Outcome outcome = measure("dirty-rate web1 --seconds 10");
    EXPECT_EQ(outcome.status, 0);
    EXPECT_EQ(outcome.out, "23 MiB/s (page-sampling, over 10 s)\n");
    outcome = measure("-o json dirty-rate web1 --mode dirty-bitmap --sample-pages 128");
    const auto value = qmp::parse_json(outcome.out);
    ASSERT_TRUE(value) << outcome.out;
    EXPECT_EQ(*value->find("schema-version"), schema::Value(1));
    EXPECT_EQ(*value->find("dirty-rate")->find("dirty-rate"), schema::Value(23));
    EXPECT_THAT(web1->live.run([&] { return web1->service.take_calls(); }),
                ::testing::ElementsAre("calc-dirty-rate page-sampling 10 512", "calc-dirty-rate dirty-bitmap 1 128"));
}

TEST_F(ColoctlTest, DirtyRateSaysWhyNot)
{
    auto web1 = daemon("web1");
    Outcome outcome = ctl("dirty-rate web1 --mode dirty-ring");
    EXPECT_EQ(outcome.status, 1);
    EXPECT_EQ(outcome.out, "coloctl: web1: mode dirty-ring is not enabled, use other method instead.\n");
    EXPECT_EQ(ctl("dirty-rate web1 --seconds 61").status, 2);
    EXPECT_EQ(ctl("dirty-rate web1 --mode guess").status, 2);
    EXPECT_EQ(ctl("dirty-rate").status, 2);
    std::thread death([&] {
        for (const Deadline deadline = soon(); now() < deadline;
             std::this_thread::sleep_for(std::chrono::milliseconds(2)))
            if (web1->live.run([&] { return web1->service.rate.status == schema::DirtyRateStatus::measuring; })) break;
        web1->live.run([&] { web1->service.rate.status = schema::DirtyRateStatus::unstarted; });
    });
    outcome = ctl("dirty-rate web1");
    death.join();
    EXPECT_EQ(outcome.status, 1);
    EXPECT_THAT(outcome.out, HasSubstr("given up"));
}

TEST_F(ColoctlTest, APeerWhoseStateIsNotKnownIsNotGivenOne)
{
    auto web1 = daemon("web1");
    web1->live.run([&] { web1->service.report.remote->state.reset(); });
    EXPECT_THAT(ctl("status").out, HasSubstr("10.0.0.2:7777 (secondary, no session)"));
    web1->live.run([&] {
        web1->service.report.remote->healthy = false;
        web1->service.report.remote->reason = "no beat for 5000 ms";
        web1->service.report.remote->age_ms = 5000;
    });
    EXPECT_THAT(ctl("status").out, HasSubstr("10.0.0.2:7777 (secondary, no session)"));
    EXPECT_THAT(ctl("status web1").out, Not(HasSubstr("no beat"))) << "nobody promised any";
    web1->live.run([&] { web1->service.report.session = "0000000000000001"; });
    EXPECT_THAT(ctl("status").out, HasSubstr("10.0.0.2:7777 (secondary, silent, 5.0 s ago)"));
    EXPECT_THAT(ctl("status web1").out, HasSubstr("no beat for 5000 ms"));
}

TEST_F(ColoctlTest, WhatWasNotMeasuredHasNoFigure)
{
    auto web1 = daemon("web1");
    web1->live.run([&] {
        web1->service.report.state_age_ms = 1000;
        web1->service.report.checkpoints.count = 1;  // cut, and not answered so far
    });
    for (const char* how : {"status", "status web1", "watch -c 1"}) {
        EXPECT_THAT(ctl(how).out, Not(HasSubstr("0 us"))) << how;
    }
    EXPECT_THAT(ctl("watch -c 1").out, HasSubstr("pause p50 - p99 -"));
    web1->live.run([&] { web1->service.report.checkpoints.pause_p50_us = web1->service.report.checkpoints.pause_p99_us = 3000; });
    EXPECT_THAT(ctl("watch -c 1").out, HasSubstr("pause p50 3.0 ms p99 3.0 ms"));
}

TEST_F(ColoctlTest, RawCommandsAndEvents)
{
    auto web1 = daemon("web1");
    EXPECT_EQ(ctl("qmp web1 query-name").out, "{\n  \"name\": \"web1\"\n}\n");
    EXPECT_EQ(ctl("qmp web1 migrate-set-parameters '{\"x-checkpoint-delay\": 500}'").status, 0);
    EXPECT_EQ(ctl("-s '" + socket_of("web1") + "' qmp query-status").status, 0);
    EXPECT_EQ(ctl("-s '" + socket_of("web1") + "' qmp migrate-set-parameters '{\"max-bandwidth\": 5}'").status, 0);
    Outcome outcome = ctl("qmp web1 nope");
    EXPECT_EQ(outcome.status, 1);
    EXPECT_EQ(outcome.out, "coloctl: nope: The command nope has not been found\n");
    EXPECT_EQ(ctl("qmp web1 stop '[1]'").status, 2);
    EXPECT_EQ(ctl("qmp web1 stop '{'").status, 2);

    std::thread emitter([&] {
        // coloctl must have negotiated before anything is sent to it; repeat until it has had enough.
        if (!web1->live.wait_clients(1)) return;
        while (web1->live.clients() > 0) {
            web1->live.emit(schema::events::Stop{});
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
    });
    outcome = ctl("events web1 -c 2");
    emitter.join();
    EXPECT_EQ(outcome.status, 0);
    EXPECT_EQ(lines(outcome.out), 2u);
    const auto event = qmp::parse_json(outcome.out.substr(0, outcome.out.find('\n')));
    ASSERT_TRUE(event);
    EXPECT_EQ(*event->find("event"), schema::Value("STOP"));
}

}  // namespace
}  // namespace colo::test
