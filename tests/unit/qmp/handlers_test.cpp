// SPDX-License-Identifier: Apache-2.0
#include "handlers_fixture.h"

#include <algorithm>

namespace colo::test {
namespace {

using qmp::test::json;
using schema::RunState;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr const char* kInProgress = "There's a migration process in progress";

TEST_F(HandlersTest, Identity)
{
    EXPECT_EQ(result("query-version"),
              json(R"({"qemu": {"major": 7, "minor": 0, "micro": 0}, "package": "colod 9.9"})"));
    EXPECT_EQ(result("query-name"), json(R"({"name": "web1"})"));
    EXPECT_EQ(result("query-uuid"), json(R"({"UUID": "01234567-89ab-cdef-0123-456789abcdef"})"));
    EXPECT_EQ(result("query-kvm"), json(R"({"enabled": false, "present": true})"));
    EXPECT_EQ(result("query-target"), json(R"({"arch": "x86_64"})"));
    service_.who = {};
    EXPECT_EQ(result("query-name"), json("{}"));
    EXPECT_EQ(result("query-uuid"), json(R"({"UUID": "00000000-0000-0000-0000-000000000000"})"));
}

TEST_F(HandlersTest, RunStates)
{
    EXPECT_EQ(result("query-status"), json(R"({"running": true, "singlestep": false, "status": "running"})"));
    service_.state = RunState::finish_migrate;
    EXPECT_EQ(result("query-status"), json(R"({"running": false, "singlestep": false, "status": "finish-migrate"})"));

    struct Case {
        RunState state;
        const char* stop_call;
        const char* cont_call;
        const char* cont_error;
    };
    const Case cases[] = {
        {RunState::running, "stop", nullptr, nullptr},
        {RunState::paused, nullptr, "cont", nullptr},
        {RunState::save_vm, "stop", "cont", nullptr},
        {RunState::prelaunch, nullptr, "cont", nullptr},
        {RunState::postmigrate, nullptr, "cont", nullptr},
        {RunState::restore_vm, nullptr, "cont", nullptr},
        {RunState::io_error, nullptr, "cont", nullptr},
        {RunState::inmigrate, nullptr, nullptr, nullptr},
        {RunState::suspended, nullptr, nullptr, nullptr},
        {RunState::finish_migrate, nullptr, nullptr, "Migration is not finalized yet"},
        {RunState::shutdown, nullptr, nullptr, "Resetting the Virtual Machine is required"},
        {RunState::internal_error, nullptr, nullptr, "Resetting the Virtual Machine is required"},
    };
    for (const Case& c : cases) {
        service_.state = c.state;
        service_.calls.clear();
        must("stop");
        EXPECT_EQ(service_.take_calls(),
                  c.stop_call ? std::vector<std::string>{c.stop_call} : std::vector<std::string>{})
            << to_string(c.state);
        if (c.cont_error)
            EXPECT_EQ(error("cont"), c.cont_error);
        else
            must("cont");
        EXPECT_EQ(service_.take_calls(),
                  c.cont_call ? std::vector<std::string>{c.cont_call} : std::vector<std::string>{})
            << to_string(c.state);
    }
}

TEST_F(HandlersTest, StopAndContWhileWaitingForAPrimarySucceedWithoutEffect)
{
    service_.state = RunState::inmigrate;
    must("stop");
    must("cont");
    EXPECT_THAT(service_.take_calls(), IsEmpty());
    EXPECT_THAT(events_.take(), IsEmpty());
}

// No guest of ours has a network card that stands in for an assigned one, so nothing causes UNPLUG_PRIMARY; clients find it
// in the introspection all the same, as they do where the device exists.
TEST_F(HandlersTest, UnplugPrimaryIsListedThoughNothingCausesIt)
{
    const schema::Value listed = result("query-qmp-schema");
    const auto is_event = [](const schema::Value& entity) {
        const schema::Value* name = entity.find("name");
        const schema::Value* type = entity.find("meta-type");
        return name != nullptr && type != nullptr && *name == schema::Value(std::string("UNPLUG_PRIMARY")) &&
               *type == schema::Value(std::string("event"));
    };
    ASSERT_NE(listed.as_array(), nullptr);
    EXPECT_EQ(std::ranges::count_if(*listed.as_array(), is_event), 1);
    EXPECT_THAT(events_.take(), IsEmpty());
}

TEST_F(HandlersTest, StopAndResumeEventsOnlyOnRealChanges)
{
    control_.guest_resumed();
    control_.guest_resumed();
    control_.guest_stopped();
    control_.guest_stopped();
    control_.guest_resumed();
    EXPECT_THAT(events_.take(), ElementsAre("RESUME", "STOP", "RESUME"));
}

TEST_F(HandlersTest, QuitAnswersFirst)
{
    must("quit");
    EXPECT_THAT(events_.take(), ElementsAre("SHUTDOWN false host-qmp-quit"));
    EXPECT_THAT(service_.take_calls(), ElementsAre("quit"));
    control_.shutdown(true, schema::ShutdownCause::guest_shutdown);
    EXPECT_THAT(events_.take(), ElementsAre("SHUTDOWN true guest-shutdown"));
}

TEST_F(HandlersTest, ErrorsOfTheDaemonAreAnswers)
{
    service_.outcome = make_error(Errc::refused, "the other side went on");
    EXPECT_EQ(error("stop"), "the other side went on");
    EXPECT_EQ(error("x-colo-failover"), "the other side went on");
    EXPECT_EQ(error("x-colo-unprotect"), "the other side went on");
    EXPECT_EQ(error("xen-set-global-dirty-log", R"({"enable": true})"), "the other side went on");
}

TEST_F(HandlersTest, MigrateChecksInOrder)
{
    const char* ok = R"({"uri": "tcp:h:1"})";
    EXPECT_EQ(error("migrate", R"({"uri": "tcp:h:1", "resume": true})"),
              "Cannot resume if there is no paused migration");
    enable("x-colo");
    service_.blockers = {"a disk is in the way"};
    service_.state = RunState::inmigrate;
    EXPECT_EQ(error("migrate", ok), "Guest is waiting for an incoming migration");
    service_.state = RunState::postmigrate;
    EXPECT_EQ(error("migrate", ok), "Can't migrate the vm that was paused due to previous migration");
    service_.state = RunState::running;
    EXPECT_EQ(error("migrate", R"({"uri": "bad", "blk": true})"), "a disk is in the way");
    EXPECT_EQ(result("query-migrate"), json(R"({"blocked-reasons": ["a disk is in the way"]})"));
    service_.blockers.clear();
    EXPECT_EQ(error("migrate", R"({"uri": "bad", "blk": true})"), "No disk migration is required in COLO mode");
    EXPECT_EQ(error("migrate", R"({"uri": "bad", "inc": true})"), "No disk migration is required in COLO mode");
    EXPECT_EQ(result("query-migrate"), json("{}"));
    EXPECT_THAT(service_.take_calls(), IsEmpty());
    must("migrate", ok);
    EXPECT_THAT(service_.take_calls(), ElementsAre("protect tcp:h:1"));
    EXPECT_EQ(error("migrate", ok), kInProgress);
    EXPECT_EQ(error("migrate", R"({"uri": "tcp:h:1", "resume": true})"),
              "Cannot resume if there is no paused migration");
}

TEST_F(HandlersTest, MigrateUris)
{
    enable("x-colo");
    enable("events");
    for (const char* uri : {"", "tcp", "foo:bar", "TCP:h:1"}) {
        EXPECT_EQ(error("migrate", std::string(R"({"uri": ")") + uri + "\"}"),
                  "Parameter 'uri' expects a valid migration protocol")
            << uri;
        EXPECT_EQ(result("query-migrate"), json(R"({"status": "failed"})"));
        EXPECT_THAT(events_.take(), ElementsAre("MIGRATION setup", "MIGRATION failed"));
    }
    for (const char* uri : {"exec:cat", "fd:x", "vsock:1:2", "rdma:h:1", "tcp:h", "tcp:", "tcp:h:", "tcp:[::1",
                            "tcp:[::1]", "tcp:a:b:c", "unix:", "tcp:h:p", "tcp:h:1,ipv4=x", "tcp:h:1,to=x"}) {
        const std::string text = error("migrate", std::string(R"({"uri": ")") + uri + "\"}");
        EXPECT_THAT(service_.take_calls(), IsEmpty()) << uri;
        EXPECT_EQ(result("query-migrate").find("error-desc")->as_string()->substr(0, 400), text) << uri;
    }
    for (const char* uri : {"tcp:h:1", "tcp:[::1]:7", "tcp::9", "tcp:h:1,ipv4=on,keep-alive", "unix:/x"}) {
        must("migrate", std::string(R"({"uri": ")") + uri + "\"}");
        control_.outgoing(TransferPhase::failed, "x");
    }
}

TEST_F(HandlersTest, MigrationIsRefusedByTheDaemon)
{
    enable("x-colo");
    service_.outcome = make_error(Errc::refused, "no peer");
    EXPECT_EQ(error("migrate", R"({"uri": "tcp:h:1"})"), "no peer");
    EXPECT_EQ(result("query-migrate"), json(R"({"status": "failed", "error-desc": "no peer"})"));
}

TEST_F(HandlersTest, LifeOfAProtectionOnThePrimary)
{
    enable("x-colo");
    enable("events");
    service_.facts.ram.total = 1000;
    service_.facts.ram.remaining = 7;
    service_.facts.total_time_ms = 12;
    service_.facts.setup_time_ms = 3;
    service_.facts.expected_downtime_ms = 4;
    service_.facts.downtime_ms = 5;
    must("migrate", R"({"uri": "tcp:h:1"})");
    EXPECT_EQ(result("query-migrate"), json(R"({"status": "setup"})"));
    control_.outgoing(TransferPhase::active, {});
    const auto active = result("query-migrate");
    EXPECT_EQ(*active.find("status"), schema::Value("active"));
    EXPECT_EQ(active.find("ram")->as_object()->size(), 17u);
    EXPECT_EQ(*active.find("expected-downtime"), schema::Value(4));
    EXPECT_EQ(active.find("downtime"), nullptr);
    control_.colo_entered(schema::COLOMode::primary);
    EXPECT_EQ(result("query-migrate"), json(R"({"status": "colo"})"));
    EXPECT_EQ(result("query-colo-status"), json(R"({"mode": "primary", "last-mode": "none", "reason": "none"})"));
    EXPECT_EQ(error("migrate", R"({"uri": "tcp:h:1"})"), kInProgress);
    EXPECT_EQ(error("x-colo-protect"), kInProgress);
    EXPECT_EQ(error("migrate-set-capabilities", R"({"capabilities": []})"), kInProgress);
    must("migrate-set-parameters", R"({"x-checkpoint-delay": 100})");
    must("migrate_cancel");  // without effect in COLO
    EXPECT_EQ(result("query-migrate"), json(R"({"status": "colo"})"));

    must("x-colo-lost-heartbeat");
    control_.colo_failover_started();
    EXPECT_EQ(result("query-colo-status"), json(R"({"mode": "primary", "last-mode": "none", "reason": "processing"})"));
    EXPECT_EQ(error("x-colo-lost-heartbeat"), "COLO failover is already activated");
    control_.colo_peer_lost();  // noticed meanwhile: part of the failover
    control_.colo_left(true, {});
    EXPECT_EQ(result("query-colo-status"), json(R"({"mode": "none", "last-mode": "primary", "reason": "request"})"));
    const auto completed = result("query-migrate");
    EXPECT_EQ(*completed.find("status"), schema::Value("completed"));
    EXPECT_EQ(*completed.find("downtime"), schema::Value(5));
    EXPECT_EQ(*completed.find("ram")->find("remaining"), schema::Value(0));
    EXPECT_EQ(completed.find("expected-downtime"), nullptr);
    EXPECT_THAT(events_.take(), ElementsAre("MIGRATION setup", "MIGRATION active", "MIGRATION colo",
                                            "MIGRATION completed", "COLO_EXIT primary request"));
    EXPECT_THAT(service_.take_calls(), ElementsAre("protect tcp:h:1", "lost-heartbeat"));
    EXPECT_EQ(error("x-colo-lost-heartbeat"), "The feature 'colo' is not enabled");
    must("migrate", R"({"uri": "tcp:h:2"})");
}

TEST_F(HandlersTest, LossOfThePeerDoesNotLeaveColo)
{
    control_.colo_entered(schema::COLOMode::secondary);
    control_.colo_peer_lost();
    control_.colo_peer_lost();
    EXPECT_EQ(result("query-colo-status"), json(R"({"mode": "secondary", "last-mode": "none", "reason": "none"})"));
    EXPECT_EQ(result("query-migrate"), json(R"({"status": "colo"})"));
    EXPECT_THAT(events_.take(), ElementsAre("COLO_EXIT secondary error"));
    must("x-colo-lost-heartbeat");
    control_.colo_failover_started();
    control_.colo_left(true, {});
    EXPECT_EQ(result("query-colo-status"), json(R"({"mode": "none", "last-mode": "secondary", "reason": "request"})"));
    EXPECT_THAT(events_.take(), IsEmpty());  // there is no second COLO_EXIT
    // The next session starts from a clean slate, but remembers the former mode.
    control_.colo_entered(schema::COLOMode::primary);
    EXPECT_EQ(result("query-colo-status"), json(R"({"mode": "primary", "last-mode": "secondary", "reason": "none"})"));
}

TEST_F(HandlersTest, FailoverThatCouldNotBeFinished)
{
    control_.incoming(TransferPhase::setup, {});
    control_.colo_entered(schema::COLOMode::secondary);
    events_.take();
    control_.colo_left(false, "the arbiter refused");
    EXPECT_EQ(result("query-colo-status"), json(R"({"mode": "none", "last-mode": "secondary", "reason": "error"})"));
    EXPECT_EQ(result("query-migrate"), json(R"({"status": "failed", "error-desc": "the arbiter refused"})"));
    EXPECT_THAT(events_.take(), ElementsAre("COLO_EXIT secondary error"));
}

TEST_F(HandlersTest, StateOfTheDaemonSettlesALoss)
{
    control_.colo_entered(schema::COLOMode::primary);
    service_.report.state = schema::ProtectionState::unprotected;
    control_.state_changed();  // without a loss or a failover it says nothing about COLO
    EXPECT_TRUE(control_.book().in_colo());
    control_.colo_peer_lost();
    service_.report.state = schema::ProtectionState::peer_lost;
    control_.state_changed();
    EXPECT_TRUE(control_.book().in_colo());
    service_.report.state = schema::ProtectionState::unprotected;
    control_.state_changed();
    EXPECT_EQ(result("query-colo-status"), json(R"({"mode": "none", "last-mode": "primary", "reason": "request"})"));
    must("x-colo-protect");
}

TEST_F(HandlersTest, LostHeartbeatIsRefusedOutsideColoAndByTheDaemon)
{
    EXPECT_EQ(error("x-colo-lost-heartbeat"), "The feature 'colo' is not enabled");
    enable("x-colo");
    must("migrate", R"({"uri": "tcp:h:1"})");
    EXPECT_EQ(error("x-colo-lost-heartbeat"), "The feature 'colo' is not enabled");
    control_.colo_entered(schema::COLOMode::primary);
    service_.outcome = make_error(Errc::refused, "this side is outdated");
    EXPECT_EQ(error("x-colo-lost-heartbeat"), "this side is outdated");
}

TEST_F(HandlersTest, CancelOfAnOutgoingMigration)
{
    must("migrate_cancel");
    EXPECT_THAT(service_.take_calls(), IsEmpty());
    enable("x-colo");
    enable("events");
    must("migrate", R"({"uri": "tcp:h:1"})");
    control_.outgoing(TransferPhase::active, {});
    must("migrate_cancel");
    EXPECT_EQ(*result("query-migrate").find("status"), schema::Value("cancelling"));
    EXPECT_EQ(error("migrate", R"({"uri": "tcp:h:1"})"), kInProgress);
    control_.outgoing(TransferPhase::active, {});  // too late
    control_.outgoing(TransferPhase::failed, "connection closed");
    EXPECT_EQ(result("query-migrate"), json(R"({"status": "cancelled"})"));
    EXPECT_THAT(events_.take(),
                ElementsAre("MIGRATION setup", "MIGRATION active", "MIGRATION cancelling", "MIGRATION cancelled"));
    must("migrate_cancel");
    EXPECT_EQ(service_.take_calls().size(), 2u);
}

TEST_F(HandlersTest, Incoming)
{
    EXPECT_EQ(error("migrate-incoming", R"({"uri": "tcp::1"})"), "'-incoming' was not specified on the command line");
    service_.state = RunState::inmigrate;
    EXPECT_EQ(error("migrate-incoming", R"({"uri": "foo:1"})"), "unknown migration protocol: foo:1");
    EXPECT_EQ(error("migrate-incoming", R"({"uri": "exec:cat"})").find("A guest cannot go over 'exec:'"), 0u);
    EXPECT_THAT(events_.take(), ElementsAre("MIGRATION setup", "MIGRATION setup"));  // whatever comes of the address
    EXPECT_EQ(result("query-migrate"), json("{}"));
    enable("x-colo");
    service_.outcome = make_error(Errc::failed, "Address already in use");
    EXPECT_EQ(error("migrate-incoming", R"({"uri": "tcp::1"})"), "Address already in use");
    service_.outcome = {};
    must("migrate-incoming", R"({"uri": "tcp::0"})");                                // a failed call may be repeated
    EXPECT_THAT(events_.take(), ElementsAre("MIGRATION setup", "MIGRATION setup"));  // without the capability, too
    EXPECT_EQ(error("migrate-incoming", R"({"uri": "tcp::1"})"), "The incoming migration has already been started");
    EXPECT_EQ(result("query-migrate"), json("{}"));
    service_.addresses = {{schema::SocketAddressInet{.host = "0.0.0.0",
                                                     .port = "4444",
                                                     .numeric = {},
                                                     .to = {},
                                                     .ipv4 = {},
                                                     .ipv6 = {},
                                                     .keep_alive = {},
                                                     .mptcp = {}}}};
    EXPECT_EQ(result("query-migrate"),
              json(R"({"socket-address": [{"type": "inet", "host": "0.0.0.0", "port": "4444"}]})"));
    control_.incoming(TransferPhase::active, {});
    EXPECT_EQ(*result("query-migrate").find("status"), schema::Value("active"));
    EXPECT_THAT(events_.take(), IsEmpty());
    control_.incoming(TransferPhase::failed, "checksum");
    EXPECT_EQ(*result("query-migrate").find("error-desc"), schema::Value("checksum"));
    must("migrate-incoming", R"({"uri": "tcp::0"})");
}

TEST_F(HandlersTest, ProtectSwitchesColoOnOnlyIfItStarts)
{
    service_.state = RunState::inmigrate;
    EXPECT_EQ(error("x-colo-protect"), "Guest is waiting for an incoming migration");
    service_.state = RunState::running;
    EXPECT_EQ(error("x-colo-protect", R"({"uri": "nope"})"), "Parameter 'uri' expects tcp:HOST:PORT or unix:PATH");
    EXPECT_FALSE(control_.settings().enabled(schema::MigrationCapability::x_colo));
    must("x-colo-protect");
    EXPECT_TRUE(control_.settings().enabled(schema::MigrationCapability::x_colo));
    EXPECT_THAT(service_.take_calls(), ElementsAre("protect "));
}

TEST_F(HandlersTest, AnswersMayComeLater)
{
    service_.hold = true;
    EXPECT_THAT(monitor_.send(R"({"execute": "xen-colo-do-checkpoint", "id": 1} {"execute": "query-name", "id": 2})"),
                IsEmpty());
    service_.finish({});
    EXPECT_THAT(monitor_.send(""), ElementsAre(qmp::test::with_id(qmp::test::empty_answer(), 1),
                                               json(R"({"return": {"name": "web1"}, "id": 2})")));
}

TEST_F(HandlersTest, XenCommands)
{
    for (const char* text : {"xen-save-devices-state: GenericError: Unable to open /a/b: No such file or directory",
                             "xen-save-devices-state: Unable to open /a/b: No such file or directory",
                             "Unable to open /a/b: No such file or directory"}) {
        service_.outcome = make_error(Errc::refused, text);
        EXPECT_EQ(error("xen-save-devices-state", R"({"filename": "/a/b"})"),
                  "Unable to open /a/b: No such file or directory");
    }
    service_.outcome = make_error(Errc::refused, "xen-set-global-dirty-log: GenericError: no");
    EXPECT_EQ(error("xen-set-global-dirty-log", R"({"enable": true})"), "no");
    service_.outcome = {};
    service_.take_calls();
    must("xen-save-devices-state", R"({"filename": "/a"})");
    must("xen-save-devices-state", R"({"filename": "/b", "live": false})");
    EXPECT_EQ(error("xen-load-devices-state", R"({"filename": "/a"})"),
              "Cannot update device state while vm is running");
    service_.state = RunState::paused;
    must("xen-load-devices-state", R"({"filename": "/a"})");
    must("xen-set-global-dirty-log", R"({"enable": true})");
    must("xen-set-global-dirty-log", R"({"enable": false})");
    must("xen-colo-do-checkpoint");
    EXPECT_THAT(service_.take_calls(),
                ElementsAre("save /a live", "save /b", "load /a", "dirty-log on", "dirty-log off", "checkpoint"));
    service_.outcome = make_error(Errc::corrupt, "bad magic");
    EXPECT_EQ(error("xen-load-devices-state", R"({"filename": "/a"})"), "An IO error has occurred");
    service_.outcome = make_error(Errc::unsupported, "not with this guest");
    EXPECT_EQ(error("xen-load-devices-state", R"({"filename": "/a"})"), "not with this guest");
}

TEST_F(HandlersTest, ReportAndStateChangeEvents)
{
    service_.report.domain = "web1";
    service_.report.state = schema::ProtectionState::protected_;
    service_.report.epoch = std::uint64_t{1} << 63;
    const auto report = schema::decode_value<schema::ProtectionReport>(result("x-query-colo"));
    ASSERT_TRUE(report) << report.error().text;
    EXPECT_EQ(*report, service_.report);
    control_.state_changed();
    control_.state_changed();
    EXPECT_EQ(events_.take().size(), 1u);
    service_.report.reason = "why";
    control_.state_changed();
    EXPECT_THAT(events_.take(), ElementsAre("X_COLO_STATE_CHANGE none protected none false why 0"));
    must("x-colo-failover", R"({"accept-data-loss": true})");
    must("x-colo-failover");
    must("x-colo-unprotect");
    EXPECT_THAT(service_.take_calls(), ElementsAre("failover accept-data-loss", "failover", "unprotect"));
}

TEST_F(HandlersTest, PrecheckTellsWhatTheGuestSays)
{
    EXPECT_EQ(schema::decode_value<std::vector<schema::GuestCheck>>(result("x-colo-precheck"))->size(), 0u);
    service_.checks = {{"drivers", false, "the guest has PV drivers"}, {"tsc", true, "native"}};
    const auto checks = schema::decode_value<std::vector<schema::GuestCheck>>(result("x-colo-precheck"));
    ASSERT_TRUE(checks) << checks.error().text;
    EXPECT_EQ(*checks, service_.checks);
    service_.outcome = make_error(Errc::guest_died, "there is no domain");
    EXPECT_EQ(error("x-colo-precheck"), "there is no domain");
}

TEST_F(HandlersTest, MoreIsToldOnlyWhenAskedFor)
{
    schema::CheckpointSample checkpoint;
    checkpoint.epoch = 7;
    checkpoint.trigger = schema::CheckpointTrigger::late_output;
    checkpoint.pause_us = 3100;
    checkpoint.pages = 40;
    checkpoint.sent_bytes = 5000;
    checkpoint.staged_us = 6000;
    checkpoint.applied_us = 9000;
    control_.colo_entered(schema::COLOMode::primary);
    control_.checkpoint_applied(checkpoint);
    EXPECT_EQ(result("query-migrate"), json(R"({"status": "colo"})"));
    EXPECT_THAT(events_.take(), IsEmpty());
    EXPECT_EQ(result("x-colo-set-reporting"), json(R"({"checkpoint-events": false, "live-statistics": false})"));

    EXPECT_EQ(result("x-colo-set-reporting", R"({"checkpoint-events": true})"),
              json(R"({"checkpoint-events": true, "live-statistics": false})"));
    control_.checkpoint_applied(checkpoint);
    EXPECT_THAT(events_.take(), ElementsAre("X_COLO_CHECKPOINT 7 late-output 3100 40 5000 6000 9000"));

    EXPECT_EQ(result("x-colo-set-reporting", R"({"live-statistics": true})"),
              json(R"({"checkpoint-events": true, "live-statistics": true})"));
    const auto info = result("query-migrate");
    EXPECT_EQ(*info.find("status"), schema::Value("colo"));
    EXPECT_EQ(info.find("ram")->as_object()->size(), 17u);
    EXPECT_NE(info.find("expected-downtime"), nullptr);
}

}  // namespace
}  // namespace colo::test
