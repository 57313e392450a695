// SPDX-License-Identifier: Apache-2.0
#include "xen/domain_watch.h"

#include "core/clock.h"
#include "core/log.h"

#include <boost/json.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

namespace colo::xen {
namespace {

using replication::GuestEventKind;

constexpr Duration kDestroy = std::chrono::seconds(30);
constexpr Duration kRename = std::chrono::seconds(10);
constexpr Duration kSend = std::chrono::milliseconds(100);

// SHUTDOWN_* of Xen's public interface.
constexpr std::uint8_t kPowerOff = 0, kReboot = 1, kCrash = 3, kWatchdog = 4;

}  // namespace

Result<std::unique_ptr<DomainWatch>> DomainWatch::start(DomainWatchOptions options)
{
    std::unique_ptr<DomainWatch> watch(new DomainWatch(std::move(options)));
    watch->wake_ = qemu::Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!watch->wake_) return errno_error("eventfd", errno);
    DomainWatch* const self = watch.get();
    watch->thread_ = std::thread([self] { self->run(); });
    return watch;
}

DomainWatch::~DomainWatch()
{
    closing_ = true;
    wake();
    if (thread_.joinable()) thread_.join();
}

void DomainWatch::wake()
{
    const std::uint64_t one = 1;
    if (wake_ && ::write(wake_.get(), &one, sizeof one) < 0) { /* a full counter wakes as well */ }
}

void DomainWatch::probe()
{
    probe_wanted_ = true;
    wake();
}

void DomainWatch::destroy()
{
    destroy_wanted_ = true;
    wake();
}

void DomainWatch::rename(const std::string& name)
{
    {
        const std::lock_guard lock(mutex_);
        new_name_ = name;
    }
    wake();
}

void DomainWatch::report(GuestEventKind kind, std::string detail)
{
    if (options_.on_event) options_.on_event({kind, std::move(detail)});
}

bool DomainWatch::died(const std::string& detail)
{
    *options_.running = false;
    gone_ = true;
    report(GuestEventKind::device_model_died, detail);
    return false;
}

void DomainWatch::run()
{
    bool alive = true;
    while (alive) {
        pollfd p[] = {{wake_.get(), POLLIN, 0}, {options_.model_pidfd.get(), POLLIN, 0}, {options_.model ? options_.model->fd() : -1, POLLIN, 0}};
        ::poll(p, 3, static_cast<int>(std::max<std::int64_t>((next_look_ - now()).count(), 0) / 1000 + 1));
        std::uint64_t count = 0;
        if (p[0].revents != 0 && ::read(wake_.get(), &count, sizeof count) < 0) { /* somebody else's wake-up */ }
        const bool closing = closing_;   // before the errands: none that was asked for earlier is lost
        alive = do_errands();
        if (closing) return;
        if (alive && p[1].revents != 0) alive = died("the device model is gone");
        alive = alive && look_at_model();
        // Not whenever the device model has said something: each look is a hypercall.
        if (!alive || now() < next_look_) continue;
        next_look_ = now() + options_.look_every;
        alive = look_at_domain();
        if (alive) look_at_pauses();
    }
    // A name or an end may still be asked for, and a domain outlives its device model.
    for (look_whether_gone(); !closing_; look_whether_gone()) {
        pollfd p{wake_.get(), POLLIN, 0};
        ::poll(&p, 1, domain_gone_ ? -1 : static_cast<int>(options_.look_every.count() / 1000));
        std::uint64_t count = 0;
        if (::read(wake_.get(), &count, sizeof count) < 0) { /* it is looked at again in a moment */ }
        (void)do_errands();
    }
    (void)do_errands();
}

void DomainWatch::count_try(Retry& retry) const
{
    retry.wait = std::clamp(retry.wait * 2, options_.retry_first, options_.retry_last);
    retry.next = now() + retry.wait;
}

// Also what was asked for just before the end. False: the domain is destroyed.
bool DomainWatch::do_errands()
{
    if (destroy_wanted_) {
        if (now() >= destroy_again_.next) do_destroy();
        return false;
    }
    do_rename();
    return true;
}

// Whoever asked goes on without it, and what cannot be destroyed now has the memory and the name that the next one needs. It stands
// still meanwhile, whatever an operator does.
void DomainWatch::do_destroy()
{
    const DomainId domain = options_.control->domain();
    const auto info = options_.control->info();
    // First of all, however long the toolstack takes. Beside a pause of a cut, which ends.
    if (!destroy_failed_ || (info && !info->paused)) (void)options_.control->pause();
    auto r = options_.toolstack->destroy(domain, now() + kDestroy);
    const auto left = options_.control->info();
    // What counts is that it is gone, whatever the toolstack says.
    if (left ? left->dying : left.error().code == Errc::guest_died) r = {};
    else if (r && left) r = make_error(Errc::failed, "the command for it ([guest] xl_destroy) succeeded, and the domain is still there");
    if (r) destroy_wanted_ = false;
    else count_try(destroy_again_);
    if (!r && !std::exchange(destroy_failed_, true)) spdlog::error("domain {} cannot be destroyed, which is tried again: {}", domain, r.error().text);
    if (r && destroy_failed_) spdlog::info("domain {} is destroyed now", domain);
    if (!gone_) (void)died(r ? "destroyed" : "to be destroyed, and the toolstack cannot: " + r.error().text);
}

// On a thread of its own: a toolstack that takes its time must not look like a guest that stands still.
void DomainWatch::do_rename()
{
    if (renaming_.valid()) {
        if (renaming_.wait_for(std::chrono::seconds(0)) != std::future_status::ready) return;
        renamed(renaming_.get());
    }
    const std::lock_guard lock(mutex_);
    if (new_name_.empty() || now() < rename_again_.next || gone_) return;
    count_try(rename_again_);
    tried_name_ = new_name_;
    renaming_ = std::async(std::launch::async, [toolstack = options_.toolstack, domain = options_.control->domain(), name = tried_name_] {
        return toolstack->rename(domain, name, now() + kRename);
    });
}

void DomainWatch::renamed(const Result<void>& result)
{
    const DomainId domain = options_.control->domain();
    if (!result) {
        if (!std::exchange(rename_failed_, true))
            spdlog::warn("domain {} does not get the name {} yet, and goes on asking for it: {}", domain, tried_name_, result.error().text);
        return;
    }
    spdlog::info("domain {} is called {} now", domain, tried_name_);
    rename_failed_ = false;
    rename_again_.wait = {};
    const std::lock_guard lock(mutex_);
    if (new_name_ == tried_name_) new_name_.clear();
}

Result<void> DomainWatch::revive(Control& control)
{
    const std::lock_guard lock(look_mutex_);
    auto revived = control.revive();
    if (revived) ended_ = false;
    return revived;
}

bool DomainWatch::look_at_domain()
{
    std::unique_lock lock(look_mutex_);
    const auto ask = [this] { return options_.control->info(); };
    const auto meant = options_.intent != nullptr ? options_.intent->while_meant_to_run(ask) : std::nullopt;
    const auto info = meant ? *meant : ask();
    holder_.reset();
    if (info && !info->ended() && !info->dying) holder_ = who_holds(*info, meant.has_value());
    // A hypervisor that is busy now will answer the next time.
    if (!info && info.error().code != Errc::guest_died) return true;
    if (!info || info->dying) {
        lock.unlock();
        return died("the domain is gone: somebody destroyed it");
    }
    if (!info->ended()) ended_ = false;
    if (!info->ended() || std::exchange(ended_, true)) return true;
    *options_.running = false;
    lock.unlock();
    switch (info->shutdown_reason) {
    case kPowerOff: report(GuestEventKind::power_off, "guest-shutdown"); break;
    case kReboot: report(GuestEventKind::reset, "guest-reset"); break;
    case kCrash: report(GuestEventKind::panicked, "crashed"); break;
    case kWatchdog: report(GuestEventKind::panicked, "its watchdog ran out"); break;
    default: report(GuestEventKind::power_off, fmt::format("shut down for reason {}", info->shutdown_reason)); break;
    }
    return true;
}

// A pause may be ours unless the domain is meant to run; a suspension never is.
std::optional<DomainWatch::Holder> DomainWatch::who_holds(const DomainInfo& info, bool meant_to_run) const
{
    if (info.suspended()) return Holder::suspend;
    if (meant_to_run) return info.paused ? Holder::pause : Holder::nobody;
    return told_ == Holder::suspend ? std::optional(Holder::nobody) : std::nullopt;
}

// What is dying waits for those who map its memory, and that may be us.
void DomainWatch::look_whether_gone()
{
    if (domain_gone_) return;
    const auto info = options_.control->info();
    if (info ? !info->dying : info.error().code != Errc::guest_died) return;
    domain_gone_ = true;
    report(GuestEventKind::gone, fmt::format("domain {} is gone", options_.control->domain()));
}

// By the last look at the domain, if that could tell.
void DomainWatch::look_at_pauses()
{
    if (!holder_) return;
    if (options_.held != nullptr) *options_.held = *holder_ != Holder::nobody;
    const Holder before = std::exchange(told_, *holder_);
    if (*holder_ == before) return;
    if (before == Holder::suspend || *holder_ == Holder::suspend) ++seizures_;   // before anybody hears of it
    const DomainId domain = options_.control->domain();
    switch (*holder_) {
    case Holder::pause:
        report(GuestEventKind::paused_outside, fmt::format("another tool paused domain {0} (xl pause?); it goes on with: xl unpause {0}", domain));
        break;
    case Holder::suspend:
        report(GuestEventKind::seized_outside,
               fmt::format("another tool suspended domain {} (xl save, xl migrate?); if that destroys it, its copy goes on, where there is one", domain));
        break;
    case Holder::nobody: report(GuestEventKind::resumed_outside, fmt::format("nobody else holds domain {} any more", domain)); break;
    }
}

bool DomainWatch::look_at_model()
{
    if (!options_.model) return true;
    pollfd p{options_.model->fd(), POLLIN, 0};
    Result<void> done;
    if (::poll(&p, 1, 0) == 1) {
        done = options_.model->drain();
        if (done) options_.progress_us->store(now().us, std::memory_order_relaxed);
    }
    if (done && probe_wanted_.exchange(false) && options_.model->outstanding() == 0)
        done = options_.model->send(R"({"execute":"query-status"})", 1, now() + kSend);
    return done ? true : died("device model: " + done.error().text);
}

}  // namespace colo::xen
