// SPDX-License-Identifier: Apache-2.0
#include "node_pair.h"

#include <gmock/gmock.h>

namespace colo::test {
namespace {

constexpr Duration kMs{1000};
constexpr const char* kNotInColo = "The feature 'colo' is not enabled";
constexpr const char* kUnderWay = "COLO failover is already activated";

NodeConfig manual()
{
    NodeConfig config = small_config();
    config.arbiter = ArbiterKind::manual;
    return config;
}

TEST(NodeOperator, LostHeartbeatOutsideColoIsRefusedWithTheKnownText)
{
    Desk desk;
    desk.start();
    EXPECT_EQ(desk.a.node->lost_heartbeat(desk.now).error().text, kNotInColo);
    EXPECT_EQ(desk.b.node->lost_heartbeat(desk.now).error().text, kNotInColo);
}

TEST(NodeOperator, OnThePrimaryTheSecondaryResigns)
{
    Desk desk;
    desk.protect();
    ASSERT_TRUE(desk.a.node->lost_heartbeat(desk.now));
    EXPECT_EQ(desk.a.node->lost_heartbeat(desk.now).error().text, kUnderWay);   // Inv17: no second effect
    desk.run();
    EXPECT_EQ(desk.a.status().protection, Protection::unprotected);
    EXPECT_EQ(desk.a.status().generation, 1u);   // no grant was needed
    EXPECT_TRUE(desk.a.did("exit request"));
    EXPECT_TRUE(desk.b.did("exit request"));
    ASSERT_TRUE(desk.a.operator_result);
    EXPECT_TRUE(*desk.a.operator_result);
    EXPECT_TRUE(desk.b.stored.outdated);
    EXPECT_EQ(desk.a.node->lost_heartbeat(desk.now).error().text, kNotInColo);
}

TEST(NodeOperator, OnTheSecondaryThePrimaryHandsOver)
{
    Desk desk;
    desk.protect();
    ASSERT_TRUE(desk.b.node->lost_heartbeat(desk.now));
    EXPECT_EQ(desk.b.node->lost_heartbeat(desk.now).error().text, kUnderWay);
    desk.run();
    EXPECT_EQ(desk.b.status().protection, Protection::unprotected);
    EXPECT_EQ(desk.b.status().role, Role::primary);
    EXPECT_EQ(desk.a.status().protection, Protection::abdicated);
    EXPECT_TRUE(desk.a.stored.outdated);
    EXPECT_TRUE(desk.a.did("exit request"));
    EXPECT_TRUE(desk.b.did("exit request"));
    EXPECT_FALSE(desk.b.did("exit error"));
    EXPECT_TRUE(*desk.b.operator_result);
    // The old primary can become a secondary without a restart of its daemon.
    desk.a.node->start(desk.a.stored, StartIntent::secondary, desk.now);
    desk.run();
    EXPECT_EQ(desk.a.status().protection, Protection::standby);
}

TEST(NodeOperator, Inv17_BothAtOnceExactlyOneWins)
{
    for (const ArbiterKind kind : {ArbiterKind::lock, ArbiterKind::manual}) {
        for (const bool primary_first : {true, false}) {
            NodeConfig config = small_config();
            config.arbiter = kind;
            Desk desk(config);
            desk.protect();
            Host& first = primary_first ? desk.a : desk.b;
            Host& second = primary_first ? desk.b : desk.a;
            ASSERT_TRUE(first.node->lost_heartbeat(desk.now));
            ASSERT_TRUE(second.node->lost_heartbeat(desk.now));
            first.pump();
            second.pump();
            desk.advance(5000 * kMs);
            const bool a = desk.a.status().protection == Protection::unprotected && desk.a.guest_runs;
            const bool b = desk.b.status().protection == Protection::unprotected && desk.b.guest_runs;
            EXPECT_TRUE(a != b);
            ASSERT_TRUE(desk.a.operator_result);
            ASSERT_TRUE(desk.b.operator_result);
            EXPECT_NE(bool(*desk.a.operator_result), bool(*desk.b.operator_result));
        }
    }
}

TEST(NodeOperator, SilentPeerFallsBackToTheGrant)
{
    Desk desk;
    desk.protect();
    desk.b.crashed = true;
    ASSERT_TRUE(desk.a.node->lost_heartbeat(desk.now));
    desk.advance(2000 * kMs);
    EXPECT_EQ(desk.a.status().protection, Protection::unprotected);
    EXPECT_EQ(desk.a.status().generation, 2u);
    EXPECT_TRUE(*desk.a.operator_result);
}

TEST(NodeOperator, ManualWaitsForTheOperatorWhoseWordIsTheGrant)
{
    Desk desk(manual());
    desk.protect();
    desk.a.crashed = true;
    desk.cut_link();
    desk.advance(Duration{60'000'000});
    EXPECT_EQ(desk.b.status().protection, Protection::deciding);
    EXPECT_TRUE(desk.b.did("exit error"));
    ASSERT_TRUE(desk.b.node->lost_heartbeat(desk.now));
    EXPECT_EQ(desk.b.node->lost_heartbeat(desk.now).error().text, kUnderWay);
    desk.run();
    EXPECT_EQ(desk.b.status().protection, Protection::unprotected);
    EXPECT_EQ(desk.b.stored.generation, 2u);
    EXPECT_FALSE(desk.b.did("exit request"));   // no second event
    EXPECT_EQ(desk.b.node->lost_heartbeat(desk.now).error().text, kNotInColo);
}

TEST(NodeOperator, AutomaticArbiterNeedsNoWordAndTakesNone)
{
    Desk desk;
    desk.protect();
    desk.arbiter_hangs = true;
    desk.a.crashed = true;
    desk.cut_link();
    desk.advance(1000 * kMs);
    EXPECT_EQ(desk.b.node->lost_heartbeat(desk.now).error().text, kUnderWay);
    // Only data loss overrides a storage that hangs.
    ASSERT_TRUE(desk.b.node->failover(true, desk.now));
    desk.advance(1000 * kMs);
    EXPECT_EQ(desk.b.status().protection, Protection::unprotected);
    EXPECT_EQ(desk.b.stored.generation, 1000u);
}

TEST(NodeOperator, OutdatedRefusesLostHeartbeatAndRunsOnlyWithAcceptedLoss)
{
    Desk desk;
    desk.protect();
    desk.a.node->higher_generation(2, desk.now);
    desk.run();
    const auto refused = desk.a.node->lost_heartbeat(desk.now);
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().text, testing::HasSubstr("outdated"));
    EXPECT_FALSE(desk.a.guest_runs);
    ASSERT_TRUE(desk.a.node->failover(true, desk.now));
    desk.run();
    EXPECT_TRUE(desk.a.guest_runs);
    EXPECT_TRUE(desk.a.did("resume-guest"));
    EXPECT_EQ(desk.a.output, 0);
    EXPECT_EQ(desk.a.stored.generation, 1000u);
    EXPECT_FALSE(desk.a.stored.outdated);
}

TEST(NodeOperator, UnprotectOnEitherSide)
{
    for (const bool on_primary : {true, false}) {
        Desk desk;
        desk.protect();
        ASSERT_TRUE((on_primary ? desk.a : desk.b).node->unprotect(desk.now));
        desk.run();
        EXPECT_EQ(desk.a.status().protection, Protection::unprotected);
        EXPECT_EQ(desk.b.status().protection, Protection::standby);
        EXPECT_TRUE((on_primary ? desk.a : desk.b).operator_result);
        EXPECT_FALSE(desk.a.stored.in_session);
    }
}

TEST(NodeOperator, UnprotectDuringTheFirstCopyIsAnswered)
{
    Desk desk;
    desk.start();
    desk.a.hold("copy");
    desk.connect(5);
    desk.run();
    ASSERT_TRUE(desk.a.node->unprotect(desk.now));
    desk.run();
    EXPECT_EQ(desk.a.status().protection, Protection::unprotected);
    EXPECT_EQ(desk.b.status().protection, Protection::standby);
    ASSERT_TRUE(desk.a.operator_result);
    EXPECT_TRUE(*desk.a.operator_result);
    EXPECT_EQ(desk.a.count("operator-done"), 1);
    EXPECT_EQ(desk.a.node->unprotect(desk.now).error().text, kNotInColo);
}

TEST(NodeOperator, CancelWorksOnlyBeforeColo)
{
    Desk desk;
    desk.start();
    desk.a.hold("copy");
    desk.connect(5);
    desk.a.node->cancel_session("cancelled", desk.now);
    desk.run();
    EXPECT_EQ(desk.a.status().protection, Protection::unprotected);
    EXPECT_EQ(desk.a.failed_session, "cancelled");
    EXPECT_EQ(desk.b.status().protection, Protection::standby);
    Desk in_colo;
    in_colo.protect();
    in_colo.a.node->cancel_session("cancelled", in_colo.now);
    in_colo.run();
    EXPECT_EQ(in_colo.a.status().protection, Protection::in_sync);
}

}  // namespace
}  // namespace colo::test
