// SPDX-License-Identifier: Apache-2.0
#include "core/crc32c.h"

#include <gtest/gtest.h>

#include <random>
#include <string_view>

namespace colo {
namespace {

std::uint32_t of(std::string_view text) { return crc32c({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()}); }

// The definition, one bit at a time.
std::uint32_t bitwise(ByteView data)
{
    std::uint32_t crc = 0xffffffff;
    for (const std::uint8_t byte : data) {
        crc ^= byte;
        for (int i = 0; i < 8; ++i) crc = (crc & 1) != 0 ? crc >> 1 ^ 0x82f63b78u : crc >> 1;
    }
    return ~crc;
}

TEST(Crc32c, PublishedVectors)   // RFC 3720 B.4
{
    EXPECT_EQ(of("123456789"), 0xe3069283u);
    EXPECT_EQ(of(""), 0u);
    EXPECT_EQ(crc32c(Bytes(32, 0x00)), 0x8a9136aau);
    EXPECT_EQ(crc32c(Bytes(32, 0xff)), 0x62a8ab43u);
    Bytes rising(32), falling(32);
    for (std::size_t i = 0; i < 32; ++i) {
        rising[i] = static_cast<std::uint8_t>(i);
        falling[i] = static_cast<std::uint8_t>(31 - i);
    }
    EXPECT_EQ(crc32c(rising), 0x46dd794eu);
    EXPECT_EQ(crc32c(falling), 0x113fdb5cu);
}

TEST(Crc32c, EveryLengthAndAlignmentAndAnySplit)
{
    std::mt19937 random(3);
    Bytes data(300);
    for (auto& b : data) b = static_cast<std::uint8_t>(random());
    for (std::size_t offset = 0; offset < 9; ++offset)
        for (std::size_t length = 0; length < 70; ++length) {
            const ByteView piece = ByteView(data).subspan(offset, length);
            ASSERT_EQ(crc32c(piece), bitwise(piece));
        }
    for (std::size_t split = 0; split <= data.size(); ++split)
        ASSERT_EQ(crc32c(ByteView(data).subspan(split), crc32c(ByteView(data).first(split))), crc32c(data));
}

}  // namespace
}  // namespace colo
