// SPDX-License-Identifier: Apache-2.0
#pragma once

// How long P's output may wait for S's before it counts as late, learnt from how long it does wait (as TCP learns its
// retransmission timeout), and the distribution of these waits for the statistics.
//
// A copy that was just loaded is slow for a moment: caches are cold, and an emulated CPU has to translate its code again
// (40 ms with TCG). A checkpoint because of that would make it cold once more, so *warming* frames, those of the first
// kWarmUp after the comparer opened, have a deadline of their own. It is tried longer when they are late, kept as long as
// that helps, and given up for a while when it does not: then S really has nothing to say.

#include "core/types.h"

#include <algorithm>
#include <array>
#include <bit>

namespace colo::proxy {

class HoldDeadline {
public:
    HoldDeadline(Duration minimum, Duration maximum) : minimum_(minimum), maximum_(std::max(minimum, maximum)) {}

    // A frame was matched after `wait`. Frames that were already called late and matched before STAGED count too: that
    // is how the deadline grows when S is merely slow.
    void matched(Duration wait)
    {
        const std::int64_t us = std::max<std::int64_t>(0, wait.count());
        const std::int64_t error = us - mean_us_;
        mean_us_ += error / 8;
        deviation_us_ += (std::abs(error) - deviation_us_) / 4;
        count(us);
    }
    Duration current() const { return std::clamp(Duration{mean_us_ + 4 * deviation_us_}, minimum_, maximum_); }

    static constexpr Duration kWarmUp{200'000};
    Duration warming() const { return std::max(current(), std::min(Duration{warm_us_}, maximum_)); }
    void matched_warming(Duration wait)
    {
        const std::int64_t us = std::max<std::int64_t>(0, wait.count());
        longest_us_ = std::max(longest_us_, us);
        count(us);
    }
    // A warming frame was late by the present deadline.
    void late_warming()
    {
        const std::int64_t tried = warming().count();
        if (resting_ != 0) return;
        if (tried < minimum_.count() * 4) {
            warm_us_ = tried * 2;
            return;
        }
        warm_us_ = 0;
        resting_ = kRest;
    }
    // The comparer opens for another epoch.
    void opened()
    {
        if (resting_ != 0) --resting_;
        const std::int64_t wanted = longest_us_ * 3 / 2;
        if (wanted > warm_us_) warm_us_ = wanted;
        else if (longest_us_ >= 0) warm_us_ -= (warm_us_ - wanted) / 8;
        longest_us_ = -1;
    }

    void count(std::int64_t us)
    {
        ++buckets_[bucket_of(us)];
        if (++total_ < kHistory) return;
        total_ = 0;  // recent waits count more
        for (auto& n : buckets_) total_ += n /= 2;
    }
    std::uint32_t percentile_us(std::uint32_t percent) const
    {
        if (total_ == 0) return 0;
        std::uint64_t rest = (total_ * percent + 99) / 100;
        for (std::size_t i = 0; i < buckets_.size(); ++i) {
            if (buckets_[i] >= rest) return upper_bound_us(i);
            rest -= buckets_[i];
        }
        return upper_bound_us(buckets_.size() - 1);
    }

private:
    static constexpr std::uint64_t kHistory = 65536;
    // Four buckets per power of two.
    static std::size_t bucket_of(std::int64_t us)
    {
        const auto v = static_cast<std::uint64_t>(us);
        if (v < 4) return static_cast<std::size_t>(v);
        const auto log = static_cast<std::size_t>(std::bit_width(v)) - 1;
        return std::min<std::size_t>(kBuckets - 1, log * 4 - 4 + ((v >> (log - 2)) & 3));
    }
    static std::uint32_t upper_bound_us(std::size_t bucket)
    {
        if (bucket < 4) return static_cast<std::uint32_t>(bucket);
        const std::size_t log = (bucket + 4) / 4, part = (bucket + 4) % 4;
        return static_cast<std::uint32_t>((std::uint64_t{4 + part + 1} << (log - 2)) - 1);
    }
    static constexpr std::size_t kBuckets = 108;
    static constexpr std::uint32_t kRest = 64;   // epochs
    Duration minimum_, maximum_;
    std::int64_t mean_us_ = 0, deviation_us_ = 0;
    std::int64_t warm_us_ = 0;
    std::int64_t longest_us_ = -1;   // of this epoch's warming frames; -1: none was matched
    std::uint32_t resting_ = 0;
    std::array<std::uint64_t, kBuckets> buckets_{};
    std::uint64_t total_ = 0;
};

}  // namespace colo::proxy
