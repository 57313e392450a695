// SPDX-License-Identifier: Apache-2.0
#include "xen/domain_record.h"

#include <gtest/gtest.h>

#include <set>

namespace colo::xen {
namespace {

constexpr const char* kText = "2b0e6a1e-8a39-4d1c-9a55-0c2c4e7f1a11";

TEST(DomainRecord, UuidsAreReadAsTheyAreWritten)
{
    const auto uuid = parse_uuid(kText);
    ASSERT_TRUE(uuid);
    EXPECT_EQ(uuid_text(*uuid), kText);
    EXPECT_EQ(parse_uuid("2B0E6A1E8A394D1C9A550C2C4E7F1A11"), uuid);
    for (const char* bad : {"", "-", "2b0e6a1e-8a39-4d1c-9a55-0c2c4e7f1a1", "2b0e6a1e-8a39-4d1c-9a55-0c2c4e7f1a111", "2b0e6a1e-8a39-4d1c-9a55-0c2c4e7f1a1g"})
        EXPECT_FALSE(parse_uuid(bad)) << bad;
}

TEST(DomainRecord, NewUuidsDiffer)
{
    std::set<Uuid> seen;
    for (int i = 0; i < 100; ++i) {
        const auto uuid = new_uuid();
        ASSERT_TRUE(uuid);
        EXPECT_EQ(uuid_text(*uuid)[14], '4');
        EXPECT_TRUE(seen.insert(*uuid).second);
    }
}

TEST(DomainRecord, EachStateIsReadAsItIsWritten)
{
    using State = DomainRecord::State;
    const Uuid uuid = *parse_uuid(kText);
    for (const DomainRecord& record : {DomainRecord{State::making, 0, uuid, "web--incoming", "b"}, DomainRecord{State::copy, 1, uuid, {}, "b"},
                                       DomainRecord{State::live, 0x7fef, uuid, {}, "b"}}) {
        const std::string text = record_text(record);
        const auto read = parse_record(text);
        ASSERT_TRUE(read) << text;
        EXPECT_EQ(*read, record) << text;
        // Half a record is none.
        for (std::size_t n = 0; n < text.size(); ++n) EXPECT_FALSE(parse_record(text.substr(0, n))) << text.substr(0, n);
        EXPECT_FALSE(parse_record(text + "more\n"));
    }
    for (const char* bad : {"live 2b0e6a1e-8a39-4d1c-9a55-0c2c4e7f1a11 b 0\n", "live 2b0e6a1e-8a39-4d1c-9a55-0c2c4e7f1a11 b 32752\n",
                            "live 2b0e6a1e-8a39-4d1c-9a55-0c2c4e7f1a11 b -1\n", "copy 2b0e6a1e-8a39-4d1c-9a55-0c2c4e7f1a11 b 7x\n",
                            "copy 2b0e6a1e-8a39-4d1c-9a55-0c2c4e7f1a11 7\n", "copy x b 7\n", "dead 2b0e6a1e-8a39-4d1c-9a55-0c2c4e7f1a11 b 7\n",
                            "7 2b0e6a1e8a394d1c9a550c2c4e7f1a11 b live\n"})
        EXPECT_FALSE(parse_record(bad)) << bad;
}

TEST(DomainRecord, BootOfTheHostIsAlwaysTheSame)
{
    const auto boot = host_boot();
    ASSERT_TRUE(boot) << boot.error().text;
    EXPECT_TRUE(parse_uuid(*boot)) << *boot;
    EXPECT_EQ(*host_boot(), *boot);
}

}  // namespace
}  // namespace colo::xen
