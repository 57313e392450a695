// SPDX-License-Identifier: Apache-2.0
#pragma once

// A guest that tells when it really stops and runs (STOP and RESUME, checkpoints included), whose dirty log can be
// watched, and whose network ports are connected whenever its device model is new. Everything else is passed through.

#include "core/clock.h"
#include "replication/dirty_rate.h"
#include "replication/guest.h"

#include <functional>
#include <memory>
#include <mutex>
#include <utility>

namespace colo {

class ObservedGuest final : public replication::Guest {
public:
    struct Hooks {   // called on the guest thread
        std::function<void(bool running)> execution;     // also from where events come
        std::function<Result<void>(Deadline)> started;   // the device model (re)started
    };
    ObservedGuest(std::unique_ptr<replication::Guest> inner, Hooks hooks)
        : inner_(std::move(inner)), tap_(inner_->dirty_log(), system_clock()), hooks_(std::move(hooks))
    {
    }

    const replication::GuestDescription& description() const override { return inner_->description(); }
    replication::GuestMemory& memory() override { return inner_->memory(); }
    replication::DirtyLog& dirty_log() override { return tap_; }
    replication::DirtyLogTap& dirty_log_tap() { return tap_; }

    Result<void> create(replication::StartMode mode, Deadline deadline) override
    {
        if (auto r = inner_->create(mode, deadline); !r) return r;
        model_ = inner_->device_model_pid();
        if (auto r = hooks_.started(deadline); !r) return r;
        if (mode == replication::StartMode::boot) tell(inner_->running());
        return {};
    }
    Result<void> recreate(Deadline deadline) override
    {
        tell(false);
        if (auto r = inner_->recreate(deadline); !r) return r;
        model_ = inner_->device_model_pid();
        return hooks_.started(deadline);
    }
    Result<void> cut_begin(Deadline deadline) override
    {
        auto r = inner_->cut_begin(deadline);
        if (r) tell(false);
        return r;
    }
    Result<replication::DeviceState> cut_save(Deadline deadline) override { return inner_->cut_save(deadline); }
    Result<void> resume(Deadline deadline) override
    {
        auto r = inner_->resume(deadline);
        if (r) tell(inner_->running());   // a guest that is off stays off
        return r;
    }
    replication::CutTimes last_cut_times() const override { return inner_->last_cut_times(); }
    Result<void> stop(Deadline deadline) override
    {
        auto r = inner_->stop(deadline);
        if (r) tell(false);
        return r;
    }
    Result<void> load(const replication::DeviceState& state, Deadline deadline) override { return inner_->load(state, deadline); }
    Result<void> verify(const replication::DeviceState& state) const override { return inner_->verify(state); }
    void kill() noexcept override { inner_->kill(); }
    void took_over() noexcept override { inner_->took_over(); }
    Time last_progress() const override { return inner_->last_progress(); }
    void probe() override { inner_->probe(); }
    int device_model_pid() const override { return inner_->device_model_pid(); }
    bool running() const override { return inner_->running(); }
    bool held() const override { return inner_->held(); }
    void let_go() noexcept override { inner_->let_go(); }
    void set_event_handler(std::function<void(replication::GuestEvent)> handler) override
    {
        inner_->set_event_handler([this, handler = std::move(handler)](const replication::GuestEvent& event) {
            handler(event);
            using Kind = replication::GuestEventKind;
            // Nobody of us stopped it: it is off, or held.
            if (event.kind == Kind::power_off || event.kind == Kind::panicked || event.kind == Kind::paused_outside || event.kind == Kind::seized_outside)
                tell(false);
            if (event.kind == Kind::resumed_outside) tell(inner_->running());
        });
    }
    Result<void> save_device_state(const std::string& file, bool live, Deadline deadline) override
    {
        // The device model stops a guest that runs and lets it go on afterwards, also if it could not save.
        const bool ran = inner_->running();
        if (ran) tell(false);
        auto r = inner_->save_device_state(file, live, deadline);
        if (ran) tell(inner_->running());
        return r;
    }
    Result<void> load_device_state(const std::string& file, Deadline deadline) override
    {
        return inner_->load_device_state(file, deadline);
    }
    Result<void> set_global_dirty_log(bool enable, Deadline deadline) override
    {
        return inner_->set_global_dirty_log(enable, deadline);
    }
    Result<void> reset(Deadline deadline) override { return renewed(deadline, inner_->reset(deadline)); }
    Result<void> carry_out_reset(bool run, Deadline deadline) override
    {
        return renewed(deadline, inner_->carry_out_reset(run, deadline));
    }
    Result<std::vector<replication::GuestCheck>> precheck(Deadline deadline) override { return inner_->precheck(deadline); }
    Result<void> powerdown(Deadline deadline) override { return inner_->powerdown(deadline); }
    bool counts_vcpu_dirty_pages() const override { return inner_->counts_vcpu_dirty_pages(); }
    Result<std::vector<std::uint64_t>> vcpu_dirty_pages(Deadline deadline) override
    {
        return inner_->vcpu_dirty_pages(deadline);
    }

private:
    // There may be another device model behind it now, and it may run where the old one had stopped.
    Result<void> renewed(Deadline deadline, Result<void> result)
    {
        if (!result) return result;
        const int pid = inner_->device_model_pid();
        if (std::exchange(model_, pid) == pid) return {};
        tell(false);
        if (auto r = hooks_.started(deadline); !r) return r;
        tell(inner_->running());
        return {};
    }
    void tell(bool running)
    {
        const std::lock_guard lock(mutex_);
        if (running == told_) return;
        told_ = running;
        hooks_.execution(running);
    }
    std::unique_ptr<replication::Guest> inner_;
    replication::DirtyLogTap tap_;
    Hooks hooks_;
    std::mutex mutex_;  // events come from another thread
    bool told_ = false;
    int model_ = 0;   // pid of the device model that `started` was told of
};

}  // namespace colo
