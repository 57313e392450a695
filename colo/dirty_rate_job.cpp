// SPDX-License-Identifier: Apache-2.0
#include "colo/dirty_rate_job.h"

#include "core/clock.h"
#include "schema/codec.h"

#include <spdlog/spdlog.h>
#include <boost/asio/post.hpp>

#include <algorithm>
#include <chrono>
#include <random>

namespace colo {
namespace {

using Mode = schema::DirtyRateMeasureMode;

std::unique_ptr<replication::DirtyRateMeter> make_meter(const DirtyRateOrder& order, replication::Guest& guest,
                                                        replication::DirtyLogTap& tap)
{
    const Duration calc_time = std::chrono::seconds(order.calc_time_s);
    switch (order.mode) {
    case Mode::dirty_bitmap: return replication::make_dirty_counting(guest.description(), tap, calc_time);
    case Mode::dirty_ring: return replication::make_vcpu_counting(guest, calc_time);
    case Mode::page_sampling: break;
    }
    std::random_device device;
    const std::uint64_t seed = std::uint64_t{device()} << 32 | device();
    return replication::make_page_sampling(guest, calc_time, order.sample_pages, seed);
}

}  // namespace

void DirtyRateJob::start(const DirtyRateOrder& order)
{
    info_ = {};
    info_.status = schema::DirtyRateStatus::measuring;
    info_.mode = order.mode;
    info_.start_time = now().us / 1'000'000;
    info_.calc_time = order.calc_time_s;
    info_.sample_pages = order.sample_pages;
    run_ = std::make_shared<Run>();
    worker_.post([run = run_, order, &guest = guest_, &tap = tap_] { run->meter = make_meter(order, guest, tap); });
    step();
}

void DirtyRateJob::step()
{
    worker_.post([this, run = run_, in_use = log_in_use_()] {
        if (!run->meter) return;  // abandoned
        Outcome outcome;
        outcome.next = run->meter->step(now(), in_use);
        if (!outcome.next || *outcome.next == kNever) {
            outcome.total = run->meter->total();
            outcome.vcpus = run->meter->vcpus();
            run->meter.reset();  // here, where the dirty log is used
        }
        boost::asio::post(io_, [this, run, outcome = std::move(outcome)] {
            if (run == run_) stepped(outcome);
        });
    });
}

void DirtyRateJob::stepped(const Outcome& outcome)
{
    if (!outcome.next) return abandon(outcome.next.error().text);
    if (*outcome.next == kNever) return finish(outcome);
    timer_.expires_after(std::chrono::microseconds(std::max(*outcome.next - now(), Duration{0}).count()));
    timer_.async_wait([this, run = run_](const boost::system::error_code& error) {
        if (!error && run == run_) step();
    });
}

void DirtyRateJob::finish(const Outcome& outcome)
{
    run_.reset();
    info_.status = schema::DirtyRateStatus::measured;
    info_.dirty_rate = static_cast<std::int64_t>(outcome.total.mib_per_s());
    if (info_.mode != Mode::page_sampling) info_.sample_pages = 0;
    if (info_.mode == Mode::dirty_ring) {
        info_.vcpu_dirty_rate.emplace();
        for (const auto& rate : outcome.vcpus)
            info_.vcpu_dirty_rate->push_back({static_cast<std::int64_t>(info_.vcpu_dirty_rate->size()),
                                              static_cast<std::int64_t>(rate.mib_per_s())});
    }
    spdlog::info("dirty rate by {}: {} MiB/s ({} pages in {} ms)", to_string(info_.mode), *info_.dirty_rate,
                 outcome.total.pages, outcome.total.elapsed.count() / 1000);
}

void DirtyRateJob::abandon(const std::string& why)
{
    if (!measuring()) return;
    spdlog::warn("the dirty rate was not measured: {}", why);
    timer_.cancel();
    worker_.post([run = std::move(run_)] { run->meter.reset(); });
    run_.reset();
    info_.status = schema::DirtyRateStatus::unstarted;
}

}  // namespace colo
