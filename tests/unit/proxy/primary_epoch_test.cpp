// SPDX-License-Identifier: Apache-2.0
#include "primary_harness.h"

namespace colo::proxy::test {
namespace {

using replication::TriggerReason;
using Primary = PrimaryHarness;

FramePtr data(std::uint32_t seq, const std::string& text, std::uint32_t ack = 1000)
{
    return tcp({.seq = seq, .ack = ack, .flags = kTcpAck | kTcpPush, .data = text});
}
FramePtr pure_ack(std::uint32_t seq, std::uint32_t ack)
{
    return tcp({.seq = seq, .ack = ack});
}

TEST_F(Primary, R7_PendingCutClosesTheComparerForTheNewTag)
{
    protect();
    guest(data(1, "old"));
    proxy->seal(2, {}, now);
    guest(data(4, "new"));
    guest(udp(true, 53, 1000, "new"));
    peer(data(1, "oldnew"));
    peer(udp(true, 53, 1000, "new"));
    ASSERT_EQ(released(), 1u) << "S's bytes of epoch 1 prove nothing about epoch 2";
    proxy->staged(2, now);
    EXPECT_EQ(released(), 1u);
    peer(data(4, "new"), 2);  // its APPLIED is still on the way
    EXPECT_EQ(released(), 1u);
    proxy->applied(2, now);
    EXPECT_EQ(released(), 2u);
    peer(udp(true, 53, 1000, "new"), 2);
    EXPECT_EQ(released(), 3u);
    EXPECT_TRUE(sink.triggers.empty());
}

TEST_F(Primary, R7_AbortedEpochIsComparedLikeTheOneBefore)
{
    protect();
    proxy->seal(2, {}, now);
    guest(data(1, "held"));
    peer(data(1, "held"));
    EXPECT_EQ(released(), 0u);
    proxy->aborted(2, now);
    EXPECT_EQ(released(), 1u);
    guest(data(5, "more"));  // still tagged 2
    peer(data(5, "more"), 1);
    EXPECT_EQ(released(), 2u);
    guest(data(9, "last"));
    proxy->seal(3, {}, now);
    proxy->staged(3, now);
    EXPECT_EQ(released(), 3u);
}

TEST_F(Primary, R7_AbortTriggersAgainForWhatStillDiffers)
{
    protect();
    guest(data(1, "a"));
    peer(data(1, "b"));
    ASSERT_EQ(sink.triggers.size(), 1u);
    proxy->seal(2, {}, now);
    proxy->aborted(2, now);
    EXPECT_EQ(sink.triggers.size(), 2u);
    EXPECT_EQ(released(), 0u);
}

TEST_F(Primary, StaleOutputOfAnOlderEpochIsIgnored)
{
    protect();
    checkpoint(2);
    guest(data(1, "x"));
    peer(data(1, "x"), 1);
    EXPECT_EQ(released(), 0u);
    peer(data(1, "x"), 2);
    EXPECT_EQ(released(), 1u);
}

TEST_F(Primary, R5_SealMirrorsUnreadInputAgainUnderTheNewTag)
{
    protect();
    client(tcp({.from_guest = false, .seq = 1000, .data = "abc"}));
    client(tcp({.from_guest = false, .seq = 1003, .data = "def"}));
    guest(pure_ack(1, 1003));
    sink.guest.clear();
    const auto unread = sink.mirrored.back().frame;
    const auto section = proxy->seal(2, {{0, unread}}, now);
    EXPECT_EQ(section.last_input, 2u);
    ASSERT_EQ(sink.mirrored.size(), 3u);
    EXPECT_EQ(sink.mirrored[2].epoch, 2u);
    EXPECT_EQ(sink.mirrored[2].number, 3u);
    EXPECT_EQ(sink.mirrored[2].frame->bytes, unread->bytes);
    EXPECT_EQ(sink.guest.size(), 1u);
    proxy->staged(2, now);
    EXPECT_EQ(released(), 1u) << "the checkpoint contains the first input";
    guest(pure_ack(1, 1006));
    EXPECT_EQ(released(), 1u) << "the second one was not consumed: only its new copy counts";
    proxy->peer_journalled(2, 3, now);
    EXPECT_EQ(released(), 2u);
}

TEST_F(Primary, R5_WhatTheGuestHasNotAcknowledgedIsNotKnownToBeConsumed)
{
    protect();
    client(tcp({.from_guest = false, .seq = 1000, .data = "inside the device model"}));
    journalled();
    proxy->seal(2, {}, now);  // the port was empty
    ASSERT_EQ(sink.mirrored.size(), 2u);
    EXPECT_EQ(sink.mirrored[1].epoch, 2u);
    guest(pure_ack(1, 1023));
    proxy->staged(2, now);
    EXPECT_EQ(released(), 0u) << "S's copy of epoch 1 falls at apply";
    proxy->peer_journalled(2, 2, now);
    EXPECT_EQ(released(), 1u);
    proxy->applied(2, now);
    proxy->seal(3, {}, now);
    EXPECT_EQ(sink.mirrored.size(), 2u) << "acknowledged: consumed";
}

TEST_F(Primary, R4_AckOfTheSecondarysOldEpochDoesNotCountForTheNewOne)
{
    protect();
    client(tcp({.from_guest = false, .seq = 1000, .data = "x"}));
    peer(pure_ack(1, 1001));
    proxy->seal(2, {}, now);
    guest(pure_ack(1, 1001));
    EXPECT_EQ(released(), 0u) << "S's guest will forget it when epoch 2 is applied";
    proxy->peer_journalled(2, 2, now);
    EXPECT_EQ(released(), 1u);
}

TEST_F(Primary, OutputHeldWhenTheComparerOpensIsLookedAtWhenItIsDueAndNotBefore)
{
    protect();
    guest(data(1, "a"));
    pass(ProxyOptions{}.hold_deadline_min);
    ASSERT_EQ(sink.triggers.size(), 1u) << "late: a freshly loaded copy is given twice the time from now on";
    proxy->seal(2, {}, now);
    proxy->staged(2, now);
    guest(data(2, "b"));
    proxy->applied(2, now);
    EXPECT_EQ(proxy->next_deadline(), now + ProxyOptions{}.hold_deadline_min * 2);
    pass(ProxyOptions{}.hold_deadline_min * 2);
    EXPECT_EQ(sink.triggers.size(), 2u);
}

}  // namespace
}  // namespace colo::proxy::test
