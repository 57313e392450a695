// SPDX-License-Identifier: Apache-2.0
#include "primary_harness.h"

namespace colo::proxy::test {
namespace {

using replication::TriggerReason;
using Primary = PrimaryHarness;

FramePtr data(std::uint32_t seq, const std::string& text)
{
    return tcp({.seq = seq, .ack = 1000, .data = text});
}

TEST_F(Primary, Inv29_FullHoldAsksForACheckpointAndDropsTheNewest)
{
    make(ProxyOptions{.nics = {}, .hold_bytes_max = 20'000});
    protect();
    for (std::uint32_t i = 0; i < 100; ++i) guest(data(1 + i * 500, std::string(500, 'x')));
    EXPECT_LE(proxy->stats().held_bytes, 20'000u);
    EXPECT_GT(proxy->stats().dropped_overflow, 0u);
    ASSERT_EQ(sink.triggers.size(), 1u);
    EXPECT_EQ(sink.triggers[0], TriggerReason::staging_full);
    const std::uint64_t held = proxy->stats().held_frames;
    checkpoint(2);
    ASSERT_EQ(released(), held);
    for (std::size_t i = 0; i < held; ++i) EXPECT_EQ(decode_tcp(sink.wire[i].frame).seq, 1 + i * 500);
    guest(data(1 + 99 * 500, std::string(500, 'x')));
    EXPECT_EQ(released(), held + 1) << "a dropped frame is contained in the checkpoint: its repetition leaves";
    EXPECT_EQ(proxy->stats().held_bytes, 0u);
}

TEST_F(Primary, Inv29_SecondarysOutputIsBounded)
{
    make(ProxyOptions{.nics = {}, .compare_bytes_max = 50'000});
    protect();
    for (std::uint32_t i = 0; i < 1000; ++i) peer(data(1 + i * 1000, std::string(1000, 'x')));
    EXPECT_GT(proxy->stats().dropped_overflow, 0u);
    for (std::uint32_t i = 0; i < 20; ++i) guest(data(1 + i * 1000, std::string(1000, 'x')));
    EXPECT_EQ(released(), 20u);
}

TEST_F(Primary, Inv29_FullTableEvictsIdleFlowsAndNeverActiveOnes)
{
    make(ProxyOptions{.nics = {}, .flows_max = 64});
    protect();
    for (std::uint16_t port = 1; port <= 64; ++port) guest(tcp({.peer_port = port, .seq = 1, .data = "held"}));
    guest(tcp({.peer_port = 1000, .seq = 1, .data = "no room"}));
    for (std::uint16_t port = 1; port <= 64; ++port) peer(tcp({.peer_port = port, .seq = 1, .data = "held"}));
    EXPECT_EQ(released(), 64u) << "every active flow was kept";
    peer(tcp({.peer_port = 1000, .seq = 1, .data = "no room"}));
    EXPECT_EQ(released(), 64u) << "what found no room waits for a checkpoint";
    checkpoint(2);
    EXPECT_EQ(released(), 65u);
    now = now + std::chrono::minutes(10);
    guest(tcp({.peer_port = 5, .seq = 5, .data = "x"}));
    for (std::uint16_t port = 2000; port < 2063; ++port) {
        guest(tcp({.peer_port = port, .seq = 1, .data = "new"}));
        peer(tcp({.peer_port = port, .seq = 1, .data = "new"}), 2);
    }
    EXPECT_EQ(released(), 65u + 63u);
    peer(tcp({.peer_port = 5, .seq = 5, .data = "x"}), 2);
    EXPECT_EQ(released(), 65u + 64u);
    EXPECT_LE(proxy->stats().flows, 64u);
}

TEST_F(Primary, Inv29_UnacknowledgedInputIsBoundedAndAMissingFrameIsNeverConfirmed)
{
    make(ProxyOptions{.nics = {}, .journal_bytes_max = 10'000});
    protect();
    for (std::uint32_t i = 0; i < 50; ++i)
        client(tcp({.from_guest = false, .seq = 1000 + i * 500, .data = std::string(500, 'x')}));
    ASSERT_EQ(sink.mirrored.size(), 50u);
    proxy->seal(2, {}, now);
    EXPECT_LT(sink.mirrored.size(), 50u + 20u);
    EXPECT_EQ(sink.mirrored[50].number, 51u) << "no gap: S must be able to confirm the input of other flows";
    guest(tcp({.seq = 1, .ack = 1000 + 50 * 500}));
    client(tcp({.from_guest = false, .peer_port = 7, .seq = 1, .data = "other flow"}));
    guest(tcp({.peer_port = 7, .seq = 1, .ack = 11}));
    journalled();
    EXPECT_EQ(released(), 1u) << "only the flow that lost something waits";
    sink.wire.clear();
    proxy->staged(2, now);
    proxy->applied(2, now);
    EXPECT_EQ(released(), 0u);
    checkpoint(3);
    EXPECT_EQ(released(), 1u);
}

TEST_F(Primary, Inv29_UnacknowledgedInputOfOneFlowLeavesRoomForTheOthers)
{
    protect();
    const std::string big(60'000, 'x');
    for (std::uint32_t i = 0; i < 200; ++i) client(tcp({.from_guest = false, .seq = 1000 + i * 60'000, .data = big}));
    sink.mirrored.clear();
    proxy->seal(2, {}, now);
    EXPECT_LE(sink.mirrored.size() * 60'000, 8u << 20);
    EXPECT_GT(sink.mirrored.size() * 60'000, 7u << 20);
}

TEST_F(Primary, R5_WhatTheGuestConsumedIsNotMirroredAgainBehindInputItIgnored)
{
    protect();
    client(tcp({.from_guest = false, .seq = 900'000'000, .data = "out of the window"}));
    for (std::uint32_t i = 0; i < 10; ++i)
        client(tcp({.from_guest = false, .seq = 1000 + i * 10, .data = "0123456789"}));
    guest(tcp({.seq = 1, .ack = 1090}));
    sink.mirrored.clear();
    proxy->seal(2, {}, now);
    ASSERT_EQ(sink.mirrored.size(), 2u) << "the ignored one and the last";
    EXPECT_EQ(decode_tcp(sink.mirrored[1].frame).seq, 1090u);
}

TEST_F(Primary, R5_InputThatTheGuestIgnoredFallsAndThatOfASilentGuestStays)
{
    protect();
    client(tcp({.from_guest = false, .seq = 1000, .data = "ignored"}));
    now = now + std::chrono::seconds(3);
    sink.mirrored.clear();
    checkpoint(2);
    EXPECT_EQ(sink.mirrored.size(), 1u) << "a guest that was not heard since may be stalled";
    client(tcp({.from_guest = false, .peer_port = 7, .seq = 1, .data = "new"}));
    guest(tcp({.peer_port = 9, .seq = 1, .ack = 1}));
    sink.mirrored.clear();
    checkpoint(3);
    ASSERT_EQ(sink.mirrored.size(), 1u) << "only the new one: the guest has emptied its rings since the other";
    EXPECT_EQ(decode_tcp(sink.mirrored[0].frame).data, "new");
    sink.mirrored.clear();
    proxy->seal(4, {{0, tcp({.from_guest = false, .seq = 1000, .data = "ignored"})}}, now);
    EXPECT_EQ(sink.mirrored.size(), 2u) << "unread in the port: not consumed, however old";
}

TEST_F(Primary, DatagramsOfTheSecondaryMatchOneHeldFrameEach)
{
    protect();
    for (int i = 0; i < 300; ++i) guest(udp(true, 53, 5353, std::to_string(i)));
    for (int i = 299; i > 0; --i) peer(udp(true, 53, 5353, std::to_string(i)));
    EXPECT_EQ(released(), 0u) << "order among P's own is kept";
    peer(udp(true, 53, 5353, "1"));
    EXPECT_EQ(released(), 0u);
    peer(udp(true, 53, 5353, "0"));
    EXPECT_EQ(released(), 300u);
    guest(udp(true, 53, 5353, "1"));
    EXPECT_EQ(released(), 301u) << "the second 1 was kept for its turn";
}

TEST_F(Primary, Buffered_AnAckWaitsForTheJournalNotForACheckpoint)
{
    protect();
    proxy->set_mode(replication::Mode::buffered, now);
    client(tcp({.from_guest = false, .seq = 1000, .data = "abc"}));
    guest(tcp({.seq = 1, .ack = 1003}));
    EXPECT_TRUE(sink.triggers.empty());
    pass(Duration{1000});
    journalled();
    EXPECT_EQ(released(), 1u);
    pass(Duration{10'000});
    EXPECT_TRUE(sink.triggers.empty());
    client(tcp({.from_guest = false, .seq = 1003, .data = "def"}));
    guest(tcp({.seq = 1, .ack = 1006}));
    pass(Duration{4000});
    EXPECT_TRUE(sink.triggers.empty());
    pass(Duration{1000});
    ASSERT_EQ(sink.triggers.size(), 1u) << "the journal does not answer";
    EXPECT_EQ(sink.triggers[0], TriggerReason::buffered_output);
}

TEST_F(Primary, Buffered_BytesBehindAnAckAskForACheckpointAtOnce)
{
    protect();
    proxy->set_mode(replication::Mode::buffered, now);
    client(tcp({.from_guest = false, .seq = 1000, .data = "abc"}));
    guest(tcp({.seq = 1, .ack = 1003}));
    EXPECT_TRUE(sink.triggers.empty());
    guest(tcp({.seq = 1, .ack = 1003, .data = "answer"}));
    EXPECT_EQ(sink.triggers.size(), 1u);
}

TEST_F(Primary, R4_AnAckThatMayBeAboutAFragmentWaits)
{
    protect();
    guest(tcp({.seq = 1, .ack = 1000}));
    ASSERT_EQ(released(), 1u);
    client(fragment(tcp({.from_guest = false, .seq = 1000, .data = "abc"})));
    guest(tcp({.seq = 1, .ack = 1003}));
    EXPECT_EQ(released(), 1u);
    journalled();
    EXPECT_EQ(released(), 2u);
    client(fragment(tcp({.from_guest = false, .seq = 1003, .data = "def"})));
    guest(tcp({.seq = 1, .ack = 1006}));
    EXPECT_EQ(released(), 2u);
    checkpoint(2);
    EXPECT_EQ(released(), 3u);
}

TEST_F(Primary, AFrozenProxyHasNoDeadlineThatItDoesNotMeet)
{
    TakeOver from;
    from.reinject.push_back({0, tcp({.from_guest = false, .seq = 1000, .data = "abc"})});
    proxy = make_primary_proxy(ProxyOptions{.nics = {kGuestMac}}, sink, from, now);
    proxy->set_output(PrimaryProxy::Output::frozen, 2, now);
    pass(std::chrono::seconds(2));
    EXPECT_GT(proxy->next_deadline(), now) << "or the proxy thread spins";
}

TEST_F(Primary, R4_TakenOverInputIsGivenAgainWithATimeThatTheGuestBelieves)
{
    TakeOver from;
    from.reinject.push_back(
        {0, tcp({.from_guest = false, .seq = 1000, .ack = 1, .data = "abc", .timestamp = std::pair(500u, 7u)})});
    proxy = make_primary_proxy(ProxyOptions{.nics = {kGuestMac}}, sink, from, now);
    proxy->set_output(PrimaryProxy::Output::flow, 2, now);
    guest(tcp({.seq = 1, .ack = 1000, .timestamp = std::pair(9u, 900u)}));
    sink.guest.clear();
    now = proxy->next_deadline();
    proxy->tick(now);
    ASSERT_EQ(sink.guest.size(), 1u);
    EXPECT_EQ(decode_tcp(sink.guest[0]).data, "abc");
    EXPECT_EQ(decode_tcp(sink.guest[0]).tsval, 900u);
    EXPECT_TRUE(checksum_valid(sink.guest[0]));
}

}  // namespace
}  // namespace colo::proxy::test
