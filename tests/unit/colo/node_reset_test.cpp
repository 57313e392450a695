// SPDX-License-Identifier: Apache-2.0
// What a cut waits for, and what it does not: a guest that is made anew, a tool that has it, pages ahead of it.
#include "node_pair.h"

#include <gtest/gtest.h>

namespace colo::test {
namespace {

// Making a guest anew takes longer than any deadline of a cut.
TEST(NodeReset, NothingIsCutWhileTheGuestIsMadeAnew)
{
    Desk desk;
    desk.protect();
    desk.a.node->guest_renewing(true, desk.now);
    const auto epoch = desk.a.status().epoch;
    desk.a.node->trigger(replication::TriggerReason::operator_request, desk.now);
    desk.advance(Duration{60'000'000});
    EXPECT_EQ(desk.a.status().epoch, epoch);
    EXPECT_EQ(desk.a.status().protection, Protection::in_sync);
    desk.a.node->guest_renewing(false, desk.now);
    desk.run();
    EXPECT_GT(desk.a.status().epoch, epoch);
    EXPECT_EQ(desk.a.status().protection, Protection::in_sync);
}

// The guest thread goes from the cut straight on to making the guest anew: what the cut has to send would wait behind that.
TEST(NodeReset, Inv13_AResetBehindACutGivesThatCheckpointUp)
{
    Desk desk;
    desk.protect();
    desk.a.hold("cut");
    desk.checkpoint();
    const auto epoch = desk.a.status().epoch + 1;   // the one that is cut
    ASSERT_TRUE(desk.a.did("cut " + std::to_string(epoch)));
    desk.a.node->guest_renewing(true, desk.now);
    desk.a.release("cut");
    desk.run();
    EXPECT_TRUE(desk.a.did("abort " + std::to_string(epoch)));
    EXPECT_FALSE(desk.a.did("transfer " + std::to_string(epoch)));
    desk.advance(Duration{60'000'000});
    EXPECT_EQ(desk.a.status().protection, Protection::in_sync);
    EXPECT_EQ(desk.b.status().protection, Protection::in_sync);
    const auto checkpoints = desk.a.status().checkpoints;
    desk.a.node->guest_renewing(false, desk.now);
    desk.run();
    EXPECT_GT(desk.a.status().checkpoints, checkpoints);
    EXPECT_EQ(desk.a.status().protection, Protection::in_sync);
}

TEST(NodeReset, TheFirstCutWaitsUntilTheGuestIsMade)
{
    Desk desk;
    desk.a.hold("copy");
    desk.start();
    desk.connect(7);
    desk.a.node->guest_renewing(true, desk.now);
    desk.a.release("copy");
    desk.advance(Duration{60'000'000});
    EXPECT_EQ(desk.a.status().protection, Protection::syncing);
    EXPECT_FALSE(desk.a.did("cut 1"));
    desk.a.node->guest_renewing(false, desk.now);
    desk.run();
    EXPECT_EQ(desk.a.status().protection, Protection::in_sync);
}

// Everything may have to be sent again (another tool was at the dirty log): how long that takes is the link's affair.
TEST(NodeCut, WhatGoesAheadOfItIsNotLateAsLongAsItMoves)
{
    const NodeConfig config = small_config();
    Desk desk(config);
    desk.protect();
    desk.a.hold("cut-begun");
    desk.a.hold("cut");
    desk.checkpoint();
    const auto epoch = desk.a.status().epoch + 1;   // the one that is cut
    ASSERT_TRUE(desk.a.did("cut " + std::to_string(epoch)));
    for (int i = 0; i < 20; ++i) {
        desk.advance(config.transfer_deadline - Duration{1000});
        desk.a.node->cut_progress(epoch, desk.now);
        desk.a.node->cut_progress(epoch + 1, desk.now);
    }
    EXPECT_EQ(desk.a.status().protection, Protection::in_sync);
    desk.a.node->cut_progress(epoch - 1, desk.now);   // of another one
    desk.advance(config.transfer_deadline - Duration{1000});
    desk.a.node->cut_progress(epoch - 1, desk.now);
    desk.advance(Duration{2000});
    EXPECT_NE(desk.a.status().protection, Protection::in_sync) << "it stands still";
}

TEST(NodeReset, AMigrationsCutWaitsForTheToolThatHasTheGuest)
{
    Desk desk;
    desk.a.hold("copy");
    desk.migrate();
    desk.a.node->guest_event({replication::GuestEventKind::seized_outside, "xl save"}, desk.now);
    desk.a.release("copy");
    desk.advance(Duration{60'000'000});
    EXPECT_FALSE(desk.a.did("cut 1"));
    desk.a.node->guest_event({replication::GuestEventKind::resumed_outside, "xl save"}, desk.now);
    desk.run();
    // Everything is dirty by then: in rounds, and not while the guest stands still.
    EXPECT_TRUE(desk.a.did("abort 1"));
    EXPECT_TRUE(desk.a.did("epoch 2 on 0"));
    EXPECT_FALSE(desk.a.did("cut 1"));
    EXPECT_TRUE(desk.a.status().migrated);
}

// The dirty log does not come on while a toolstack has the domain.
TEST(NodeReset, AnotherFirstCopyWaitsForTheToolThatHasTheGuest)
{
    Desk desk;
    desk.start();
    desk.a.hold("cut");
    desk.a.fail("cut", make_error(Errc::failed, "another tool has it"));
    desk.connect(7);
    ASSERT_TRUE(desk.a.did("cut 1"));
    desk.a.node->guest_event({replication::GuestEventKind::seized_outside, "xl save"}, desk.now);
    desk.a.release("cut");
    desk.advance(Duration{60'000'000});
    EXPECT_TRUE(desk.a.did("abort 1"));
    EXPECT_FALSE(desk.a.did("epoch 2 on 0"));
    EXPECT_EQ(desk.a.status().protection, Protection::syncing);
    desk.a.node->guest_event({replication::GuestEventKind::resumed_outside, "xl save"}, desk.now);
    desk.run();
    EXPECT_EQ(desk.a.status().protection, Protection::in_sync);
}

// Whoever has it may keep it.
TEST(NodeReset, AFirstCopyThatWaitsTooLongSaysForWhom)
{
    NodeConfig config = small_config();
    config.first_copy_deadline = Duration{30'000'000};
    Desk desk(config);
    desk.start();
    desk.a.node->guest_event({replication::GuestEventKind::seized_outside, "xl save"}, desk.now);
    desk.connect(7);
    desk.advance(Duration{40'000'000});
    EXPECT_EQ(desk.a.status().protection, Protection::unprotected);
    EXPECT_NE((desk.a.failed_session + desk.b.failed_session).find("another tool"), std::string::npos) << desk.a.failed_session << "; " << desk.b.failed_session;
}

}  // namespace
}  // namespace colo::test
