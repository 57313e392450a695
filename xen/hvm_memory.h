// SPDX-License-Identifier: Apache-2.0
#pragma once

// What of a domain the guest hands out, and which stays when there is another domain behind it. Any thread: pages that come from the
// other side are written beside the guest thread, which may let go of a domain at that moment.

#include "replication/guest.h"
#include "xen/device_model.h"
#include "xen/dirty_log.h"
#include "xen/guest_memory.h"

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>

namespace colo::xen {

class SwitchedMemory final : public replication::GuestMemory {
public:
    void attach(std::unique_ptr<DomainMemory> memory)
    {
        const std::lock_guard lock(mutex_);
        memory_ = std::move(memory);
    }
    void detach() { attach(nullptr); }
    Result<void> refresh()
    {
        return with([](DomainMemory& memory) { return memory.refresh(); });
    }

    Result<void> read(std::span<const Gfn> gfns, std::uint8_t* out, std::span<replication::FrameStatus> status) override
    {
        return with([&](DomainMemory& memory) { return memory.read(gfns, out, status); });
    }
    Result<void> write(std::span<const replication::PageWrite> pages) override
    {
        return with([&](DomainMemory& memory) { return memory.write(pages); });
    }
    std::uint64_t resident_bytes() const override { return resident_.load(std::memory_order_relaxed); }
    const std::uint8_t* view(Gfn) const override { return nullptr; }

private:
    template <class Act>
    Result<void> with(const Act& act)
    {
        const std::lock_guard lock(mutex_);
        if (!memory_) return make_error(Errc::guest_died, "there is no domain");
        auto r = act(*memory_);
        resident_.store(memory_->resident_bytes(), std::memory_order_relaxed);
        return r;
    }

    std::mutex mutex_;
    std::unique_ptr<DomainMemory> memory_;
    std::atomic<std::uint64_t> resident_ = 0;
};

struct HvmLogOptions {
    // Whether the domain may be protected at all; asked when the log starts, because a guest loads its drivers long after it was made.
    std::function<Result<void>()> may_start = [] { return Result<void>{}; };
    // Changes whenever another tool took the domain (xl save) or let it go again.
    std::function<std::uint32_t()> seizures = [] { return 0u; };
    // A tool that gives up has done with the hypervisor's log a moment before it has done with the device model's.
    Duration second_look = std::chrono::seconds(2);
};

// The hypervisor sees what vCPUs write, the device model tells what it writes itself: a log is both. xl save and xl migrate
// switch both off when they end. Nobody can ask a device model whether it still tells, so where another tool was at work it is
// told to once more, and everything counts as dirty from then on.
class HvmDirtyLog final : public replication::DirtyLog {
public:
    HvmDirtyLog(std::unique_ptr<LogDirty> log, DeviceModel& model, HvmLogOptions options = {})
        : log_(std::move(log)), model_(model), options_(std::move(options))
    {
    }
    Result<void> start() override;
    // Errc::limit also as long as the device model may be silent: in the middle of a save it cannot be told.
    Result<void> fetch_and_clear(replication::PageSet& into, bool final) override;
    Result<void> peek(replication::PageSet& into) override { return log_->peek(into); }
    // Another tool was at it a moment ago, and may tell the device model to be silent behind our back: what a checkpoint has now may
    // be without what that wrote. Over with the first fetch after the second look.
    bool doubtful() const { return doubtful_; }
    // In the middle of a save the device model takes no other command: its half is off as soon as settle() can.
    void stop() override;
    // To be called where a save may have ended.
    void settle();
    std::string method() const override { return log_->method(); }

private:
    std::unique_ptr<LogDirty> log_;
    DeviceModel& model_;
    const HvmLogOptions options_;
    bool off_is_owed_ = false;   // by the device model
    bool silent_ = false;        // it may be
    bool doubtful_ = false;
    std::uint32_t readers_ = 0, takers_ = 0;   // what others were found to have done: to the log, to the domain
    Time second_look_ = kNever;
};

}  // namespace colo::xen
