// SPDX-License-Identifier: Apache-2.0
#include "proxy/primary_flow.h"

#include <algorithm>
#include <utility>

namespace colo::proxy {

template <class Predicate>
void Unconsumed::drop_if(Predicate predicate)
{
    while (!entries_.empty() && predicate(entries_.front())) {  // the usual case, without moving the rest
        memory_ -= memory(entries_.front());
        entries_.pop_front();
    }
    if (ordered_) return;
    std::erase_if(entries_, [&](const Entry& entry) {
        if (!predicate(entry)) return false;
        memory_ -= memory(entry);
        return true;
    });
    ordered_ = std::is_sorted(entries_.begin(), entries_.end(),
                              [](const Entry& a, const Entry& b) { return seq_before(a.end, b.end); });
}

bool Unconsumed::repeated(std::uint32_t start, std::uint32_t end, Time now)
{
    for (auto it = entries_.rbegin(); it != entries_.rend(); ++it) {
        if (it->start == start && it->end == end) {
            it->given = now;
            return true;
        }
        if (ordered_ && !seq_before(start, it->end)) return false;
    }
    return false;
}

bool Unconsumed::add(Entry entry, std::size_t memory_left)
{
    const std::size_t size = memory(entry);
    if (entries_.size() >= kMaxEntries || memory_ + size > kMaxMemory || size > memory_left) {
        if (!lost_from_ || seq_before(entry.start, *lost_from_)) lost_from_ = entry.start;
        if (!lost_to_ || seq_after(entry.end, *lost_to_)) lost_to_ = entry.end;
        return false;
    }
    if (!entries_.empty() && seq_before(entry.end, entries_.back().end)) ordered_ = false;
    memory_ += size;
    entries_.push_back(std::move(entry));
    return true;
}

void Unconsumed::acknowledged(std::uint32_t ack)
{
    drop_if([ack](const Entry& entry) { return !seq_after(entry.end, ack); });
    if (entries_.empty()) ordered_ = true;
    if (lost_to_ && !seq_after(*lost_to_, ack)) {
        lost_from_.reset();
        lost_to_.reset();
    }
}

void Unconsumed::begun(std::uint32_t ack)
{
    const auto syn = std::find_if(entries_.rbegin(), entries_.rend(), [ack](const Entry& entry) {
        return entry.start + 1 == ack && parse_packet(entry.frame->view()).has(kTcpSyn);
    });
    if (syn == entries_.rend()) return;
    const auto first = syn.base() - 1;
    for (auto it = entries_.begin(); it != first; ++it) memory_ -= memory(*it);
    entries_.erase(entries_.begin(), first);
    lost_from_.reset();
    lost_to_.reset();
}

void Unconsumed::forget_given_before(Time given)
{
    std::erase_if(entries_, [&](const Entry& entry) {
        if (entry.given >= given) return false;
        memory_ -= memory(entry);
        return true;
    });
    if (entries_.empty()) ordered_ = true;
}

std::deque<Unconsumed::Entry> Unconsumed::take_all()
{
    memory_ = 0;
    ordered_ = true;
    return std::exchange(entries_, {});
}

void Unconsumed::clear()
{
    *this = {};
}

}  // namespace colo::proxy
