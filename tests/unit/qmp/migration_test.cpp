// SPDX-License-Identifier: Apache-2.0
// States of a migration at both ends, and the commands that depend on them.
#include "handlers_fixture.h"

#include <map>
#include <set>

namespace colo::test {
namespace {

using qmp::test::json;
using schema::MigrationStatus;
using schema::RunState;
using schema::Value;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr const char* kInProgress = "There's a migration process in progress";
using S = MigrationStatus;

class MigrationTest : public HandlersTest {
protected:
    // The outgoing side, brought into a state by the reports that lead there.
    void reach(S status)
    {
        using P = TransferPhase;
        static const std::map<S, std::vector<P>> paths = {
            {S::setup, {P::setup}},
            {S::wait_unplug, {P::setup, P::wait_unplug}},
            {S::active, {P::setup, P::active}},
            {S::pre_switchover, {P::setup, P::active, P::pre_switchover}},
            {S::device, {P::setup, P::active, P::pre_switchover, P::device}},
            {S::postcopy_active, {P::setup, P::active, P::postcopy_active}},
            {S::postcopy_paused, {P::setup, P::active, P::postcopy_active, P::postcopy_paused}},
            {S::postcopy_recover, {P::setup, P::active, P::postcopy_active, P::postcopy_paused, P::postcopy_recover}},
            {S::completed, {P::setup, P::active, P::completed}},
            {S::failed, {P::setup, P::failed}},
            {S::cancelled, {P::setup, P::cancelled}},
            {S::colo, {P::setup, P::active}},
            {S::cancelling, {P::setup, P::active}},
        };
        if (status == S::none) return;
        for (const P phase : paths.at(status)) control_.outgoing(phase, phase == P::failed ? "broken" : "");
        if (status == S::colo) control_.colo_entered(schema::COLOMode::primary);
        if (status == S::cancelling) must("migrate_cancel");
        ASSERT_EQ(control_.book().outgoing(), status);
    }
    static std::vector<S> all()
    {
        std::vector<S> result;
        for (std::size_t i = 0; i < schema::kMigrationStatusCount; ++i) result.push_back(static_cast<S>(i));
        return result;
    }
    std::set<std::string> members()
    {
        std::set<std::string> names;
        const Value info = result("query-migrate");
        for (const auto& member : info.as_object()->members()) names.insert(std::string(member.name));
        return names;
    }
};

// Every state in a fixture of its own.
class MigrationStateTest : public MigrationTest, public ::testing::WithParamInterface<S> {};

std::string name_of(const ::testing::TestParamInfo<S>& info)
{
    std::string name(to_string(info.param));
    std::erase(name, '-');
    return name;
}

INSTANTIATE_TEST_SUITE_P(All, MigrationStateTest, ::testing::ValuesIn([] {
                             std::vector<S> states;
                             for (std::size_t i = 0; i < schema::kMigrationStatusCount; ++i)
                                 states.push_back(static_cast<S>(i));
                             return states;
                         }()),
                         name_of);

bool idle(S s)
{
    return s == S::none || s == S::completed || s == S::failed || s == S::cancelled;
}

TEST_P(MigrationStateTest, CommandsByState)
{
    const S state = GetParam();
    enable("x-colo");
    reach(state);
    service_.take_calls();
    const char* uri = R"({"uri": "tcp:h:1"})";
    const char* resume = R"({"uri": "tcp:h:1", "resume": true})";
    EXPECT_EQ(error("migrate", resume),
              state == S::postcopy_paused
                  ? "The link of a postcopy migration cannot be broken and resumed: there is no postcopy phase"
                  : "Cannot resume if there is no paused migration");
    for (const S named : all()) {
        const std::string arguments = R"({"state": ")" + std::string(to_string(named)) + "\"}";
        if (named == state)
            must("migrate-continue", arguments);
        else
            EXPECT_EQ(error("migrate-continue", arguments),
                      "Migration not in expected state: " + std::string(to_string(state)));
    }
    EXPECT_EQ(error("migrate-start-postcopy"),
              "Enable postcopy with migrate_set_capability before the start of migration");
    if (state != S::postcopy_active) {
        EXPECT_EQ(error("migrate-pause"), "migrate-pause is currently only supported during postcopy-active state");
    }
    EXPECT_EQ(error("migrate-recover", uri), "Migrate recover can only be run when postcopy is paused.");
    must("migrate-set-parameters", R"({"max-bandwidth": 1, "x-checkpoint-delay": 7})");
    if (idle(state))
        must("migrate-set-capabilities", R"({"capabilities": []})");
    else
        EXPECT_EQ(error("migrate-set-capabilities", R"({"capabilities": []})"), kInProgress);
    // Of all of these, going on has an effect where it is waited for.
    if (state == S::pre_switchover)
        EXPECT_THAT(service_.take_calls(), ElementsAre("migrate-continue"));
    else
        EXPECT_THAT(service_.take_calls(), IsEmpty());

    must("migrate_cancel");
    const bool had_effect = !idle(state) && state != S::colo && state != S::cancelling;
    EXPECT_EQ(control_.book().outgoing(), had_effect ? S::cancelling : state);
    EXPECT_EQ(service_.take_calls().size(), had_effect ? 1u : 0u);
    if (idle(state))
        must("migrate", uri);
    else
        EXPECT_EQ(error("migrate", uri), kInProgress);
}

TEST_P(MigrationStateTest, MembersOfQueryMigrate)
{
    const S state = GetParam();
    enable("x-colo");
    reach(state);
    const std::set<std::string> status = {"status"};
    const std::set<std::string> progress = {"status", "total-time", "expected-downtime", "setup-time", "ram"};
    std::set<std::string> expected = progress;
    if (state == S::none) expected = {};
    if (state == S::setup || state == S::wait_unplug || state == S::cancelled || state == S::colo) expected = status;
    if (state == S::completed) expected = {"status", "total-time", "downtime", "setup-time", "ram"};
    if (state == S::failed) expected = {"status", "error-desc"};
    EXPECT_EQ(members(), expected);
    if (expected.contains("ram")) {
        EXPECT_EQ(result("query-migrate").find("ram")->as_object()->size(), 17u);
    }
    service_.blockers = {"in the way"};
    expected.insert("blocked-reasons");
    EXPECT_EQ(members(), expected);
}

TEST_F(MigrationTest, WhatFollowsWhat)
{
    const std::map<S, std::set<S>> table = {
        {S::none, {S::setup, S::active, S::failed}},
        {S::failed, {S::setup, S::active, S::failed}},
        {S::completed, {S::setup, S::active}},
        {S::cancelled, {S::setup, S::active}},
        {S::setup, {S::active, S::wait_unplug, S::colo, S::failed, S::cancelling}},
        {S::wait_unplug, {S::active, S::failed, S::cancelling}},
        {S::active, {S::pre_switchover, S::completed, S::colo, S::postcopy_active, S::failed, S::cancelling}},
        {S::pre_switchover, {S::device, S::failed, S::cancelling}},
        {S::device, {S::completed, S::postcopy_active, S::failed, S::cancelling}},
        {S::postcopy_active, {S::postcopy_paused, S::completed, S::failed, S::cancelling}},
        {S::postcopy_paused, {S::postcopy_recover, S::failed, S::cancelling}},
        {S::postcopy_recover, {S::postcopy_active, S::postcopy_paused, S::failed, S::cancelling}},
        {S::cancelling, {S::cancelled, S::colo, S::completed, S::failed}},
        {S::colo, {S::completed, S::failed}},
    };
    for (const S from : all())
        for (const S to : all())
            EXPECT_EQ(follows(from, to), table.at(from).contains(to)) << to_string(from) << " to " << to_string(to);
}

TEST_F(MigrationTest, LateReportsAreLeftOut)
{
    enable("events");
    reach(S::cancelled);
    events_.take();
    control_.outgoing(TransferPhase::failed, "connection closed");
    control_.outgoing(TransferPhase::postcopy_active, {});
    control_.outgoing(TransferPhase::completed, {});
    EXPECT_EQ(result("query-migrate"), json(R"({"status": "cancelled"})"));
    EXPECT_THAT(events_.take(), IsEmpty());
}

TEST_F(MigrationTest, EventsOfAPlainMigrationWithAPause)
{
    enable("events");
    using P = TransferPhase;
    control_.guest_resumed();
    events_.take();
    control_.outgoing(P::setup, {});
    control_.outgoing_pass(1);
    control_.outgoing(P::active, {});
    control_.outgoing_pass(2);
    control_.guest_stopped();
    control_.outgoing(P::pre_switchover, {});
    must("migrate-continue", R"({"state": "pre-switchover"})");
    control_.outgoing(P::device, {});
    control_.outgoing(P::completed, {});
    EXPECT_THAT(events_.take(),
                ElementsAre("MIGRATION setup", "MIGRATION_PASS 1", "MIGRATION active", "MIGRATION_PASS 2", "STOP",
                            "MIGRATION pre-switchover", "MIGRATION device", "MIGRATION completed"));
    enable("events", false);
    control_.outgoing(P::setup, {});
    control_.outgoing_pass(1);
    EXPECT_THAT(events_.take(), IsEmpty());
}

TEST_F(MigrationTest, CancelledByTheDaemonGoesThroughCancelling)
{
    enable("events");
    reach(S::active);
    events_.take();
    control_.outgoing(TransferPhase::cancelled, {});
    EXPECT_THAT(events_.take(), ElementsAre("MIGRATION cancelling", "MIGRATION cancelled"));
}

TEST_F(MigrationTest, ChecksBeforeAStart)
{
    const char* plain = R"({"uri": "tcp:h:1"})";
    const char* text = "A migration sends no deltas: pages are sent whole, set the capability 'xbzrle' to false";
    enable("xbzrle");
    enable("events");
    EXPECT_EQ(error("migrate", R"({"uri": "tcp:h:1", "blk": true})"),
              "QEMU compiled without old-style (blk/-b, inc/-i) block migration");
    EXPECT_EQ(result("query-migrate"), json("{}"));
    must("migrate-set-parameters", R"({"block-incremental": true})");
    for (const char* option : {"blk", "inc"})
        EXPECT_EQ(error("migrate", R"({"uri": "nonsense", ")" + std::string(option) + "\": true}"),
                  "Command options are incompatible with current migration capabilities");
    EXPECT_THAT(events_.take(), IsEmpty());
    EXPECT_EQ(error("migrate", R"({"uri": "nonsense"})"), "Parameter 'uri' expects a valid migration protocol");
    EXPECT_EQ(result("query-migrate"), json(R"({"status": "failed"})"));
    EXPECT_EQ(error("migrate", plain), text);
    EXPECT_EQ(*result("query-migrate").find("error-desc"), Value(text));
    EXPECT_THAT(events_.take(),
                ElementsAre("MIGRATION setup", "MIGRATION failed", "MIGRATION setup", "MIGRATION failed"));
    EXPECT_THAT(service_.take_calls(), IsEmpty());
}

TEST_F(MigrationTest, TheCapabilitySaysWhatMigrateIsFor)
{
    const char* uri = R"({"uri": "tcp:h:1"})";
    must("migrate", uri);
    control_.outgoing(TransferPhase::cancelled, {});
    enable("pause-before-switchover");
    must("migrate", uri);
    control_.outgoing(TransferPhase::cancelled, {});
    enable("pause-before-switchover", false);
    enable("x-colo");
    must("migrate", uri);
    EXPECT_THAT(service_.take_calls(), ElementsAre("migrate tcp:h:1", "migrate tcp:h:1 pausing", "protect tcp:h:1"));
    control_.outgoing(TransferPhase::cancelled, {});
    enable("x-colo", false);
    service_.state = RunState::inmigrate;
    must("migrate-incoming", R"({"uri": "tcp::0"})");
    EXPECT_THAT(service_.take_calls(), ElementsAre("migrate-incoming tcp::0"));
}

// Where it is awaited already, too: what the source is asked for may be decided last.
TEST_F(MigrationTest, CapabilitiesOfADestinationCountUntilTheStreamComes)
{
    service_.state = RunState::inmigrate;
    enable("x-colo");
    EXPECT_THAT(service_.take_calls(), IsEmpty());   // nothing listens yet
    must("migrate-incoming", R"({"uri": "tcp::0"})");
    enable("x-colo", false);
    enable("events");
    enable("x-colo");
    EXPECT_THAT(service_.take_calls(), ElementsAre("protect-incoming tcp::0", "await migration", "await migration", "await protection"));
    EXPECT_EQ(error("migrate-set-capabilities", R"({"capabilities": [{"capability": "x-colo", "state": false}, {"capability": "rdma-pin-all", "state": true}]})"),
              "Capability 'rdma-pin-all' is not available: there is no RDMA transport");
    control_.incoming(TransferPhase::active, {});
    EXPECT_EQ(error("migrate-set-capabilities", R"({"capabilities": [{"capability": "x-colo", "state": false}]})"), kInProgress);
    EXPECT_THAT(service_.take_calls(), IsEmpty());
}

TEST_F(MigrationTest, StopAndContOfAGuestThatIsAwaitedDecideHowItBegins)
{
    service_.state = RunState::inmigrate;
    must("stop");
    EXPECT_TRUE(service_.begins_paused);
    must("cont");
    EXPECT_FALSE(service_.begins_paused);
    EXPECT_THAT(service_.take_calls(), IsEmpty());
}

TEST_F(MigrationTest, TooLateToCancel)
{
    enable("events");
    reach(S::active);
    events_.take();
    must("migrate_cancel");
    control_.outgoing(TransferPhase::completed, {});
    EXPECT_THAT(events_.take(), ElementsAre("MIGRATION cancelling", "MIGRATION completed"));
}

TEST_F(MigrationTest, CancelledBehindTheDestinationsBack)
{
    reach(S::active);
    must("migrate_cancel");
    control_.outgoing(TransferPhase::failed, "the secondary resigned");
    EXPECT_EQ(result("query-migrate"), json(R"({"status": "cancelled"})"));
}

TEST_F(MigrationTest, NothingLeavesWithoutTheCredentialsThatWereAskedFor)
{
    enable("x-colo");
    must("migrate-set-parameters", R"({"tls-creds": "tls0"})");
    must("migrate", R"({"uri": "tcp:h:1"})");
    EXPECT_EQ(result("query-migrate"),
              json(R"({"status": "failed", "error-desc": "No TLS credentials with id 'tls0'"})"));
    must("x-colo-protect");
    EXPECT_THAT(service_.take_calls(), IsEmpty());
    service_.state = RunState::inmigrate;
    EXPECT_EQ(error("migrate-incoming", R"({"uri": "tcp::0"})"), "No TLS credentials with id 'tls0'");
    must("migrate-set-parameters", R"({"tls-creds": null})");
    must("migrate-incoming", R"({"uri": "tcp::0"})");
}

TEST_F(MigrationTest, BothEnds)
{
    service_.state = RunState::inmigrate;
    enable("x-colo");
    must("migrate-incoming", R"({"uri": "tcp::0"})");
    control_.incoming(TransferPhase::active, {});
    EXPECT_EQ(error("migrate", R"({"uri": "tcp:h:1"})"), "Guest is waiting for an incoming migration");
    EXPECT_EQ(error("migrate-set-capabilities", R"({"capabilities": []})"), kInProgress);
    must("migrate_cancel");  // is about what leaves
    EXPECT_EQ(control_.book().incoming(), S::active);
    control_.colo_entered(schema::COLOMode::secondary);
    service_.state = RunState::running;
    EXPECT_EQ(error("migrate", R"({"uri": "tcp:h:1"})"), kInProgress);
    must("x-colo-lost-heartbeat");
    control_.colo_failover_started();
    control_.colo_left(true, {});
    EXPECT_EQ(result("query-migrate"), json(R"({"status": "completed"})"));
    must("migrate", R"({"uri": "tcp:h:1"})");
    EXPECT_EQ(result("query-migrate"), json(R"({"status": "setup"})"));  // the source wins
}

TEST_F(MigrationTest, PostcopyOnTheDestination)
{
    for (const auto phase : {TransferPhase::active, TransferPhase::postcopy_active, TransferPhase::postcopy_paused})
        control_.incoming(phase, {});
    EXPECT_EQ(result("query-migrate"), json(R"({"status": "postcopy-paused"})"));
    events_.take();
    EXPECT_EQ(error("migrate-recover", R"({"uri": "foo:1"})"), "unknown migration protocol: foo:1");
    EXPECT_THAT(events_.take(), ElementsAre("MIGRATION setup"));  // without the capability, too
}

TEST_F(MigrationTest, OutOfBand)
{
    qmp::test::Monitor monitor(registry_);
    monitor.negotiate(true);
    service_.hold = true;
    EXPECT_THAT(monitor.send(R"({"execute": "stop", "id": 1})"), IsEmpty());
    EXPECT_THAT(
        monitor.send(R"({"exec-oob": "migrate-pause", "id": 2} {"exec-oob": "migrate-recover", "id": 3,
                     "arguments": {"uri": "tcp::0"}})"),
        ElementsAre(
            qmp::test::with_id(
                qmp::test::error_answer("migrate-pause is currently only supported during postcopy-active state"), 2),
            qmp::test::with_id(qmp::test::error_answer("Migrate recover can only be run when postcopy is paused."),
                               3)));
    EXPECT_THAT(monitor.send(R"({"exec-oob": "migrate-continue", "arguments": {"state": "none"}})"),
                ElementsAre(qmp::test::error_answer("The command migrate-continue does not support OOB")));
}

TEST_F(MigrationTest, XbzrleStatisticsWhileItIsOn)
{
    enable("x-colo");
    enable("xbzrle");
    must("migrate-set-parameters", R"({"xbzrle-cache-size": 8192})");
    service_.facts.deltas.pages = 11;
    reach(S::active);
    const Value cache = *result("query-migrate").find("xbzrle-cache");
    EXPECT_EQ(cache.as_object()->size(), 7u);
    EXPECT_EQ(*cache.find("cache-size"), Value(8192));
    EXPECT_EQ(*cache.find("pages"), Value(11));
}

TEST_F(MigrationTest, ClientMigrateInfo)
{
    EXPECT_EQ(error("client_migrate_info", R"({"protocol": "vnc", "hostname": "h"})"),
              "Parameter 'protocol' expects 'spice'");
    const Value answer = run("client_migrate_info", R"({"protocol": "spice", "hostname": "h"})");
    EXPECT_EQ(answer, qmp::test::error_answer("SPICE is not in use", "DeviceNotActive"));
}

TEST_F(MigrationTest, ReplicationOfAGuestWithoutDisks)
{
    for (const char* failover : {"true", "false"})
        EXPECT_EQ(error("xen-set-replication",
                        std::string(R"({"enable": true, "primary": true, "failover": )") + failover + "}"),
                  "Parameter 'failover' is only for stopping replication");
    must("xen-set-replication", R"({"enable": true, "primary": false})");
    must("xen-set-replication", R"({"enable": false, "primary": true})");
    must("xen-set-replication", R"({"enable": false, "primary": true, "failover": true})");
    EXPECT_EQ(result("query-xen-replication-status"), json(R"({"error": false})"));
}

}  // namespace
}  // namespace colo::test
