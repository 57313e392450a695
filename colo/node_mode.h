// SPDX-License-Identifier: Apache-2.0
#pragma once

// Two small policies of the primary, pure values: which mode the next checkpoint has, and when it may begin.

#include "colo/node.h"
#include "core/types.h"
#include "replication/message.h"

#include <deque>
#include <optional>
#include <string>

namespace colo {

// Did the copies' outputs cost this checkpoint?
bool is_divergence(replication::TriggerReason reason);

// Lock-step as long as outputs agree often enough; buffered while they do not (design section 3, two modes).
class ModePolicy {
public:
    explicit ModePolicy(const NodeConfig& config);
    void begin_session(Time now);

    // A checkpoint begins for `reason`: the mode it establishes.
    replication::Mode choose(replication::TriggerReason reason, Time now);
    // When a checkpoint with TriggerReason::mode_change is due, kNever if none is.
    Time change_due() const;

    replication::Mode mode() const { return mode_; }
    const std::string& reason() const { return reason_; }

private:
    void enter_buffered(Time now);
    void enter_lock_step(Time now);

    std::uint32_t budget_;
    Duration window_, calm_initial_, calm_max_;
    bool allowed_, always_;
    replication::Mode mode_ = replication::Mode::lock_step;
    std::string reason_;
    std::deque<Time> divergences_;   // at most budget + 1
    Duration calm_;
    Time since_{};
    bool returned_ = false;          // lock-step that followed buffered
};

// Coalesces triggers (Inv14), keeps the minimal interval (Inv15) and the period.
class CheckpointPacer {
public:
    void begin_session(Time now);
    void cut_begun(Time now);         // all triggers so far are served by this cut
    void cut_aborted();               // the next one waits longer: pressure does not go away by trying at once
    void trigger(replication::TriggerReason reason);

    struct Due {
        Time at = kNever;
        replication::TriggerReason reason = replication::TriggerReason::period;
    };
    Due due(Duration period, Duration minimum) const;
    Time last_cut() const { return last_cut_; }
    std::uint32_t aborts_in_row() const { return aborts_; }
    void cut_succeeded() { aborts_ = 0; }

private:
    Time last_cut_{};
    std::optional<replication::TriggerReason> pending_;
    std::uint32_t aborts_ = 0;
};

}  // namespace colo
