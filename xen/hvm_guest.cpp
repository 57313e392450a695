// SPDX-License-Identifier: Apache-2.0
#include "xen/hvm_guest.h"

#include "core/clock.h"
#include "core/log.h"
#include "qemu/options.h"
#include "qemu/state_file.h"
#include "qemu/switched_dirty_log.h"
#include "xen/domain_cut.h"
#include "xen/domain_watch.h"
#include "xen/hvm_memory.h"

#include <fmt/format.h>

#include <atomic>
#include <filesystem>
#include <mutex>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>

namespace colo::xen {

using replication::CutTimes;
using replication::DeviceState;
using replication::GuestDescription;
using replication::GuestEvent;
using replication::GuestEventKind;
using replication::StartMode;

namespace {

constexpr Duration kLogSwitch = std::chrono::seconds(5);
constexpr Duration kUndo = std::chrono::seconds(10);
// As many pauses as one domain can have been given.
constexpr int kMaxPauseCount = 255;

// Settings that a domain gets when it is made and that its CPU context does not contain.
Result<std::string> platform(Control& control)
{
    std::string out = "hvm";
    constexpr std::pair<Param, const char*> kCompared[] = {{Param::viridian, "viridian"}, {Param::acpi_ioports_location, "acpi-ioports"},
                                                           {Param::x87_fip_width, "x87-fip-width"}, {Param::mca_capabilities, "mca"}};
    for (const auto& [param, name] : kCompared) {
        const auto value = control.param(param);
        if (!value) return value.error();
        out += fmt::format(" {}={:#x}", name, *value);
    }
    const auto tsc = control.tsc();
    if (!tsc) return tsc.error();
    return out + fmt::format(" tsc-mode={}", tsc->mode);
}

}  // namespace

Result<void> HvmDirtyLog::start()
{
    if (auto r = may_start_(); !r) return r;
    if (auto r = model_.set_dirty_log(true, now() + kLogSwitch); !r) return with_context("dirty log of the device model", r.error());
    auto started = log_->start();
    if (!started) (void)model_.set_dirty_log(false, now() + kLogSwitch);
    return started;
}

void HvmDirtyLog::stop()
{
    log_->stop();
    (void)model_.set_dirty_log(false, now() + kLogSwitch);
}

class HvmGuest final : public replication::Guest {
public:
    HvmGuest(HvmGuestOptions options, HvmPorts ports)
        : options_(std::move(options)), ports_(std::move(ports)), shell_(options_, *ports_.toolstack, ports_.open_domain)
    {
    }
    ~HvmGuest() override { detach(); }

    const GuestDescription& description() const override { return description_; }
    replication::GuestMemory& memory() override { return memory_; }
    replication::DirtyLog& dirty_log() override { return log_; }

    Result<void> create(StartMode mode, Deadline deadline) override;
    Result<void> cut_begin(Deadline deadline) override;
    Result<DeviceState> cut_save(Deadline deadline) override;
    Result<void> resume(Deadline deadline) override;
    CutTimes last_cut_times() const override { return times_; }
    Result<void> stop(Deadline deadline) override;
    Result<void> load(const DeviceState& state, Deadline deadline) override;
    Result<void> verify(const DeviceState& state) const override { return DomainCut::verify(state); }
    Result<void> recreate(Deadline deadline) override;
    void kill() noexcept override;
    void took_over() noexcept override;

    Time last_progress() const override { return Time{progress_us_.load(std::memory_order_relaxed)}; }
    void probe() override;
    int device_model_pid() const override { return pid_; }
    bool running() const override { return running_; }
    void set_event_handler(std::function<void(GuestEvent)> handler) override { handler_ = std::move(handler); }

    Result<void> save_device_state(const std::string& file, bool live, Deadline deadline) override;
    Result<void> load_device_state(const std::string& file, Deadline deadline) override;
    Result<void> set_global_dirty_log(bool enable, Deadline deadline) override;
    Result<void> powerdown(Deadline deadline) override;
    Result<void> reset(Deadline deadline) override;
    Result<void> carry_out_reset(bool run, Deadline deadline) override;
    Result<std::vector<replication::GuestCheck>> precheck(Deadline deadline) override;

private:
    Result<void> renew(bool run, Deadline deadline);
    Result<void> make(StartMode mode, Deadline deadline);
    Result<void> begin(DomainId domain, StartMode mode, Deadline deadline);
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
    void detach();
    Result<void> usable() const;

    const HvmGuestOptions options_;
    HvmPorts ports_;
    DomainShell shell_;
    std::function<void(GuestEvent)> handler_;
    GuestDescription description_;
    std::unique_ptr<Store> store_;

    // The domain that we have; in the order in which they need each other.
    std::unique_ptr<Control> control_;
    std::unique_ptr<DeviceModel> model_;
    std::unique_ptr<DomainCut> cut_;
    SwitchedMemory memory_;
    qemu::SwitchedDirtyLog log_;
    mutable std::mutex watch_mutex_;   // guards the pointer only: kill(), probe(), took_over() come from any thread
    std::shared_ptr<DomainWatch> watch_;
    bool killed_ = false;              // with it: a kill() while there is no watch is not lost
    bool live_ = false;                // with it: the domain is the one, not a copy that follows
    bool has_name_ = false;            // with it: it was made under the name of the one

    std::atomic<int> pid_ = 0;
    std::atomic<bool> running_ = false;
    std::atomic<bool> renewing_ = false;   // there is no device model that could answer
    std::atomic<std::int64_t> progress_us_ = 0;
    CutTimes times_;
};

Result<void> HvmGuest::create(StartMode mode, Deadline deadline)
{
    if (control_) return make_error(Errc::invalid, "the guest exists already");
    auto store = ports_.open_store();
    if (!store) return store.error();
    store_ = std::move(*store);
    {
        const std::lock_guard lock(watch_mutex_);
        killed_ = false;
        live_ = mode == StartMode::boot;
    }
    const auto left = shell_.ours();
    if (mode == StartMode::boot && left && left->live) return adopt(left->domain, deadline);
    // A copy may have been in the middle of a checkpoint when its daemon died: nobody may go on with it.
    if (left)
        if (auto r = shell_.destroy(left->domain, deadline); !r) return with_context("domain of an earlier run", r.error());
    // Nobody but us makes domains of this name here, and none of them has a say.
    if (mode != StartMode::boot)
        if (const auto copy = find_domain(*store_, incoming_name(options_.name)))
            if (auto r = shell_.destroy(*copy, deadline); !r) return with_context("copy of an earlier run", r.error());
    return make(mode, deadline);
}

Result<void> HvmGuest::make(StartMode mode, Deadline deadline)
{
    const bool live = mode == StartMode::boot;
    // One that starts again does so also while its name is still another domain's, and goes on asking for it.
    const bool named = live && !(renewing_ && find_domain(*store_, options_.name));
    const auto domain = shell_.make(*store_, named ? options_.name : incoming_name(options_.name), live, deadline);
    if (!domain) return domain.error();
    {
        const std::lock_guard lock(watch_mutex_);
        has_name_ = named;
    }
    auto begun = begin(*domain, mode, deadline);
    if (begun) return begun;
    // Nobody would look after it.
    detach();
    if (auto r = shell_.destroy(*domain, now() + kUndo); !r) spdlog::error("domain {}, half made, is left: {}", *domain, r.error().text);
    return begun;
}

Result<void> HvmGuest::begin(DomainId domain, StartMode mode, Deadline deadline)
{
    if (auto r = attach(domain, deadline); !r) return r;
    const bool run = mode == StartMode::boot;
    if (run || options_.warm_up > Duration{0}) {
        if (auto r = control_->unpause(); !r) return r;
        if (auto r = settle(deadline); !r) return r;
    }
    if (auto r = connect_cables(deadline); !r) return r;   // what it said to nobody while it was warming up is gone
    if (auto r = run ? note_running() : take_pause_over(deadline); !r) return r;
    return attach_memory();
}

// It runs, or was left in the middle of a checkpoint by a daemon that died.
Result<void> HvmGuest::adopt(DomainId domain, Deadline deadline)
{
    spdlog::info("domain {} of an earlier run is still there and goes on", domain);
    const auto named = find_domain(*store_, options_.name);
    {
        const std::lock_guard lock(watch_mutex_);
        has_name_ = named && *named == domain;   // that daemon may have died before it had it
    }
    auto adopted = attach(domain, deadline);
    if (adopted) adopted = go_on(deadline);
    if (adopted) return adopted;
    detach();
    return with_context(fmt::format("domain {} of an earlier run cannot be taken over again; if nobody needs it: xl destroy {}", domain, domain),
                        adopted.error());
}

Result<void> HvmGuest::go_on(Deadline deadline)
{
    // Neither may be on: that costs time, and frames would be reported to nobody.
    (void)model_->set_dirty_log(false, deadline);
    (void)control_->disable_log();
    if (auto r = model_->cont(deadline); !r) return r;
    for (int i = 0; i < kMaxPauseCount; ++i) {
        const auto info = control_->info();
        if (!info) return info.error();
        if (!info->paused) break;
        if (auto r = control_->unpause(); !r) return r;
    }
    if (auto r = connect_cables(deadline); !r) return r;
    if (auto r = note_running(); !r) return r;
    return attach_memory();
}

// First what it is meant to be, then what is: an end that the watch notices meanwhile is not overwritten.
Result<void> HvmGuest::note_running()
{
    running_ = true;
    const auto info = control_->info();
    if (info && !info->shut_down && !info->paused) return {};
    running_ = false;
    return info ? Result<void>{} : info.error();
}

Result<void> HvmGuest::attach(DomainId domain, Deadline deadline)
{
    auto control = ports_.open_domain(domain);
    if (!control) return control.error();
    control_ = std::move(*control);
    auto model = ports_.connect_model(control_socket(options_), deadline);
    if (!model) return with_context("device model", model.error());
    model_ = std::move(*model);
    cut_ = std::make_unique<DomainCut>(*control_, *model_);
    return watch_over(domain, deadline);
}

Result<void> HvmGuest::connect_cables(Deadline deadline)
{
    for (std::size_t i = 0; i < options_.nics.size(); ++i)
        if (options_.nics[i].fd >= 0)
            if (auto r = model_->connect_cable(i, options_.nics[i].fd, deadline); !r)
                return with_context(fmt::format("network interface {}", options_.nics[i].id), r.error());
    return {};
}

Result<void> HvmGuest::watch_over(DomainId domain, Deadline deadline)
{
    DomainWatchOptions watch;
    auto own = ports_.open_domain(domain);
    if (!own) return own.error();
    watch.control = std::move(*own);
    auto probe = ports_.connect_probe(probe_socket(options_), deadline);
    if (!probe) return with_context("device model", probe.error());
    watch.model = std::move(*probe);
    pid_ = model_pid(*store_, domain);
    cut_->hurry_model(pid_);
    if (pid_ != 0) watch.model_pidfd = qemu::Fd(static_cast<int>(::syscall(SYS_pidfd_open, pid_.load(), 0)));
    watch.toolstack = ports_.toolstack;
    watch.on_event = [this](GuestEvent event) {
        if (handler_) handler_(std::move(event));
    };
    watch.progress_us = &progress_us_;
    watch.running = &running_;
    progress_us_ = now().us;
    auto started = DomainWatch::start(std::move(watch));
    if (!started) return started.error();
    const std::lock_guard lock(watch_mutex_);
    watch_ = std::move(*started);
    if (live_ && !has_name_) take_name();
    if (!killed_) return {};
    watch_->destroy();
    return make_error(Errc::guest_died, "it was killed while it was made");
}

// With watch_mutex_, and a watch. A daemon that is started again goes on with it even if it does not have the name yet.
void HvmGuest::take_name()
{
    if (auto r = shell_.record_live(); !r) spdlog::error("the record of the domain cannot be written: {}", r.error().text);
    watch_->rename(options_.name);
    has_name_ = true;
}

// Frames come and go until the firmware has done its work.
Result<void> HvmGuest::settle(Deadline deadline)
{
    constexpr std::chrono::milliseconds kLook{50};
    Time calm_since = now();
    std::pair<std::uint64_t, Gfn> last{};
    while (now() - calm_since < options_.warm_up) {
        const auto info = control_->info();
        const auto limit = info ? control_->gfn_limit() : Result<Gfn>(info.error());
        if (!limit) return limit.error();
        if (std::pair(info->total_pages, *limit) != last) {
            last = {info->total_pages, *limit};
            calm_since = now();
        }
        if (now() >= deadline) return make_error(Errc::timed_out, "the domain's memory does not come to rest");
        std::this_thread::sleep_for(kLook);
    }
    return {};
}

// From the toolstack's pause to ours.
Result<void> HvmGuest::take_pause_over(Deadline deadline)
{
    if (auto r = cut_->stop(deadline); !r) return r;
    if (options_.warm_up > Duration{0}) return {};
    return control_->unpause();   // one of two
}

Result<void> HvmGuest::attach_memory()
{
    if (auto r = describe(); !r) return r;
    const MemoryLayout layout{description_.regions, description_.special_frames};
    auto memory = std::make_unique<DomainMemory>(*control_, layout);
    memory_.attach(std::move(memory));
    if (auto r = memory_.refresh(); !r) return r;
    return log_.attach(std::make_unique<HvmDirtyLog>(std::make_unique<LogDirty>(*control_, layout), *model_,
                                                     [this] { return ports_.may_protect(*control_, *store_); }));
}

Result<void> HvmGuest::describe()
{
    const auto layout = probe_layout(*control_);
    if (!layout) return layout.error();
    const auto info = control_->info();
    if (!info) return info.error();
    const auto machine = platform(*control_);
    if (!machine) return machine.error();
    const auto policy = control_->cpu_policy();
    if (!policy) return policy.error();
    const auto config = shell_.comparable();
    if (!config) return config.error();
    GuestDescription made;
    made.kind = "xen-hvm";
    made.accelerator = "xen";
    made.machine = *machine;
    made.cpu_policy = qemu::text_digest(std::string(policy->begin(), policy->end()));
    made.device_model = model_->version();
    made.device_list = "xl configuration " + qemu::text_digest(*config);
    made.vcpus = info->vcpus;
    made.regions = layout->regions;
    made.special_frames = layout->special_frames;
    for (const HvmNic& nic : options_.nics) made.nics.push_back({nic.id, nic.mac, 0});
    description_ = std::move(made);
    return {};
}

void HvmGuest::detach()
{
    std::shared_ptr<DomainWatch> watch;
    {
        const std::lock_guard lock(watch_mutex_);
        watch.swap(watch_);
    }
    watch.reset();   // carries out what it was told last
    log_.detach();
    memory_.detach();
    cut_.reset();
    model_.reset();
    control_.reset();
    pid_ = 0;
    running_ = false;
}

Result<void> HvmGuest::usable() const
{
    if (!cut_) return make_error(Errc::guest_died, "there is no domain");
    return {};
}

Result<void> HvmGuest::cut_begin(Deadline deadline)
{
    if (auto r = usable(); !r) return r;
    auto begun = cut_->begin(deadline);
    if (!cut_->running()) running_ = false;
    if (!begun) return begun;
    return memory_.refresh();
}

Result<DeviceState> HvmGuest::cut_save(Deadline deadline)
{
    if (auto r = usable(); !r) return r.error();
    return cut_->save(deadline);
}

Result<void> HvmGuest::resume(Deadline deadline)
{
    if (auto r = usable(); !r) return r;
    auto resumed = cut_->resume(deadline);
    times_ = cut_->times();
    return resumed ? note_running() : resumed;
}

Result<void> HvmGuest::stop(Deadline deadline)
{
    if (auto r = usable(); !r) return r;
    auto stopped = cut_->stop(deadline);
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

Result<void> HvmGuest::recreate(Deadline deadline)
{
    if (!store_) return make_error(Errc::invalid, "the guest was never made");
    {
        const std::lock_guard lock(watch_mutex_);
        killed_ = live_ = false;
    }
    detach();
    if (const auto left = shell_.ours())
        if (auto r = shell_.destroy(left->domain, deadline); !r) return r;
    return make(StartMode::loadable, deadline);
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

// Another domain from the same configuration, under the same name: a toolstack restarts a domain in no other way. The dirty
// log goes on with everything dirty.
Result<void> HvmGuest::renew(bool run, Deadline deadline)
{
    {
        const std::lock_guard lock(watch_mutex_);
        if (killed_) return make_error(Errc::guest_died, "killed");
        if (!live_) return make_error(Errc::invalid, "a copy starts again with the next checkpoint");
    }
    renewing_ = true;
    detach();
    Result<void> done;
    if (const auto left = shell_.ours()) done = shell_.destroy(left->domain, deadline);
    if (done) done = make(StartMode::boot, deadline);
    if (done && !run) done = stop(deadline);
    progress_us_ = now().us;
    renewing_ = false;
    return done;
}

Result<void> HvmGuest::carry_out_reset(bool run, Deadline deadline)
{
    constexpr std::uint8_t kReboot = 1;
    if (auto r = usable(); !r) return r;
    const auto info = control_->info();
    if (!info) return info.error();
    if (!info->shut_down || info->shutdown_reason != kReboot) return {};
    return renew(run, deadline);
}

Result<void> HvmGuest::reset(Deadline deadline)
{
    if (auto r = usable(); !r) return r;
    if (auto r = renew(running_, deadline); !r) return r;
    if (handler_) handler_({GuestEventKind::reset, "host-qmp-system-reset", true});
    return {};
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
