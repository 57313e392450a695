// SPDX-License-Identifier: Apache-2.0
// A session that is a migration: when the guest stands still, who may run it, and what cancelling and losses come to.
#include "node_pair.h"

#include <gmock/gmock.h>

namespace colo::test {
namespace {

constexpr SessionPlan kMigration{SessionKind::migration, false};
constexpr SessionPlan kPausing{SessionKind::migration, true};

NodeConfig manual()
{
    NodeConfig config = small_config();
    config.arbiter = ArbiterKind::manual;
    return config;
}

void cancel(Desk& desk)
{
    desk.a.node->cancel_session("cancelled", desk.now);
    desk.run();
}

void expect_served_here(Desk& desk)
{
    EXPECT_EQ(desk.a.status().protection, Protection::unprotected) << desk.a.status().step;
    EXPECT_TRUE(desk.a.guest_runs);
    EXPECT_EQ(desk.a.output, 0);
    EXPECT_FALSE(desk.a.stored.outdated || desk.a.stored.in_session);
    EXPECT_EQ(desk.a.count("failed"), 1);
    EXPECT_FALSE(desk.a.did("migrated") || desk.b.did("migrated"));
    EXPECT_FALSE(desk.b.guest_runs);
    EXPECT_FALSE(desk.a.status().switching || desk.a.status().migrating);
}

TEST(NodeMigration, MovesTheGuestInTheNextGeneration)
{
    Desk desk;
    desk.migrate();
    EXPECT_EQ(desk.a.status().protection, Protection::abdicated);
    EXPECT_TRUE(desk.a.status().migrated);
    EXPECT_TRUE(desk.a.did("migrated"));
    EXPECT_TRUE(desk.a.stored.outdated);   // never runs again without a resync
    EXPECT_FALSE(desk.a.guest_runs);
    EXPECT_EQ(desk.b.status().protection, Protection::unprotected);
    EXPECT_EQ(desk.b.status().role, Role::primary);
    EXPECT_EQ(desk.b.status().generation, 2u);
    EXPECT_TRUE(desk.b.did("migrated"));
    EXPECT_TRUE(desk.b.guest_runs);
    EXPECT_THAT(desk.a.node->pause(false, desk.now).error().text, ::testing::HasSubstr("two copies of it must never run"));
    // One cut, no checkpoint after it, and none of what COLO says.
    EXPECT_EQ(desk.a.count("cut 1"), 1);
    EXPECT_FALSE(desk.a.did("epoch 2 on 1"));
    for (const Host* h : {&desk.a, &desk.b})
        EXPECT_FALSE(h->did("entered") || h->did("exit error") || h->did("exit request") || h->did("failed")) << h->name;
}

TEST(NodeMigration, TheDestinationRunsOnlyBehindTheSourcesWord)
{
    Desk desk;
    desk.b.hold("apply");
    desk.migrate();
    EXPECT_TRUE(desk.b.did("apply 1 load"));   // and no resume
    EXPECT_FALSE(desk.a.did("send abdicate"));
    EXPECT_TRUE(desk.a.status().switching);
    desk.b.release("apply");
    EXPECT_LT(desk.a.index("output frozen"), desk.a.index("send abdicate"));
    EXPECT_LT(desk.b.index("close"), desk.b.index("ask 2"));
    EXPECT_LT(desk.b.index("ask 2"), desk.b.index("live 2"));
}

TEST(NodeMigration, WaitsBeforeTheSwitchOver)
{
    Desk desk;
    desk.migrate(kPausing);
    EXPECT_EQ(desk.a.status().step, "pre-switchover");
    EXPECT_TRUE(desk.a.status().switching);
    EXPECT_FALSE(desk.a.guest_runs);
    desk.advance(Duration{3600'000'000});   // as long as it takes
    EXPECT_EQ(desk.a.status().step, "pre-switchover");
    EXPECT_EQ(desk.a.node->pause(false, desk.now).error().text, "Migration is not finalized yet");
    desk.a.node->switch_over(desk.now);
    desk.run();
    EXPECT_LT(desk.a.index("pre-switchover"), desk.a.index("device"));
    EXPECT_TRUE(desk.a.status().migrated);
    EXPECT_TRUE(desk.b.guest_runs);
}

TEST(NodeMigration, WhatWaitsIsSaidOnceTheGuestStandsStill)
{
    Desk desk;
    desk.a.hold("stop");
    desk.migrate(kPausing);
    EXPECT_FALSE(desk.a.did("pre-switchover"));
    desk.a.node->switch_over(desk.now);   // nobody was told that it could be
    desk.run();
    EXPECT_FALSE(desk.a.did("cut 1"));
    desk.a.release("stop");
    EXPECT_EQ(desk.a.count("pre-switchover"), 1);
    desk.a.node->guest_halted(desk.now);
    desk.run();
    EXPECT_EQ(desk.a.count("pre-switchover"), 1);
    desk.a.node->switch_over(desk.now);
    desk.run();
    EXPECT_TRUE(desk.b.guest_runs);
}

TEST(NodeMigration, AGuestThatDoesNotStopForTheWaitGoesOn)
{
    Desk desk;
    desk.a.fail("stop", make_error(Errc::timed_out, "the guest does not stop"));
    desk.migrate(kPausing);
    expect_served_here(desk);
    EXPECT_FALSE(desk.a.did("pre-switchover"));
}

// R9: what is on its way does not know of it, and no checkpoint would come behind it.
TEST(NodeMigration, Inv31_GuestThatGoesOffDuringTheSwitchOverStays)
{
    Desk desk;
    desk.b.hold("apply");
    desk.migrate();
    ASSERT_TRUE(desk.a.status().switching);
    desk.a.node->guest_event({replication::GuestEventKind::power_off, "off"}, desk.now);
    desk.run();
    desk.b.release("apply");
    desk.run();
    EXPECT_FALSE(desk.a.did("send abdicate"));
    EXPECT_FALSE(desk.a.status().migrated);
    EXPECT_EQ(desk.a.count("failed"), 1);
    EXPECT_EQ(desk.a.status().power, replication::PowerState::powered_off);
    EXPECT_FALSE(desk.b.guest_runs);
}

TEST(NodeMigration, SwitchOverOutsideOfTheWaitDoesNothing)
{
    Desk desk;
    desk.protect();
    desk.a.node->switch_over(desk.now);
    desk.run();
    EXPECT_FALSE(desk.a.did("device"));
    EXPECT_EQ(desk.a.status().protection, Protection::in_sync);
}

TEST(NodeMigration, CancelledWhileItCopies)
{
    Desk desk;
    desk.a.hold("copy");
    desk.migrate();
    desk.advance(Duration{7200'000'000});   // a large guest on a slow link
    ASSERT_EQ(desk.a.status().step, "first-copy");
    cancel(desk);
    expect_served_here(desk);
    EXPECT_FALSE(desk.a.did("resume-guest"));   // it never stopped
    EXPECT_EQ(desk.b.status().protection, Protection::standby);
    desk.a.release("copy");
}

TEST(NodeMigration, CancelledBeforeTheSwitchOver)
{
    Desk desk;
    desk.migrate(kPausing);
    cancel(desk);
    expect_served_here(desk);
}

TEST(NodeMigration, CancelledInTheCut)
{
    Desk desk;
    desk.a.hold("cut");
    desk.migrate();
    cancel(desk);
    desk.a.release("cut");
    expect_served_here(desk);
}

TEST(NodeMigration, CancelledInTheTransfer)
{
    Desk desk;
    desk.a.hold("transfer");
    desk.migrate();
    cancel(desk);
    expect_served_here(desk);
}

// Behind END the destination may be the one that runs: it has to step back first.
TEST(NodeMigration, CancelledWhenTheDestinationHasEverything)
{
    Desk desk;
    desk.b.hold("apply");
    desk.migrate();
    ASSERT_EQ(desk.a.status().step, "wait-applied");
    cancel(desk);
    EXPECT_TRUE(desk.a.did("send resign-request"));
    expect_served_here(desk);
    EXPECT_EQ(desk.a.status().generation, 1u);
    EXPECT_TRUE(desk.b.stored.outdated);
}

TEST(NodeMigration, AppliedCrossesTheWishToCancel)
{
    Desk desk;
    desk.b.hold("apply");
    desk.migrate();
    desk.a.node->cancel_session("cancelled", desk.now);   // not delivered yet
    desk.b.release("apply");                              // APPLIED is on its way before the request is read
    expect_served_here(desk);
    EXPECT_FALSE(desk.a.did("send abdicate"));
}

TEST(NodeMigration, TooLateToCancel)
{
    Desk desk(manual());
    desk.b.hold("persist");
    desk.b.hold("closed");
    desk.start();
    desk.b.release("persist");
    desk.a.node->plan_session(kMigration);
    desk.connect(77);
    cancel(desk);
    EXPECT_TRUE(desk.a.status().migrated);
    EXPECT_FALSE(desk.a.did("send resign-request"));
    desk.b.release("closed");
    EXPECT_TRUE(desk.b.guest_runs);
}

// However short the deadline of a checkpoint is: the guest may stand still as long as the limit says.
TEST(NodeMigration, AGenerousDowntimeLimitGivesTheLastCopyItsTime)
{
    NodeConfig config = small_config();
    config.pause_bound = Duration{60'000'000};
    for (const bool comes : {true, false}) {
        Desk desk(config);
        desk.a.hold("transfer");
        desk.migrate();
        desk.advance(config.pause_bound);
        EXPECT_EQ(desk.a.status().step, "transferring");
        EXPECT_EQ(desk.b.status().protection, Protection::syncing);
        if (!comes) {
            desk.advance(config.transfer_deadline);
            expect_served_here(desk);
            continue;
        }
        desk.a.release("transfer");
        EXPECT_TRUE(desk.a.status().migrated);
        EXPECT_TRUE(desk.b.guest_runs);
    }
}

TEST(NodeMigration, AFailedCutLetsTheGuestGoOn)
{
    Desk desk;
    desk.a.fail("cut", make_error(Errc::failed, "save device state: no"));
    desk.migrate();
    expect_served_here(desk);
    EXPECT_THAT(desk.a.failed_session, ::testing::HasSubstr("save device state: no"));
    EXPECT_TRUE(desk.b.did("failed"));
}

TEST(NodeMigration, ADestinationThatCannotLoadResigns)
{
    Desk desk;
    desk.b.hold("apply");
    desk.migrate();
    desk.b.fail("apply", make_error(Errc::failed, "load"));
    desk.b.release("apply");
    // Rolled forward on a new device model, and loaded there: the migration goes on.
    EXPECT_TRUE(desk.a.status().migrated || desk.b.did("roll-forward 1"));
}

TEST(NodeMigration, TheDestinationIsLostBeforeItHasEverything)
{
    Desk desk;
    desk.a.hold("transfer");
    desk.migrate();
    desk.b.crashed = true;
    desk.cut_link();
    desk.run();
    expect_served_here(desk);
    EXPECT_EQ(desk.a.status().generation, 1u);   // nobody had to be asked
}

// It may run: the arbiter decides, and until it has, nobody does.
TEST(NodeMigration, TheDestinationIsLostBehindEnd)
{
    Desk desk;
    desk.b.hold("apply");
    desk.migrate();
    desk.arbiter_hangs = true;
    desk.b.crashed = true;
    desk.cut_link();
    desk.advance(Duration{1'000'000});
    EXPECT_FALSE(desk.a.guest_runs);
    EXPECT_EQ(desk.a.status().protection, Protection::deciding);
    EXPECT_FALSE(desk.a.did("failed"));   // not known yet
    EXPECT_TRUE(desk.a.status().switching);
    desk.arbiter_hangs = false;
    desk.advance(Duration{1'000'000});
    expect_served_here(desk);
    EXPECT_EQ(desk.a.status().generation, 2u);
}

TEST(NodeMigration, TheLinkIsLostBehindEndAndOneSideGoesOn)
{
    Desk desk;
    desk.b.hold("apply");
    desk.migrate();
    desk.cut_link();
    desk.b.release("apply");
    desk.advance(Duration{2'000'000});
    EXPECT_NE(desk.a.guest_runs, desk.b.guest_runs);
    EXPECT_EQ(desk.a.did("failed"), desk.a.guest_runs);
    EXPECT_EQ(desk.a.did("migrated"), desk.b.guest_runs);
}

// The arbiter says who has it, its beats that it runs.
TEST(NodeMigration, TheLinkIsLostBehindEndAndTheDestinationIsFaster)
{
    Desk desk;
    desk.b.hold("apply");
    desk.migrate();
    desk.a.hold("closed");
    desk.cut_link();
    desk.b.release("apply");
    desk.advance(Duration{2'000'000});
    ASSERT_TRUE(desk.b.guest_runs);
    EXPECT_FALSE(desk.a.did("failed") || desk.a.did("migrated"));
    desk.a.release("closed");
    EXPECT_FALSE(desk.a.did("failed") || desk.a.did("migrated"));
    desk.a.node->higher_generation(2, desk.now);
    desk.a.pump();
    EXPECT_TRUE(desk.a.status().migrated);
    EXPECT_TRUE(desk.a.did("migrated"));
    EXPECT_FALSE(desk.a.did("failed") || desk.a.guest_runs);
    EXPECT_EQ(desk.a.status().protection, Protection::abdicated);
    EXPECT_TRUE(desk.a.stored.outdated);
}

TEST(NodeMigration, ABeatOfTheDestinationSettlesWhatALostLinkLeftOpen)
{
    Desk desk(manual());
    desk.b.hold("apply");
    desk.migrate();
    desk.cut_link();
    desk.run();
    EXPECT_EQ(desk.a.status().step, "asking");   // the operator
    desk.a.node->higher_generation(2, desk.now);
    desk.a.pump();
    EXPECT_TRUE(desk.a.did("migrated"));
    EXPECT_FALSE(desk.a.did("failed"));
}

// What was migrated is not what an operator boots who gives it up.
TEST(NodeMigration, AnAcceptedLossAtTheDestinationIsNoCompletion)
{
    Desk desk(manual());
    desk.b.hold("apply");
    desk.migrate();
    desk.cut_link();
    desk.a.node->higher_generation(1000, desk.now);
    desk.run();
    EXPECT_TRUE(desk.a.did("failed"));
    EXPECT_FALSE(desk.a.did("migrated") || desk.a.guest_runs);
    EXPECT_EQ(desk.a.status().protection, Protection::outdated);
}

TEST(NodeMigration, TheSourceIsLostBehindStaged)
{
    Desk desk;
    desk.b.hold("apply");
    desk.migrate();
    desk.a.crashed = true;
    desk.cut_link();
    desk.b.release("apply");
    desk.advance(Duration{2'000'000});
    EXPECT_TRUE(desk.b.guest_runs);
    EXPECT_TRUE(desk.b.did("migrated"));
    EXPECT_EQ(desk.b.status().generation, 2u);
}

TEST(NodeMigration, WithAManualArbiterNobodyHasToVouch)
{
    Desk desk(manual());
    desk.migrate();
    EXPECT_TRUE(desk.b.guest_runs);
    EXPECT_TRUE(desk.a.status().migrated);
}

// The destination is lost with APPLIED on its way.
void lose_destination(Desk& desk)
{
    desk.b.hold("apply");
    desk.migrate();
    desk.b.crashed = true;
    desk.a.node->message(replication::Applied{1, 100, 0}, desk.now);
    desk.a.pump();
    ASSERT_EQ(desk.a.status().step, "abdicating");
}

// The guest was given away, nothing is known of whoever got it, and there is nobody to ask: it must not run here, and what
// became of it is not guessed.
TEST(NodeMigration, AnUnconfirmedHandOverKeepsTheGuestStopped)
{
    for (const bool turns_up : {true, false}) {
        Desk desk(manual());
        lose_destination(desk);
        desk.advance(Duration{10'000'000});
        EXPECT_FALSE(desk.a.guest_runs || desk.a.did("migrated") || desk.a.did("failed"));
        EXPECT_TRUE(desk.a.status().switching);
        EXPECT_EQ(desk.a.status().protection, Protection::abdicated);
        EXPECT_THAT(desk.a.status().reason, ::testing::HasSubstr("did not confirm"));
        if (turns_up)
            desk.a.node->higher_generation(2, desk.now);
        else
            EXPECT_TRUE(desk.a.node->failover(true, desk.now));
        desk.run();
        EXPECT_EQ(desk.a.did("migrated"), turns_up);
        EXPECT_EQ(desk.a.status().migrated, turns_up);
        EXPECT_EQ(desk.a.did("failed"), !turns_up);
        EXPECT_EQ(desk.a.guest_runs, !turns_up);
        EXPECT_FALSE(desk.a.status().switching);
    }
}

// A lock says whether the destination took the guest: if not, it goes on where it was.
TEST(NodeMigration, AnUnconfirmedHandOverIsTakenBackFromALock)
{
    for (const bool taken : {false, true}) {
        Desk desk;
        lose_destination(desk);
        if (taken) desk.granted[2] = &desk.b;
        EXPECT_FALSE(desk.a.did("ask 2"));
        desk.advance(small_config().staged_deadline);
        EXPECT_TRUE(desk.a.did("ask 2"));
        EXPECT_LT(desk.a.index("send abdicate"), desk.a.index("ask 2"));
        if (!taken) {
            expect_served_here(desk);
            EXPECT_EQ(desk.a.status().generation, 2u);
            continue;
        }
        // Who has the grant may have died with it: nobody knows until it is heard.
        EXPECT_FALSE(desk.a.guest_runs || desk.a.did("failed") || desk.a.did("migrated"));
        EXPECT_TRUE(desk.a.stored.outdated);
        EXPECT_TRUE(desk.a.status().switching);
        EXPECT_THAT(desk.a.status().reason, ::testing::HasSubstr("not heard to run the guest, which is kept here"));
        desk.a.node->higher_generation(2, desk.now);
        desk.a.pump();
        EXPECT_TRUE(desk.a.did("migrated"));
        EXPECT_TRUE(desk.a.status().migrated);
        EXPECT_FALSE(desk.a.status().switching);
    }
}

TEST(NodeMigration, WhatTheSourceTookBackTheDestinationNeverRuns)
{
    Desk desk;
    desk.b.hold("grant");
    desk.b.hold("closed");
    desk.migrate();
    ASSERT_TRUE(desk.a.did("send abdicate"));
    desk.advance(small_config().staged_deadline);
    expect_served_here(desk);
    desk.b.release("closed");
    desk.b.release("grant");
    EXPECT_FALSE(desk.b.did("live 2"));
    EXPECT_FALSE(desk.b.guest_runs);
    EXPECT_TRUE(desk.b.did("failed"));
}

TEST(NodeMigration, ADestinationRunsOnlyWithTheGrantOfALock)
{
    Desk desk;
    desk.arbiter_hangs = true;
    desk.migrate();
    desk.advance(Duration{1'000'000});
    EXPECT_FALSE(desk.b.guest_runs || desk.a.guest_runs);
    EXPECT_FALSE(desk.a.did("migrated") || desk.a.did("failed"));
    desk.arbiter_hangs = false;
    desk.advance(Duration{1'000'000});
    EXPECT_TRUE(desk.b.guest_runs);
    EXPECT_TRUE(desk.a.status().migrated);
}

// Its own guest is gone: nothing is there that the grant could be for.
TEST(NodeMigration, ASourceWithoutAGuestTakesNothingBack)
{
    Desk desk;
    lose_destination(desk);
    desk.a.node->guest_event({replication::GuestEventKind::device_model_died, "died"}, desk.now);
    desk.advance(Duration{10'000'000});
    EXPECT_FALSE(desk.a.did("ask 2"));
    EXPECT_FALSE(desk.a.did("failed") || desk.a.guest_runs);
}

TEST(NodeMigration, TheLastWordMayComeBehindTheEndOfOtherChannels)
{
    for (const bool comes : {true, false}) {
        Desk desk(manual());
        lose_destination(desk);
        desk.a.node->channel_lost("proxy channel: closed", desk.now);
        desk.a.pump();
        EXPECT_EQ(desk.a.status().step, "abdicating");
        if (comes) desk.a.node->message(replication::Close{"takes over"}, desk.now);
        desk.advance(Duration{1'000'000});
        EXPECT_EQ(desk.a.status().migrated, comes);
        EXPECT_EQ(desk.a.did("migrated"), comes);
    }
}

TEST(NodeMigration, APausedGuestStaysPausedWhereverItIs)
{
    Desk desk;
    desk.start();
    ASSERT_TRUE(desk.a.node->pause(true, desk.now));
    desk.a.guest_runs = false;
    desk.a.node->plan_session(kPausing);
    desk.connect(77);
    cancel(desk);
    EXPECT_FALSE(desk.a.guest_runs);
    EXPECT_FALSE(desk.a.did("resume-guest"));
    desk.a.node->plan_session(kMigration);
    desk.connect(78);
    EXPECT_TRUE(desk.b.did("live 2"));
    EXPECT_FALSE(desk.b.guest_runs);
    EXPECT_EQ(desk.b.status().power, replication::PowerState::paused);
}

TEST(NodeMigration, TheDestinationsOperatorMayWantItPaused)
{
    Desk desk;
    desk.start();
    desk.b.node->begin_paused(true);
    desk.a.node->plan_session(kMigration);
    desk.connect(77);
    EXPECT_TRUE(desk.b.did("live 2"));
    EXPECT_FALSE(desk.b.guest_runs);
    EXPECT_EQ(desk.b.status().power, replication::PowerState::paused);
    EXPECT_TRUE(desk.b.node->pause(false, desk.now));
}

TEST(NodeMigration, ADestinationTakesOnlyWhatItWaitsFor)
{
    for (const SessionKind awaited : {SessionKind::migration, SessionKind::protection}) {
        Desk desk;
        desk.start();
        desk.b.node->await_session(awaited);
        desk.a.node->plan_session({awaited == SessionKind::migration ? SessionKind::protection : SessionKind::migration, false});
        desk.connect(77);
        EXPECT_EQ(desk.a.status().protection, Protection::unprotected);
        EXPECT_THAT(desk.a.failed_session, ::testing::HasSubstr("the secondary refused: this side waits for a "));
        EXPECT_EQ(desk.b.status().protection, Protection::standby);
        desk.a.node->plan_session({awaited, false});
        desk.connect(78);
        EXPECT_EQ(desk.a.status().protection, awaited == SessionKind::migration ? Protection::abdicated : Protection::in_sync);
    }
}

TEST(NodeMigration, WhatADestinationWaitsForMayChangeUntilTheSourceSaysWhatItIs)
{
    Desk desk;
    desk.start();
    desk.b.node->await_session(SessionKind::protection);
    desk.b.node->await_session(SessionKind::migration);
    desk.a.node->plan_session(kMigration);
    desk.connect(77);
    EXPECT_TRUE(desk.b.guest_runs);
    EXPECT_TRUE(desk.a.status().migrated);
}

TEST(NodeMigration, WhatFollowsIsAnOrdinaryLife)
{
    Desk desk;
    desk.migrate();
    desk.a.node->start(desk.a.stored, StartIntent::secondary, desk.now);
    desk.run();
    EXPECT_FALSE(desk.a.status().migrated);
    desk.a.connected = desk.b.connected = true;
    desk.a.node->open_secondary_session(small_guest(), desk.now);
    desk.a.pump();
    desk.b.node->open_primary_session(99, small_guest(), desk.now);
    desk.run();
    EXPECT_EQ(desk.b.status().protection, Protection::in_sync);
    EXPECT_TRUE(desk.b.did("entered"));
}

}  // namespace
}  // namespace colo::test
