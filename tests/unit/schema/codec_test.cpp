// SPDX-License-Identifier: Apache-2.0
#include "schema/codec.h"
#include "qmp/json.h"

#include <gtest/gtest.h>

namespace colo::schema {
namespace {

Value json(std::string_view text)
{
    auto value = qmp::parse_json(text);
    EXPECT_TRUE(value.has_value()) << text;
    return value ? *value : Value();
}

template <class T>
std::string refusal(std::string_view text)
{
    const auto result = decode_value<T>(json(text));
    return result ? "accepted" : result.error().text;
}

TEST(Object, KeepsOrderAndComparesWithoutIt)
{
    Object object{{"b", 1}, {"a", "x"}};
    object.set("b", 2);
    object.set("c", nullptr);
    EXPECT_EQ(object.members()[0].name, "b");
    EXPECT_EQ(*object.find("b"), Value(2));
    EXPECT_TRUE(object.erase("a"));
    EXPECT_FALSE(object.erase("a"));
    EXPECT_EQ(object, (Object{{"c", nullptr}, {"b", 2}}));
    EXPECT_NE(object, (Object{{"c", nullptr}, {"b", 3}}));
    EXPECT_EQ(Value(object).find("nope"), nullptr);
    EXPECT_EQ(Value(1).find("nope"), nullptr);
}

TEST(Codec, EnumsHaveTheirWireNames)
{
    EXPECT_EQ(to_string(MigrationStatus::pre_switchover), "pre-switchover");
    EXPECT_EQ(to_string(ProtectionState::protected_), "protected");
    MigrationCapability capability{};
    EXPECT_TRUE(from_string("background-snapshot", capability));
    EXPECT_EQ(capability, MigrationCapability::background_snapshot);
    EXPECT_FALSE(from_string("Background-snapshot", capability));
    EXPECT_EQ(kMigrationCapabilityCount, 19u);
    EXPECT_EQ(kRunStateCount, 16u);
}

TEST(Codec, OptionalMembersAreLeftOut)
{
    EXPECT_EQ(encode(NameInfo{}), json("{}"));
    EXPECT_EQ(encode(NameInfo{"n"}), json(R"({"name": "n"})"));
    MigrationInfo info;
    info.status = MigrationStatus::failed;
    info.blocked_reasons = {"a", "b"};
    EXPECT_EQ(encode(info), json(R"({"status": "failed", "blocked-reasons": ["a", "b"]})"));
    EXPECT_EQ(*decode_value<MigrationInfo>(encode(info)), info);
}

TEST(Codec, UnionsByTheirTag)
{
    const std::pair<const char*, SocketAddress> cases[] = {
        {R"({"type": "inet", "host": "h", "port": "1", "to": 65535, "ipv4": true})",
         {SocketAddressInet{"h", "1", {}, std::uint16_t{65535}, true, {}, {}, {}}}},
        {R"({"type": "unix", "path": "/x"})", {SocketAddressUnix{"/x", {}, {}}}},
        {R"({"type": "fd", "str": "7"})", {SocketAddressFd{"7"}}},
    };
    for (const auto& [text, value] : cases) {
        EXPECT_EQ(encode(value), json(text));
        EXPECT_EQ(*decode_value<SocketAddress>(json(text)), value);
    }
    EXPECT_EQ(refusal<SocketAddress>(R"({"host": "h"})"), "Parameter 'type' is missing");
    EXPECT_EQ(refusal<SocketAddress>(R"({"type": "tcp"})"), "Parameter 'type' does not accept value 'tcp'");
    EXPECT_EQ(refusal<SocketAddress>(R"({"type": "unix"})"), "Parameter 'path' is missing");
    EXPECT_EQ(refusal<SocketAddress>(R"({"type": "unix", "path": "x", "host": "h"})"),
              "Parameter 'host' is unexpected");
    EXPECT_EQ(refusal<SocketAddress>(R"({"type": "inet", "host": "h", "port": "1", "to": 65536})"),
              "Parameter 'to' expects uint16_t");
    EXPECT_EQ(refusal<SocketAddress>("[]"), "Invalid parameter type for '', expected: object");
}

TEST(Codec, AlternatesByTheirType)
{
    EXPECT_EQ(decode_value<StrOrNull>(json("null"))->value.index(), 1u);
    EXPECT_EQ(std::get<std::string>(decode_value<StrOrNull>(json("\"\""))->value), "");
    EXPECT_EQ(encode(*decode_value<StrOrNull>(json("null"))), Value());
}

TEST(Codec, NegativeUnsignedWrapsModulo64Bits)
{
    MigrateSetParameters parameters =
        *decode_value<MigrateSetParameters>(json(R"({"max-bandwidth": -1, "downtime-limit": -9223372036854775808})"));
    EXPECT_EQ(parameters.max_bandwidth, ~std::uint64_t{0});
    EXPECT_EQ(parameters.downtime_limit, std::uint64_t{1} << 63);
    EXPECT_EQ(decode_value<MigrateSetParameters>(json(R"({"max-bandwidth": 18446744073709551615})"))->max_bandwidth,
              ~std::uint64_t{0});
}

TEST(Codec, AnswersOfANewerDaemonCanBeRead)
{
    const Value newer =
        json(R"({"qemu": {"major": 7, "minor": 1, "micro": 2, "nano": 3}, "package": "p", "build": {}})");
    EXPECT_EQ(decode_value<VersionInfo>(newer).error().text, "Parameter 'qemu.nano' is unexpected");
    const auto info = decode_value<VersionInfo>(newer, Decoder::Unexpected::ignore);
    ASSERT_TRUE(info);
    EXPECT_EQ(info->qemu.micro, 2);
}

TEST(Codec, DefaultsAndRanges)
{
    MigrationParameters parameters;
    set_defaults(parameters);
    EXPECT_EQ(range_error(parameters), "");
    EXPECT_EQ(parameters.x_checkpoint_delay, 20000u);
    EXPECT_FALSE(parameters.block_bitmap_mapping);
    parameters.xbzrle_cache_size = 4097;
    EXPECT_EQ(range_error(parameters),
              "Parameter 'xbzrle_cache_size' expects a power of two no less than the target page size");
    MigrateSetParameters wanted;
    wanted.tls_hostname = StrOrNull{std::monostate()};
    wanted.multifd_channels = std::uint8_t{9};
    parameters.tls_hostname = "old";
    merge(wanted, parameters);
    EXPECT_EQ(parameters.tls_hostname, "");
    EXPECT_EQ(parameters.multifd_channels, 9);
    EXPECT_EQ(parameters.xbzrle_cache_size, 4097u);
}

}  // namespace
}  // namespace colo::schema
