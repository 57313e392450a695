// SPDX-License-Identifier: Apache-2.0
#include "qemu/device_state.h"
#include "qemu/state_file.h"

#include <gtest/gtest.h>

#include <random>

namespace colo::qemu {
namespace {

class Blob {
public:
    Blob& u8(unsigned v)
    {
        bytes.push_back(static_cast<std::uint8_t>(v));
        return *this;
    }
    Blob& u32(std::uint32_t v) { return u8(v >> 24 & 255).u8(v >> 16 & 255).u8(v >> 8 & 255).u8(v & 255); }
    Blob& head() { return u32(0x5145564d).u32(3); }
    Blob& section(std::uint32_t id, const std::string& name, std::uint32_t version, const Bytes& data, std::uint32_t instance = 0)
    {
        u8(4).u32(id).u8(static_cast<unsigned>(name.size()));
        for (const char c : name) u8(static_cast<unsigned char>(c));
        u32(instance).u32(version);
        bytes.insert(bytes.end(), data.begin(), data.end());
        return u8(0x7e).u32(id);
    }
    Bytes bytes;
};

Bytes good_blob() { return Blob().head().section(2, "timer", 2, {1, 2, 3}).section(5, "cpu", 12, Bytes(100, 0x7e)).u8(0).bytes; }

TEST(DeviceState, ParsesSectionsWithSizes)
{
    const auto sections = parse_device_state(good_blob());
    ASSERT_TRUE(sections) << sections.error().text;
    ASSERT_EQ(sections->size(), 2u);
    EXPECT_EQ((*sections)[0].name, "timer");
    EXPECT_EQ((*sections)[0].bytes, 3u);
    EXPECT_EQ((*sections)[1].version, 12u);
    EXPECT_EQ((*sections)[1].bytes, 100u);
}

TEST(DeviceState, AFooterInsideTheDataIsNotTheEnd)
{
    const Bytes data = Blob().u8(0x7e).u32(2).u8(4).u32(9).u8(1).u8(0x01).bytes;   // footer, then no printable name
    const auto sections = parse_device_state(Blob().head().section(2, "timer", 2, data).section(5, "cpu", 1, {}).u8(0).bytes);
    ASSERT_TRUE(sections) << sections.error().text;
    EXPECT_EQ((*sections)[0].bytes, data.size());
}

TEST(DeviceState, Inv06_EveryTruncationIsFound)
{
    const Bytes blob = good_blob();
    for (std::size_t n = 0; n < blob.size(); ++n) {
        const auto sections = parse_device_state(ByteView(blob).first(n));
        EXPECT_FALSE(sections) << n << " bytes";
    }
}

TEST(DeviceState, RefusesWhatIsNotAStream)
{
    Bytes magic = good_blob(), version = good_blob(), trailing = good_blob();
    magic[0] = 'X';
    version[7] = 4;
    trailing.push_back(0);
    EXPECT_EQ(parse_device_state(magic).error().code, Errc::corrupt);
    EXPECT_EQ(parse_device_state(version).error().code, Errc::corrupt);
    EXPECT_FALSE(parse_device_state(trailing));
    EXPECT_FALSE(parse_device_state(Blob().head().u8(0).bytes));
    const auto configuration = parse_device_state(Blob().head().u8(7).u32(0).u8(0).bytes);
    EXPECT_NE(configuration.error().text.find("send-configuration"), std::string::npos);
    EXPECT_EQ(parse_device_state(Bytes(kMaxDeviceState + 1)).error().code, Errc::limit);
}

TEST(DeviceState, NeverReadsOutside)
{
    std::mt19937 random(7);
    for (int round = 0; round < 20000; ++round) {
        Bytes blob = good_blob();
        for (int i = 0; i < 3; ++i) blob[random() % blob.size()] = static_cast<std::uint8_t>(random());
        blob.resize(random() % (blob.size() + 1));
        blob.shrink_to_fit();
        (void)parse_device_state(blob);   // the sanitizer watches
    }
}

TEST(DeviceState, Inv32_TheFirstDifferenceIsNamed)
{
    const auto mine = *parse_device_state(good_blob());
    EXPECT_TRUE(check_sections(mine, mine));
    auto other = mine;
    other[1].version = 13;
    EXPECT_EQ(check_sections(mine, other).error().text, "device state: section cpu has version 13, here it is 12");
    other = mine;
    other[0].name = "hpet";
    EXPECT_NE(check_sections(mine, other).error().text.find("hpet"), std::string::npos);
    other = mine;
    other.pop_back();
    EXPECT_NE(check_sections(mine, other).error().text.find("the first more is cpu"), std::string::npos);
    other = mine;
    other[1].bytes = 5;
    EXPECT_TRUE(check_sections(mine, other));
}

TEST(StateFile, HoldsWhatWasWritten)
{
    auto file = StateFile::create();
    ASSERT_TRUE(file);
    ASSERT_TRUE(file->write(Bytes(100000, 1)));
    ASSERT_TRUE(file->write(Bytes(5, 2)));
    EXPECT_EQ(*file->read(), Bytes(5, 2));
    EXPECT_EQ(file->write(Bytes(kMaxDeviceState + 1)).error().code, Errc::limit);
}

}  // namespace
}  // namespace colo::qemu
