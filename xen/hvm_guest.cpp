// SPDX-License-Identifier: Apache-2.0
// A domain that there is: cuts, loads, services. How it comes to be is in hvm_making.cpp.
#include "core/clock.h"
#include "core/log.h"
#include "qemu/state_file.h"
#include "xen/cpu_context.h"
#include "xen/hvm_guest_impl.h"

#include <filesystem>

namespace colo::xen {

using replication::DeviceState;

void HvmGuest::detach()
{
    std::shared_ptr<DomainWatch> watch;
    {
        const std::lock_guard lock(watch_mutex_);
        watch.swap(watch_);
    }
    watch.reset();   // carries out what it was told last
    own_log_ = nullptr;
    log_.detach();
    memory_.detach();
    cut_.reset();
    model_.reset();
    control_.reset();
    pid_ = 0;
    running_ = false;
}

void HvmGuest::let_go() noexcept
{
    {
        const std::lock_guard lock(watch_mutex_);
        if (!watch_ || !watch_->domain_gone()) return;
    }
    detach();
}

// A save that ended was what the log waited for.
void HvmGuest::settle_log()
{
    if (own_log_ != nullptr) own_log_->settle();
}

Result<void> HvmGuest::trusted_log() const
{
    if (own_log_ == nullptr || !own_log_->doubtful()) return {};
    return make_error(Errc::failed, "another tool (xl save, xl migrate) was at the dirty log a moment ago; no checkpoint is made until it is known to be complete");
}

Result<void> HvmGuest::usable() const
{
    if (!cut_) return make_error(Errc::guest_died, "there is no domain");
    return {};
}

// First what it is meant to be, then what is: an end that the watch notices meanwhile is not overwritten.
Result<void> HvmGuest::note_running()
{
    running_ = true;
    const auto info = control_->info();
    held_ = info && (info->paused || info->suspended());
    intent_.set(true);
    if (info && !info->ended()) return {};
    running_ = false;
    return info ? Result<void>{} : info.error();
}

Result<void> HvmGuest::cut_begin(Deadline deadline)
{
    if (auto r = usable(); !r) return r;
    if (auto r = trusted_log(); !r) return r;
    auto begun = cut_->begin(deadline);
    if (!cut_->running()) running_ = false;
    if (!begun) return begun;
    auto refreshed = memory_.refresh();
    if (!refreshed) (void)cut_->stop(deadline);   // the cut has ended: no save is under way, nobody is hurried
    return refreshed;
}

Result<DeviceState> HvmGuest::cut_save(Deadline deadline)
{
    if (auto r = usable(); !r) return r.error();
    auto saved = cut_->save(deadline);
    settle_log();
    if (!saved) return saved;
    if (auto r = trusted_log(); !r) return r.error();
    return saved;
}

Result<void> HvmGuest::resume(Deadline deadline)
{
    if (auto r = usable(); !r) return r;
    auto resumed = cut_->resume(deadline);
    times_ = cut_->times();
    settle_log();
    return resumed ? note_running() : resumed;
}

Result<void> HvmGuest::stop(Deadline deadline)
{
    if (auto r = usable(); !r) return r;
    auto stopped = cut_->stop(deadline);
    settle_log();
    if (!cut_->running()) running_ = false;
    if (!stopped) return stopped;
    return memory_.refresh();
}

Result<void> HvmGuest::load(const DeviceState& state, Deadline deadline)
{
    if (auto r = usable(); !r) return r;
    if (auto r = cut_->load(state, deadline); !r) return r;
    // A copy that had gone off by itself lives again.
    const auto info = control_->info();
    if (!info) return info.error();
    return info->shut_down ? watch_->revive(*control_) : Result<void>{};
}

Result<void> HvmGuest::verify(const DeviceState& state) const
{
    if (auto r = DomainCut::verify(state); !r) return r;
    return check_vcpus(state.cpu_context, description_.vcpus);
}

void HvmGuest::kill() noexcept
{
    const std::lock_guard lock(watch_mutex_);
    killed_ = true;
    if (watch_) watch_->destroy();
}

void HvmGuest::took_over() noexcept
{
    const std::lock_guard lock(watch_mutex_);
    live_ = true;
    if (watch_ && !has_name_) take_name();
}

void HvmGuest::probe()
{
    if (renewing_) progress_us_ = now().us;
    const std::lock_guard lock(watch_mutex_);
    if (watch_) watch_->probe();
}

// live would give up the node of the snapshot that loads come from, and a second save would then end QEMU.
Result<void> HvmGuest::save_device_state(const std::string& file, bool /*live*/, Deadline deadline)
{
    if (auto r = usable(); !r) return r;
    return model_->save_to(std::filesystem::absolute(file).string(), false, deadline);
}

Result<void> HvmGuest::load_device_state(const std::string& file, Deadline deadline)
{
    if (auto r = usable(); !r) return r;
    const auto state = qemu::read_state_from(file);
    if (!state) return state.error();
    if (cut_->running()) return make_error(Errc::invalid, "device state is loaded into a stopped guest only");
    return model_->load(*state, deadline);
}

Result<void> HvmGuest::set_global_dirty_log(bool enable, Deadline deadline)
{
    if (auto r = usable(); !r) return r;
    return model_->set_dirty_log(enable, deadline);
}

Result<void> HvmGuest::powerdown(Deadline deadline)
{
    if (auto r = usable(); !r) return r;
    return model_->powerdown(deadline);
}

Result<std::vector<replication::GuestCheck>> HvmGuest::precheck(Deadline)
{
    if (auto r = usable(); !r) return r.error();
    std::vector<replication::GuestCheck> out;
    for (Finding& finding : xen::precheck(*control_, *store_)) out.push_back({std::move(finding.check), finding.ok, std::move(finding.text)});
    return out;
}

Result<std::unique_ptr<replication::Guest>> make_hvm_guest(HvmGuestOptions options, HvmPorts ports)
{
    if (options.name.empty() || options.config_file.empty() || options.run_directory.empty())
        return make_error(Errc::invalid, "name, configuration and run directory are needed");
    if (!ports.toolstack) {
        auto toolstack = make_toolstack(options.commands, options.run_directory + "/toolstack.log");
        if (!toolstack) return toolstack.error();
        ports.toolstack = std::move(*toolstack);
    }
    return std::unique_ptr<replication::Guest>(std::make_unique<HvmGuest>(std::move(options), std::move(ports)));
}

}  // namespace colo::xen
