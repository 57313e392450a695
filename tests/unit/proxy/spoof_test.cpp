// SPDX-License-Identifier: Apache-2.0
// Anybody can send a segment with the addresses of a connection. Without its numbers, it must change nothing.
#include "primary_harness.h"
#include "secondary_harness.h"

namespace colo::proxy::test {
namespace {

using Primary = PrimaryHarness;
using Secondary = SecondaryHarness;

FramePtr from_client(std::uint32_t seq, std::uint8_t flags, const std::string& data = {}, std::uint32_t ack = 1)
{
    return tcp({.from_guest = false, .seq = seq, .ack = ack, .flags = flags, .data = data});
}

TEST_F(Primary, R5_AForgedResetOrSynDoesNotForgetInput)
{
    protect();
    guest(tcp({.seq = 1, .ack = 1000}));
    client(from_client(1000, kTcpAck, "abc"));
    client(from_client(7, kTcpRst));
    client(from_client(70, kTcpSyn));
    sink.mirrored.clear();
    proxy->seal(2, {}, now);
    ASSERT_FALSE(sink.mirrored.empty());
    EXPECT_EQ(decode_tcp(sink.mirrored[0].frame).data, "abc");
    client(from_client(1000, kTcpRst));
    sink.mirrored.clear();
    proxy->seal(3, {}, now);
    EXPECT_TRUE(sink.mirrored.empty()) << "this one the guest believes";
}

TEST_F(Primary, R5_TheSynThatTheGuestAnswersBeginsAConnection)
{
    protect();
    client(from_client(1000, kTcpAck, "of the connection before"));
    client(from_client(500, kTcpSyn));
    client(from_client(501, kTcpAck, "early"));
    client(from_client(90, kTcpSyn));
    guest(tcp({.seq = 9000, .ack = 501, .flags = kTcpSyn | kTcpAck}));
    sink.mirrored.clear();
    proxy->seal(2, {}, now);
    ASSERT_GE(sink.mirrored.size(), 1u);
    EXPECT_EQ(decode_tcp(sink.mirrored[0].frame).data, "early");
}

TEST_F(Primary, R3_AForgedResetDoesNotHideATranslatedFlow)
{
    TakeOver from;
    from.section.flows.push_back(SecondaryHarness::flow(4711));
    ProxyOptions options;
    options.nics = {kGuestMac};
    proxy = make_primary_proxy(options, sink, from, now);
    proxy->set_output(PrimaryProxy::Output::flow, 2, now);
    guest(tcp({.seq = 1, .ack = 1000, .data = "x"}));
    client(from_client(7, kTcpRst));
    client(from_client(1000, kTcpRst));
    ASSERT_EQ(proxy->section().flows.size(), 1u);
    EXPECT_EQ(proxy->section().flows[0].wire_offset, 4711u);
}

TEST_F(Secondary, R4_AForgedResetDoesNotForgetTheJournal)
{
    proxy->applied(1, {}, now);
    guest(tcp({.seq = 1, .ack = 100}));
    input(client_data(100, "abc"));
    input(from_client(7, kTcpRst));
    EXPECT_NE(proxy->stats().journal_bytes, 0u);
    input(from_client(100, kTcpRst));
    EXPECT_EQ(proxy->stats().journal_bytes, 0u) << "this one the guest believes";
}

TEST_F(Secondary, R4_AForgedSynDoesNotForgetTheJournal)
{
    proxy->applied(1, {}, now);
    input(client_data(3000, "of the connection before"));
    input(from_client(500, kTcpSyn));
    input(client_data(501, "early"));
    input(from_client(90, kTcpSyn));
    guest(tcp({.seq = 9000, .ack = 501, .flags = kTcpSyn | kTcpAck}));
    const TakeOver taken = proxy->take_over(now);
    ASSERT_GE(taken.reinject.size(), 1u);
    EXPECT_EQ(decode_tcp(taken.reinject[0].frame).data, "early");
}

TEST_F(Secondary, R3_AResetDoesNotHideATranslatedFlow)
{
    replication::ProxySection section;
    section.flows.push_back(flow(4711));
    proxy->applied(1, section, now);
    guest(tcp({.seq = 1, .ack = 100}));
    input(from_client(7, kTcpRst));
    input(from_client(100, kTcpRst));
    const TakeOver taken = proxy->take_over(now);
    ASSERT_EQ(taken.section.flows.size(), 1u);
    EXPECT_EQ(taken.section.flows[0].wire_offset, 4711u);
}

TEST_F(Secondary, Inv29_OneFlowsJournalIsBounded)
{
    proxy->applied(1, {}, now);
    for (std::uint32_t i = 0; i < 5000; ++i) input(client_data(100 + i, "x"));
    EXPECT_EQ(sink.journal, 4096u);
    EXPECT_EQ(proxy->stats().journal_frames, 4096u);
}

TEST_F(Secondary, R4_WhatTheGuestIgnoresIsGivenUpAndWhatItMustTakeIsNot)
{
    proxy->applied(1, {}, now);
    input(client_data(700'000'000, "out of the window"));
    input(client_data(100, "abc"));
    input(client_data(103, "def"));
    guest(tcp({.seq = 1, .ack = 100}));
    const auto pass = [&](int ticks) {
        for (int i = 0; i < ticks; ++i) proxy->tick(now = now + std::chrono::seconds(1));
        sink.guest.clear();
        proxy->tick(now = now + std::chrono::seconds(1));
    };
    pass(20);
    EXPECT_EQ(sink.guest.size(), 3u) << "a guest that was not heard since may be stalled";
    guest(tcp({.seq = 1, .ack = 100}));  // its window is closed
    pass(0);
    ASSERT_EQ(sink.guest.size(), 2u);
    EXPECT_EQ(decode_tcp(sink.guest[0]).data, "abc");
    EXPECT_EQ(decode_tcp(sink.guest[1]).data, "def");
    guest(tcp({.seq = 1, .ack = 106}));
    EXPECT_EQ(proxy->stats().journal_bytes, 0u);
}

TEST_F(Secondary, R4_AFragmentIsInNoJournal)
{
    proxy->applied(1, {}, now);
    input(client_data(100, "abc"));
    input(fragment(client_data(103, "def")));
    EXPECT_EQ(sink.journal, 1u);
    proxy->applied(2, {}, now);
    input(client_data(106, "ghi"), 2);
    EXPECT_EQ(sink.journal, 3u);
}

}  // namespace
}  // namespace colo::proxy::test
