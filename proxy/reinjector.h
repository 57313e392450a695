// SPDX-License-Identifier: Apache-2.0
#pragma once

// R4: the client's bytes of one connection that our guest has not acknowledged. The client may have been told that we
// have them, so it will not send them again: we do, until the guest confirms.

#include "proxy/packet.h"

#include <algorithm>
#include <deque>

namespace colo::proxy {

class Reinjector {
public:
    struct Entry {
        std::uint64_t number = 0;  // mirror number: order among all connections
        Epoch epoch = 0;
        std::uint32_t start = 0, end = 0;  // client's sequence numbers
        FramePtr frame;
        std::size_t memory() const { return frame->bytes.size() + 96; }
    };

    bool has(std::uint32_t start, std::uint32_t end) const
    {
        if (entries_.empty() || !seq_before(start, entries_.back().end)) return false;
        return std::any_of(entries_.begin(), entries_.end(),
                           [=](const Entry& e) { return e.start == start && e.end == end; });
    }
    void add(Entry entry, Time now, Duration interval)
    {
        if (entries_.empty()) {
            restart(now, interval);
            ordered_ = true;
        } else if (seq_before(entry.end, entries_.back().end)) {
            ordered_ = false;
        }
        memory_ += entry.memory();
        entries_.push_back(std::move(entry));
    }
    // The guest has everything before `ack`.
    void acknowledged(std::uint32_t ack, Time now, Duration interval)
    {
        const std::size_t before = entries_.size();
        drop_if([ack](const Entry& e) { return !seq_after(e.end, ack); }, ordered_);
        if (entries_.size() != before) restart(now, interval);
    }
    void drop_older(Epoch epoch)
    {
        drop_if([epoch](const Entry& e) { return e.epoch < epoch; }, true);
    }
    void drop_before(std::uint64_t number)
    {
        drop_if([number](const Entry& e) { return e.number < number; }, true);
    }
    void clear()
    {
        drop_if([](const Entry&) { return true; }, true);
    }

    void hurry(Time now) { due_ = now; }
    Time due() const { return entries_.empty() ? kNever : due_; }
    // The oldest ones, in order; then waits twice as long.
    template <class Inject>
    std::size_t inject(Time now, Inject inject_one)
    {
        const std::size_t n = std::min(entries_.size(), kBurst);
        for (std::size_t i = 0; i < n; ++i) inject_one(entries_[i]);
        backoff_ = std::min(backoff_ * 2, kMaxBackoff);
        due_ = now + backoff_;
        return n;
    }
    bool empty() const { return entries_.empty(); }
    std::size_t size() const { return entries_.size(); }
    std::size_t memory() const { return memory_; }
    const std::deque<Entry>& entries() const { return entries_; }

private:
    static constexpr std::size_t kBurst = 32;
    static constexpr Duration kMaxBackoff{1'000'000};
    void restart(Time now, Duration interval)
    {
        backoff_ = interval;
        due_ = now + interval;
    }
    template <class Predicate>
    void drop_if(Predicate predicate, bool monotone)
    {
        while (!entries_.empty() && predicate(entries_.front())) {  // the usual case, without moving the rest
            memory_ -= entries_.front().memory();
            entries_.pop_front();
        }
        if (monotone) return;
        std::erase_if(entries_, [&](const Entry& e) {
            if (!predicate(e)) return false;
            memory_ -= e.memory();
            return true;
        });
    }
    std::deque<Entry> entries_;
    bool ordered_ = true;  // ends never fell
    std::size_t memory_ = 0;
    Time due_ = kNever;
    Duration backoff_{0};
};

}  // namespace colo::proxy
