// SPDX-License-Identifier: Apache-2.0
#pragma once

// UDP, ICMP and ARP: whole datagrams, by content. IP id, TTL, checksums, options and Ethernet padding do not count.

#include "proxy/packet.h"

#include <deque>

namespace colo::proxy {

// Of the same flow (addresses, ports and kind are equal already).
bool same_datagram(const Packet& a, const Packet& b);

// S's datagrams of one flow that P has not sent yet. The order is not compared: two threads of a guest may race.
class DatagramCompare {
public:
    void add(const FramePtr& frame, Time now);
    bool take_equal(const Packet& packet);  // removes the first equal one
    void clear();
    bool empty() const { return theirs_.empty(); }
    Time oldest() const { return theirs_.front().since; }
    void forget_before(Time time);  // what P has not sent by now it never will
    std::size_t memory() const { return memory_; }

private:
    static constexpr std::size_t kMax = 64, kOverhead = 96;
    struct Datagram {
        FramePtr frame;
        Time since;
    };
    void pop_front();
    std::deque<Datagram> theirs_;
    std::size_t memory_ = 0;
};

}  // namespace colo::proxy
