// SPDX-License-Identifier: Apache-2.0
#include "colo/node_mode.h"

#include <algorithm>

namespace colo {

using replication::Mode;
using replication::TriggerReason;

bool is_divergence(TriggerReason reason)
{
    return reason == TriggerReason::mismatch || reason == TriggerReason::late_output ||
           reason == TriggerReason::no_comparison;
}

ModePolicy::ModePolicy(const NodeConfig& config)
    : budget_(config.mismatch_budget), window_(config.mismatch_window), calm_initial_(config.calm_initial),
      calm_max_(config.calm_max), allowed_(config.allow_buffered || config.always_buffered),
      always_(config.always_buffered), calm_(config.calm_initial)
{
}

void ModePolicy::begin_session(Time now)
{
    divergences_.clear();
    calm_ = calm_initial_;
    returned_ = false;
    since_ = now;
    mode_ = always_ ? Mode::buffered : Mode::lock_step;
    reason_ = always_ ? "configured" : "";
}

void ModePolicy::enter_buffered(Time now)
{
    // A return that did not last means that the service still answers differently: wait longer before the next try.
    if (returned_) calm_ = now - since_ < calm_ ? std::min(calm_ * 2, calm_max_) : calm_initial_;
    mode_ = Mode::buffered;
    since_ = now;
    reason_ = std::to_string(divergences_.size()) + " checkpoints within " + std::to_string(window_.count() / 1000) +
              " ms because the copies answered differently; trying lock-step again after " +
              std::to_string(calm_.count() / 1'000'000) + " s";
    divergences_.clear();
}

void ModePolicy::enter_lock_step(Time now)
{
    mode_ = Mode::lock_step;
    since_ = now;
    returned_ = true;
    reason_ = "buffered for " + std::to_string(calm_.count() / 1'000'000) + " s, trying lock-step again";
}

Mode ModePolicy::choose(TriggerReason reason, Time now)
{
    if (!allowed_ || always_) return mode_;
    if (mode_ == Mode::buffered) {
        if (now >= change_due()) enter_lock_step(now);
        return mode_;
    }
    if (!is_divergence(reason)) return mode_;
    while (!divergences_.empty() && now - divergences_.front() > window_) divergences_.pop_front();
    divergences_.push_back(now);
    if (divergences_.size() > budget_) enter_buffered(now);
    return mode_;
}

Time ModePolicy::change_due() const
{
    return mode_ == Mode::buffered && !always_ ? since_ + calm_ : kNever;
}

void CheckpointPacer::begin_session(Time now)
{
    last_cut_ = now;
    pending_.reset();
    aborts_ = 0;
}

void CheckpointPacer::cut_begun(Time now)
{
    last_cut_ = now;
    pending_.reset();
}

void CheckpointPacer::cut_aborted()
{
    ++aborts_;
}

void CheckpointPacer::trigger(TriggerReason reason)
{
    // The strongest reason is told: power events first, then divergence, then whatever came first.
    if (!pending_ || reason == TriggerReason::power_event ||
        (is_divergence(reason) && !is_divergence(*pending_) && *pending_ != TriggerReason::power_event))
        pending_ = reason;
}

CheckpointPacer::Due CheckpointPacer::due(Duration period, Duration minimum) const
{
    const Duration wait = std::min(minimum * (std::int64_t{1} << std::min<std::uint32_t>(aborts_, 10)), std::max(period, minimum));
    const Time earliest = last_cut_ + wait;
    if (pending_) return {earliest, *pending_};
    return {std::max(earliest, last_cut_ + period), TriggerReason::period};
}

}  // namespace colo
