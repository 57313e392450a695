// SPDX-License-Identifier: Apache-2.0
#include "replication/beat.h"

#include "core/crc32c.h"
#include "replication/byte_io.h"

#include <gtest/gtest.h>

namespace colo::replication {
namespace {

constexpr const char* kUuid = "01234567-89ab-cdef-0123-456789abcdef";

Beat sample()
{
    Beat beat;
    beat.domain = *parse_domain_id(kUuid);
    beat.session = 0x1111;
    beat.generation = 0x2222;
    beat.role = BeatRole::secondary;
    beat.flags = beat_flag::kClosed | beat_flag::kAnswer;
    beat.epoch = 0x3333;
    beat.number = 0x4444;
    beat.sent_at_us = 0x5555;
    beat.echo_number = 0x6666;
    beat.echo_sent_at_us = -0x7777;
    beat.progress = {1, 2, 3};
    return beat;
}

// As a newer or hostile peer would make it: any change, with a valid checksum.
template <class Change>
BeatBytes forged(Change&& change)
{
    BeatBytes bytes = encode(sample());
    change(bytes);
    store_le(bytes.data() + 8, std::uint32_t{0});
    store_le(bytes.data() + 8, crc32c(bytes));
    return bytes;
}

TEST(Beat, RoundTrip)
{
    const auto back = decode_beat(encode(sample()));
    ASSERT_TRUE(back) << back.error().text;
    EXPECT_EQ(*back, sample());
}

TEST(Beat, EveryFlippedBitAndEveryOtherSizeIsRefused)
{
    const BeatBytes bytes = encode(sample());
    for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
        BeatBytes flipped = bytes;
        flipped[bit / 8] ^= static_cast<std::uint8_t>(1 << (bit % 8));
        EXPECT_FALSE(decode_beat(flipped)) << "bit " << bit;
    }
    for (std::size_t n = 0; n < bytes.size(); ++n) EXPECT_FALSE(decode_beat(ByteView(bytes).first(n)));
    Bytes longer(bytes.begin(), bytes.end());
    longer.push_back(0);
    EXPECT_FALSE(decode_beat(longer));
}

TEST(Beat, FieldsAreCheckedBehindAValidChecksum)
{
    EXPECT_TRUE(decode_beat(forged([](BeatBytes&) {})));
    EXPECT_FALSE(decode_beat(forged([](BeatBytes& b) { b[6] = 0; })));
    EXPECT_FALSE(decode_beat(forged([](BeatBytes& b) { b[6] = 4; })));
    EXPECT_FALSE(decode_beat(forged([](BeatBytes& b) { b[7] = 0x80; })));
    EXPECT_FALSE(decode_beat(forged([](BeatBytes& b) { b[13] = 1; })));
    EXPECT_FALSE(decode_beat(forged([](BeatBytes& b) { b[127] = 1; })));
    const auto newer = decode_beat(forged([](BeatBytes& b) { b[4] = 2; }));
    ASSERT_FALSE(newer);
    EXPECT_EQ(newer.error().code, Errc::unsupported);
}

TEST(DomainId, ParsesAndPrints)
{
    EXPECT_EQ(to_string(*parse_domain_id(kUuid)), kUuid);
    EXPECT_EQ(to_string(*parse_domain_id("01234567-89AB-CDEF-0123-456789ABCDEF")), kUuid);
    for (const char* bad : {"", "01234567-89ab-cdef-0123-456789abcde", "01234567-89ab-cdef-0123-456789abcdefa",
                            "0123456789ab-cdef-0123-456789abcdef-", "01234567-89ab-cdef-0123-456789abcdeg",
                            "01234567 89ab-cdef-0123-456789abcdef"})
        EXPECT_FALSE(parse_domain_id(bad)) << bad;
}

}  // namespace
}  // namespace colo::replication
