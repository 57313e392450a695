// SPDX-License-Identifier: Apache-2.0
#include "node_pair.h"

#include <gmock/gmock.h>

namespace colo::test {
namespace {

using testing::HasSubstr;
constexpr Duration kMs{1000};

TEST(NodeFailover, Inv16_ExactlyOneSideIsGrantedWhenTheLinkBreaks)
{
    Desk desk;
    desk.protect();
    desk.b.last_answer = desk.now;
    desk.cut_link();
    desk.advance(1000 * kMs);
    EXPECT_EQ(desk.a.status().protection, Protection::unprotected);
    EXPECT_EQ(desk.a.status().generation, 2u);
    EXPECT_EQ(desk.a.output, 0);
    EXPECT_TRUE(desk.b.stored.outdated);
    EXPECT_FALSE(desk.b.guest_runs);
    EXPECT_FALSE(desk.b.did("live 2"));
}

TEST(NodeFailover, Inv16_ClosingComesBeforeAsking)
{
    Desk desk;
    desk.protect();
    desk.a.hold("closed");
    desk.b.hold("closed");
    desk.cut_link();
    desk.advance(1000 * kMs);
    EXPECT_TRUE(desk.a.did("close"));
    EXPECT_FALSE(desk.a.did("ask 2"));
    EXPECT_FALSE(desk.b.did("ask 2"));
    EXPECT_LT(desk.a.index("close"), desk.a.index("output hold"));
}

TEST(NodeFailover, Inv16_SecondaryWaitsForTheLease)
{
    Desk desk;
    desk.protect();
    desk.a.crashed = true;
    desk.b.last_answer = desk.now;
    const Time start = desk.now;
    desk.cut_link();
    while (!desk.b.did("ask 2")) {
        ASSERT_LT(desk.now - start, Duration{1'000'000});
        desk.advance(Duration{500});
    }
    EXPECT_GE(desk.now - start, Duration{92'000});   // lease 90 ms and the drift of two clocks
    EXPECT_LE(desk.now - start, Duration{94'000});
    EXPECT_EQ(desk.b.status().protection, Protection::unprotected);
    EXPECT_EQ(desk.b.status().role, Role::primary);
    EXPECT_EQ(desk.b.stored.generation, 2u);
    EXPECT_EQ(desk.b.stored.role, Role::primary);
    EXPECT_TRUE(desk.b.did("exit error"));
    EXPECT_EQ(desk.b.count("exit error") + desk.b.count("exit request"), 1);
}

TEST(NodeFailover, GrantIsOnDiskBeforeAnythingActsOnIt)
{
    Desk desk;
    desk.protect();
    desk.a.crashed = true;
    desk.b.hold("persist");
    desk.cut_link();
    desk.advance(1000 * kMs);
    EXPECT_TRUE(desk.b.did("ask 2"));
    EXPECT_FALSE(desk.b.did("live 2"));
    desk.b.release("persist");
    EXPECT_TRUE(desk.b.did("live 2"));
}

TEST(NodeFailover, UnwritableStateFileKeepsHoldingAndTriesAgain)
{
    Desk desk;
    desk.protect();
    desk.a.crashed = true;
    desk.b.fail("persist", make_error(Errc::failed, "disk full"));
    desk.cut_link();
    desk.advance(150 * kMs);
    EXPECT_FALSE(desk.b.did("live 2"));
    desk.advance(500 * kMs);
    EXPECT_TRUE(desk.b.did("live 2"));
}

TEST(NodeFailover, UnknownIsNotAGrantAndIsAskedAgain)
{
    Desk desk;
    desk.protect();
    desk.arbiter_hangs = true;
    desk.a.crashed = true;
    desk.cut_link();
    desk.advance(3000 * kMs);
    EXPECT_GE(desk.b.count("ask 2"), 5);
    EXPECT_EQ(desk.b.status().protection, Protection::deciding);
    EXPECT_FALSE(desk.b.did("live 2"));
    EXPECT_NE(desk.b.status().reason.find("no answer of the arbiter"), std::string::npos) << desk.b.status().reason;
    desk.arbiter_hangs = false;
    desk.advance(500 * kMs);
    EXPECT_TRUE(desk.b.did("live 2"));
    // Why there is no copy now: the loss, not what the arbiter said meanwhile.
    EXPECT_EQ(desk.b.status().reason.find("arbiter"), std::string::npos) << desk.b.status().reason;
    EXPECT_NE(desk.b.status().reason.find("lost"), std::string::npos) << desk.b.status().reason;
}

TEST(NodeFailover, Inv20_StagedEpochIsFinishedBeforeGoingLive)
{
    Desk desk;
    desk.protect();
    desk.b.hold("apply");
    desk.checkpoint();
    ASSERT_TRUE(desk.b.did("commit 2"));
    desk.a.crashed = true;
    desk.cut_link();
    desk.advance(1000 * kMs);
    EXPECT_TRUE(desk.b.did("ask 2"));
    EXPECT_FALSE(desk.b.did("live 2"));
    desk.b.release("apply");
    EXPECT_TRUE(desk.b.did("live 2"));
    EXPECT_EQ(desk.b.status().protection, Protection::unprotected);
}

TEST(NodeFailover, Inv07_PartialEpochIsDropped)
{
    Desk desk;
    desk.protect();
    desk.b.hold("stage");
    desk.checkpoint();
    ASSERT_TRUE(desk.b.did("verify 2"));
    desk.a.crashed = true;
    desk.cut_link();
    desk.advance(1000 * kMs);
    EXPECT_TRUE(desk.b.did("drop 2"));
    EXPECT_TRUE(desk.b.did("live 2"));
    desk.b.release("stage");   // too late to matter
    EXPECT_FALSE(desk.b.did("commit 2"));
}

TEST(NodeFailover, BufferedModeLoadsOnceAtTakeOver)
{
    NodeConfig config = small_config();
    config.always_buffered = true;
    Desk desk(config);
    desk.protect();
    EXPECT_TRUE(desk.b.did("apply 1 keep"));
    EXPECT_FALSE(desk.b.guest_runs);
    desk.a.crashed = true;
    desk.cut_link();
    desk.advance(1000 * kMs);
    EXPECT_EQ(desk.b.count("apply 1 load"), 1);
    EXPECT_LT(desk.b.index("apply 1 load"), desk.b.index("live 2"));
    EXPECT_TRUE(desk.b.guest_runs);
}

TEST(NodeFailover, BufferedModeSurvivesTheLossOfTheIdleDeviceModel)
{
    NodeConfig config = small_config();
    config.always_buffered = true;
    Desk desk(config);
    desk.protect();
    desk.b.node->guest_event({replication::GuestEventKind::device_model_died, "gone"}, desk.now);
    desk.a.crashed = true;
    desk.cut_link();
    desk.advance(1000 * kMs);
    EXPECT_TRUE(desk.b.did("roll-forward 1"));
    EXPECT_EQ(desk.b.status().protection, Protection::unprotected);
}

TEST(NodeFailover, LockStepSecondaryWithoutDeviceModelResigns)
{
    Desk desk;
    desk.protect();
    desk.b.node->guest_event({replication::GuestEventKind::device_model_died, "gone"}, desk.now);
    desk.run();
    EXPECT_EQ(desk.a.status().protection, Protection::unprotected);
    EXPECT_TRUE(desk.b.stored.outdated);
    EXPECT_EQ(desk.b.status().protection, Protection::standby);
    desk.connect(78);   // and can be protected again
    EXPECT_EQ(desk.b.status().protection, Protection::in_sync);
    EXPECT_FALSE(desk.b.stored.outdated);
}

TEST(NodeFailover, PrimaryWithoutDeviceModelAbdicatesAndTheSecondaryDoesNotWait)
{
    Desk desk;
    desk.protect();
    desk.b.last_answer = desk.now;
    desk.a.node->guest_event({replication::GuestEventKind::device_model_died, "gone"}, desk.now);
    desk.run();   // no time passes: no lease wait
    EXPECT_LT(desk.a.index("output frozen"), desk.a.index("send abdicate"));
    // in_session is what keeps it from starting again; outdated follows.
    EXPECT_LT(desk.a.index("persist in-session"), desk.a.index("send abdicate"));
    EXPECT_TRUE(desk.a.did("persist in-session outdated"));
    EXPECT_TRUE(desk.a.stored.outdated);
    EXPECT_EQ(desk.a.status().protection, Protection::abdicated);
    EXPECT_EQ(desk.b.status().protection, Protection::unprotected);
}

TEST(NodeFailover, AbdicationDuringTheFirstVerificationStillSavesTheGuest)
{
    Desk desk;
    desk.start();
    desk.b.hold("stage");
    desk.connect(5);
    desk.a.node->guest_event({replication::GuestEventKind::device_model_died, "gone"}, desk.now);
    desk.run();
    desk.b.release("stage");
    desk.advance(200 * kMs);
    EXPECT_EQ(desk.b.status().protection, Protection::unprotected);
    EXPECT_EQ(desk.a.status().protection, Protection::abdicated);
}

TEST(NodeFailover, HigherGenerationFreezesFirst)
{
    Desk desk;
    desk.protect();
    desk.a.trace.clear();
    desk.a.node->higher_generation(2, desk.now);
    desk.run();
    EXPECT_EQ(desk.a.trace[0], "output frozen");
    EXPECT_EQ(desk.a.trace[1], "stop-guest");
    EXPECT_EQ(desk.a.status().protection, Protection::outdated);
    EXPECT_TRUE(desk.a.stored.outdated);
    EXPECT_EQ(desk.a.stored.generation, 2u);
    EXPECT_EQ(desk.a.output, 3);
}

TEST(NodeFailover, EqualOrLowerGenerationMeansNothing)
{
    Desk desk;
    desk.protect();
    desk.a.node->higher_generation(1, desk.now);
    desk.b.node->higher_generation(0, desk.now);
    desk.run();
    EXPECT_EQ(desk.a.status().protection, Protection::in_sync);
    EXPECT_EQ(desk.b.status().protection, Protection::in_sync);
}

TEST(NodeFailover, Inv18_RestartedPrimaryOfASessionDoesNotRun)
{
    Desk desk;
    desk.protect();
    const PersistentState left = desk.a.stored;
    ASSERT_TRUE(left.in_session);
    desk.a.restart(small_config());
    desk.a.trace.clear();
    desk.a.node->start(left, StartIntent::primary, desk.now);
    desk.run();
    EXPECT_FALSE(desk.a.did("boot"));
    EXPECT_EQ(desk.a.status().protection, Protection::outdated);
    EXPECT_THAT(desk.a.status().reason, HasSubstr("--accept-data-loss"));
}

TEST(NodeFailover, Inv19_AfterPowerLossOfBothNobodyRunsByItself)
{
    Desk desk;
    desk.protect();
    const PersistentState a = desk.a.stored, b = desk.b.stored;
    desk.a.restart(small_config());
    desk.b.restart(small_config());
    desk.a.node->start(a, StartIntent::primary, desk.now);
    desk.b.node->start(b, StartIntent::primary, desk.now);
    desk.run();
    EXPECT_EQ(desk.a.status().protection, Protection::outdated);
    EXPECT_EQ(desk.b.status().protection, Protection::outdated);
    // The operator decides; the generation rises beyond what any arbiter may have granted.
    ASSERT_TRUE(desk.a.node->failover(true, desk.now));
    desk.run();
    EXPECT_EQ(desk.a.status().protection, Protection::unprotected);
    EXPECT_EQ(desk.a.stored.generation, 1000u);
    // The other one joins again and is no longer outdated with its first STAGED.
    desk.b.restart(small_config());
    desk.b.node->start(b, StartIntent::secondary, desk.now);
    desk.run();
    desk.connect(90);
    EXPECT_EQ(desk.b.status().protection, Protection::in_sync);
    EXPECT_EQ(desk.b.stored.generation, 1000u);
}

TEST(NodeFailover, Inv19_CleanPrimaryStartsAgainInItsGeneration)
{
    Desk desk;
    desk.protect();
    desk.b.crashed = true;
    desk.cut_link();
    desk.advance(1000 * kMs);
    ASSERT_EQ(desk.a.stored.generation, 2u);
    const PersistentState left = desk.a.stored;
    desk.a.restart(small_config());
    desk.a.node->start(left, StartIntent::primary, desk.now);
    desk.run();
    EXPECT_EQ(desk.a.status().protection, Protection::unprotected);
    EXPECT_EQ(desk.a.status().generation, 2u);
}

TEST(NodeFailover, SurvivorIsProtectedAgainTheOtherWayRound)
{
    Desk desk;
    desk.protect();
    const NodeConfig config = small_config();
    desk.a.crashed = true;
    desk.cut_link();
    desk.advance(1000 * kMs);
    ASSERT_EQ(desk.b.status().role, Role::primary);
    desk.a.restart(config);
    desk.a.node->start(desk.a.stored, StartIntent::secondary, desk.now);
    desk.run();
    desk.a.connected = desk.b.connected = true;
    desk.a.node->open_secondary_session(small_guest(), desk.now);
    desk.b.node->open_primary_session(101, small_guest(), desk.now);
    desk.run();
    EXPECT_EQ(desk.b.status().protection, Protection::in_sync);
    EXPECT_EQ(desk.a.status().protection, Protection::in_sync);
    EXPECT_TRUE(desk.a.stored.eligible);
    EXPECT_EQ(desk.a.stored.generation, 2u);
}

TEST(NodeFailover, GoLiveThatFailsNeverServes)
{
    Desk desk;
    desk.protect();
    desk.a.crashed = true;
    desk.b.fail("live", make_error(Errc::failed, "wire gone"));
    desk.cut_link();
    desk.advance(1000 * kMs);
    EXPECT_FALSE(desk.b.guest_runs);
    EXPECT_TRUE(desk.b.stored.outdated);
}

}  // namespace
}  // namespace colo::test
