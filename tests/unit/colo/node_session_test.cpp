// SPDX-License-Identifier: Apache-2.0
#include "node_pair.h"

#include <gmock/gmock.h>

namespace colo::test {
namespace {

using replication::TriggerReason;
using testing::HasSubstr;
constexpr Duration kMs{1000};

TEST(NodeSession, ReachesProtectionAndCountsEpochsUpwards)
{
    Desk desk;
    desk.protect();
    EXPECT_EQ(desk.a.status().protection, Protection::in_sync);
    EXPECT_EQ(desk.b.status().protection, Protection::in_sync);
    EXPECT_TRUE(desk.a.status().peer_eligible);
    EXPECT_TRUE(desk.b.status().eligible);
    EXPECT_EQ(desk.a.count("entered"), 1);
    EXPECT_EQ(desk.b.count("entered"), 1);
    for (int i = 0; i < 5; ++i) desk.checkpoint();
    EXPECT_EQ(desk.a.status().epoch, 6u);
    EXPECT_EQ(desk.b.status().applied, 6u);
    EXPECT_TRUE(desk.a.did("epoch 7 on 6"));
}

TEST(NodeSession, InSessionIsOnDiskBeforeTheFirstEnd)
{
    Desk desk;
    desk.start();
    desk.a.hold("persist");
    desk.connect(5);
    EXPECT_TRUE(desk.a.did("persist in-session"));
    EXPECT_FALSE(desk.a.did("send end"));
    EXPECT_FALSE(desk.a.status().peer_eligible);
    desk.a.release("persist");
    EXPECT_TRUE(desk.a.did("send end"));
    EXPECT_TRUE(desk.a.stored.in_session);
}

TEST(NodeSession, EligibleIsOnDiskBeforeTheFirstStaged)
{
    Desk desk;
    desk.start();
    desk.b.hold("stage");
    desk.connect(5);
    desk.b.hold("persist");
    desk.b.release("stage");
    EXPECT_TRUE(desk.b.did("persist in-session eligible"));
    EXPECT_FALSE(desk.b.did("send staged"));
    EXPECT_FALSE(desk.b.did("commit 1"));
    desk.b.release("persist");
    EXPECT_LT(desk.b.index("commit 1"), desk.b.index("send staged"));
    EXPECT_LT(desk.b.index("send staged"), desk.b.index("apply 1 load resume"));
    EXPECT_TRUE(desk.b.stored.eligible);
}

TEST(NodeSession, Inv01_OutputIsReleasedAtStagedAndComparedFromApplied)
{
    Desk desk;
    desk.start();
    desk.b.hold("stage");
    desk.connect(5);
    EXPECT_TRUE(desk.a.did("send end"));
    EXPECT_FALSE(desk.a.did("release 1"));
    desk.b.hold("apply");
    desk.b.release("stage");
    EXPECT_TRUE(desk.a.did("release 1"));
    EXPECT_FALSE(desk.a.did("compare 1"));
    desk.b.release("apply");
    EXPECT_TRUE(desk.a.did("compare 1"));
}

TEST(NodeSession, Inv06_NothingIsStagedThatFailedVerification)
{
    Desk desk;
    desk.protect();
    desk.b.fail("stage", make_error(Errc::corrupt, "digest differs"));
    desk.checkpoint();
    EXPECT_FALSE(desk.b.did("commit 2"));
    EXPECT_FALSE(desk.a.did("release 2"));
    EXPECT_TRUE(desk.b.did("send resign"));
    EXPECT_LT(desk.b.index("persist outdated"), desk.b.index("send resign"));
    EXPECT_EQ(desk.a.status().protection, Protection::unprotected);
    EXPECT_THAT(desk.a.status().reason, HasSubstr("digest differs"));
    EXPECT_FALSE(desk.a.did("ask 2"));
    EXPECT_EQ(desk.b.status().protection, Protection::standby);
    EXPECT_TRUE(desk.b.stored.outdated);
    EXPECT_FALSE(desk.a.stored.in_session);
}

TEST(NodeSession, Inv14_TriggersCoalesceIntoOneCheckpoint)
{
    Desk desk;
    desk.protect();
    desk.advance(100 * kMs);
    desk.b.hold("apply");
    desk.a.node->trigger(TriggerReason::mismatch, desk.now);
    desk.run();
    EXPECT_TRUE(desk.a.did("cut 2"));
    for (int i = 0; i < 50; ++i) desk.a.node->trigger(TriggerReason::mismatch, desk.now);
    desk.advance(200 * kMs);
    EXPECT_FALSE(desk.a.did("cut 3"));   // not before APPLIED(2)
    desk.b.release("apply");
    desk.advance(100 * kMs);
    EXPECT_TRUE(desk.a.did("cut 3"));
    EXPECT_FALSE(desk.a.did("cut 4"));
}

TEST(NodeSession, Inv15_MinimalIntervalIsKept)
{
    Desk desk;
    desk.protect();
    desk.a.node->trigger(TriggerReason::mismatch, desk.now);
    desk.advance(19 * kMs);
    EXPECT_FALSE(desk.a.did("cut 2"));
    desk.advance(1 * kMs);
    EXPECT_TRUE(desk.a.did("cut 2"));
}

TEST(NodeSession, IntervalChangeTakesEffectAtOnce)
{
    Desk desk;
    desk.protect();
    desk.advance(100 * kMs);
    desk.a.node->set_checkpoint_interval(50 * kMs, desk.now);
    desk.run();
    EXPECT_TRUE(desk.a.did("cut 2"));
    desk.advance(500 * kMs);
    EXPECT_EQ(desk.a.status().epoch, 12u);
}

TEST(NodeSession, Inv12_CutOverTheBoundIsAbortedAndTheNumberIsNeverUsedAgain)
{
    Desk desk;
    desk.protect();
    desk.a.fail("cut", make_error(Errc::timed_out, "pause took 400 ms"));
    desk.advance(500 * kMs);
    EXPECT_TRUE(desk.a.did("abort 2"));
    EXPECT_TRUE(desk.b.did("drop 2"));
    EXPECT_FALSE(desk.a.did("release 2"));
    EXPECT_TRUE(desk.a.did("epoch 3 on 1"));
    desk.advance(600 * kMs);
    EXPECT_TRUE(desk.b.did("commit 3"));
    EXPECT_EQ(desk.a.status().aborts, 1u);
    EXPECT_EQ(desk.a.status().protection, Protection::in_sync);
}

TEST(NodeSession, AbortedFirstCutLetsOutputFlowAgain)
{
    Desk desk;
    desk.start();
    desk.a.fail("cut", make_error(Errc::timed_out, "slow"));
    desk.connect(5);
    const int abort = desk.a.index("abort 1");
    ASSERT_GE(abort, 0);
    EXPECT_EQ(desk.a.trace[static_cast<std::size_t>(abort) + 1], "output flow");
    EXPECT_EQ(desk.a.status().protection, Protection::in_sync);
    EXPECT_EQ(desk.b.status().staged, 2u);
}

TEST(NodeSession, Inv13_EndlessAbortsEndProtectionInAnOrderlyWay)
{
    NodeConfig config = small_config();
    config.abort_limit = 3;
    Desk desk(config);
    desk.protect();
    for (int i = 0; i < 3; ++i) {
        desk.a.fail("cut", make_error(Errc::timed_out, "slow"));
        desk.advance(600 * kMs);
    }
    EXPECT_TRUE(desk.a.did("send resign-request"));
    EXPECT_EQ(desk.a.status().protection, Protection::unprotected);
    EXPECT_TRUE(desk.b.stored.outdated);
}

TEST(NodeSession, Inv05_ViolationsEndTheSessionWithTheReason)
{
    using namespace replication;
    const std::vector<std::pair<Message, const char*>> to_secondary = {
        {Begin{3, 1, Mode::lock_step}, "begin"}, {Cut{9, TriggerReason::period}, "cut"}, {End{2, {}}, "end"},
        {Abort{1}, "abort"},                     {Staged{1}, "wrong side"},           {Hello{}, "hello"}};
    for (const auto& [message, word] : to_secondary) {
        Desk desk;
        desk.protect();
        desk.b.node->message(message, desk.now);
        desk.b.pump();
        EXPECT_THAT(desk.b.last_close, HasSubstr(word));
        EXPECT_FALSE(desk.b.did("commit 2")) << word;
    }
    const std::vector<std::pair<Message, const char*>> to_primary = {
        {Staged{2}, "staged"}, {Applied{1, 0, 0}, "applied"}, {AbortOk{2}, "abort-ok"}, {Begin{9, 1, Mode::lock_step}, "wrong side"}};
    for (const auto& [message, word] : to_primary) {
        Desk desk;
        desk.protect();
        desk.a.node->message(message, desk.now);
        desk.a.pump();
        EXPECT_THAT(desk.a.last_close, HasSubstr(word));
        EXPECT_FALSE(desk.a.did("release 2")) << word;
        EXPECT_TRUE(desk.a.did("output hold")) << word;
    }
}

TEST(NodeSession, Inv20_RefusedLoadRollsForwardThenResigns)
{
    Desk desk;
    desk.protect();
    desk.b.fail("apply", make_error(Errc::failed, "load refused"));
    desk.checkpoint();
    EXPECT_TRUE(desk.b.did("roll-forward 2"));
    EXPECT_EQ(desk.b.status().applied, 2u);
    EXPECT_EQ(desk.a.status().protection, Protection::in_sync);

    Desk worse;
    worse.protect();
    worse.b.fail("apply", make_error(Errc::failed, "load refused"));
    worse.b.hold("apply");
    worse.checkpoint();
    worse.b.release("apply");
    ASSERT_TRUE(worse.b.did("roll-forward 2"));
}

TEST(NodeSession, Inv20_FailedRollForwardIsNeverRun)
{
    Desk desk;
    desk.protect();
    desk.b.hold("apply");
    desk.checkpoint();
    desk.b.node->apply_done(2, make_error(Errc::failed, "load refused"), Duration{0}, 0, desk.now);
    desk.b.pump();
    ASSERT_TRUE(desk.b.did("roll-forward 2"));
    desk.b.node->apply_done(2, make_error(Errc::failed, "refused again"), Duration{0}, 0, desk.now);
    desk.run();
    EXPECT_TRUE(desk.b.did("kill-guest"));
    EXPECT_LT(desk.b.index("persist outdated"), desk.b.index("send resign"));
    EXPECT_EQ(desk.a.status().protection, Protection::unprotected);
    EXPECT_FALSE(desk.b.guest_runs);
}

TEST(NodeSession, Inv13_EveryWaitOfThePrimaryEnds)
{
    const std::vector<std::pair<const char*, bool>> waits = {{"stage", false}, {"apply", false}, {"transfer", true}, {"cut", true}};
    for (const auto& [what, on_primary] : waits) {
        Desk desk;
        desk.protect();
        (on_primary ? desk.a : desk.b).hold(what);
        desk.advance(Duration{20'000'000});
        const bool a_serves = desk.a.status().protection == Protection::unprotected && desk.a.guest_runs;
        const bool b_serves = desk.b.status().protection == Protection::unprotected && desk.b.guest_runs;
        EXPECT_TRUE(a_serves != b_serves) << what;
    }
}

// What is sent ahead of a cut takes as long as the link likes; the guest runs meanwhile and must not be given up for
// it.
TEST(NodeSession, Inv13_ASlowLinkBeforeTheCutEndsTheSessionAndNotTheGuest)
{
    Desk desk;
    desk.protect();
    desk.a.hold("cut-begun");
    desk.a.hold("cut");
    desk.b.crashed = true;
    desk.advance(Duration{10'000'000});
    EXPECT_EQ(desk.a.count("cut 2"), 1);
    EXPECT_FALSE(desk.a.did("kill-guest"));
    EXPECT_FALSE(desk.a.did("send abdicate"));
    EXPECT_TRUE(desk.a.guest_runs);
    EXPECT_EQ(desk.a.status().protection, Protection::unprotected);
    desk.a.release("cut-begun");
    desk.a.release("cut");
    EXPECT_EQ(desk.a.status().protection, Protection::unprotected);
}

TEST(NodeSession, Inv12_ADeviceModelThatHangsInTheCutIsKilledAndTheCopyGoesOn)
{
    Desk desk;
    desk.protect();
    desk.a.hold("cut");
    desk.advance(Duration{10'000'000});
    EXPECT_TRUE(desk.a.did("kill-guest"));
    EXPECT_TRUE(desk.a.did("send abdicate"));
    EXPECT_EQ(desk.a.status().protection, Protection::abdicated);
    EXPECT_EQ(desk.b.status().role, Role::primary);
}

// Without a copy the hanging guest gets its chance, but one that does not come back is not "unprotected": it is lost.
TEST(NodeSession, AnOnlyCopyThatDoesNotResumeIsReported)
{
    Desk desk;
    desk.start();
    desk.a.hold("cut");
    desk.connect(5);
    desk.advance(Duration{10'000'000});
    EXPECT_TRUE(desk.a.did("resume-guest"));
    EXPECT_FALSE(desk.a.did("kill-guest"));
    desk.a.node->guest_event({replication::GuestEventKind::device_model_died, "it does not resume"}, desk.now);
    desk.a.pump();
    desk.run();
    EXPECT_EQ(desk.a.status().protection, Protection::failed);
}

TEST(NodeSession, SilenceBeforeTheFirstCheckpointNeedsNoGrant)
{
    for (const char* what : {"copy", "cut", "transfer"}) {
        Desk desk;
        desk.start();
        desk.a.hold(what);
        desk.connect(5);
        desk.cut_link();
        desk.run();
        EXPECT_EQ(desk.a.status().protection, Protection::unprotected) << what;
        EXPECT_FALSE(desk.a.did("ask 2")) << what;
        EXPECT_EQ(desk.b.status().protection, Protection::standby) << what;
        EXPECT_TRUE(desk.a.did("failed")) << what;
        // A cut that was under way may have sealed the proxy: its end lets the output flow again.
        desk.a.release(what);
        EXPECT_EQ(desk.a.output, 0) << what;
    }
}

TEST(NodeSession, R9_PowerOffIsFollowedAndNotRepeated)
{
    Desk desk;
    desk.protect();
    desk.advance(100 * kMs);
    desk.a.node->guest_event({replication::GuestEventKind::power_off, "guest"}, desk.now);
    desk.run();
    EXPECT_EQ(desk.b.status().staged, 2u);
    desk.advance(Duration{5'000'000});
    EXPECT_EQ(desk.b.status().staged, 2u);   // nothing changes any more
    desk.a.crashed = true;
    desk.cut_link();
    desk.advance(1000 * kMs);
    EXPECT_TRUE(desk.b.did("live 2"));
    EXPECT_EQ(desk.b.status().power, replication::PowerState::powered_off);
}

TEST(NodeSession, PausedByAnOperatorIsFollowedAndStaysPausedAfterATakeover)
{
    Desk desk;
    desk.protect();
    desk.advance(100 * kMs);
    ASSERT_TRUE(desk.a.node->pause(true, desk.now));
    desk.run();
    EXPECT_EQ(desk.b.status().staged, 2u);
    EXPECT_EQ(desk.b.status().power, replication::PowerState::paused);
    desk.advance(Duration{5'000'000});
    EXPECT_EQ(desk.b.status().staged, 2u);   // nothing changes any more
    desk.a.node->guest_event({replication::GuestEventKind::reset, "operator"}, desk.now);
    desk.run();
    EXPECT_EQ(desk.b.status().staged, 3u);
    EXPECT_EQ(desk.a.status().power, replication::PowerState::paused);   // reset, and still paused

    desk.a.crashed = true;
    desk.cut_link();
    desk.advance(1000 * kMs);
    EXPECT_TRUE(desk.b.did("live 2"));
    EXPECT_EQ(desk.b.status().power, replication::PowerState::paused);
    ASSERT_TRUE(desk.b.node->pause(false, desk.now));
    EXPECT_EQ(desk.b.status().power, replication::PowerState::running);
}

TEST(NodeSession, ResumedByAnOperatorRunsAgainOnBothSides)
{
    Desk desk;
    desk.protect();
    desk.advance(100 * kMs);
    ASSERT_TRUE(desk.a.node->pause(true, desk.now));
    desk.run();
    desk.advance(100 * kMs);
    ASSERT_TRUE(desk.a.node->pause(false, desk.now));
    desk.run();
    EXPECT_EQ(desk.b.status().staged, 3u);
    EXPECT_EQ(desk.b.status().power, replication::PowerState::running);
    desk.advance(2 * small_config().checkpoint_interval);
    EXPECT_GT(desk.b.status().staged, 3u);   // the period counts again
}

TEST(NodeSession, OnlyThePrimaryMayPause)
{
    Desk desk;
    desk.protect();
    const auto refused = desk.b.node->pause(true, desk.now);
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().text, testing::HasSubstr("follows the primary"));
    desk.a.node->guest_event({replication::GuestEventKind::power_off, "guest"}, desk.now);
    EXPECT_TRUE(desk.a.node->pause(true, desk.now));
    EXPECT_EQ(desk.a.status().power, replication::PowerState::powered_off);   // off stays off
    const auto off = desk.a.node->pause(false, desk.now);
    ASSERT_FALSE(off);
    EXPECT_EQ(off.error().text, "Resetting the Virtual Machine is required");
}

TEST(NodeSession, R9_PowerEventOfTheSecondaryOnlyAsksForACheckpoint)
{
    Desk desk;
    desk.protect();
    desk.advance(100 * kMs);
    desk.b.node->guest_event({replication::GuestEventKind::power_off, "guest"}, desk.now);
    desk.run();
    EXPECT_TRUE(desk.b.did("send trigger-request"));
    EXPECT_EQ(desk.b.status().applied, 2u);
    EXPECT_EQ(desk.a.status().power, replication::PowerState::running);
}

TEST(NodeSession, StagingThatIsNearlyFullAsksForACutOnceAnEpoch)
{
    Desk desk;
    desk.a.hold("copy");
    desk.start();
    desk.connect(77);
    desk.b.node->staging_full(1, desk.now);  // the first copy has the shadow's room as well
    desk.run();
    EXPECT_FALSE(desk.b.did("send trigger-request"));
    desk.a.release("copy");
    desk.advance(100 * kMs);
    desk.b.node->staging_full(1, desk.now);  // late: that epoch is committed
    desk.run();
    EXPECT_FALSE(desk.b.did("send trigger-request"));
    desk.b.node->staging_full(2, desk.now);
    desk.b.node->staging_full(2, desk.now);
    desk.run();
    EXPECT_EQ(desk.b.count("send trigger-request"), 1);
    EXPECT_EQ(desk.b.status().applied, 2u) << "long before the period";
    EXPECT_EQ(desk.a.status().triggers[static_cast<std::size_t>(TriggerReason::staging_full)], 1u);
}

TEST(NodeSession, ACutUnderWaySettlesAStagingThatIsNearlyFull)
{
    Desk desk;
    desk.protect();
    desk.a.hold("cut");
    desk.checkpoint();
    ASSERT_EQ(desk.a.status().step, "cutting");
    desk.b.node->staging_full(2, desk.now);
    desk.run();
    EXPECT_TRUE(desk.b.did("send trigger-request"));
    desk.a.release("cut");
    desk.advance(100 * kMs);
    EXPECT_EQ(desk.b.status().applied, 2u) << "one cut, not two";
}

TEST(NodeSession, ModeChangesTravelWithTheCheckpoint)
{
    NodeConfig config = small_config();
    config.mismatch_budget = 2;
    Desk desk(config);
    desk.protect();
    for (int i = 0; i < 3; ++i) {
        desk.a.node->trigger(TriggerReason::mismatch, desk.now);
        desk.advance(25 * kMs);
    }
    EXPECT_TRUE(desk.a.did("mode buffered"));
    EXPECT_TRUE(desk.b.did("mode buffered"));
    EXPECT_TRUE(desk.b.did("apply 4 keep"));
    desk.a.node->trigger(TriggerReason::buffered_output, desk.now);
    desk.advance(3 * kMs);
    EXPECT_EQ(desk.b.status().applied, 5u);
    desk.advance(Duration{6'000'000});
    EXPECT_EQ(desk.a.status().mode, replication::Mode::lock_step);
    EXPECT_EQ(desk.b.status().mode, replication::Mode::lock_step);
    EXPECT_TRUE(desk.b.guest_runs);
}

}  // namespace
}  // namespace colo::test
