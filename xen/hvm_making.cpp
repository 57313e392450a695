// SPDX-License-Identifier: Apache-2.0
// How the guest gets its domain: makes one, goes on with one of an earlier daemon, makes another one in place of it.
#include "core/clock.h"
#include "core/log.h"
#include "xen/cpu_context.h"
#include "xen/guest_description.h"
#include "xen/hvm_guest_impl.h"

#include <fmt/format.h>

#include <algorithm>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>

namespace colo::xen {

using replication::GuestEvent;
using replication::GuestEventKind;
using replication::StartMode;

namespace {

constexpr Duration kUndo = std::chrono::seconds(10);
constexpr Duration kStoreAgain = std::chrono::milliseconds(500);

}  // namespace

Result<void> HvmGuest::create(StartMode mode, Deadline deadline)
{
    auto created = start(mode, deadline);
    described_ = described_ || created.has_value();
    return created;
}

Result<void> HvmGuest::start(StartMode mode, Deadline deadline)
{
    if (control_) return make_error(Errc::invalid, "the guest exists already");
    {
        const std::lock_guard lock(watch_mutex_);
        killed_ = false;
        live_ = mode == StartMode::boot;
    }
    if (auto r = open_store(deadline); !r) return r;
    if (auto r = shell_.configure(); !r) return r;
    const auto left = shell_.ours(*store_);
    if (!left) return left.error();
    if (mode == StartMode::boot && *left && (*left)->live && !(*left)->dying) return adopt((*left)->domain, deadline);
    // A copy may have been in the middle of a checkpoint when its daemon died: nobody may go on with it. One that is dying
    // may hold memory and name that the next one needs.
    if (*left) {
        spdlog::info("domain {} of an earlier run is destroyed{}", (*left)->domain, (*left)->complete ? "" : ": it is half made");
        if (auto r = shell_.destroy((*left)->domain, deadline); !r) return with_context("domain of an earlier run", r.error());
    }
    // Nobody but us makes domains of this name here, and none of them has a say.
    if (mode == StartMode::boot) return make(mode, deadline);
    const auto copy = named_domain(*store_, incoming_name(options_.name));
    if (!copy) return copy.error();
    if (*copy)
        if (auto r = shell_.destroy(**copy, deadline); !r) return with_context("copy of an earlier run", r.error());
    return make(mode, deadline);
}

// On a host that has just booted xenstored may be late, and nobody would begin again. Whether it is there shows with the first answer.
Result<void> HvmGuest::open_store(Deadline deadline)
{
    for (;;) {
        auto store = ports_.open_store();
        const auto answer = store ? (*store)->read("/local/domain/0/name") : store.error();
        const bool late = !answer && answer.error().code == Errc::timed_out;
        if (store && !late) {
            store_ = std::move(*store);
            return {};
        }
        if (!late || now() + kStoreAgain >= deadline) return answer.error();
        std::this_thread::sleep_for(std::chrono::microseconds(kStoreAgain.count()));
        const std::lock_guard lock(watch_mutex_);
        if (killed_) return make_error(Errc::closed, "the guest was given up while it was made");
    }
}

Result<void> HvmGuest::make(StartMode mode, Deadline deadline)
{
    const bool live = mode == StartMode::boot;
    // One that starts again does so also while its name is still another domain's, and goes on asking for it.
    bool named = live;
    if (live && renewing_) {
        const auto other = named_domain(*store_, options_.name);
        if (!other) return other.error();
        named = !*other;
    }
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
    const auto named = named_domain(*store_, options_.name);
    if (!named) return with_context(fmt::format("take domain {} of an earlier run over", domain), named.error());
    {
        const std::lock_guard lock(watch_mutex_);
        has_name_ = *named == std::optional(domain);   // that daemon may have died before it had it
    }
    auto adopted = attach(domain, deadline);
    if (adopted && pid_ != 0) qemu::lower_what_was_left(pid_);
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
    int lifted = 0;
    if (auto r = lift_pauses(*control_, lifted); !r) return r;
    if (lifted > 0) spdlog::info("domain {} was paused, by that daemon's checkpoint or an operator, and is let go", control_->domain());
    if (auto r = connect_cables(deadline); !r) return r;
    if (auto r = note_running(); !r) return r;
    return attach_memory();
}

Result<void> HvmGuest::attach(DomainId domain, Deadline deadline)
{
    auto control = ports_.open_domain(domain);
    if (!control) return control.error();
    control_ = std::move(*control);
    auto model = ports_.connect_model(control_socket(options_), deadline);
    if (!model) return with_context("device model", model.error());
    model_ = std::move(*model);
    intent_.set(false);
    held_ = false;
    cut_ = std::make_unique<DomainCut>(*control_, *model_, &intent_);
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
    const auto pid = model_pid(*store_, domain);
    if (!pid) return pid.error();
    pid_ = *pid;
    cut_->hurry_model(pid_);
    if (pid_ != 0) watch.model_pidfd = qemu::Fd(static_cast<int>(::syscall(SYS_pidfd_open, pid_.load(), 0)));
    watch.toolstack = ports_.toolstack;
    watch.on_event = [this](GuestEvent event) {
        if (handler_) handler_(std::move(event));
    };
    watch.progress_us = &progress_us_;
    watch.running = &running_;
    watch.intent = &intent_;
    watch.held = &held_;
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

// Frames come and go until the firmware has done its work. How long that takes is up to the host; that a kernel runs is a sign of it
// which both sides see at the same point. Of a guest that never pages, only time can tell.
Result<void> HvmGuest::settle(Deadline deadline)
{
    constexpr std::chrono::milliseconds kLook{100}, kCalm{500};
    Time calm_since = now();
    std::pair<std::uint64_t, Gfn> last{};
    while (options_.warm_up > Duration{0}) {
        const auto info = control_->info();
        const auto limit = info ? control_->gfn_limit() : Result<Gfn>(info.error());
        if (!limit) return limit.error();
        // Somebody's `xl pause` is no calm.
        if (std::pair(info->total_pages, *limit) != last || info->paused) {
            last = {info->total_pages, *limit};
            calm_since = now();
        }
        const auto context = control_->context();
        if (!context) return context.error();
        if (now() - calm_since >= (runs_kernel(*context) ? std::min<Duration>(kCalm, options_.warm_up) : options_.warm_up)) return {};
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
    const auto info = control_->info();
    if (!info) return info.error();
    described_pages_ = info->total_pages;
    HvmLogOptions logging;
    logging.may_start = [this] { return may_log(); };
    logging.seizures = [this] {
        const std::lock_guard lock(watch_mutex_);
        return watch_ ? watch_->seizures() : 0u;
    };
    auto log = std::make_unique<HvmDirtyLog>(std::make_unique<LogDirty>(*control_, layout), *model_, std::move(logging));
    own_log_ = log.get();
    return log_.attach(std::move(log));
}

// A frame that came after the map was made, and is not written any more, would never be copied.
Result<void> HvmGuest::may_log()
{
    if (auto r = ports_.may_protect(*control_, *store_); !r) return r;
    const auto info = control_->info();
    if (!info) return info.error();
    if (info->total_pages == described_pages_) return {};
    return make_error(Errc::refused, fmt::format("the domain has {} frames of memory, and had {} when it was looked at: its firmware was still at work "
                                                 "(xl_warm_up_ms), or somebody changed its memory (xl mem-set). Start colod again: the domain runs on",
                                                 info->total_pages, described_pages_));
}

// Other threads read it once create() has succeeded: from then on it is only compared.
Result<void> HvmGuest::describe()
{
    auto made = xen::describe(*control_, model_->version(), shell_.comparable(), options_.nics);
    if (!made) return made.error();
    if (described_) return check_same(description_, *made);
    description_ = std::move(*made);
    return {};
}

Result<void> HvmGuest::recreate(Deadline deadline)
{
    if (!store_) return make_error(Errc::invalid, "the guest was never made");
    if (auto r = shell_.configure(); !r) return r;   // create() may have failed for that
    {
        const std::lock_guard lock(watch_mutex_);
        killed_ = live_ = false;
    }
    detach();
    if (auto r = clear_away(deadline); !r) return r;
    auto made = make(StartMode::loadable, deadline);
    described_ = described_ || made.has_value();
    return made;
}

Result<void> HvmGuest::clear_away(Deadline deadline)
{
    const auto left = shell_.ours(*store_);
    if (!left) return left.error();
    return *left ? shell_.destroy((*left)->domain, deadline) : Result<void>{};
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
    if (control_) (void)control_->pause();   // one that cannot be destroyed has nobody who looks after it
    detach();
    Result<void> done = clear_away(deadline);
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
    const auto renewed = renew(running_, deadline);
    // The old one is gone by then, and its watch with it.
    if (!renewed && !cut_ && handler_) handler_({GuestEventKind::device_model_died, "it does not start again: " + renewed.error().text});
    if (!renewed) return renewed;
    if (handler_) handler_({GuestEventKind::reset, "host-qmp-system-reset", true});
    return {};
}

}  // namespace colo::xen
