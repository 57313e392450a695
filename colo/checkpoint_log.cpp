// SPDX-License-Identifier: Apache-2.0
#include "colo/checkpoint_log.h"

#include <algorithm>

namespace colo {

void CheckpointLog::clear() { *this = CheckpointLog{}; }

void CheckpointLog::captured(CheckpointRecord record)
{
    ++count_;
    const auto& c = record.capture;
    pages_ += c.zero + c.delta + c.full;
    zero_pages_ += c.zero;
    delta_pages_ += c.delta;
    full_pages_ += c.full;
    raw_bytes_ += c.raw_bytes;
    sent_bytes_ += c.sent_bytes;
    ++by_trigger_[static_cast<std::size_t>(record.reason) % by_trigger_.size()];
    records_.push_back(std::move(record));
    if (records_.size() > kKept) records_.pop_front();
}

const CheckpointRecord* CheckpointLog::find(Epoch epoch) const
{
    for (auto it = records_.rbegin(); it != records_.rend() && it->epoch >= epoch; ++it)
        if (it->epoch == epoch) return &*it;
    return nullptr;
}

void CheckpointLog::staged(Epoch epoch, Time at)
{
    for (auto it = records_.rbegin(); it != records_.rend() && it->epoch >= epoch; ++it)
        if (it->epoch == epoch) it->staged = at;
}

void CheckpointLog::applied(Epoch epoch, Time at)
{
    for (auto it = records_.rbegin(); it != records_.rend() && it->epoch >= epoch; ++it)
        if (it->epoch == epoch) it->applied = at;
}

template <class Measure>
CheckpointLog::Percentiles CheckpointLog::percentiles(Measure measure) const
{
    std::vector<std::uint64_t> values;
    for (const CheckpointRecord& record : records_)
        if (const std::int64_t us = measure(record); us > 0) values.push_back(static_cast<std::uint64_t>(us));
    if (values.empty()) return {};
    std::sort(values.begin(), values.end());
    const auto at = [&](std::size_t percent) { return values[std::min(values.size() - 1, values.size() * percent / 100)]; };
    return {at(50), at(90), at(99)};
}

// The first epoch's cut follows a copy of the whole memory; it says nothing about the rhythm that comes after it.
CheckpointLog::Percentiles CheckpointLog::pause() const
{
    return percentiles([](const CheckpointRecord& r) {
        return r.reason == replication::TriggerReason::first ? 0 : r.cut.pause.count();
    });
}

CheckpointLog::Percentiles CheckpointLog::staged_latency() const
{
    return percentiles([](const CheckpointRecord& r) { return (r.staged - r.cut_begun).count(); });
}

CheckpointLog::Percentiles CheckpointLog::applied_latency() const
{
    return percentiles([](const CheckpointRecord& r) { return (r.applied - r.cut_begun).count(); });
}

}  // namespace colo
