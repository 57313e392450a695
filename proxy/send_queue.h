// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a full port or wire has not taken yet, in order. A checkpoint releases everything that was held in one burst; a
// queue of the kernel is shorter than that. Sans-I/O: the runtime says when, and what sending means.

#include "core/error.h"
#include "proxy/port.h"

#include <algorithm>
#include <deque>
#include <utility>
#include <vector>

namespace colo::proxy {

class SendQueue {
public:
    struct Limits {
        std::size_t frames, bytes;
        // How long the first one may be refused before it is dropped: something else than a full queue may refuse it
        // (a filter of the host), and the others must not wait for it. At once if one of its size leaves in between.
        // Duration::max(): the first one is waited for, whatever refuses it.
        Duration patience;
    };
    struct Entry {
        FramePtr frame;
        bool by_peer = false;  // wire: leaves only while the lease lasts
    };

    explicit SendQueue(const Limits& limits) : limits_(limits) {}

    bool empty() const { return entries_.empty(); }
    std::size_t size() const { return entries_.size(); }
    std::size_t bytes() const { return bytes_; }
    std::uint64_t dropped() const { return dropped_; }
    // When drain() may have success again: nobody tells when a queue of the kernel has room.
    Time due() const { return entries_.empty() ? kNever : due_; }

    // Behind what waits; the newest is dropped where there is no room.
    void push(Entry entry, Time now)
    {
        const std::size_t size = memory(entry);
        if (entries_.size() >= limits_.frames || bytes_ + size > limits_.bytes) {
            ++dropped_;
            return;
        }
        if (entries_.empty()) {
            refused_since_ = now;
            pause_ = kFirstPause;
            due_ = now + pause_;
        }
        bytes_ += size;
        entries_.push_back(std::move(entry));
    }
    // Sends until one is refused: `send` takes an Entry and returns Result<SendResult>. An error ends it; the queue is
    // empty then.
    template <class Send>
    Result<void> drain(Time now, Send send)
    {
        if (now < due()) return {};
        bool progress = false;
        while (!entries_.empty()) {
            Result<SendResult> sent = send(entries_.front());
            if (sent && *sent == SendResult::full) {
                if (progress) refused_since_ = now;
                if (now - refused_since_ < limits_.patience) {
                    if (!second_leaves(send)) break;
                    progress = true;
                    sent = send(entries_.front());  // is it the frame, or was there room just then?
                }
                if (sent && *sent == SendResult::full) ++dropped_;
            }
            if (!sent) {
                clear();
                return sent.error();
            }
            pop();
            progress = true;
        }
        pause_ = progress ? kFirstPause : std::min(pause_ * 2, kLongestPause);
        due_ = now + pause_;
        return {};
    }
    std::vector<FramePtr> take_all()
    {
        std::vector<FramePtr> frames;
        for (Entry& entry : entries_) frames.push_back(std::move(entry.frame));
        entries_.clear();
        bytes_ = 0;
        return frames;
    }
    void clear()
    {
        dropped_ += entries_.size();
        entries_.clear();
        bytes_ = 0;
    }
    // Protection begins: what waits obeys the lease from now on.
    void bind_to_peer()
    {
        for (Entry& entry : entries_) entry.by_peer = true;
    }
    template <class Predicate>
    void drop_if(Predicate predicate)
    {
        dropped_ += std::erase_if(entries_, [&](const Entry& entry) {
            if (!predicate(entry)) return false;
            bytes_ -= memory(entry);
            return true;
        });
    }

private:
    static constexpr Duration kFirstPause{500}, kLongestPause{16'000};
    // The second one, if it is no smaller than the first: where it finds room, so would the first.
    template <class Send>
    bool second_leaves(Send& send)
    {
        if (limits_.patience == Duration::max()) return false;
        if (entries_.size() < 2 || memory(entries_[1]) < memory(entries_[0])) return false;
        const Result<SendResult> sent = send(entries_[1]);
        if (!sent || *sent == SendResult::full) return false;  // an error comes again with the next
        bytes_ -= memory(entries_[1]);
        entries_.erase(entries_.begin() + 1);
        return *sent == SendResult::sent;
    }
    static std::size_t memory(const Entry& entry) { return entry.frame->bytes.size() + 64; }
    void pop()
    {
        bytes_ -= memory(entries_.front());
        entries_.pop_front();
    }
    Limits limits_;
    std::deque<Entry> entries_;
    std::size_t bytes_ = 0;
    std::uint64_t dropped_ = 0;
    Time refused_since_, due_ = kNever;
    Duration pause_{kFirstPause};
};

}  // namespace colo::proxy
