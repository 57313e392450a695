// SPDX-License-Identifier: Apache-2.0
// A full flow table on both sides: who goes for a new flow, and who never does.
#include "primary_harness.h"
#include "secondary_harness.h"

#include "proxy/flow_table.h"

#include <algorithm>

namespace colo::proxy::test {
namespace {

class PrimaryEviction : public PrimaryHarness {
protected:
    void table_of(std::size_t flows)
    {
        make(ProxyOptions{.nics = {}, .flows_max = flows});
        protect();
    }
    // Whether the answer of `port` is compared and leaves.
    bool answers(std::uint16_t port, std::uint32_t seq = 1)
    {
        const std::size_t before = released();
        const auto frame = tcp({.peer_port = port, .seq = seq, .data = "x"});
        guest(frame);
        peer(frame);
        return released() == before + 1;
    }
    void start(const std::vector<replication::FlowState>& flows, std::size_t flows_max)
    {
        TakeOver from;
        from.section.flows = flows;
        sink = {};
        proxy = make_primary_proxy({.nics = {kGuestMac}, .flows_max = flows_max}, sink, from, now);
        proxy->set_output(PrimaryProxy::Output::flow, 1, now);
    }
    bool knows(std::uint16_t port) const
    {
        const auto section = proxy->section();
        return std::any_of(section.flows.begin(), section.flows.end(),
                           [port](const replication::FlowState& f) { return f.peer_port == port; });
    }
};

replication::FlowState flow_state(std::uint16_t port, std::uint32_t offset, std::uint8_t flags)
{
    replication::FlowState state = SecondaryHarness::flow(offset);
    state.peer_port = port;
    state.flags = flags;
    return state;
}

TEST_F(PrimaryEviction, Inv29_TheOldestAgreedFlowGoesForANewOneAndComesBack)
{
    table_of(8);
    for (std::uint16_t port = 1; port <= 40; ++port) EXPECT_TRUE(answers(port)) << port;
    EXPECT_LE(proxy->stats().flows, 8u);
    EXPECT_TRUE(answers(1, 2)) << "learnt again from its next segment";
    EXPECT_TRUE(answers(40, 2));
    EXPECT_EQ(proxy->stats().held_frames, 0u);
    EXPECT_TRUE(sink.triggers.empty());
}

TEST_F(PrimaryEviction, Inv29_DatagramFlowsGoWhenNothingOfThemWaits)
{
    table_of(4);
    for (std::uint16_t port = 1; port <= 20; ++port) {
        guest(udp(true, 53, port, "x"));
        peer(udp(true, 53, port, "x"));
    }
    EXPECT_EQ(released(), 20u);
}

TEST_F(PrimaryEviction, Inv29_R4_AFlowWhoseInputIsNotInTheJournalStays)
{
    table_of(1);
    client(tcp({.from_guest = false, .peer_port = 1, .seq = 1000, .data = "abc"}));
    peer(tcp({.peer_port = 1, .seq = 1, .ack = 1003}));
    guest(tcp({.peer_port = 1, .seq = 1, .ack = 1003}));
    ASSERT_EQ(released(), 1u) << "S's guest has the bytes";
    EXPECT_FALSE(answers(2));
    now = now + std::chrono::minutes(5);
    EXPECT_FALSE(answers(3)) << "however long it takes";
    journalled();
    EXPECT_TRUE(answers(4));
}

TEST_F(PrimaryEviction, Inv29_R4_AFlowThatLostInputForTheNextEpochStays)
{
    make(ProxyOptions{.nics = {}, .journal_bytes_max = 100, .flows_max = 1});
    protect();
    client(tcp({.from_guest = false, .peer_port = 1, .seq = 1000, .data = std::string(500, 'x')}));
    journalled();
    EXPECT_FALSE(answers(2)) << "no room for its input: it will be missing in the next epoch";
    proxy->seal(2, {}, now);
    guest(tcp({.peer_port = 1, .seq = 1, .ack = 1500}));
    proxy->staged(2, now);
    proxy->applied(2, now);
    EXPECT_FALSE(answers(3));
    journalled();
    const std::size_t before = released();
    checkpoint(3);
    EXPECT_GT(released(), before) << "the first checkpoint that has the bytes";
}

TEST_F(PrimaryEviction, Inv29_AFlowThatDiffersOrIsAwaitedStays)
{
    table_of(1);
    peer(tcp({.peer_port = 1, .seq = 900, .ack = 1, .flags = kTcpSyn | kTcpAck}));  // S was first
    EXPECT_FALSE(answers(2));
    guest(tcp({.peer_port = 1, .seq = 100, .ack = 1, .flags = kTcpSyn | kTcpAck}));
    EXPECT_EQ(released(), 1u);
    EXPECT_TRUE(answers(3));
    guest(tcp({.peer_port = 3, .seq = 2, .data = "a"}));
    peer(tcp({.peer_port = 3, .seq = 2, .data = "b"}));
    proxy->seal(2, {}, now);
    proxy->staged(2, now);
    EXPECT_FALSE(answers(4)) << "S has other bytes until it has our state";
}

TEST_F(PrimaryEviction, Inv29_R4_AConnectionThatOurGuestIsOpeningStays)
{
    table_of(1);
    const auto syn = tcp({.peer_port = 1, .seq = 100, .flags = kTcpSyn});
    guest(syn);
    peer(tcp({.peer_port = 1, .seq = 7000, .flags = kTcpSyn}));
    ASSERT_EQ(released(), 1u);
    EXPECT_FALSE(answers(2));
    client(tcp({.from_guest = false, .peer_port = 1, .seq = 500, .ack = 101, .flags = kTcpSyn | kTcpAck}));
    guest(syn);  // repeated before it heard the answer
    guest(tcp({.peer_port = 1, .seq = 101, .ack = 501}));
    EXPECT_EQ(released(), 2u) << "the ACK waits for the journal";
    journalled();
    EXPECT_EQ(released(), 3u);
}

TEST_F(PrimaryEviction, Inv29_R3_ATranslatedFlowStays)
{
    start({flow_state(1, 5000, 1)}, 2);
    for (std::uint16_t port = 100; port < 400; ++port) guest(tcp({.peer_port = port, .seq = 1, .data = "x"}));
    guest(tcp({.peer_port = 1, .seq = 10, .data = "x"}));
    EXPECT_EQ(decode_tcp(sink.wire.back().frame).seq, 5010u);
}

TEST_F(PrimaryEviction, Inv29_FlowsThatStayDoNotHideThoseThatMayGo)
{
    std::vector<replication::FlowState> flows;
    for (std::uint16_t port = 1; port <= 1000; ++port) flows.push_back(flow_state(port, 5000, 1));
    start(flows, 1001);
    for (std::uint16_t port = 2000; port < 2020; ++port) guest(tcp({.peer_port = port, .seq = 1, .data = "x"}));
    int known = 0;
    for (std::uint16_t port = 2001; port < 2020; ++port) known += knows(port) ? 1 : 0;
    EXPECT_EQ(known, 1) << "the one place is used again and again";
    EXPECT_TRUE(knows(1) && knows(1000));
}

class SecondaryEviction : public SecondaryHarness {
protected:
    void table_of(std::size_t flows) { make({.nics = {}, .flows_max = flows}); }
    // A new connection: whether S learns P's numbers. P's guest begins with 100.
    bool translates(std::uint16_t port)
    {
        input(tcp({.from_guest = false, .peer_port = port, .seq = 500, .flags = kTcpSyn}));
        guest(tcp({.peer_port = port, .seq = 9000, .ack = 501, .flags = kTcpSyn | kTcpAck}));
        input(tcp({.from_guest = false, .peer_port = port, .seq = 501, .ack = 101}));
        guest(tcp({.peer_port = port, .seq = 9001, .ack = 501, .data = "x"}));
        return decode_tcp(sink.out.back().frame).seq == 101;
    }
};

TEST_F(SecondaryEviction, Inv29_FlowsOfTheManifestGoForNewOnesWhenTheyAreAgreed)
{
    table_of(4);
    replication::ProxySection section;
    for (std::uint16_t port = 1; port <= 4; ++port) section.flows.push_back(flow_state(port, 0, 1 | kFlowOpened));
    proxy->applied(1, section, now);
    EXPECT_FALSE(translates(10)) << "P may have said something a moment ago";
    table_of(4);
    proxy->applied(1, section, now);
    now = now + std::chrono::seconds(2);
    EXPECT_TRUE(translates(10));
    EXPECT_TRUE(translates(11));
    EXPECT_EQ(sink.journal, number) << "and journals their input";
    guest(tcp({.peer_port = 1, .seq = 77, .ack = 1, .data = "x"}));
    EXPECT_EQ(decode_tcp(sink.out.back().frame).seq, 77u) << "one that went has P's numbers";
}

TEST_F(SecondaryEviction, Inv29_R3_WhatIsNotLearntAgainStays)
{
    table_of(3);
    replication::ProxySection section;
    section.flows.push_back(flow_state(1, 5000, 1 | kFlowOpened));
    section.flows.push_back(flow_state(2, 0, 1));  // perhaps in its handshake: its SYN may be repeated
    section.flows.back().covered_seq = 101;
    section.flows.push_back(flow_state(3, 0, 1 | kFlowOpened));
    proxy->applied(1, section, now);
    input(tcp({.from_guest = false, .peer_port = 3, .seq = 1, .ack = 1, .data = "journalled"}));
    now = now + std::chrono::seconds(5);
    EXPECT_FALSE(translates(10));
    guest(tcp({.peer_port = 1, .seq = 10, .ack = 1, .data = "x"}));
    EXPECT_EQ(decode_tcp(sink.out.back().frame).seq, 5010u);
    guest(tcp({.peer_port = 2, .seq = 100, .ack = 1, .flags = kTcpSyn | kTcpAck}));
    input(tcp({.from_guest = false, .peer_port = 2, .seq = 1, .ack = 150}));
    guest(tcp({.peer_port = 2, .seq = 150, .ack = 1, .data = "x"}));
    EXPECT_EQ(decode_tcp(sink.out.back().frame).seq, 150u) << "a repeated SYN is no new connection";
    EXPECT_EQ(proxy->stats().journal_frames, 1u);
}

TEST_F(SecondaryEviction, Inv29_R3_ATranslatedConnectionGoesWhenItIsOver)
{
    table_of(1);
    proxy->applied(1, {}, now);
    ASSERT_TRUE(translates(10));
    now = now + std::chrono::seconds(2);
    EXPECT_FALSE(translates(11));
    guest(tcp({.peer_port = 10, .seq = 9002, .ack = 501, .flags = kTcpAck | kTcpFin}));
    input(tcp({.from_guest = false, .peer_port = 10, .seq = 400, .ack = 103, .flags = kTcpAck | kTcpFin}));
    now = now + std::chrono::seconds(2);
    EXPECT_FALSE(translates(12)) << "a FIN that the guest did not take: anybody can send one";
    input(tcp({.from_guest = false, .peer_port = 10, .seq = 501, .ack = 103, .flags = kTcpAck | kTcpFin}));
    guest(tcp({.peer_port = 10, .seq = 9003, .ack = 502}));
    EXPECT_FALSE(translates(13)) << "its last ACK may have to be repeated";
    now = now + std::chrono::seconds(2);
    EXPECT_TRUE(translates(14));
}

}  // namespace
}  // namespace colo::proxy::test
