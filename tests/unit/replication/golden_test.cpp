// SPDX-License-Identifier: Apache-2.0
// The bytes themselves. Who makes one of these fail has changed the wire format: see "Versions" in docs/protocol.md.
#include "replication/beat.h"
#include "replication/chunk.h"
#include "replication/wire.h"

#include <gtest/gtest.h>

namespace colo::replication {
namespace {

std::string hex(ByteView bytes)
{
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string text;
    for (const std::uint8_t b : bytes) {
        text += kDigits[b >> 4];
        text += kDigits[b & 15];
    }
    return text;
}

constexpr SessionId kSession = 0x1122334455667788;

TEST(WireGolden, ControlFrame)
{
    Bytes out;
    ASSERT_TRUE(FrameWriter(ChannelKind::control, kSession).append_message(out, Begin{5, 4, Mode::buffered}));
    EXPECT_EQ(hex(out),
              "434f4c4f" "0100" "01" "04" "11000000" "a56f58b4" "8877665544332211" "0500000000000000" "0000000000000000"
              "0500000000000000" "0400000000000000" "02");
    out.clear();
    ASSERT_TRUE(FrameWriter(ChannelKind::control, kSession).append_message(out, Begin{1, 0, Mode::migration}));
    EXPECT_EQ(hex(out),
              "434f4c4f" "0100" "01" "04" "11000000" "55f38b8f" "8877665544332211" "0100000000000000" "0000000000000000"
              "0100000000000000" "0000000000000000" "03");
}

TEST(WireGolden, ProxyChannel)
{
    FrameWriter writer(ChannelKind::proxy, kSession);
    Bytes out;
    writer.append_channel_hello(out, 0);
    EXPECT_EQ(hex(out),
              "434f4c4f" "0100" "03" "20" "01000000" "289c4374" "8877665544332211" "0000000000000000" "0000000000000000"
              "00");
    out.clear();
    writer.append_input(out, 1, 6, 7, Bytes{1, 2, 3});
    EXPECT_EQ(hex(out),
              "434f4c4f" "0100" "03" "30" "0c000000" "89e9f750" "8877665544332211" "0600000000000000" "0000000000000000"
              "0700000000000000" "01" "010203");
}

TEST(WireGolden, Heartbeat)
{
    Beat b;
    b.domain = *parse_domain_id("01234567-89ab-cdef-0123-456789abcdef");
    b.session = 1;
    b.generation = 2;
    b.role = BeatRole::secondary;
    b.flags = beat_flag::kAnswer;
    b.epoch = 3;
    b.number = 4;
    b.sent_at_us = 5;
    b.echo_number = 6;
    b.echo_sent_at_us = 7;
    b.progress = {8, 9, 10};
    EXPECT_EQ(hex(encode(b)),
              "434f4c42" "0100" "02" "10" "99b12ff5" "00000000" "0123456789abcdef0123456789abcdef"
              "0100000000000000" "0200000000000000" "0300000000000000" "0400000000000000" "0500000000000000"
              "0600000000000000" "0700000000000000" "0800000000000000" "0900000000000000" "0a00000000000000"
              "00000000000000000000000000000000");
}

TEST(WireGolden, PageChunk)
{
    Bytes chunk(kChunkHeaderSize + 2 * kRecordHeaderSize);
    store_chunk_header(chunk.data(), {9, 8, 3, 2, 24, Compression::none});
    store_record_header(chunk.data() + 32, 1, PageKind::zero, 0);
    store_record_header(chunk.data() + 44, 2, PageKind::unchanged, 0);
    EXPECT_EQ(hex(chunk),
              "0900000000000000" "0800000000000000" "03000000" "02000000" "18000000" "01" "000000"
              "0100000000000000" "0000" "01" "00" "0200000000000000" "0000" "02" "00");
    EXPECT_EQ(zero_page_hash(), 0x93d76fe148c689bau);
    EXPECT_EQ(record_digest(7, 3, zero_page_hash()), 0x0e5e760096584c5fu);
}

}  // namespace
}  // namespace colo::replication
