// SPDX-License-Identifier: Apache-2.0
#include "secondary_harness.h"

namespace colo::proxy::test {
namespace {

using Secondary = SecondaryHarness;

TEST_F(Secondary, NothingReachesAGuestThatHasNoStateYet)
{
    input(client_data(1, "early"), 0);
    input(client_data(6, "next"), 1);
    EXPECT_TRUE(sink.guest.empty());
    EXPECT_EQ(sink.journal, 2u);
    proxy->applied(1, {}, now);
    ASSERT_EQ(sink.guest.size(), 1u) << "the checkpoint contains the first";
    EXPECT_EQ(decode_tcp(sink.guest[0]).data, "next");
}

TEST_F(Secondary, InputOfAFutureEpochWaits)
{
    proxy->applied(1, {}, now);
    input(client_data(1, "now"), 1);
    input(client_data(4, "later"), 2);
    ASSERT_EQ(sink.guest.size(), 1u);
    proxy->applied(2, {}, now);
    ASSERT_EQ(sink.guest.size(), 2u);
    EXPECT_EQ(decode_tcp(sink.guest[1]).data, "later");
}

TEST_F(Secondary, R7_AbortedInputBelongsToTheRunningEpoch)
{
    proxy->applied(1, {}, now);
    input(client_data(1, "a"), 2);
    EXPECT_TRUE(sink.guest.empty());
    proxy->aborted(2, now);
    EXPECT_EQ(sink.guest.size(), 1u);
    input(client_data(2, "b"), 2);
    EXPECT_EQ(sink.guest.size(), 2u);
    input(client_data(3, "c"), 3);
    EXPECT_EQ(sink.guest.size(), 2u);
    proxy->applied(3, {}, now);
    EXPECT_EQ(sink.guest.size(), 3u);
}

TEST_F(Secondary, R4_BytesAreGivenAgainUntilTheGuestAcknowledgesThem)
{
    proxy->applied(1, {}, now);
    input(client_data(100, "abc"));
    input(client_data(103, "def"));
    sink.guest.clear();
    now = now + Duration{41'000};
    proxy->tick(now);
    ASSERT_EQ(sink.guest.size(), 2u);
    EXPECT_EQ(decode_tcp(sink.guest[0]).data, "abc");
    guest(tcp({.seq = 1, .ack = 103}));
    sink.guest.clear();
    now = now + Duration{200'000};
    proxy->tick(now);
    ASSERT_EQ(sink.guest.size(), 1u);
    EXPECT_EQ(decode_tcp(sink.guest[0]).data, "def");
    guest(tcp({.seq = 1, .ack = 106}));
    EXPECT_EQ(proxy->stats().journal_bytes, 0u);
    EXPECT_EQ(proxy->stats().journal_frames, 0u);
}

// The client is held back by P's guest only: ours may be far behind, and would drop what its window does not hold.
TEST_F(Secondary, R4_ASlowGuestIsNotGivenMoreThanItsWindowHolds)
{
    proxy->applied(1, {}, now);
    constexpr std::uint32_t kSize = 30'000, kFrames = 20;
    for (std::uint32_t i = 0; i < kFrames; ++i) input(client_data(100 + i * kSize, std::string(kSize, 'x')));
    EXPECT_EQ(sink.guest.size(), 4u);
    EXPECT_EQ(proxy->stats().journal_frames, kFrames) << "all of them are confirmed";
    for (std::uint32_t i = 1; i <= kFrames; ++i) {
        guest(tcp({.seq = 1, .ack = 100 + i * kSize}));
        EXPECT_EQ(sink.guest.size(), std::min(4 + i, kFrames)) << "one for one, each once";
    }
    for (std::uint32_t i = 0; i < kFrames; ++i) EXPECT_EQ(decode_tcp(sink.guest[i]).seq, 100 + i * kSize);
    EXPECT_EQ(proxy->stats().journal_bytes, 0u);
}

TEST_F(Secondary, R4_EntriesOfOlderEpochsFallAtApply)
{
    proxy->applied(1, {}, now);
    input(client_data(100, "abc"), 1);
    input(client_data(103, "def"), 2);
    proxy->applied(2, {}, now);
    sink.guest.clear();
    now = now + Duration{100'000};
    proxy->tick(now);
    ASSERT_EQ(sink.guest.size(), 1u);
    EXPECT_EQ(decode_tcp(sink.guest[0]).data, "def");
}

TEST_F(Secondary, R4_FullJournalIsNotConfirmedUntilACheckpointContainsIt)
{
    make({.nics = {}, .journal_bytes_max = 10'000});
    proxy->applied(1, {}, now);
    for (std::uint32_t i = 0; i < 20; ++i) input(client_data(1 + i * 1000, std::string(1000, 'x')));
    EXPECT_EQ(sink.guest.size(), 20u) << "the guest gets it all the same";
    EXPECT_LT(sink.journal, 20u);
    const std::uint64_t confirmed = sink.journal;
    guest(tcp({.seq = 1, .ack = 20001}));  // there is room again
    input(client_data(20001, "y"));
    EXPECT_EQ(sink.journal, confirmed) << "a hole stays a hole";
    input(client_data(20002, "z"), 2);
    EXPECT_EQ(sink.journal, confirmed);
    proxy->applied(2, {}, now);
    input(client_data(20003, "w"), 2);
    EXPECT_EQ(sink.journal, number);
    EXPECT_LE(proxy->stats().journal_bytes, 10'000u);
}

TEST_F(Secondary, R4_MissingNumberIsAHole)
{
    proxy->applied(1, {}, now);
    input(client_data(1, "a"));
    ++number;  // P could not send it
    input(client_data(3, "c"));
    EXPECT_EQ(sink.journal, 1u);
    EXPECT_EQ(sink.guest.size(), 2u);
}

TEST_F(Secondary, R3_PassiveOpenLearnsFromTheClientsFirstAck)
{
    proxy->applied(1, {}, now);
    input(tcp({.from_guest = false, .seq = 500, .flags = kTcpSyn}));
    guest(tcp({.seq = 9000, .ack = 501, .flags = kTcpSyn | kTcpAck, .timestamp = {{70, 1}}}));
    EXPECT_EQ(decode_tcp(sink.out.back().frame).seq, 9000u) << "P's number is not known yet";
    input(tcp({.from_guest = false,
               .seq = 501,
               .ack = 0x00000101,
               .data = "hi",
               .timestamp = {{1, 170}}}));  // P's ISN is 0x100
    const Decoded in = decode_tcp(sink.guest.back());
    EXPECT_EQ(in.ack, 9001u);
    EXPECT_EQ(in.tsecr, 70u);
    guest(tcp({.seq = 9001, .ack = 503, .data = "answer", .timestamp = {{75, 1}}}));
    EXPECT_EQ(decode_tcp(sink.out.back().frame).seq, 0x101u);
    EXPECT_EQ(decode_tcp(sink.out.back().frame).tsval, 175u);
    guest(tcp({.seq = 9000, .ack = 501, .flags = kTcpSyn | kTcpAck, .timestamp = {{70, 1}}}));
    EXPECT_EQ(decode_tcp(sink.out.back().frame).seq, 0x100u) << "repeated SYN-ACK, now in P's numbers";
}

TEST_F(Secondary, R3_ActiveOpenLearnsFromTheSynAck)
{
    proxy->applied(1, {}, now);
    guest(tcp({.seq = 0xffffffff, .ack = 0, .flags = kTcpSyn}));
    input(tcp({.from_guest = false, .seq = 7000, .ack = 51, .flags = kTcpSyn | kTcpAck}));  // P's ISN is 50
    EXPECT_EQ(decode_tcp(sink.guest.back()).ack, 0u) << "2^32 wrap: the guest's ISN + 1";
    guest(tcp({.seq = 0, .ack = 7001, .data = "x"}));
    EXPECT_EQ(decode_tcp(sink.out.back().frame).seq, 51u);
}

TEST_F(Secondary, Inv27_SackBlocksFollowTheOffset)
{
    replication::ProxySection section;
    section.flows.push_back(flow(1000));
    proxy->applied(1, section, now);
    input(tcp({.from_guest = false, .seq = 1, .ack = 5000, .sack = {6000, 6100, 7000, 7100}}));
    const Decoded in = decode_tcp(sink.guest.back());
    EXPECT_EQ(in.ack, 4000u);
    EXPECT_EQ(in.sack, (std::vector<std::uint32_t>{5000, 5100, 6000, 6100}));
    EXPECT_TRUE(checksum_valid(sink.guest.back()));
    guest(tcp({.seq = 4000, .ack = 1, .sack = {10, 20}}));
    EXPECT_EQ(decode_tcp(sink.out.back().frame).seq, 5000u);
    EXPECT_EQ(decode_tcp(sink.out.back().frame).sack, (std::vector<std::uint32_t>{10, 20}))
        << "the client's own numbers";
}

TEST_F(Secondary, R3_ApplySetsTheOffsetsOfTheManifest)
{
    proxy->applied(1, {}, now);
    input(tcp({.from_guest = false, .seq = 500, .flags = kTcpSyn}));
    guest(tcp({.seq = 9000, .ack = 501, .flags = kTcpSyn | kTcpAck}));
    input(tcp({.from_guest = false, .seq = 501, .ack = 101}));
    replication::ProxySection section;
    section.flows.push_back(flow(777));  // P was a secondary once
    proxy->applied(2, section, now);
    guest(tcp({.seq = 10, .ack = 501, .data = "x"}));
    EXPECT_EQ(decode_tcp(sink.out.back().frame).seq, 787u);
    const TakeOver from = proxy->take_over(now);
    ASSERT_EQ(from.section.flows.size(), 1u);
    EXPECT_EQ(from.section.flows[0].wire_offset, 777u);
}

TEST_F(Secondary, R3_ClockNeverFallsBehindWhatPReleased)
{
    proxy->peer_cut(1, now);
    now = now + Duration{300'000};
    replication::ProxySection section;
    section.flows.push_back(flow(0, 40));
    proxy->applied(1, section, now);
    guest(tcp({.seq = 1, .ack = 1, .data = "x", .timestamp = {{1000, 1}}}));
    // At this moment P's guest says 1300 (wire 1340).
    EXPECT_GE(decode_tcp(sink.out.back().frame).tsval, 1340u);
    input(tcp({.from_guest = false, .seq = 1, .ack = 1, .timestamp = {{5, 2000}}}));  // P has released even 2000
    const TakeOver from = proxy->take_over(now);
    ASSERT_EQ(from.section.flows.size(), 1u);
    EXPECT_GE(1000 + from.section.flows[0].timestamp_offset, 2000u);
    ASSERT_EQ(from.replay.size(), 1u);
    EXPECT_GE(decode_tcp(from.replay[0].frame).tsval, 2000u) << "a replay with an old clock would be dropped (PAWS)";
}

TEST_F(Secondary, BufferedModeKeepsInputAndCountsTheLagUntilItRuns)
{
    proxy->peer_cut(1, now);
    proxy->set_paused(true, now);
    replication::ProxySection section;
    section.flows.push_back(flow(0, 0));
    proxy->applied(1, section, now);
    input(client_data(1, "kept"), 1);
    EXPECT_TRUE(sink.guest.empty());
    EXPECT_EQ(sink.journal, 1u);
    now = now + Duration{700'000};
    proxy->applied(1, section, now);
    proxy->set_paused(false, now);
    ASSERT_EQ(sink.guest.size(), 1u);
    const TakeOver from = proxy->take_over(now);
    EXPECT_GE(from.section.flows[0].timestamp_offset, 700u);
}

TEST_F(Secondary, R2_ReplayHoldsOnlyTheRunningEpoch)
{
    proxy->applied(1, {}, now);
    guest(tcp({.seq = 1, .data = "old"}));
    proxy->applied(2, {}, now);
    EXPECT_EQ(sink.out.back().epoch, 1u);
    guest(tcp({.seq = 10, .data = "first"}));
    guest(tcp({.seq = 15, .data = "second"}));
    guest(udp(true, 53, 1, "datagram"));
    guest(raw_ethernet(true, 0x86dd, Bytes(60)));
    EXPECT_EQ(sink.out.size(), 4u) << "what cannot be compared stays here, for the replay";
    input(client_data(1, "", 15), 2);  // the client has the first
    const TakeOver from = proxy->take_over(now);
    ASSERT_EQ(from.replay.size(), 3u);
    EXPECT_EQ(decode_tcp(from.replay[0].frame).data, "second");
}

TEST_F(Secondary, R2_ReplayIsBounded)
{
    make({.nics = {}, .replay_bytes_max = 10'000});
    proxy->applied(1, {}, now);
    for (std::uint32_t i = 0; i < 100; ++i) guest(tcp({.seq = i * 1000, .data = std::string(1000, 'x')}));
    const TakeOver from = proxy->take_over(now);
    ASSERT_LE(from.replay.size(), 10u);
    EXPECT_EQ(decode_tcp(from.replay.back().frame).seq, 99'000u) << "the newest are kept";
}

// A primary before this one told the client that the bytes are there; this one has not consumed them either, and was
// lost before its guest's input reached us again.
TEST_F(Secondary, R4_WhatTheCheckpointsGuestHasNotAcknowledgedOutlivesTheApply)
{
    proxy->applied(1, {}, now);
    input(client_data(100, "abc"), 1);
    input(client_data(103, "def"), 1);
    replication::ProxySection section;
    section.flows.push_back(flow(0));
    section.flows.back().acked_seq = 103;
    proxy->applied(2, section, now);
    const TakeOver from = proxy->take_over(now);
    ASSERT_EQ(from.reinject.size(), 1u) << "the checkpoint has the first";
    EXPECT_EQ(decode_tcp(from.reinject[0].frame).data, "def");
}

// What is given again was sent long ago. The guest has heard a later time since and would take it for an old duplicate.
TEST_F(SecondaryHarness, R4_GivenAgainWithATimeThatTheGuestBelieves)
{
    proxy->applied(1, {}, now);
    input(tcp({.from_guest = false, .seq = 100, .ack = 1, .data = "abc", .timestamp = std::pair(500u, 7u)}));
    ASSERT_EQ(sink.guest.size(), 1u);  // and lost in the ring
    guest(tcp({.seq = 1, .ack = 100, .timestamp = std::pair(9u, 900u)}));
    const auto given_again = [&] {
        sink.guest.clear();
        for (int i = 0; i < 10 && sink.guest.empty(); ++i) {
            now = std::max(now, proxy->next_deadline());
            proxy->tick(now);
        }
    };
    given_again();
    ASSERT_EQ(sink.guest.size(), 1u);
    EXPECT_EQ(decode_tcp(sink.guest[0]).data, "abc");
    EXPECT_EQ(decode_tcp(sink.guest[0]).tsval, 900u);
    EXPECT_EQ(decode_tcp(sink.guest[0]).tsecr, 7u);
    EXPECT_TRUE(checksum_valid(sink.guest[0]));
    // Not set back, and not without a time to go by.
    guest(tcp({.seq = 1, .ack = 100, .timestamp = std::pair(9u, 400u)}));
    given_again();
    ASSERT_EQ(sink.guest.size(), 1u);
    EXPECT_EQ(decode_tcp(sink.guest[0]).tsval, 500u);
}

// The same for input that waits: in buffered mode the copy stands, and nothing of it gets into a journal.
TEST_F(Secondary, R4_WaitingInputThatTheCheckpointsGuestHasNotAcknowledgedOutlivesTheApply)
{
    proxy->applied(1, {}, now);
    proxy->set_paused(true, now);
    input(client_data(100, "abc"), 1);
    input(client_data(103, "def"), 1);
    replication::ProxySection section;
    section.flows.push_back(flow(0));
    section.flows.back().acked_seq = 103;
    proxy->applied(2, section, now);
    const TakeOver from = proxy->take_over(now);
    ASSERT_EQ(from.reinject.size(), 1u) << "the checkpoint has the first";
    EXPECT_EQ(decode_tcp(from.reinject[0].frame).data, "def");
}

TEST_F(Secondary, R4_TakeOverDeliversEverythingTheClientMayThinkWeHave)
{
    proxy->applied(1, {}, now);
    input(client_data(100, "lost in the ring"), 1);
    input(client_data(116, "cut but never staged"), 2);
    const TakeOver from = proxy->take_over(now);
    ASSERT_EQ(from.reinject.size(), 2u);
    EXPECT_EQ(decode_tcp(from.reinject[0].frame).data, "lost in the ring");
    EXPECT_EQ(decode_tcp(from.reinject[1].frame).data, "cut but never staged");
}

TEST_F(Secondary, Inv30_R8_NeighboursAreAnsweredFromWhatMirroredTrafficTold)
{
    proxy->applied(1, {}, now);
    guest(arp(true, false, kGuestIp, kClientIp));
    EXPECT_TRUE(sink.guest.empty());
    input(arp(false, false, kClientIp, kGuestIp), 1);
    sink.guest.clear();
    guest(arp(true, false, kGuestIp, kClientIp));
    ASSERT_EQ(sink.guest.size(), 1u);
    const Packet answer = parse_packet(sink.guest[0]->view());
    ASSERT_EQ(answer.kind, PacketKind::arp);
    EXPECT_EQ(answer.icmp_type, 2);
    EXPECT_EQ(answer.source_ip, kClientIp);
    EXPECT_EQ(std::memcmp(answer.frame + answer.l3 + 8, kClientMac.data(), 6), 0);
    EXPECT_EQ(sink.out.size(), 2u) << "the question itself is compared with P's";
}

TEST_F(Secondary, Inv29_AFullNeighbourTableForgetsWhoWasOnlySeenThenTheOldest)
{
    constexpr std::uint32_t kNear = 0x0a4e0000, kFar = 0xc0000000, kMax = 1024;
    const auto known = [&](std::uint32_t ip) {
        sink.guest.clear();
        guest(arp(true, false, kGuestIp, ip));
        return sink.guest.size() == 1;
    };
    proxy->applied(1, {}, now);
    for (std::uint32_t i = 0; i < kMax; ++i) input(udp(false, 53, 5353, "x", 1, 64, kFar + i));
    EXPECT_TRUE(known(kFar) && known(kFar + kMax - 1));
    input(udp(false, 53, 5353, "x", 1, 64, kFar + kMax));
    EXPECT_FALSE(known(kFar + kMax)) << "one that was only seen makes nobody leave";
    input(arp(false, false, kNear, kGuestIp));
    EXPECT_TRUE(known(kNear));
    EXPECT_FALSE(known(kFar)) << "the oldest";
    EXPECT_TRUE(known(kFar + 1));
    for (std::uint32_t i = 1; i < kMax; ++i) input(arp(false, false, kNear + i, kGuestIp));
    EXPECT_TRUE(known(kNear)) << "an older one that named itself";
    EXPECT_FALSE(known(kFar + kMax - 1));
    input(arp(false, false, kNear + 1, kGuestIp));  // names itself again
    input(arp(false, false, kNear + kMax, kGuestIp));
    input(arp(false, false, kNear + kMax + 1, kGuestIp));
    EXPECT_FALSE(known(kNear));
    EXPECT_TRUE(known(kNear + 1));
    EXPECT_FALSE(known(kNear + 2));
}

TEST_F(Secondary, R5_InputBetweenSealAndApplyIsJournalledAndNotDelivered)
{
    proxy->applied(1, {}, now);
    input(client_data(100, "abc"), 1);
    sink.guest.clear();
    proxy->seal(now);
    input(client_data(103, "late"), 1);
    input(client_data(107, "next"), 2);
    now = now + Duration{500'000};
    proxy->tick(now);
    EXPECT_TRUE(sink.guest.empty());
    EXPECT_EQ(sink.journal, 3u);
    proxy->applied(2, {}, now);
    ASSERT_EQ(sink.guest.size(), 1u) << "the checkpoint contains the others";
    EXPECT_EQ(decode_tcp(sink.guest[0]).data, "next");
}

}  // namespace
}  // namespace colo::proxy::test
