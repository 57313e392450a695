// SPDX-License-Identifier: Apache-2.0
// Own device model or proxy standing still; words that cross; both sides serving; who vouches; arbiters and abdication.
#include "node_pair.h"

#include <gmock/gmock.h>

namespace colo::test {
namespace {

using testing::HasSubstr;
constexpr Duration kMs{1000};
constexpr const char* kStill = "the guest has not moved for 610 ms";

NodeConfig with(ArbiterKind kind)
{
    NodeConfig config = small_config();
    config.arbiter = kind;
    return config;
}

TEST(NodeHealth, PrimaryThatHangsLetsTheHealthyCopyGoOn)
{
    Desk desk;
    desk.protect();
    desk.a.node->own_health(false, kStill, desk.now);
    desk.run();
    EXPECT_TRUE(desk.a.did("kill-guest"));
    EXPECT_TRUE(desk.a.did("send abdicate"));
    EXPECT_EQ(desk.a.status().protection, Protection::abdicated);
    EXPECT_EQ(desk.b.status().protection, Protection::unprotected);
    EXPECT_TRUE(desk.b.guest_runs);
}

TEST(NodeHealth, PrimaryThatHangsDoesNotTakeTheGrantFromTheHealthyCopy)
{
    Desk desk;
    desk.protect();
    desk.b.last_answer = desk.now;
    // The secondary noticed first and closed; the primary hears of the end at once and of its own trouble only then.
    desk.a.hold("closed");
    desk.cut_link();
    desk.a.node->own_health(false, kStill, desk.now);
    desk.a.release("closed");
    EXPECT_FALSE(desk.a.did("ask 2"));
    EXPECT_THAT(desk.a.status().reason, HasSubstr(kStill));
    desk.advance(1000 * kMs);
    EXPECT_FALSE(desk.a.did("ask 2"));
    EXPECT_EQ(desk.b.status().protection, Protection::unprotected);
    EXPECT_TRUE(desk.b.guest_runs);
}

TEST(NodeHealth, PrimaryThatRecoversAsksAfterAll)
{
    Desk desk;
    desk.protect();
    desk.b.crashed = true;
    desk.a.hold("closed");
    desk.cut_link();
    desk.a.node->own_health(false, kStill, desk.now);
    desk.a.release("closed");
    desk.advance(5000 * kMs);
    EXPECT_EQ(desk.a.status().protection, Protection::deciding);
    desk.a.node->own_health(true, "", desk.now);
    desk.advance(1000 * kMs);
    EXPECT_EQ(desk.a.status().protection, Protection::unprotected);
    EXPECT_TRUE(desk.a.guest_runs);
}

TEST(NodeHealth, TheOnlyGuestIsReportedAndNotKilled)
{
    Desk desk;
    desk.start();
    const std::string before = desk.a.status().reason;
    desk.a.node->own_health(false, kStill, desk.now);
    desk.run();
    EXPECT_FALSE(desk.a.did("kill-guest"));
    EXPECT_EQ(desk.a.status().protection, Protection::unprotected);
    EXPECT_EQ(desk.a.status().reason, kStill);
    desk.a.node->own_health(true, "", desk.now);
    EXPECT_EQ(desk.a.status().reason, before);
    // The same while the first copy is under way: nobody could take over.
    desk.a.hold("copy");
    desk.connect(5);
    desk.a.node->own_health(false, kStill, desk.now);
    desk.run();
    EXPECT_FALSE(desk.a.did("kill-guest"));
    EXPECT_EQ(desk.a.status().protection, Protection::syncing);
    EXPECT_EQ(desk.a.status().reason, kStill);
}

TEST(NodeHealth, SecondaryThatHangsIsThePrimarysToJudge)
{
    Desk desk;
    desk.protect();
    desk.b.node->own_health(false, kStill, desk.now);
    desk.run();
    EXPECT_EQ(desk.a.status().protection, Protection::in_sync);
    EXPECT_EQ(desk.b.status().protection, Protection::in_sync);
}

TEST(NodeStorage, AbdicationNeedsNoDiskThatAnswers)
{
    Desk desk;
    desk.protect();
    desk.a.hold("persist");
    ASSERT_TRUE(desk.a.node->hand_over(desk.now));
    desk.run();
    EXPECT_TRUE(desk.a.did("send abdicate"));
    EXPECT_EQ(desk.b.status().protection, Protection::unprotected);
    EXPECT_TRUE(desk.b.guest_runs);
    // What is on the disk keeps this side from starting all the same.
    ASSERT_FALSE(desk.a.stored.outdated);
    desk.a.restart(small_config());
    desk.a.node->start(desk.a.stored, StartIntent::primary, desk.now);
    desk.run();
    EXPECT_EQ(desk.a.status().protection, Protection::outdated);
    EXPECT_FALSE(desk.a.guest_runs);
}

TEST(NodeStorage, AStateFileThatIsNotWrittenIsSaidUntilItIs)
{
    constexpr const char* kSlow = "the state file could not be written for 2 s";
    Desk desk;
    desk.protect();
    desk.b.crashed = true;
    desk.a.hold("persist");
    desk.cut_link();
    desk.run();
    ASSERT_EQ(desk.a.status().step, "granted");
    const std::string before = desk.a.status().reason;
    ASSERT_FALSE(before.empty());
    const std::uint64_t token = desk.a.persist_token;
    desk.a.node->persist_slow(token - 1, kSlow, desk.now);  // of an older one
    EXPECT_EQ(desk.a.status().reason, before);
    desk.a.node->persist_slow(token, kSlow, desk.now);
    EXPECT_EQ(desk.a.status().reason, before + "; " + kSlow);
    desk.a.node->persist_slow(token, kSlow, desk.now);
    EXPECT_EQ(desk.a.status().reason, before + "; " + kSlow);
    EXPECT_EQ(desk.a.status().protection, Protection::deciding) << "not knowing means waiting";
    EXPECT_NE(desk.a.output, 0);
    desk.a.release("persist");
    EXPECT_EQ(desk.a.status().protection, Protection::unprotected);
    EXPECT_EQ(desk.a.status().reason, before);
    desk.a.node->persist_slow(token, kSlow, desk.now);  // late
    EXPECT_EQ(desk.a.status().reason, before);
}

constexpr const char* kPort = "NIC net0: the wire is unusable";

TEST(NodePorts, PrimaryWithoutAWireHandsOverToTheCopy)
{
    Desk desk;
    desk.protect();
    desk.a.node->ports(kPort, desk.now);
    desk.run();
    EXPECT_TRUE(desk.a.did("stop-guest"));
    EXPECT_FALSE(desk.a.did("kill-guest"));
    EXPECT_EQ(desk.a.status().protection, Protection::abdicated);
    EXPECT_THAT(desk.a.status().reason, HasSubstr(kPort));
    EXPECT_EQ(desk.b.status().protection, Protection::unprotected);
    EXPECT_TRUE(desk.b.guest_runs);
    // As a secondary it would be of no use either, and says so before anything is touched.
    desk.a.node->start(desk.a.stored, StartIntent::secondary, desk.now);
    desk.run();
    EXPECT_EQ(desk.a.status().reason, kPort);
    desk.a.connected = desk.b.connected = true;
    desk.a.node->open_secondary_session(small_guest(), desk.now);
    desk.b.node->open_primary_session(88, small_guest(), desk.now);
    desk.run();
    EXPECT_THAT(desk.b.failed_session, HasSubstr(kPort));
    EXPECT_EQ(desk.b.status().protection, Protection::unprotected);
    EXPECT_TRUE(desk.b.guest_runs);
}

TEST(NodePorts, PrimaryAloneServesOnAndSaysSo)
{
    Desk desk;
    desk.start();
    desk.a.node->ports(kPort, desk.now);
    desk.run();
    EXPECT_EQ(desk.a.status().protection, Protection::unprotected);
    EXPECT_EQ(desk.a.status().reason, kPort);
    EXPECT_TRUE(desk.a.guest_runs);
    // Protecting it is the way out: the copy goes on as soon as there is one.
    desk.connect(5);
    EXPECT_EQ(desk.a.status().protection, Protection::abdicated);
    EXPECT_EQ(desk.b.status().protection, Protection::unprotected);
    EXPECT_TRUE(desk.b.guest_runs);
}

TEST(NodePorts, PrimaryWhoseCopyIsGoneServesOnAndSaysSo)
{
    Desk desk;
    desk.protect();
    desk.b.crashed = true;
    desk.a.hold("closed");
    desk.cut_link();
    desk.a.node->ports(kPort, desk.now);
    desk.a.release("closed");
    EXPECT_EQ(desk.a.status().protection, Protection::unprotected);
    EXPECT_THAT(desk.a.status().reason, HasSubstr(kPort));
    EXPECT_TRUE(desk.a.guest_runs);
}

TEST(NodePorts, SecondaryResigns)
{
    for (const char* held : {"", "copy"}) {
        Desk desk;
        if (*held != 0) desk.a.hold(held);
        desk.protect();
        desk.b.node->ports(kPort, desk.now);
        desk.run();
        EXPECT_TRUE(desk.b.did("send resign")) << held;
        EXPECT_FALSE(desk.b.stored.eligible) << held;
        EXPECT_EQ(desk.b.status().reason, kPort) << held;
        EXPECT_EQ(desk.a.status().protection, Protection::unprotected) << held;
        EXPECT_THAT(desk.a.status().reason, HasSubstr(kPort)) << held;
        EXPECT_TRUE(desk.a.guest_runs) << held;
        EXPECT_FALSE(desk.a.did("ask 2")) << held;
        // Repaired (a new device model): it is a copy again.
        if (*held != 0) desk.a.release(held);
        desk.b.node->ports("", desk.now);
        desk.connect(78);
        EXPECT_EQ(desk.a.status().protection, Protection::in_sync) << held;
    }
}

TEST(NodePorts, SecondaryThatMustTakeOverDoesSo)
{
    Desk desk;
    desk.protect();
    desk.a.crashed = true;
    desk.cut_link();
    desk.b.node->ports(kPort, desk.now);
    desk.advance(1000 * kMs);
    EXPECT_EQ(desk.b.status().protection, Protection::unprotected);
    EXPECT_THAT(desk.b.status().reason, HasSubstr(kPort));
    EXPECT_TRUE(desk.b.guest_runs);
}

TEST(NodeHealth, APeerThatAbdicatedIsNotShot)
{
    Desk desk(with(ArbiterKind::command));
    desk.protect();
    desk.a.node->guest_event({replication::GuestEventKind::device_model_died, "gone"}, desk.now);
    desk.run();
    EXPECT_FALSE(desk.b.did("ask 2"));
    EXPECT_EQ(desk.b.status().protection, Protection::unprotected);
    EXPECT_EQ(desk.b.stored.generation, 2u);
    EXPECT_TRUE(desk.a.stored.outdated);
}

TEST(NodeHealth, AGuestThatAnOperatorHoldsIsNoLoss)
{
    using Kind = replication::GuestEventKind;
    Desk desk(with(ArbiterKind::lock));
    desk.protect();
    for (const Kind kind : {Kind::paused_outside, Kind::resumed_outside, Kind::gone})
        for (auto* side : {&desk.a, &desk.b}) {
            side->node->guest_event({kind, "xl"}, desk.now);
            desk.advance(5000 * kMs);
            EXPECT_EQ(desk.a.status().protection, Protection::in_sync);
            EXPECT_EQ(desk.b.status().protection, Protection::in_sync);
            EXPECT_EQ(desk.a.status().power, replication::PowerState::running);
        }
    EXPECT_FALSE(desk.b.did("ask 2"));
}

// Somebody saves it: a checkpoint would be of what he does to it, and the last one has to stay good.
TEST(NodeHealth, NoCheckpointIsMadeOfAGuestThatAnotherToolWorksOn)
{
    using Kind = replication::GuestEventKind;
    Desk desk(with(ArbiterKind::lock));
    desk.protect();
    desk.a.node->guest_event({Kind::seized_outside, "xl save"}, desk.now);
    desk.a.node->guest_renewing(true, desk.now);
    desk.a.node->guest_renewing(false, desk.now);   // what has nothing to do with it does not end it
    const auto epoch = desk.a.status().epoch;
    desk.advance(60'000 * kMs);
    EXPECT_EQ(desk.a.status().epoch, epoch);
    EXPECT_EQ(desk.a.status().protection, Protection::in_sync);
    desk.a.node->guest_event({Kind::resumed_outside, "xl"}, desk.now);
    desk.run();
    EXPECT_GT(desk.a.status().epoch, epoch);
    // One that ends meanwhile is nobody's any more.
    desk.a.node->guest_event({Kind::seized_outside, "xl save"}, desk.now);
    const auto before = desk.a.status().epoch;
    desk.a.node->guest_event({Kind::power_off, "guest-shutdown"}, desk.now);
    desk.advance(1000 * kMs);
    EXPECT_GT(desk.a.status().epoch, before);
    EXPECT_EQ(desk.b.status().power, replication::PowerState::powered_off);
    desk.a.node->guest_event({Kind::reset, "guest-reset"}, desk.now);
    desk.advance(1000 * kMs);
    // And one that is destroyed in the end is lost like any other.
    desk.a.node->guest_event({Kind::seized_outside, "xl save"}, desk.now);
    desk.a.node->guest_event({Kind::device_model_died, "destroyed"}, desk.now);
    desk.advance(5000 * kMs);
    EXPECT_TRUE(desk.b.guest_runs);
    EXPECT_EQ(desk.b.status().role, Role::primary);
}

TEST(NodeHealth, AnAbdicationNeedsNoStorageThatAnswers)
{
    Desk desk(with(ArbiterKind::lock));
    desk.protect();
    desk.arbiter_hangs = true;
    desk.a.node->guest_event({replication::GuestEventKind::device_model_died, "gone"}, desk.now);
    desk.run();
    EXPECT_TRUE(desk.b.did("ask 2"));   // the lock is still taken where it can be
    EXPECT_EQ(desk.b.status().protection, Protection::unprotected);
    EXPECT_EQ(desk.b.stored.generation, 2u);
    EXPECT_TRUE(desk.a.stored.in_session);
}

TEST(NodeHealth, ARefusalStillCountsAfterAnAbdication)
{
    Desk desk(with(ArbiterKind::lock));
    desk.protect();
    desk.granted[2] = &desk.a;
    desk.a.node->guest_event({replication::GuestEventKind::device_model_died, "gone"}, desk.now);
    desk.run();
    EXPECT_TRUE(desk.b.stored.outdated);
    EXPECT_FALSE(desk.b.guest_runs);
}

TEST(NodeHealth, Inv17_PressureAndHandoverCrossAndOneGoesOn)
{
    NodeConfig config = small_config();
    config.abort_limit = 1;
    Desk desk(config);
    desk.protect();
    desk.a.fail("cut", make_error(Errc::limit, "too long"));
    desk.a.hold("cut");
    desk.checkpoint();
    // The resignation that pressure asks for and the secondary's operator are on their way at once.
    desk.b.hold("persist");
    desk.a.release("cut");
    ASSERT_TRUE(desk.a.did("send resign-request"));
    ASSERT_EQ(desk.b.status().step, "resigning");
    desk.a.node->message(replication::Handover{}, desk.now);
    desk.a.pump();
    EXPECT_FALSE(desk.a.did("send abdicate"));
    desk.b.release("persist");
    desk.advance(3000 * kMs);
    EXPECT_EQ(desk.a.status().protection, Protection::unprotected);
    EXPECT_TRUE(desk.a.guest_runs);
    EXPECT_TRUE(desk.b.stored.outdated);
    EXPECT_FALSE(desk.b.guest_runs);
}

TEST(NodeHealth, Inv17_HandoverThatCrossesAResignationServesOn)
{
    Desk desk;
    desk.protect();
    desk.b.hold("persist");
    desk.b.node->guest_event({replication::GuestEventKind::device_model_died, "gone"}, desk.now);
    desk.b.pump();
    ASSERT_EQ(desk.b.status().step, "resigning");
    ASSERT_TRUE(desk.a.node->hand_over(desk.now));
    desk.run();
    ASSERT_EQ(desk.a.status().step, "abdicating");
    ASSERT_TRUE(desk.a.stored.outdated);
    desk.b.release("persist");
    EXPECT_EQ(desk.a.status().protection, Protection::unprotected);
    EXPECT_TRUE(desk.a.guest_runs);
    EXPECT_EQ(desk.a.output, 0);
    EXPECT_FALSE(desk.a.stored.outdated);
    EXPECT_FALSE(desk.a.stored.in_session);
    EXPECT_FALSE(desk.b.guest_runs);
}

// The secondary's storage is slow: its word comes long after a resignation alone would have been given up.
TEST(NodeHealth, Inv17_ASlowResignationStillReachesThePrimaryThatHandedOver)
{
    Desk desk;
    desk.protect();
    desk.b.hold("persist");
    desk.b.node->guest_event({replication::GuestEventKind::device_model_died, "gone"}, desk.now);
    desk.b.pump();
    ASSERT_EQ(desk.b.status().step, "resigning");
    ASSERT_TRUE(desk.a.node->hand_over(desk.now));
    desk.advance(small_config().staged_deadline - 10 * kMs);
    ASSERT_GT(small_config().staged_deadline, small_config().resign_deadline);
    ASSERT_EQ(desk.a.status().step, "abdicating");
    desk.b.release("persist");
    desk.run();
    EXPECT_EQ(desk.a.status().protection, Protection::unprotected);
    EXPECT_TRUE(desk.a.guest_runs);
    EXPECT_FALSE(desk.a.stored.outdated);
    EXPECT_TRUE(desk.b.stored.outdated);
    EXPECT_FALSE(desk.b.guest_runs);
}

TEST(NodeHealth, UnprotectDoesNotVouchForASilentPeer)
{
    Desk desk(with(ArbiterKind::manual));
    desk.protect();
    desk.b.crashed = true;
    ASSERT_TRUE(desk.a.node->unprotect(desk.now));
    desk.advance(5000 * kMs);
    EXPECT_EQ(desk.a.status().protection, Protection::deciding);
    EXPECT_EQ(desk.a.stored.generation, 1u);
    ASSERT_TRUE(desk.a.operator_result);
    EXPECT_FALSE(*desk.a.operator_result);
    // His explicit word does.
    ASSERT_TRUE(desk.a.node->lost_heartbeat(desk.now));
    desk.run();
    EXPECT_EQ(desk.a.status().protection, Protection::unprotected);
    EXPECT_EQ(desk.a.stored.generation, 2u);
}

TEST(NodeHealth, FailoverVouchesForASilentPeer)
{
    Desk desk(with(ArbiterKind::manual));
    desk.protect();
    desk.b.crashed = true;
    ASSERT_TRUE(desk.a.node->failover(false, desk.now));
    desk.advance(5000 * kMs);
    EXPECT_EQ(desk.a.status().protection, Protection::unprotected);
    EXPECT_TRUE(*desk.a.operator_result);
}

TEST(NodeHealth, Inv16_BothServingInOneGenerationStopsThisSide)
{
    Desk desk;
    desk.start();
    desk.a.node->generation_conflict(7, desk.now);   // not ours: nothing
    desk.run();
    EXPECT_EQ(desk.a.status().protection, Protection::unprotected);
    desk.a.trace.clear();
    desk.a.node->generation_conflict(desk.a.status().generation, desk.now);
    desk.run();
    EXPECT_EQ(desk.a.trace[0], "output frozen");
    EXPECT_EQ(desk.a.trace[1], "stop-guest");
    EXPECT_TRUE(desk.a.stored.outdated);
    EXPECT_THAT(desk.a.status().reason, HasSubstr("both sides serve"));
    ASSERT_TRUE(desk.a.node->failover(true, desk.now));
    desk.run();
    EXPECT_TRUE(desk.a.guest_runs);
}

TEST(NodeHealth, AnOutdatedSecondaryThatHearsOfYetAnotherGenerationStillBecomesAStandby)
{
    Desk desk;
    desk.protect();
    desk.b.hold("persist");
    desk.b.node->higher_generation(2, desk.now);
    desk.run();
    ASSERT_EQ(desk.b.status().protection, Protection::outdated);
    desk.b.node->higher_generation(3, desk.now);
    desk.b.release("persist");
    EXPECT_EQ(desk.b.stored.generation, 3u);
    EXPECT_TRUE(desk.b.stored.outdated);
    EXPECT_EQ(desk.b.status().protection, Protection::standby);
}

}  // namespace
}  // namespace colo::test
