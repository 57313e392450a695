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
    if (auto r = may_start_(); !r) return r;
    if (auto r = model_.set_dirty_log(true, now() + kLogSwitch); !r) return with_context("dirty log of the device model", r.error());
    off_is_owed_ = false;
    auto started = log_->start();
    if (!started) stop();
    return started;
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
