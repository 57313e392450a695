// SPDX-License-Identifier: Apache-2.0
#include "core/inet_address.h"

#include <gtest/gtest.h>

namespace colo {
namespace {

TEST(InetAddress, HostPortAndOptions)
{
    const auto plain = parse_inet_address("192.0.2.1:9000");
    ASSERT_TRUE(plain);
    EXPECT_EQ(plain->host, "192.0.2.1");
    EXPECT_EQ(plain->port, 9000);
    EXPECT_FALSE(plain->to || plain->ipv4 || plain->ipv6 || plain->keep_alive);
    const auto all = parse_inet_address("[::1]:1,ipv6,keep-alive=off,to=7,ipv4=on");
    ASSERT_TRUE(all);
    EXPECT_EQ(all->host, "::1");
    EXPECT_EQ(all->to, 7);
    EXPECT_EQ(all->ipv4, true);
    EXPECT_EQ(all->ipv6, true);
    EXPECT_EQ(all->keep_alive, false);
    EXPECT_EQ(parse_inet_address(":5")->host, "");
    EXPECT_EQ(parse_inet_address("*:5")->host, "*");
    EXPECT_EQ(parse_inet_address("h:0")->port, 0);
}

TEST(InetAddress, OfARepeatedOptionTheFirstCountsAndUnknownOnesDoNot)
{
    EXPECT_EQ(parse_inet_address("h:1,ipv4=on,ipv4=off")->ipv4, true);
    EXPECT_EQ(parse_inet_address("h:1,to=5,to=x")->to, 5);
    EXPECT_TRUE(parse_inet_address("h:1,"));
    EXPECT_TRUE(parse_inet_address("h:1,,to=5"));
    EXPECT_TRUE(parse_inet_address("h:1,numeric=on,mptcp"));
}

TEST(InetAddress, WhatIsWrongIsNamed)
{
    const std::pair<const char*, const char*> cases[] = {
        {"", "error parsing address ''"},
        {"h", "error parsing address 'h'"},
        {"h:", "error parsing address 'h:'"},
        {":", "error parsing port in address ':'"},
        {"[::1", "error parsing IPv6 address '[::1'"},
        {"[::1]1", "error parsing IPv6 address '[::1]1'"},
        {"[]:1", "error parsing IPv6 address '[]:1'"},
        {"h:1,to=x", "error parsing to= argument"},
        {"h:1,to=", "error parsing to= argument"},
        {"h:1,to=65536", "error parsing to= argument"},
        {"h:1,ipv4=x,to=y", "error parsing to= argument"},
        {"h:1,ipv4=x", "error parsing 'ipv4' flag '=x'"},
        {"h:1,ipv4x", "error parsing 'ipv4' flag 'x'"},
        {"h:1,ipv4=", "error parsing 'ipv4' flag '='"},
        {"h:1,ipv4=x,ipv4=on", "error parsing 'ipv4' flag '=x,ipv4=on'"},
        {"h:1,keep-alive=x,ipv6=y", "error parsing 'ipv6' flag '=y'"},
        {"h:1,keep-alive=x", "error parsing 'keep-alive' flag '=x'"},
        {"h:1,ipv4=off,ipv6=off", "Cannot disable IPv4 and IPv6 at same time"},
        {"h:x", "address resolution failed for h:x: a port is a number from 0 to 65535"},
        {"h:65536", "address resolution failed for h:65536: a port is a number from 0 to 65535"},
        {"h:1:2", "address resolution failed for h:1:2: a port is a number from 0 to 65535"},
        {"a b:1", "address resolution failed for a b:1: this is no name of a host"},
        {"h,to=3:7", "address resolution failed for h,to=3:7: this is no name of a host"},
    };
    for (const auto& [text, error] : cases) {
        const auto result = parse_inet_address(text);
        ASSERT_FALSE(result) << text;
        EXPECT_EQ(result.error().text, error);
        EXPECT_EQ(result.error().code, Errc::invalid);
    }
    EXPECT_FALSE(parse_inet_address(std::string(254, 'h') + ":1"));
    for (const char* form : {"", "h:", "h:1,ipv4="})
        EXPECT_LT(parse_inet_address(form + std::string(1 << 20, '9')).error().text.size(), 2000u);
    EXPECT_TRUE(parse_inet_address(std::string(253, 'h') + ":1"));
}

}  // namespace
}  // namespace colo
