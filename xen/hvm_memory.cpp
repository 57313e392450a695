// SPDX-License-Identifier: Apache-2.0
#include "xen/hvm_memory.h"

#include "core/clock.h"
#include "core/log.h"

namespace colo::xen {
namespace {

constexpr Duration kLogSwitch = std::chrono::seconds(5);

}  // namespace

Result<void> HvmDirtyLog::start()
{
    if (auto r = options_.may_start(); !r) return r;
    if (auto r = model_.set_dirty_log(true, now() + kLogSwitch); !r) return with_context("dirty log of the device model", r.error());
    off_is_owed_ = silent_ = false;   // what a second look is still to come for stays in doubt
    readers_ = log_->interferences();
    takers_ = options_.seizures();
    auto started = log_->start();
    if (!started) stop();
    return started;
}

Result<void> HvmDirtyLog::fetch_and_clear(replication::PageSet& into, bool final)
{
    auto fetched = log_->fetch_and_clear(into, final);
    const Time at = now();
    const auto changed = [](std::uint32_t& before, std::uint32_t is) { return std::exchange(before, is) != is; };
    const bool taken = changed(takers_, options_.seizures()), read = changed(readers_, log_->interferences());
    if (taken || read) {
        silent_ = true;
        // Of a domain that is suspended no checkpoint is made, and when it is let go both halves are off already.
        doubtful_ = !taken;
        second_look_ = at + options_.second_look;
    } else if (at >= second_look_) {
        silent_ = true;
        doubtful_ = false;
        second_look_ = kNever;
    }
    if (!silent_) return fetched;
    // Bits are cleared before, and pages copied after it: what it does not tell before it is told to is copied.
    const auto told = model_.set_dirty_log(true, at + kLogSwitch);
    silent_ = !told;
    if (told || told.error().code == Errc::invalid)   // a save is under way
        return !fetched ? fetched : make_error(Errc::limit, "another tool (xl save, xl migrate) switches off what the device model logs");
    return with_context("dirty log of the device model", told.error());
}

void HvmDirtyLog::stop()
{
    log_->stop();
    off_is_owed_ = true;
    settle();
    if (off_is_owed_) spdlog::info("the device model goes on logging what it writes until its save has ended");
}

void HvmDirtyLog::settle()
{
    if (!off_is_owed_) return;
    const auto off = model_.set_dirty_log(false, now() + kLogSwitch);
    off_is_owed_ = !off && off.error().code == Errc::invalid;   // a save is under way
    if (!off && !off_is_owed_) spdlog::warn("the device model goes on logging what it writes, which costs time: {}", off.error().text);
}

}  // namespace colo::xen
