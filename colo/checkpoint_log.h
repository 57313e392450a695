// SPDX-License-Identifier: Apache-2.0
#pragma once

// The latest checkpoints of a session, for status, percentiles and query-migrate. Bounded; control thread only.

#include "colo/primary_worker.h"

#include <array>
#include <cstdint>
#include <deque>
#include <vector>

namespace colo {

class CheckpointLog {
public:
    static constexpr std::size_t kKept = 1024;

    void clear();
    void captured(CheckpointRecord record);
    void staged(Epoch epoch, Time at);
    void applied(Epoch epoch, Time at);
    void aborted() { ++aborted_; }

    struct Percentiles {
        std::uint64_t p50_us = 0, p90_us = 0, p99_us = 0;
    };
    Percentiles pause() const;
    Percentiles staged_latency() const;
    Percentiles applied_latency() const;
    const CheckpointRecord* find(Epoch epoch) const;
    const CheckpointRecord* last() const { return records_.empty() ? nullptr : &records_.back(); }
    const std::deque<CheckpointRecord>& records() const { return records_; }

    std::uint64_t count() const { return count_; }
    std::uint64_t aborted_count() const { return aborted_; }
    std::uint64_t pages() const { return pages_; }
    std::uint64_t raw_bytes() const { return raw_bytes_; }
    std::uint64_t sent_bytes() const { return sent_bytes_; }
    std::uint64_t zero_pages() const { return zero_pages_; }
    std::uint64_t delta_pages() const { return delta_pages_; }
    std::uint64_t full_pages() const { return full_pages_; }
    const std::array<std::uint64_t, replication::kTriggerReasons>& by_trigger() const { return by_trigger_; }

private:
    template <class Measure>
    Percentiles percentiles(Measure measure) const;

    std::deque<CheckpointRecord> records_;
    std::uint64_t count_ = 0, aborted_ = 0, pages_ = 0, raw_bytes_ = 0, sent_bytes_ = 0, zero_pages_ = 0, delta_pages_ = 0, full_pages_ = 0;
    std::array<std::uint64_t, replication::kTriggerReasons> by_trigger_{};
};

}  // namespace colo
