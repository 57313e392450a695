// SPDX-License-Identifier: Apache-2.0
#include "xen/domain_cut.h"

#include "core/clock.h"
#include "core/log.h"
#include "xen/cpu_context.h"

#include <fmt/format.h>

#include <chrono>
#include <thread>
#include <utility>

namespace colo::xen {

using replication::DeviceState;

namespace {

// About the time that a device model takes for an answer.
constexpr std::chrono::microseconds kAnswerPause{50};

// Waits until the device model owes no answer; how many vCPUs have not taken theirs.
Result<std::uint32_t> wait_answers(Control& control, Deadline deadline)
{
    for (;;) {
        const auto accesses = control.in_flight();
        if (!accesses) return accesses.error();
        if (accesses->waiting == 0) return accesses->answered;
        if (now() >= deadline) return make_error(Errc::timed_out, "the device model does not answer a vCPU");
        std::this_thread::sleep_for(kAnswerPause);
    }
}

// As many pauses as one domain can have been given.
constexpr int kMaxPauseCount = 255;

// The vCPU takes its answer as soon as it runs, for which the pauses of others are in the way as much as ours. Ours stays off.
Result<void> let_run_for_a_moment(Control& control)
{
    if (auto r = control.unpause(); !r) return r;
    int others = 0;
    auto done = lift_pauses(control, others);
    if (done && others > 0) std::this_thread::sleep_for(kAnswerPause);
    for (int i = 0; i < others; ++i) {   // whatever failed: theirs are theirs
        const auto given_back = control.pause();
        if (done && !given_back) done = given_back;
    }
    return done;
}

}  // namespace

Result<void> lift_pauses(Control& control, int& lifted)
{
    for (lifted = 0; lifted < kMaxPauseCount; ++lifted) {
        const auto info = control.info();
        if (!info) return info.error();
        if (!info->paused) break;
        if (auto r = control.unpause(); !r) return r.error();
    }
    return {};
}

Result<int> pause_between_accesses(Control& control, Deadline deadline)
{
    for (int tries = 0; tries < kMaxPauses; ++tries) {
        if (auto r = control.pause(); !r) return r.error();
        const auto answered = wait_answers(control, deadline);
        if (answered && *answered == 0) return tries;
        if (!answered) {
            if (auto r = control.unpause(); !r) return r.error();
            return answered.error();
        }
        if (auto r = let_run_for_a_moment(control); !r) return r.error();
        if (now() >= deadline) return make_error(Errc::timed_out, "pause: the deadline passed");
    }
    return make_error(Errc::timed_out, fmt::format("pause: a vCPU was in the middle of an access {} times in a row", kMaxPauses));
}

Result<bool> DomainCut::stands_still()
{
    const auto info = control_.info();
    if (!info) return info.error();
    return info->paused;
}

// What a toolstack suspended is in the middle of being saved: its state need not load anywhere, and its device model is not ours
// to let run.
Result<void> DomainCut::nobody_elses(const DomainInfo& info)
{
    if (info.suspended()) return make_error(Errc::failed, "another tool has the domain suspended (xl save, xl migrate?)");
    return {};
}

Result<void> DomainCut::pause(Deadline deadline)
{
    if (paused_) {
        const auto still = stands_still();
        if (!still) return still.error();
        if (*still) return {};
        spdlog::warn("domain {} was let go by another tool (xl unpause?) while it was to stand still; it is paused again", control_.domain());
        undone_ = true;
    }
    meant_to_run(false);
    const auto repeated = pause_between_accesses(control_, deadline);
    if (!repeated) {
        paused_ = false;
        meant_to_run(!stopped_);
        return repeated.error();
    }
    pauses_repeated_ += *repeated;
    paused_ = true;
    return {};
}

// Its answer would be taken for that of the next command.
void DomainCut::give_save_up(Deadline deadline)
{
    if (saving_) (void)model_.finish_save(deadline);
    saving_ = false;
}

// xl's device models do not name their threads, so that those that last cannot be told from the others: asked each time, while
// the domain still runs.
void DomainCut::hurry()
{
    if (model_pid_ == 0) return;
    priority_.set_threads(qemu::lasting_threads(model_pid_));
    (void)priority_.raise();
}

Result<void> DomainCut::begin(Deadline deadline)
{
    give_save_up(deadline);
    const auto info = control_.info();
    if (!info) return with_context("cut", info.error());
    if (auto r = nobody_elses(*info); !r) return with_context("cut", r.error());
    if (std::exchange(cont_is_owed_, false)) (void)model_.cont(deadline);
    hurry();
    times_ = {};
    times_.stop_sent = now();
    auto begun = pause(deadline);
    if (begun) {
        // Before it answers: one that is late may do it after all, and must be let go again.
        saving_ = stopped_ = true;
        begun = model_.stop_and_begin_save(deadline);
    }
    times_.stopped = now();
    if (begun) return {};
    priority_.restore();   // a guest that is off is neither let go nor stopped after this
    return with_context("cut", begun.error());
}

Result<DeviceState> DomainCut::save(Deadline deadline)
{
    if (!saving_) return make_error(Errc::invalid, "no cut was begun");
    // While the device model is at work.
    auto context = control_.context();
    saving_ = false;
    auto devices = model_.finish_save(deadline);
    if (!devices) return with_context("save", devices.error());
    if (!context) return with_context("save", context.error());
    const auto info = control_.info();
    if (!info) return with_context("save", info.error());
    if (!info->paused) return make_error(Errc::failed, "save: another tool let the domain go (xl unpause?) in the middle of a checkpoint");
    if (auto r = nobody_elses(*info); !r) return with_context("save", r.error());
    times_.saved = now();
    return DeviceState{std::move(*devices), std::move(*context)};
}

Result<void> DomainCut::resume(Deadline deadline)
{
    give_save_up(deadline);
    times_.cont_sent = now();
    auto gone_on = go_on(deadline);
    times_.cont_done = now();
    priority_.restore();
    return gone_on;
}

Result<void> DomainCut::go_on(Deadline deadline)
{
    // Suspended since the cut began: whoever did it lets the device model go on when the domain does. If that crossed our stop, the
    // next cut makes up for it.
    const auto info = control_.info();
    cont_is_owed_ = stopped_ && info && info->suspended();
    if (stopped_ && !cont_is_owed_)
        if (auto r = model_.cont(deadline); !r) {
            // Off by itself just before the stop: that is a state, not a failure (R9), in which a device model does not go on.
            const auto after = control_.info();
            return after && after->ended() ? Result<void>{} : with_context("resume", r.error());
        }
    stopped_ = false;
    if (paused_)
        if (auto r = control_.unpause(); !r) {
            const auto still = stands_still();   // another tool may have done it
            if (!still || *still) return with_context("resume", r.error());
        }
    paused_ = undone_ = false;
    meant_to_run(true);
    return {};
}

Result<void> DomainCut::stop(Deadline deadline)
{
    give_save_up(deadline);
    priority_.restore();   // of a cut that ends without going on
    if (auto r = pause(deadline); !r) return with_context("stop", r.error());
    if (stopped_) return {};
    stopped_ = true;
    auto stopped = model_.stop(deadline);
    if (!stopped) return with_context("stop", stopped.error());
    return {};
}

Result<void> DomainCut::verify(const DeviceState& state)
{
    if (auto r = check_model_state(state.devices); !r) return r;
    return check_context(state.cpu_context);
}

Result<void> DomainCut::load(const DeviceState& state, Deadline deadline)
{
    if (auto r = verify(state); !r) return r;
    if (!paused_ || !stopped_ || saving_) return make_error(Errc::invalid, "load into a domain that is not stopped");
    const auto still = stands_still();
    if (!still) return with_context("load", still.error());
    if (undone_ || !*still) return make_error(Errc::failed, "load: another tool let the domain run (xl unpause?) while it was to stand still");
    if (auto r = control_.set_context(state.cpu_context); !r) return with_context("load", r.error());
    return model_.load(state.devices, deadline);
}

}  // namespace colo::xen
