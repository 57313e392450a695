// SPDX-License-Identifier: Apache-2.0
#pragma once

// Inside of hvm_guest.cpp and hvm_making.cpp.

#include "qemu/switched_dirty_log.h"
#include "xen/domain_cut.h"
#include "xen/domain_watch.h"
#include "xen/hvm_guest.h"
#include "xen/hvm_memory.h"

#include <atomic>
#include <mutex>

namespace colo::xen {

class HvmGuest final : public replication::Guest {
public:
    HvmGuest(HvmGuestOptions options, HvmPorts ports)
        : options_(std::move(options)), ports_(std::move(ports)), shell_(options_, *ports_.toolstack, ports_.open_domain, ports_.list_domains)
    {
    }
    ~HvmGuest() override { detach(); }

    const replication::GuestDescription& description() const override { return description_; }
    replication::GuestMemory& memory() override { return memory_; }
    replication::DirtyLog& dirty_log() override { return log_; }

    Result<void> create(replication::StartMode mode, Deadline deadline) override;
    Result<void> cut_begin(Deadline deadline) override;
    Result<replication::DeviceState> cut_save(Deadline deadline) override;
    Result<void> resume(Deadline deadline) override;
    replication::CutTimes last_cut_times() const override { return times_; }
    Result<void> stop(Deadline deadline) override;
    Result<void> load(const replication::DeviceState& state, Deadline deadline) override;
    Result<void> verify(const replication::DeviceState& state) const override;
    Result<void> recreate(Deadline deadline) override;
    void kill() noexcept override;
    void took_over() noexcept override;

    Time last_progress() const override { return Time{progress_us_.load(std::memory_order_relaxed)}; }
    void probe() override;
    int device_model_pid() const override { return pid_; }
    bool running() const override { return running_ && !held_; }
    bool held() const override { return running_ && held_; }
    void let_go() noexcept override;
    void set_event_handler(std::function<void(replication::GuestEvent)> handler) override { handler_ = std::move(handler); }

    Result<void> save_device_state(const std::string& file, bool live, Deadline deadline) override;
    Result<void> load_device_state(const std::string& file, Deadline deadline) override;
    Result<void> set_global_dirty_log(bool enable, Deadline deadline) override;
    Result<void> powerdown(Deadline deadline) override;
    Result<void> reset(Deadline deadline) override;
    Result<void> carry_out_reset(bool run, Deadline deadline) override;
    Result<std::vector<replication::GuestCheck>> precheck(Deadline deadline) override;

private:
    Result<void> start(replication::StartMode mode, Deadline deadline);
    Result<void> open_store(Deadline deadline);
    Result<void> renew(bool run, Deadline deadline);
    Result<void> clear_away(Deadline deadline);
    Result<void> make(replication::StartMode mode, Deadline deadline);
    Result<void> begin(DomainId domain, replication::StartMode mode, Deadline deadline);
    Result<void> attach(DomainId domain, Deadline deadline);
    Result<void> watch_over(DomainId domain, Deadline deadline);
    Result<void> adopt(DomainId domain, Deadline deadline);
    Result<void> go_on(Deadline deadline);
    Result<void> note_running();
    void take_name();
    Result<void> connect_cables(Deadline deadline);
    Result<void> settle(Deadline deadline);
    Result<void> take_pause_over(Deadline deadline);
    Result<void> describe();
    Result<void> attach_memory();
    Result<void> may_log();
    void detach();
    void settle_log();
    Result<void> trusted_log() const;
    Result<void> usable() const;

    const HvmGuestOptions options_;
    HvmPorts ports_;
    DomainShell shell_;
    std::function<void(replication::GuestEvent)> handler_;
    replication::GuestDescription description_;
    bool described_ = false;   // and somebody may read it
    std::uint64_t described_pages_ = 0;    // of the domain that we have
    std::unique_ptr<Store> store_;

    // The domain that we have; in the order in which they need each other.
    std::unique_ptr<Control> control_;
    std::unique_ptr<DeviceModel> model_;
    std::unique_ptr<DomainCut> cut_;
    SwitchedMemory memory_;
    qemu::SwitchedDirtyLog log_;
    HvmDirtyLog* own_log_ = nullptr;   // in it
    mutable std::mutex watch_mutex_;   // guards the pointer only: kill(), probe(), took_over() come from any thread
    std::shared_ptr<DomainWatch> watch_;
    bool killed_ = false;              // with it: a kill() while there is no watch is not lost
    bool live_ = false;                // with it: the domain is the one, not a copy that follows
    bool has_name_ = false;            // with it: it was made under the name of the one

    std::atomic<int> pid_ = 0;
    std::atomic<bool> running_ = false;    // as far as we decide about it
    std::atomic<bool> held_ = false;       // others do not let it
    Intent intent_;
    std::atomic<bool> renewing_ = false;   // there is no device model that could answer
    std::atomic<std::int64_t> progress_us_ = 0;
    replication::CutTimes times_;
};

}  // namespace colo::xen
