// SPDX-License-Identifier: Apache-2.0
#include "proxy/datagram_compare.h"

#include <algorithm>

namespace colo::proxy {

bool same_datagram(const Packet& a, const Packet& b)
{
    return a.kind == b.kind && a.icmp_type == b.icmp_type && a.icmp_code == b.icmp_code &&
           a.payload_size() == b.payload_size() &&
           std::memcmp(a.frame + a.payload, b.frame + b.payload, a.payload_size()) == 0;
}

void DatagramCompare::pop_front()
{
    memory_ -= theirs_.front().frame->bytes.size() + kOverhead;
    theirs_.pop_front();
}

void DatagramCompare::add(const FramePtr& frame, Time now)
{
    if (theirs_.size() >= kMax) pop_front();
    theirs_.push_back({frame, now});
    memory_ += frame->bytes.size() + kOverhead;
}

bool DatagramCompare::take_equal(const Packet& packet)
{
    for (auto it = theirs_.begin(); it != theirs_.end(); ++it) {
        if (!same_datagram(packet, parse_packet(it->frame->view()))) continue;
        memory_ -= it->frame->bytes.size() + kOverhead;
        theirs_.erase(it);
        return true;
    }
    return false;
}

void DatagramCompare::forget_before(Time time)
{
    while (!theirs_.empty() && theirs_.front().since < time) pop_front();
}

void DatagramCompare::clear()
{
    theirs_.clear();
    memory_ = 0;
}

}  // namespace colo::proxy
