// SPDX-License-Identifier: Apache-2.0
#include "replication/dirty_rate.h"

#include <algorithm>
#include <string>
#include <utility>

namespace colo::replication {

std::uint64_t DirtyRate::mib_per_s() const
{
    if (elapsed.count() <= 0) return 0;
    const double bytes = static_cast<double>(pages) * static_cast<double>(kPageSize);
    return static_cast<std::uint64_t>(bytes / (1u << 20) * 1e6 / static_cast<double>(elapsed.count()) + 0.5);
}

Result<void> DirtyLogTap::start()
{
    if (watcher_ != nullptr) watcher_->restarted();
    return log_.start();
}

Result<void> DirtyLogTap::fetch_and_clear(PageSet& into, bool final)
{
    if (watcher_ == nullptr) return log_.fetch_and_clear(into, final);
    seen_.clear();  // `into` may hold something already
    auto result = log_.fetch_and_clear(seen_, final);
    into.merge(seen_);
    watcher_->fetched(seen_, final, result.has_value(), clock_.now());
    return result;
}

namespace {

PageSet counted_frames(const GuestDescription& guest)
{
    PageSet ram(guest.gfn_limit());
    for (const MemoryRegion& region : guest.regions) ram.add_range(region.first, region.pages);
    for (const Gfn gfn : guest.special_frames) ram.remove(gfn);
    return ram;
}

// The window begins with a fetch (all bits are clear then) and ends with another one, or with a look at what has come
// since. In between everything that was fetched is united. When the log changes hands in the middle, the window begins
// anew.
class DirtyCounting final : public DirtyRateMeter, private DirtyLogWatcher {
public:
    DirtyCounting(const GuestDescription& guest, DirtyLogTap& tap, Duration calc_time)
        : tap_(tap), calc_time_(calc_time), ram_(counted_frames(guest)), dirty_(guest.gfn_limit())
    {
        tap_.watch(this);
    }
    ~DirtyCounting() override
    {
        tap_.watch(nullptr);
        if (own_) tap_.untapped().stop();
    }

    Result<Time> step(Time now, bool log_in_use) override
    {
        if (done_) return kNever;
        if (begun_ == Time{}) begun_ = now;
        if (now > begun_ + calc_time_ * 3 + kCountPatience)
            return make_error(Errc::timed_out, "no checkpoint fetched the dirty log in time; use page-sampling");
        if (!own_ && log_in_use) return step_watching(now);
        if (!own_)
            if (auto r = take_log(now); !r) return r.error();
        if (now < opened_ + calc_time_) return opened_ + calc_time_;
        auto closed = close_by_looking(now);
        if (!closed) return closed.error();
        own_ = false;
        tap_.untapped().stop();
        return kNever;
    }
    DirtyRate total() const override { return total_; }

private:
    Result<Time> step_watching(Time now)
    {
        if (!open_) return now + kWatchInterval;
        const Time due = opened_ + calc_time_;
        if (now < due) return due;
        // A guest that is off or an interval of minutes: nobody fetches.
        if (now < due + kFinalWait) return now + kWatchInterval;
        if (auto r = close_by_looking(now); !r) return r.error();
        return kNever;
    }

    Result<void> take_log(Time now)
    {
        DirtyLog& log = tap_.untapped();
        if (auto r = log.start(); !r) return with_context("start dirty log", r.error());
        own_ = true;
        PageSet everything;
        if (auto r = log.fetch_and_clear(everything, false); !r) return with_context("read dirty log", r.error());
        open(now);
        return {};
    }

    // While a session owns the bits they stay where they are; a log of ours may as well be cleared.
    Result<void> close_by_looking(Time now)
    {
        auto looked = tap_.untapped().peek(dirty_);
        if (!looked && looked.error().code == Errc::unsupported && own_)
            looked = tap_.untapped().fetch_and_clear(dirty_, false);
        if (!looked && looked.error().code != Errc::unsupported) return with_context("read dirty log", looked.error());
        close(now);
        return {};
    }

    void open(Time at)
    {
        open_ = true;
        opened_ = at;
        dirty_.clear();
    }
    void close(Time at)
    {
        done_ = true;
        dirty_.intersect(ram_);
        total_ = {dirty_.count(), at - opened_};
        tap_.watch(nullptr);
    }

    void restarted() override
    {
        own_ = open_ = false;
        fresh_ = true;
    }
    void fetched(const PageSet& frames, bool final, bool complete, Time at) override
    {
        // The first fetch reports every frame. One that is not final may have left everything for the final one
        // (soft-dirty), so it is not taken for an end of the window unless no other comes.
        const bool exact = std::exchange(fresh_, false) || final || at > begun_ + kFinalWait;
        if (!complete) {
            open_ = false;
            return;
        }
        if (!open_) {
            if (exact && begun_ != Time{}) open(at);
            return;
        }
        dirty_.merge(frames);
        if (final && at >= opened_ + calc_time_) close(at);
    }

    DirtyLogTap& tap_;
    Duration calc_time_;
    PageSet ram_, dirty_;
    Time begun_{}, opened_{};
    bool own_ = false;  // started by us; until a session starts it for itself
    bool open_ = false, done_ = false;
    bool fresh_ = false;  // started by a session, not fetched yet
    DirtyRate total_;
};

class VcpuCounting final : public DirtyRateMeter {
public:
    VcpuCounting(Guest& guest, Duration calc_time) : guest_(guest), calc_time_(calc_time) {}

    Result<Time> step(Time now, bool) override
    {
        if (!rates_.empty()) return kNever;
        if (!before_.empty() && now < begun_ + calc_time_) return begun_ + calc_time_;
        auto counts = guest_.vcpu_dirty_pages(now + kFinalWait);
        if (!counts) return counts.error();
        if (counts->empty()) return make_error(Errc::failed, "the guest names no vCPU");
        if (before_.empty()) {
            before_ = std::move(*counts);
            begun_ = now;
            return begun_ + calc_time_;
        }
        if (counts->size() != before_.size()) return make_error(Errc::failed, "the number of vCPUs changed");
        for (std::size_t i = 0; i < counts->size(); ++i) {
            const std::uint64_t pages = (*counts)[i] - std::min(before_[i], (*counts)[i]);
            rates_.push_back({pages, now - begun_});
            total_.pages += pages;
        }
        total_.elapsed = now - begun_;
        return kNever;
    }
    DirtyRate total() const override { return total_; }
    std::vector<DirtyRate> vcpus() const override { return rates_; }

private:
    Guest& guest_;
    Duration calc_time_;
    Time begun_{};
    std::vector<std::uint64_t> before_;
    std::vector<DirtyRate> rates_;
    DirtyRate total_;
};

}  // namespace

std::unique_ptr<DirtyRateMeter> make_dirty_counting(const GuestDescription& guest, DirtyLogTap& tap, Duration calc_time)
{
    return std::make_unique<DirtyCounting>(guest, tap, calc_time);
}

std::unique_ptr<DirtyRateMeter> make_vcpu_counting(Guest& guest, Duration calc_time)
{
    return std::make_unique<VcpuCounting>(guest, calc_time);
}

}  // namespace colo::replication
