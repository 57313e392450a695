// SPDX-License-Identifier: Apache-2.0
#include "frames.h"

#include <gtest/gtest.h>

#include <cstring>

namespace colo::proxy::test {
namespace {

TEST(Packet, ReadsTcpWithItsOptions)
{
    const auto frame = tcp({.seq = 0xfffffff0,
                            .ack = 7,
                            .flags = kTcpSyn | kTcpAck,
                            .timestamp = {{100, 200}},
                            .mss = 1460,
                            .window_scale = 7,
                            .sack_permitted = true});
    const Packet packet = parse_packet(frame->view());
    ASSERT_EQ(packet.kind, PacketKind::tcp);
    EXPECT_EQ(packet.seq, 0xfffffff0u);
    EXPECT_EQ(packet.ack, 7u);
    EXPECT_TRUE(packet.has(kTcpSyn));
    EXPECT_EQ(packet.options.mss, 1460);
    EXPECT_EQ(packet.options.window_scale, 7);
    EXPECT_TRUE(packet.options.sack_permitted);
    EXPECT_EQ(packet.options.tsval, 100u);
    EXPECT_EQ(packet.options.tsecr, 200u);
    EXPECT_EQ(packet.sequence_size(), 1u);
}

TEST(Packet, Inv28_PaddingIsNotPayload)
{
    const auto frame = padded(tcp({.seq = 1}), 60);
    const Packet packet = parse_packet(frame->view());
    ASSERT_EQ(packet.kind, PacketKind::tcp);
    EXPECT_EQ(packet.payload_size(), 0u);
}

TEST(Packet, Inv28_WhatCannotBeComparedSaysWhy)
{
    EXPECT_EQ(parse_packet(raw_ethernet(true, 0x86dd, Bytes(60))->view()).cause, OpaqueCause::ipv6);
    EXPECT_EQ(parse_packet(raw_ethernet(true, 0x8100, Bytes(60))->view()).cause, OpaqueCause::vlan);
    EXPECT_EQ(parse_packet(raw_ethernet(true, 0x88cc, Bytes(60))->view()).cause, OpaqueCause::other_ethernet);
    EXPECT_EQ(parse_packet(raw_ethernet(true, 0x0800, Bytes(3))->view()).cause, OpaqueCause::malformed);
    Bytes fragment = tcp({.data = "x"})->bytes;
    fragment[kVnetHeaderSize + 14 + 6] = 0x20;  // more fragments
    EXPECT_EQ(parse_packet(fragment).cause, OpaqueCause::fragment);
}

TEST(Packet, Inv27_RewritingKeepsChecksumRight)
{
    Random random(1);
    for (int i = 0; i < 500; ++i) {
        Segment segment;
        segment.seq = random();
        segment.ack = random();
        segment.data = std::string(random() % 50, 'a');
        if (i % 2 == 0) segment.timestamp = {{random(), random()}};
        if (i % 3 == 0) segment.sack = {random(), random()};
        const auto frame = tcp(segment);
        ASSERT_TRUE(checksum_valid(frame));
        const TcpRewrite rewrite{random(), random(), random(), random()};
        const auto changed = rewritten(frame, parse_packet(frame->view()), rewrite);
        ASSERT_TRUE(checksum_valid(changed)) << i;
        const Decoded decoded = decode_tcp(changed);
        EXPECT_EQ(decoded.seq, segment.seq + rewrite.seq_add);
        EXPECT_EQ(decoded.ack, segment.ack + rewrite.ack_add);
        if (segment.timestamp) {
            EXPECT_EQ(decoded.tsval, segment.timestamp->first + rewrite.tsval_add);
            EXPECT_EQ(decoded.tsecr, segment.timestamp->second + rewrite.tsecr_add);
        }
        for (std::size_t k = 0; k < segment.sack.size(); ++k)
            EXPECT_EQ(decoded.sack[k], segment.sack[k] + rewrite.ack_add);
        EXPECT_EQ(decoded.data, segment.data);
    }
}

TEST(Packet, Inv27_OddPlacedTimestampKeepsChecksumRight)
{
    // One NOP before the timestamp option puts its fields on odd places.
    Bytes bytes = tcp({.seq = 5, .ack = 6, .data = "abc", .timestamp = {{0x01020304, 0x05060708}}})->bytes;
    const Packet before = parse_packet(bytes);
    std::uint8_t* options = bytes.data() + before.l4 + 20;
    ASSERT_EQ(before.payload - before.l4, 32u);
    std::array<std::uint8_t, 12> moved{1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 0};
    std::memcpy(options, moved.data(), moved.size());
    std::uint8_t* checksum = bytes.data() + before.l4 + 16;
    checksum[0] = checksum[1] = 0;
    std::uint64_t sum = 6 + (before.end - before.l4);
    sum = checksum_add(sum, {bytes.data() + before.l3 + 12, 8});
    sum = checksum_add(sum, {bytes.data() + before.l4, before.end - before.l4});
    store_be16(checksum, checksum_fold(sum));
    const auto frame = make_frame(bytes);
    ASSERT_TRUE(checksum_valid(frame));
    const auto changed = rewritten(frame, parse_packet(frame->view()), {1000, 77, 0xfedcba98, 0x1234567});
    EXPECT_TRUE(checksum_valid(changed));
    EXPECT_EQ(decode_tcp(changed).tsval, 0x01020304 + 0xfedcba98u);
}

TEST(Packet, Inv27_PartialChecksumCoversOnlyThePseudoHeader)
{
    const auto frame = with_partial_checksum(tcp({.seq = 1, .ack = 2, .data = "hello"}));
    auto changed = rewritten(frame, parse_packet(frame->view()), {500, 600, 0, 0});
    Bytes finished = changed->bytes;
    finish_checksum(finished);
    EXPECT_EQ(finished[0] & kVnetNeedsChecksum, 0);
    EXPECT_TRUE(checksum_valid(make_frame(finished)));
    Bytes datagram = with_partial_checksum(udp(true, 53, 5353, "question"))->bytes;
    finish_checksum(datagram);
    EXPECT_TRUE(checksum_valid(make_frame(datagram)));
}

// Seeded mutation: whatever the bytes, the parser stays inside them and its offsets are ordered.
TEST(Packet, MutatedFramesNeverLeaveTheBuffer)
{
    Random random(42);
    const std::vector<FramePtr> corpus{
        tcp({.seq = 1, .ack = 2, .data = "payload", .timestamp = {{1, 2}}, .sack = {1, 2, 3, 4}}),
        tcp({.flags = kTcpSyn, .mss = 1460, .window_scale = 7, .sack_permitted = true}), udp(true, 1, 2, "datagram"),
        icmp_echo(true, true, 1, 2), arp(true, false, kGuestIp, kClientIp)};
    for (int i = 0; i < 200000; ++i) {
        Bytes bytes = corpus[random() % corpus.size()]->bytes;
        const unsigned changes = 1 + random() % 6;
        for (unsigned k = 0; k < changes; ++k) bytes[random() % bytes.size()] = static_cast<std::uint8_t>(random());
        if (random() % 3 == 0) bytes.resize(random() % (bytes.size() + 1));
        bytes.shrink_to_fit();
        const Packet packet = parse_packet(bytes);
        if (packet.kind == PacketKind::opaque) continue;
        ASSERT_LE(packet.l4, packet.payload);
        ASSERT_LE(packet.payload, packet.end);
        ASSERT_LE(packet.end, bytes.size());
        if (packet.kind != PacketKind::tcp) continue;
        ASSERT_LE(packet.options.sack_at + packet.options.sack_blocks * 8u, packet.payload);
        ASSERT_LE(packet.options.has_timestamp() ? packet.options.timestamp_at + 8u : 0u, packet.payload);
        rewrite_tcp(bytes, packet, {1, 2, 3, 4});
        finish_checksum(bytes);
    }
}

TEST(Packet, ABadOptionEndsTheListAndNotTheSegment)
{
    Bytes bytes = tcp({.seq = 7, .data = "abc", .timestamp = {{100, 200}}, .mss = 1460})->bytes;
    const std::size_t options = parse_packet(bytes).l4 + 20;
    bytes[options + 1] = 1;  // a length below its own header
    const Packet packet = parse_packet(bytes);
    EXPECT_EQ(packet.kind, PacketKind::tcp);
    EXPECT_EQ(packet.seq, 7u);
    EXPECT_EQ(packet.payload_size(), 3u);
    EXPECT_FALSE(packet.options.has_timestamp());
}

}  // namespace
}  // namespace colo::proxy::test
