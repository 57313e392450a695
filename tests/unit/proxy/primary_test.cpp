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

TEST_F(Primary, UnprotectedOutputFlowsWithItsReason)
{
    guest(data(1, "hello"));
    ASSERT_EQ(released(), 1u);
    EXPECT_EQ(last_reason(), ReleaseReason::Kind::unprotected);
    client(tcp({.from_guest = false, .data = "q"}));
    EXPECT_EQ(sink.guest.size(), 1u);
    EXPECT_TRUE(sink.mirrored.empty());
}

TEST_F(Primary, StartsSilentUntilOutputIsSet)
{
    proxy = make_primary_proxy(ProxyOptions{.nics = {kGuestMac}}, sink);
    guest(data(1, "hello"));
    EXPECT_EQ(released(), 0u);
    proxy->set_output(PrimaryProxy::Output::flow, 3, now);
    ASSERT_EQ(released(), 1u);
    EXPECT_EQ(sink.wire[0].reason.epoch(), 3u);
}

TEST_F(Primary, Inv01_DataWaitsForTheSameBytesOfTheSecondary)
{
    protect();
    guest(data(1, "hello world"));
    EXPECT_EQ(released(), 0u);
    peer(data(1, "hello"));
    EXPECT_EQ(released(), 0u) << "a frame that is verified in part waits";
    peer(data(6, " world"));
    ASSERT_EQ(released(), 1u);
    EXPECT_EQ(last_reason(), ReleaseReason::Kind::matched);
    EXPECT_TRUE(sink.triggers.empty());
}

TEST_F(Primary, SecondaryMayBeFirst)
{
    protect();
    peer(data(1, "hello "));
    peer(data(7, "world"));
    guest(data(1, "hello"));
    EXPECT_EQ(released(), 1u);
    guest(data(6, " world"));
    EXPECT_EQ(released(), 2u);
}

TEST_F(Primary, Inv01_DifferentByteTriggersAtOnceAndNothingLeaves)
{
    protect();
    guest(data(1, "hello"));
    peer(data(1, "hellO"));
    EXPECT_EQ(released(), 0u);
    ASSERT_EQ(sink.triggers.size(), 1u);
    EXPECT_EQ(sink.triggers[0], TriggerReason::mismatch);
    guest(data(6, "more"));
    peer(data(6, "more"));
    EXPECT_EQ(released(), 0u);
    proxy->seal(2, {}, now);
    EXPECT_EQ(released(), 0u);
    proxy->staged(2, now);
    EXPECT_EQ(released(), 2u);
    EXPECT_EQ(last_reason(), ReleaseReason::Kind::staged);
}

TEST_F(Primary, Inv14_MismatchesOfOneEpochCauseOneTrigger)
{
    protect();
    for (std::uint16_t port = 1; port <= 20; ++port) {
        guest(tcp({.peer_port = port, .seq = 1, .data = "a"}));
        peer(tcp({.peer_port = port, .seq = 1, .data = "b"}));
    }
    EXPECT_EQ(sink.triggers.size(), 1u);
    checkpoint(2);
    EXPECT_EQ(released(), 20u);
    guest(tcp({.peer_port = 5, .seq = 2, .data = "a"}));
    peer(tcp({.peer_port = 5, .seq = 2, .data = "b"}), 2);
    EXPECT_EQ(sink.triggers.size(), 2u);
}

TEST_F(Primary, Inv02_ReleaseKeepsTheOrderOfAFlow)
{
    protect();
    guest(data(1, "aa"));
    guest(data(3, "bb"));
    guest(data(5, "cc"));
    peer(data(3, "bb"));
    peer(data(5, "cc"));
    EXPECT_EQ(released(), 0u);
    peer(data(1, "aa"));
    ASSERT_EQ(released(), 3u);
    EXPECT_EQ(decode_tcp(sink.wire[0].frame).seq, 1u);
    EXPECT_EQ(decode_tcp(sink.wire[1].frame).seq, 3u);
    EXPECT_EQ(decode_tcp(sink.wire[2].frame).seq, 5u);
}

TEST_F(Primary, RetransmissionOfOwnedBytesLeavesAtOnce)
{
    protect();
    guest(data(1, "hello"));
    peer(data(1, "hello"));
    guest(data(6, "waits"));
    guest(data(1, "hello"));
    ASSERT_EQ(released(), 2u);
    EXPECT_EQ(decode_tcp(sink.wire[1].frame).seq, 1u);
    // Bytes that a checkpoint contains are S's as well.
    checkpoint(2);
    EXPECT_EQ(released(), 3u);
    guest(data(6, "waits"));
    EXPECT_EQ(released(), 4u);
}

TEST_F(Primary, Inv01_ARepeatedByteThatDiffersNeverLeavesByTheFirstOnesMatch)
{
    protect();
    guest(data(1, "hello"));
    guest(data(1, "hellX"));
    peer(data(1, "hello"));
    for (const auto& out : sink.wire) EXPECT_EQ(decode_tcp(out.frame).data, "hello");
    EXPECT_EQ(sink.triggers.size(), 1u);
}

TEST_F(Primary, Inv26_WrapOfSequenceNumbersAndSequenceZero)
{
    protect();
    const std::uint32_t start = 0xfffffff0u;
    std::string text(64, 'x');
    for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i % 26);
    for (std::uint32_t i = 0; i < 64; i += 16) guest(data(start + i, text.substr(i, 16)));
    for (std::uint32_t i = 0; i < 64; i += 8) peer(data(start + i, text.substr(i, 8)));
    EXPECT_EQ(released(), 4u);
    EXPECT_EQ(decode_tcp(sink.wire[1].frame).seq, 0u);
}

TEST_F(Primary, Inv26_FirstSegmentsOnBothSidesOfZero)
{
    protect();
    peer(data(0xfffffffeu, "abcd"));
    guest(data(0, "cd"));
    EXPECT_EQ(released(), 1u);
}

TEST_F(Primary, R4_AckWaitsForTheJournalOrTheSecondarysGuest)
{
    protect();
    client(tcp({.from_guest = false, .seq = 1000, .data = std::string(100, 'q')}));
    guest(pure_ack(1, 1100));
    EXPECT_EQ(released(), 0u) << "mirrored is not journalled";
    journalled();
    EXPECT_EQ(released(), 1u);
    client(tcp({.from_guest = false, .seq = 1100, .data = std::string(100, 'q')}));
    guest(pure_ack(1, 1200));
    EXPECT_EQ(released(), 1u);
    peer(pure_ack(1, 1200));
    EXPECT_EQ(released(), 2u);
}

TEST_F(Primary, R4_HoleInTheJournalHoldsTheAck)
{
    protect();
    client(tcp({.from_guest = false, .seq = 1100, .data = std::string(100, 'b')}));  // out of order
    client(tcp({.from_guest = false, .seq = 1000, .data = std::string(100, 'a')}));
    guest(pure_ack(1, 1200));
    proxy->peer_journalled(1, 1, now);  // only the later bytes
    EXPECT_EQ(released(), 0u);
    proxy->peer_journalled(1, 2, now);
    EXPECT_EQ(released(), 1u);
}

TEST_F(Primary, R4_PiggybackedAckHoldsTheData)
{
    protect();
    client(tcp({.from_guest = false, .seq = 1000, .data = "question"}));
    guest(data(1, "answer", 1008));
    peer(data(1, "answer", 1000));
    EXPECT_EQ(released(), 0u);
    journalled();
    EXPECT_EQ(released(), 1u);
}

TEST_F(Primary, R4_AckWrap)
{
    protect();
    client(tcp({.from_guest = false, .seq = 0xffffffc0u, .data = std::string(100, 'q')}));
    guest(pure_ack(1, 36));
    EXPECT_EQ(released(), 0u);
    peer(pure_ack(1, 0xffffffd0u));
    EXPECT_EQ(released(), 0u);
    peer(pure_ack(1, 36));
    EXPECT_EQ(released(), 1u);
}

TEST_F(Primary, Inv26_HandshakeComparesWhatMatters)
{
    protect();
    client(tcp({.from_guest = false, .seq = 500, .flags = kTcpSyn, .mss = 1460}));
    journalled();
    const auto syn_ack = [](std::uint32_t isn, std::uint32_t tsval, std::uint8_t scale) {
        return tcp({.seq = isn,
                    .ack = 501,
                    .flags = kTcpSyn | kTcpAck,
                    .timestamp = {{tsval, 1}},
                    .mss = 1460,
                    .window_scale = scale,
                    .sack_permitted = true});
    };
    guest(syn_ack(11111, 5, 7));
    EXPECT_EQ(released(), 0u);
    peer(syn_ack(99999, 777, 7));
    ASSERT_EQ(released(), 1u) << sink.triggers.size();
    guest(data(11112, "banner", 501));
    peer(data(11112, "banner", 501));
    EXPECT_EQ(released(), 2u);
    // A repeated SYN-ACK of S must not match the next connection on the same ports.
    peer(syn_ack(99999, 800, 7));
    client(tcp({.from_guest = false, .seq = 900000, .flags = kTcpSyn, .mss = 1460}));
    journalled();
    guest(tcp({.seq = 5'000'000,
               .ack = 900001,
               .flags = kTcpSyn | kTcpAck,
               .timestamp = {{6, 1}},
               .mss = 1460,
               .window_scale = 7,
               .sack_permitted = true}));
    EXPECT_EQ(released(), 2u);
}

TEST_F(Primary, Inv26_DifferentWindowScaleIsAMismatch)
{
    protect();
    guest(tcp({.seq = 1, .ack = 0, .flags = kTcpSyn, .mss = 1460, .window_scale = 7}));
    peer(tcp({.seq = 9, .ack = 0, .flags = kTcpSyn, .mss = 1460, .window_scale = 8}));
    EXPECT_EQ(released(), 0u);
    EXPECT_EQ(sink.triggers.size(), 1u);
}

TEST_F(Primary, Inv26_FinMatchesOrDiffers)
{
    protect();
    guest(tcp({.seq = 1, .ack = 1, .flags = kTcpAck | kTcpFin, .data = "bye"}));
    peer(data(1, "bye", 1));
    EXPECT_EQ(released(), 0u) << "S has not closed";
    peer(tcp({.seq = 4, .ack = 1, .flags = kTcpAck | kTcpFin}));
    EXPECT_EQ(released(), 1u);
    guest(tcp({.peer_port = 2, .seq = 1, .ack = 1, .flags = kTcpAck | kTcpFin}));
    peer(tcp({.peer_port = 2, .seq = 1, .ack = 1, .data = "more"}));
    EXPECT_EQ(sink.triggers.size(), 1u);
}

TEST_F(Primary, Inv26_ResetWaitsForTheSecondarysReset)
{
    protect();
    guest(tcp({.seq = 50, .ack = 0, .flags = kTcpRst}));
    EXPECT_EQ(released(), 0u);
    peer(tcp({.seq = 51, .ack = 0, .flags = kTcpRst}));
    EXPECT_EQ(released(), 0u);
    peer(tcp({.seq = 50, .ack = 0, .flags = kTcpRst}));
    EXPECT_EQ(released(), 1u);
    guest(tcp({.peer_port = 3, .seq = 60, .ack = 0, .flags = kTcpRst}));
    EXPECT_EQ(released(), 1u);
    checkpoint(2);
    EXPECT_EQ(released(), 2u);
}

TEST_F(Primary, Inv26_KeepAliveAndWindowProbeLeave)
{
    protect();
    guest(data(1, "hello", 1));
    peer(data(1, "hello", 1));
    guest(tcp({.seq = 5, .ack = 1}));               // keep-alive
    guest(tcp({.seq = 5, .ack = 1, .data = "o"}));  // one-byte probe of the last byte
    guest(tcp({.seq = 6, .ack = 1, .window = 0}));  // zero window
    EXPECT_EQ(released(), 4u);
}

TEST_F(Primary, LateOutputTriggersAfterTheDeadlineOnce)
{
    protect();
    guest(data(1, "hello"));
    pass(Duration{19'000});
    EXPECT_TRUE(sink.triggers.empty());
    pass(Duration{2'000});
    ASSERT_EQ(sink.triggers.size(), 1u);
    EXPECT_EQ(sink.triggers[0], TriggerReason::late_output);
    pass(Duration{500'000});
    EXPECT_EQ(sink.triggers.size(), 1u);
    EXPECT_EQ(proxy->stats().late, 1u);
    pass(Duration{600'000});
    EXPECT_EQ(sink.triggers.size(), 2u) << "nobody has cut for a second";
}

TEST_F(Primary, DeadlineAdaptsToASlowSecondary)
{
    protect();
    std::uint32_t seq = 1;
    std::size_t early = 0;
    Epoch epoch = 1;
    for (int i = 0; i < 60; ++i) {
        guest(data(seq, "x"));
        const std::size_t before = sink.triggers.size();
        pass(Duration{50'000});
        if (i >= 40) early += sink.triggers.size() - before;
        peer(data(seq, "x"), epoch);
        ++seq;
        if (sink.triggers.size() != before) checkpoint(++epoch);
    }
    EXPECT_EQ(early, 0u) << "after some answers that took 50 ms, 50 ms is not late";
    guest(data(seq, "x"));
    pass(Duration{201'000});
    EXPECT_EQ(sink.triggers.back(), TriggerReason::late_output) << "never beyond the upper bound";
}

TEST_F(Primary, R8_NoComparisonIsHeldAndTriggers)
{
    protect();
    guest(raw_ethernet(true, 0x86dd, Bytes(60)));
    guest(raw_ethernet(true, 0x8100, Bytes(60)));
    pass(Duration{25'000});
    ASSERT_EQ(sink.triggers.size(), 1u);
    EXPECT_EQ(sink.triggers[0], TriggerReason::no_comparison);
    EXPECT_EQ(released(), 0u);
    checkpoint(2);
    ASSERT_EQ(released(), 2u);
    EXPECT_EQ(last_reason(), ReleaseReason::Kind::staged);
}

TEST_F(Primary, DatagramsCompareByContentInAnyOrder)
{
    protect();
    guest(udp(true, 53, 1000, "one", 1, 64));
    guest(udp(true, 53, 1000, "two", 2, 64));
    peer(udp(true, 53, 1000, "two", 77, 63));
    EXPECT_EQ(released(), 0u) << "order of P's flow is kept";
    peer(udp(true, 53, 1000, "one", 78, 63));
    EXPECT_EQ(released(), 2u);
    peer(icmp_echo(true, true, 5, 1, 63));
    guest(icmp_echo(true, true, 5, 1, 64));
    EXPECT_EQ(released(), 3u);
    guest(arp(true, true, kGuestIp, kClientIp));
    peer(padded(arp(true, true, kGuestIp, kClientIp), 60));
    EXPECT_EQ(released(), 4u);
    EXPECT_TRUE(sink.triggers.empty());
}

TEST_F(Primary, DifferentDatagramTriggersSoonButNotBeforeReorderingHadAChance)
{
    protect();
    guest(udp(true, 53, 1000, "one"));
    peer(udp(true, 53, 1000, "two"));
    EXPECT_TRUE(sink.triggers.empty());
    pass(Duration{6'000});
    ASSERT_EQ(sink.triggers.size(), 1u);
    EXPECT_EQ(sink.triggers[0], TriggerReason::mismatch);
    EXPECT_EQ(released(), 0u);
}

TEST_F(Primary, Inv16_NothingLeavesWithoutALease)
{
    protect();
    proxy->set_lease(now + Duration{1000}, now);
    guest(data(1, "a"));
    now = now + Duration{1000};
    peer(data(1, "a"));
    EXPECT_EQ(released(), 0u);
    proxy->tick(now);
    EXPECT_EQ(released(), 0u);
    proxy->set_lease(now + Duration{1000}, now);
    EXPECT_EQ(released(), 1u);
    proxy->set_lease(now, now);
    guest(udp(true, 53, 1, "x"));
    checkpoint(2);
    EXPECT_EQ(released(), 1u);
    proxy->set_lease(kNever, now);
    EXPECT_EQ(released(), 2u);
}

TEST_F(Primary, BufferedModeHoldsAndAsksForACheckpointAtOnce)
{
    protect();
    proxy->set_mode(replication::Mode::buffered, now);
    guest(data(1, "x"));
    ASSERT_EQ(sink.triggers.size(), 1u);
    EXPECT_EQ(sink.triggers[0], TriggerReason::buffered_output);
    peer(data(1, "x"));
    EXPECT_EQ(released(), 0u);
    proxy->seal(2, {}, now);
    guest(data(2, "y"));
    EXPECT_EQ(sink.triggers.size(), 1u);
    proxy->staged(2, now);
    EXPECT_EQ(released(), 1u);
    proxy->applied(2, now);
    EXPECT_EQ(sink.triggers.size(), 2u) << "output is waiting already";
    guest(data(1, "x"));
    EXPECT_EQ(released(), 2u) << "a retransmission of contained bytes leaves at once";
    proxy->set_mode(replication::Mode::lock_step, now);
    peer(data(2, "y"), 2);
    EXPECT_EQ(released(), 3u) << "back in lock-step, what waited is compared";
}

TEST_F(Primary, HoldKeepsAndFrozenDrops)
{
    protect();
    proxy->end_session(now);
    proxy->set_output(PrimaryProxy::Output::hold, 1, now);
    guest(data(1, "x"));
    EXPECT_EQ(released(), 0u);
    proxy->set_output(PrimaryProxy::Output::flow, 2, now);
    ASSERT_EQ(released(), 1u);
    EXPECT_EQ(last_reason(), ReleaseReason::Kind::unprotected);
    EXPECT_EQ(sink.wire.back().reason.epoch(), 2u);
    proxy->set_output(PrimaryProxy::Output::hold, 2, now);
    guest(data(2, "y"));
    proxy->set_output(PrimaryProxy::Output::frozen, 3, now);
    guest(data(3, "z"));
    client(tcp({.from_guest = false, .data = "q"}));
    proxy->set_output(PrimaryProxy::Output::flow, 3, now);
    EXPECT_EQ(released(), 1u);
    EXPECT_EQ(proxy->stats().held_frames, 0u);
}

TEST_F(Primary, EndedSessionMatchesNothing)
{
    protect();
    guest(data(1, "x"));
    proxy->end_session(now);
    peer(data(1, "x"));
    proxy->staged(2, now);
    journalled();
    EXPECT_EQ(released(), 0u);
}

TEST_F(Primary, SectionCarriesTheFlowsOfTheCut)
{
    for (std::uint16_t port = 1; port <= 300; ++port)
        guest(tcp({.peer_port = port, .seq = 10, .ack = 20, .data = "x", .timestamp = {{1234, 1}}}));
    protect();  // with connections that were open before
    const auto section = proxy->seal(2, {}, now);
    ASSERT_EQ(section.flows.size(), 300u);
    EXPECT_EQ(section.flows[0].covered_seq, 11u);
    EXPECT_EQ(section.flows[0].acked_seq, 20u);
    EXPECT_EQ(section.flows[0].highest_timestamp, 1234u);
    EXPECT_EQ(section.flows[0].flags & 1, 1);
    for (std::uint16_t port = 1; port <= 300; ++port)
        guest(tcp({.peer_port = port, .seq = 10, .ack = 20, .data = "x", .timestamp = {{1234, 1}}}));
    EXPECT_EQ(released(), 300u) << "retransmissions of what left before protection began";
}

TEST_F(Primary, OwnMacFromOutsideIsReportedOncePerSecondAndDropped)
{
    for (int i = 0; i < 5; ++i) client(data(1, "old primary"));
    EXPECT_EQ(sink.own_mac, 1);
    EXPECT_TRUE(sink.guest.empty());
    now = now + std::chrono::seconds(2);
    client(data(1, "old primary"));
    EXPECT_EQ(sink.own_mac, 2);
}

TEST_F(Primary, Inv30_AnnouncementsCarryEveryAddress)
{
    guest(arp(true, false, kGuestIp, kClientIp));
    const auto frames = proxy->announcements(0);
    ASSERT_EQ(frames.size(), 2u);
    EXPECT_EQ(frames[0]->bytes.size(), kVnetHeaderSize + 60);
    EXPECT_EQ(load_be16(frames[0]->bytes.data() + kVnetHeaderSize + 12), 0x8035);
    const Packet gratuitous = parse_packet(frames[1]->view());
    EXPECT_EQ(gratuitous.kind, PacketKind::arp);
    EXPECT_EQ(gratuitous.source_ip, kGuestIp);
    EXPECT_EQ(gratuitous.target_ip, kGuestIp);
}

}  // namespace
}  // namespace colo::proxy::test
