// SPDX-License-Identifier: Apache-2.0
#pragma once

// One flow on the primary: what is held, what it is compared with, and how its numbers translate.

#include "proxy/datagram_compare.h"
#include "proxy/flow_table.h"
#include "proxy/proxy.h"
#include "proxy/reinjector.h"
#include "proxy/tcp_compare.h"

#include <deque>
#include <limits>
#include <memory>
#include <optional>

namespace colo::proxy {

struct Held {
    FramePtr frame;  // wire numbers
    Epoch tag = 0;
    Time since;
    StreamSpan span;  // TCP
    std::uint32_t ack = 0;
    bool has_ack = false;
    bool matched = false;  // datagrams: S produced an equal one
    std::size_t memory() const { return frame->bytes.size() + 160; }
};

// The client's bytes that were mirrored and that our guest has not acknowledged: not known to have been consumed (R5).
// They may sit in the frame port, in the device model or in a full ring; the next epoch needs them again.
class Unconsumed {
public:
    struct Entry {
        std::uint32_t start, end;  // client's numbers
        FramePtr frame;
        Time given;  // to our guest
    };
    static std::size_t memory(const Entry& entry) { return entry.frame->bytes.size() + 96; }

    // The client repeats a segment: it is given to our guest once more.
    bool repeated(std::uint32_t start, std::uint32_t end, Time now);
    // Of this flow alone; `memory_left` is what all of them may still take. false: no room, it counts as lost.
    bool add(Entry entry, std::size_t memory_left);
    void acknowledged(std::uint32_t ack);
    // Our guest answered the SYN before `ack`: what came before that SYN belongs to a connection that is gone.
    void begun(std::uint32_t ack);
    // What was given to our guest before `given`, and is in its memory or was ignored by now.
    void forget_given_before(Time given);
    std::deque<Entry> take_all();
    void clear();

    const std::deque<Entry>& entries() const { return entries_; }
    bool empty() const { return entries_.empty(); }
    std::size_t memory() const { return memory_; }
    const std::optional<std::uint32_t>& lost_from() const { return lost_from_; }

private:
    static constexpr std::size_t kMaxEntries = 4096, kMaxMemory = 8u << 20;
    template <class Predicate>
    void drop_if(Predicate predicate);

    std::deque<Entry> entries_;
    bool ordered_ = true;  // ends never fell: what an ACK covers is at the front
    std::size_t memory_ = 0;
    std::optional<std::uint32_t> lost_from_, lost_to_;  // found no room: missing in the next epoch
};

struct PrimaryFlow {
    static constexpr std::size_t kNotHolding = std::numeric_limits<std::size_t>::max();

    FlowKey key;
    Time last_active;
    std::deque<Held> held;
    std::size_t holding_index = kNotHolding;
    std::unique_ptr<TcpCompare> tcp;             // kind tcp
    std::unique_ptr<DatagramCompare> datagrams;  // kind udp, icmp, arp
    OpaqueCause cause = OpaqueCause::none;       // kind opaque: why the newest cannot be compared

    // Only where this host went live with the flow (R3).
    std::uint32_t wire_offset = 0, timestamp_offset = 0;
    std::optional<TakeOver::HalfOpen> learning;
    std::optional<std::uint32_t> syn_contained;  // wire number that follows a SYN of before the take-over
    Reinjector reinject;
    std::optional<std::uint32_t> guest_tsecr;  // last of our guest, while something is to be given again
    Unconsumed input;

    std::size_t peer_memory() const { return (tcp ? tcp->peer_memory() : 0) + (datagrams ? datagrams->memory() : 0); }
    bool translated() const { return wire_offset != 0 || timestamp_offset != 0 || learning; }
    bool busy() const
    {
        const bool unconsumed = !input.empty() || input.lost_from() || !reinject.empty();
        return !held.empty() || unconsumed || peer_memory() != 0 || (tcp && !tcp->input().settled());
    }
    // For a new flow, if there is no more room. The numbers of one that we translate are known here alone (R3).
    bool may_go(Time now) const
    {
        if (busy()) return false;
        return now - last_active >= idle_after() || (!translated() && (!tcp || tcp->agreed()));
    }
    // RFC 5382: an established connection that we translate must outlive two hours of silence. One that we do not
    // translate is learnt again from its next segment.
    Duration idle_after() const
    {
        using std::chrono::seconds;
        if (!tcp) return seconds(1);
        if (translated()) return tcp->closed() || tcp->finished() ? seconds(60) : seconds(7440);
        if (tcp->closed()) return seconds(1);
        return tcp->established() ? seconds(60) : seconds(30);
    }
};

}  // namespace colo::proxy
