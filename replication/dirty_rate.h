// SPDX-License-Identifier: Apache-2.0
#pragma once

// How fast does the guest dirty its memory? Three small machines that are stepped on the guest thread, with the time
// from outside, while the guest runs and also while a session protects it.
//
//  page sampling   hashes of random pages, before and after; needs no dirty log
//  dirty counting  the dirty log. While a session uses it, the bits are the session's (R6): its own fetches are
//  watched,
//                  nothing is fetched in between. Otherwise the log is started for the measurement and stopped again
//  vCPU counting   where the hypervisor counts for each vCPU
//
// Every page counts once, however often it was written, as for a migration.

#include "core/clock.h"
#include "core/error.h"
#include "core/types.h"
#include "replication/guest.h"
#include "replication/page_set.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace colo::replication {

struct DirtyRate {
    std::uint64_t pages = 0;
    Duration elapsed{0};
    std::uint64_t mib_per_s() const;  // to the nearest
};

inline constexpr std::size_t kSamplesPerStep = 256;  // 1 MiB to hash: how long a cut may have to wait
inline constexpr Duration kSamplePause{500};         // between two steps, for everybody else on the guest thread
inline constexpr Duration kWatchInterval{50'000};
inline constexpr Duration kFinalWait{2'000'000};       // how long a checkpoint may take to open or close the window
inline constexpr Duration kCountPatience{30'000'000};  // beyond three times what was asked for: it does not come about

class DirtyRateMeter {
public:
    virtual ~DirtyRateMeter() = default;
    // One bounded piece of work. Returns when it wants the next one, kNever when total() is final.
    // `log_in_use`: a session has the dirty log, or is about to.
    virtual Result<Time> step(Time now, bool log_in_use) = 0;
    virtual DirtyRate total() const = 0;
    virtual std::vector<DirtyRate> vcpus() const { return {}; }
};

// Sees what passes through a DirtyLogTap, on the guest thread.
class DirtyLogWatcher {
public:
    virtual ~DirtyLogWatcher() = default;
    virtual void restarted() = 0;
    // `complete` false: bits may have been lost, the owner takes every frame for dirty.
    virtual void fetched(const PageSet& frames, bool final, bool complete, Time at) = 0;
};

// The dirty log as its owner sees it. Costs nothing while nobody watches.
class DirtyLogTap final : public DirtyLog {
public:
    DirtyLogTap(DirtyLog& log, const Clock& clock) : log_(log), clock_(clock) {}
    // The log behind it, for whoever measures while there is no session.
    DirtyLog& untapped() { return log_; }
    void watch(DirtyLogWatcher* watcher) { watcher_ = watcher; }

    Result<void> start() override;
    Result<void> fetch_and_clear(PageSet& into, bool final) override;
    Result<void> peek(PageSet& into) override { return log_.peek(into); }
    void stop() override { log_.stop(); }
    std::string method() const override { return log_.method(); }

private:
    DirtyLog& log_;
    const Clock& clock_;
    DirtyLogWatcher* watcher_ = nullptr;
    PageSet seen_;
};

// `guest` and `tap` outlive the meter.
std::unique_ptr<DirtyRateMeter> make_page_sampling(Guest& guest, Duration calc_time, std::uint64_t pages_per_gib,
                                                   std::uint64_t seed);
std::unique_ptr<DirtyRateMeter> make_dirty_counting(const GuestDescription& guest, DirtyLogTap& tap,
                                                    Duration calc_time);
std::unique_ptr<DirtyRateMeter> make_vcpu_counting(Guest& guest, Duration calc_time);

}  // namespace colo::replication
