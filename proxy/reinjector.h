// SPDX-License-Identifier: Apache-2.0
#pragma once

// R4: the client's bytes of one connection that our guest has not acknowledged. The client may have been told that we
// have them, so it will not send them again: we do, until the guest confirms.
//
// The client is held back by P's guest, not by ours, which may be far behind: what goes beyond our guest's window would be
// dropped by it, given again, and dropped again. So no more than kGuestWindow is on its way to it at any time.

#include "proxy/packet.h"

#include <algorithm>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

namespace colo::proxy {

class Reinjector {
public:
    struct Entry {
        std::uint64_t number = 0;  // mirror number: order among all connections
        Epoch epoch = 0;
        std::uint32_t start = 0, end = 0;  // client's sequence numbers
        FramePtr frame;
        Time first_given = kNever;  // by timer
        bool given = false;         // on its way to the guest; never behind one that is not
        std::size_t memory() const { return frame->bytes.size() + 96; }
    };

    bool has(std::uint32_t start, std::uint32_t end) const
    {
        for (auto it = entries_.rbegin(); it != entries_.rend(); ++it) {
            if (it->start == start && it->end == end) return true;
            if (ordered_ && !seq_before(start, it->end)) return false;
        }
        return false;
    }
    bool full(const Entry& entry) const
    {
        return entries_.size() >= kMaxEntries || memory_ + entry.memory() > kMaxMemory;
    }
    // Returns whether the guest may have it at once; otherwise it is among those that give_more() gives.
    [[nodiscard]] bool add(Entry entry, Time now, Duration interval)
    {
        if (entries_.empty()) {
            restart(now, interval);
            ordered_ = true;
        } else if (seq_before(entry.end, entries_.back().end)) {
            ordered_ = false;
        }
        memory_ += entry.memory();
        entries_.push_back(std::move(entry));
        ++waiting_;
        return waiting_ == 1 && give_next();
    }
    // Gives what has become possible by acknowledgements.
    template <class Give>
    void give_more(Give give)
    {
        while (waiting_ != 0 && give_next()) give(entries_[entries_.size() - waiting_ - 1]);
    }
    // The guest has everything before `ack`.
    void acknowledged(std::uint32_t ack, Time now, Duration interval)
    {
        acked_ = ack;
        const std::size_t before = entries_.size();
        drop_if([ack](const Entry& e) { return !seq_after(e.end, ack); }, ordered_);
        if (entries_.size() != before) restart(now, interval);
    }
    // The guest answered the SYN before `ack`: what came before that SYN belongs to a connection that is gone.
    void begun(std::uint32_t ack)
    {
        const auto syn = std::find_if(entries_.rbegin(), entries_.rend(), [ack](const Entry& e) {
            return e.start + 1 == ack && parse_packet(e.frame->view()).has(kTcpSyn);
        });
        acked_.reset();
        if (syn != entries_.rend()) drop_before(syn->number);
    }
    // What a guest that has acknowledged `acked` (0: not known) still needs belongs to `epoch` from now on. A SYN does not:
    // nobody was told of it.
    void keep_for(Epoch epoch, std::uint32_t acked)
    {
        for (Entry& e : entries_)
            if (missing(parse_packet(e.frame->view()), acked)) e.epoch = std::max(e.epoch, epoch);
    }
    // The client's segment holds what a guest that acknowledged `acked` (0: nothing) has not got.
    static bool missing(const Packet& packet, std::uint32_t acked)
    {
        return !packet.has(kTcpSyn) && packet.sequence_size() != 0 &&
               (acked == 0 || seq_after(packet.seq + packet.sequence_size(), acked));
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

    // At once, and as if for the first time: the guest has forgotten what it was given.
    void hurry(Time now)
    {
        due_ = now;
        acked_.reset();
        given_memory_ = 0;
        waiting_ = entries_.size();
        for (Entry& e : entries_) {
            e.first_given = kNever;
            e.given = false;
        }
    }
    Time due() const { return entries_.empty() ? kNever : due_; }
    // The oldest ones, in order; then waits twice as long. `guest_heard`: when our guest last sent anything.
    template <class Inject>
    std::size_t inject(Time now, Time guest_heard, Inject inject_one)
    {
        give_up(std::min(now, guest_heard));
        while (waiting_ != 0 && give_next()) {}
        const std::size_t n = std::min(entries_.size() - waiting_, kBurst);
        for (std::size_t i = 0; i < n; ++i) {
            entries_[i].first_given = std::min(entries_[i].first_given, now);
            inject_one(entries_[i]);
        }
        backoff_ = std::min(backoff_ * 2, kMaxBackoff);
        due_ = now + backoff_;
        return n;
    }
    bool empty() const { return entries_.empty(); }
    std::size_t size() const { return entries_.size(); }
    std::size_t memory() const { return memory_; }
    const std::deque<Entry>& entries() const { return entries_; }

private:
    static constexpr std::size_t kBurst = 128;
    static constexpr std::size_t kGuestWindow = 128u << 10;  // Linux begins with half of that and grows quickly
    static constexpr std::size_t kMaxEntries = 4096, kMaxMemory = 8u << 20;
    static constexpr Duration kGiveUp{10'000'000};
    static constexpr Duration kMaxBackoff{1'000'000};
    bool give_next()
    {
        Entry& next = entries_[entries_.size() - waiting_];
        if (given_memory_ != 0 && given_memory_ + next.memory() > kGuestWindow) return false;
        next.given = true;
        given_memory_ += next.memory();
        --waiting_;
        return true;
    }
    void forget(const Entry& entry)
    {
        memory_ -= entry.memory();
        if (entry.given)
            given_memory_ -= entry.memory();
        else
            --waiting_;
    }
    void restart(Time now, Duration interval)
    {
        backoff_ = interval;
        due_ = now + interval;
    }
    // What the guest ignores although it was given it again and again (a wrong number, no listener) must not keep the
    // others from their turn. Bytes that follow on what it has acknowledged stay: its window may be closed for long. So
    // does everything while the guest is silent: it may be stalled.
    void give_up(Time now)
    {
        if (entries_.empty() || entries_.front().first_given > now - kGiveUp) return;
        const std::optional<std::uint32_t> reach = acked_ ? std::optional(reachable(*acked_)) : std::nullopt;
        const auto hopeless = [&](const Entry& e) {
            return e.first_given <= now - kGiveUp && (!reach || seq_after(e.end, *reach));
        };
        drop_if(hopeless, false);
    }
    // Where the bytes that follow on `ack` without a gap end.
    std::uint32_t reachable(std::uint32_t ack) const
    {
        std::vector<std::pair<std::uint32_t, std::uint32_t>> spans;  // distances from `ack`
        for (const Entry& e : entries_) {
            const std::uint32_t start = seq_before(e.start, ack) ? 0 : e.start - ack;
            if (seq_after(e.end, ack)) spans.emplace_back(start, e.end - ack);
        }
        std::sort(spans.begin(), spans.end());
        std::uint32_t reach = 0;
        for (const auto& [start, end] : spans) {
            if (start > reach) break;
            reach = std::max(reach, end);
        }
        return ack + reach;
    }
    template <class Predicate>
    void drop_if(Predicate predicate, bool monotone)
    {
        while (!entries_.empty() && predicate(entries_.front())) {  // the usual case, without moving the rest
            forget(entries_.front());
            entries_.pop_front();
        }
        if (monotone) return;
        std::erase_if(entries_, [&](const Entry& e) {
            if (!predicate(e)) return false;
            forget(e);
            return true;
        });
        ordered_ = std::is_sorted(entries_.begin(), entries_.end(),
                                  [](const Entry& a, const Entry& b) { return seq_before(a.end, b.end); });
    }
    std::deque<Entry> entries_;
    bool ordered_ = true;  // ends never fell
    std::size_t memory_ = 0, given_memory_ = 0;
    std::size_t waiting_ = 0;  // the newest ones that the guest has not been given
    std::optional<std::uint32_t> acked_;
    Time due_ = kNever;
    Duration backoff_{0};
};

}  // namespace colo::proxy
