// SPDX-License-Identifier: Apache-2.0
#pragma once

// Judges our own parts as the peer judges them, only sooner, so that a side that stands still can step back before the
// healthy one has to find out. Sans-I/O; the control thread calls judge() every `interval`.
//
// A false alarm costs the protection, so: a part is judged from its first movement on, and a judge that was late itself (a
// saturated or suspended host) starts anew.

#include "colo/heartbeat.h"

namespace colo {

// Share of progress_timeout. A device model without KVM on a saturated host has been seen 400 ms late; the default is 1 s.
inline constexpr std::int64_t kOwnHealthPercent = 60;

class OwnHealth {
public:
    struct Verdict {
        bool ok = true;
        std::string why;
    };
    OwnHealth(Duration progress_timeout, Duration interval)
        : timeout_(progress_timeout.count() * kOwnHealthPercent / 100), interval_(interval)
    {
    }
    void moved(ProgressCounter counter, Time now) { at(counter) = now; }
    void not_judged(ProgressCounter counter) { at(counter) = Time{0}; }
    // What is different since the last call, if anything.
    std::optional<Verdict> judge(Time now);

private:
    Time& at(ProgressCounter counter) { return moved_[static_cast<std::size_t>(counter)]; }
    const Duration timeout_, interval_;
    std::array<Time, kProgressCounters> moved_{};   // 0: not judged
    Time last_{};
    std::optional<ProgressCounter> still_;
};

}  // namespace colo
