// SPDX-License-Identifier: Apache-2.0
#pragma once

// Stopping an HVM domain so that memory, CPUs and devices are of one moment, and setting it to such a moment. The order is
// what it is about: vCPUs stop before the device model, which does not answer them once it has stopped; the dirty log is read
// after both; the device model goes on before the vCPUs.

#include "qemu/cut_priority.h"
#include "replication/guest.h"
#include "xen/control.h"
#include "xen/device_model.h"

#include <atomic>
#include <optional>

namespace colo::xen {

// Takes every pause back that the domain has, whoever gave it. `lifted`: how many, also if it fails in the middle.
Result<void> lift_pauses(Control& control, int& lifted);

// Pauses the domain at a moment at which no vCPU is in the middle of an access to a device: such an access is in no
// context, and would happen twice where it is restored. Returns how often it had to be let go once more. Errc::timed_out:
// the device model does not answer, or there was an access at each of kMaxPauses moments; the domain is not paused then.
inline constexpr int kMaxPauses = 50;
Result<int> pause_between_accesses(Control& control, Deadline deadline);

// Whether the domain is meant to run, for those who look at it from another thread: a pause that is none of ours can be told
// from ours only while nothing of ours is under way.
class Intent {
public:
    void set(bool run)
    {
        changes_.fetch_add(1);
        run_ = run;
        changes_.fetch_add(1);
    }
    // What `look` found, if the domain was meant to run all the time.
    template <class Look>
    auto while_meant_to_run(Look&& look) const -> std::optional<decltype(look())>
    {
        const auto before = changes_.load();
        if (!run_) return std::nullopt;
        auto found = look();
        if (changes_.load() != before || before % 2 != 0) return std::nullopt;
        return found;
    }

private:
    std::atomic<std::uint32_t> changes_ = 0;
    std::atomic<bool> run_ = false;
};

// One thread. The domain runs at first. After an error of begin, save, resume or stop the domain is where the error left
// it, and unusable for replication.
class DomainCut {
public:
    // All of it outlive it.
    DomainCut(Control& control, DeviceModel& model, Intent* intent = nullptr) : control_(control), model_(model), intent_(intent) {}

    // From begin() to the resume() or stop() that ends the cut the device model and the calling thread have real-time priority,
    // where that is permitted: dom0 has few processors, and many device models want them.
    void hurry_model(int pid) { model_pid_ = pid; }

    // On return no vCPU runs and the device model writes nothing but its save. Refused, as save() is, while a toolstack has the
    // domain suspended.
    Result<void> begin(Deadline deadline);
    Result<replication::DeviceState> save(Deadline deadline);   // after begin()
    Result<void> resume(Deadline deadline);
    Result<void> stop(Deadline deadline);                       // without saving; nothing happens if it is stopped
    // Stopped, and never let go by another tool since (Errc::failed: what is in its memory is not known then). What can be checked is checked first; then CPUs, then devices.
    Result<void> load(const replication::DeviceState& state, Deadline deadline);
    static Result<void> verify(const replication::DeviceState& state);

    bool running() const { return !paused_ && !stopped_; }
    const replication::CutTimes& times() const { return times_; }   // of the last begin() ... resume()
    int pauses_repeated() const { return pauses_repeated_; }        // since the beginning

private:
    Result<void> pause(Deadline deadline);
    Result<bool> stands_still();
    static Result<void> nobody_elses(const DomainInfo& info);
    void meant_to_run(bool run)
    {
        if (intent_ != nullptr) intent_->set(run);
    }
    void hurry();
    Result<void> go_on(Deadline deadline);
    void give_save_up(Deadline deadline);

    Control& control_;
    DeviceModel& model_;
    Intent* intent_;
    bool paused_ = false;    // by us
    bool undone_ = false;    // another tool undid that since
    bool stopped_ = false;   // the device model
    bool saving_ = false;
    bool cont_is_owed_ = false;
    int pauses_repeated_ = 0;
    int model_pid_ = 0;
    qemu::CutPriority priority_;
    replication::CutTimes times_;
};

}  // namespace colo::xen
