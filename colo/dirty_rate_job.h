// SPDX-License-Identifier: Apache-2.0
#pragma once

// One measurement of the dirty rate at a time: steps the meter (replication/dirty_rate.h) on the guest thread, in
// slices between which checkpoints go first, and keeps what query-dirty-rate shows. Control thread.

#include "colo/worker.h"
#include "core/error.h"
#include "replication/dirty_rate.h"
#include "schema/types.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace colo {

struct DirtyRateOrder {
    schema::DirtyRateMeasureMode mode = schema::DirtyRateMeasureMode::page_sampling;
    std::int64_t calc_time_s = 1;
    std::uint64_t sample_pages = 0;  // per GiB
};

class DirtyRateJob {
public:
    // `worker`, `guest` and `tap` outlive it; `log_in_use`: a session has the dirty log.
    DirtyRateJob(boost::asio::io_context& io, Worker& worker, replication::Guest& guest, replication::DirtyLogTap& tap,
                 std::function<bool()> log_in_use)
        : io_(io), timer_(io), worker_(worker), guest_(guest), tap_(tap), log_in_use_(std::move(log_in_use))
    {
    }

    bool measuring() const { return info_.status == schema::DirtyRateStatus::measuring; }
    // Measuring from here on. Not while measuring().
    void start(const DirtyRateOrder& order);
    // The guest is gone or no longer ours to measure. There is no result then: the status is unstarted.
    void abandon(const std::string& why);
    // The worker has ended, and guest and tap go next: handlers of the io_context must not outlive them with a meter.
    void end()
    {
        if (run_) run_->meter.reset();
        run_.reset();
    }
    const schema::DirtyRateInfo& info() const { return info_; }

private:
    struct Run {
        std::unique_ptr<replication::DirtyRateMeter> meter;  // guest thread
    };
    struct Outcome {
        Result<Time> next = kNever;
        replication::DirtyRate total;
        std::vector<replication::DirtyRate> vcpus;
    };
    void step();
    void stepped(const Outcome& outcome);
    void finish(const Outcome& outcome);

    boost::asio::io_context& io_;
    boost::asio::steady_timer timer_;
    Worker& worker_;
    replication::Guest& guest_;
    replication::DirtyLogTap& tap_;
    std::function<bool()> log_in_use_;
    std::shared_ptr<Run> run_;  // null: nothing under way
    schema::DirtyRateInfo info_;
};

}  // namespace colo
