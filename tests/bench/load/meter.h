// SPDX-License-Identifier: Apache-2.0
#pragma once

// What one connection measured: latency as a histogram with steps of 2 %, and the longest time without progress.
// Times are CLOCK_MONOTONIC in microseconds, so that they compare with those of other processes on the machine.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <ctime>

namespace colo::load {

using Microseconds = std::int64_t;

inline Microseconds now_us()
{
    timespec t{};
    ::clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<Microseconds>(t.tv_sec) * 1'000'000 + t.tv_nsec / 1000;
}

class Histogram {
public:
    void add(Microseconds value)
    {
        const double clipped = static_cast<double>(std::max<Microseconds>(value, 1));
        const auto step = static_cast<std::size_t>(std::log(clipped) / kLogStep);
        ++counts_[std::min(step, kSteps - 1)];
        ++total_;
        largest_ = std::max(largest_, value);
    }
    void add(const Histogram& other)
    {
        for (std::size_t i = 0; i < kSteps; ++i) counts_[i] += other.counts_[i];
        total_ += other.total_;
        largest_ = std::max(largest_, other.largest_);
    }
    void clear() { *this = Histogram(); }
    std::uint64_t total() const { return total_; }
    Microseconds largest() const { return largest_; }
    // Upper end of the step that holds the quantile; 0 without samples.
    Microseconds quantile(double q) const
    {
        if (total_ == 0) return 0;
        const auto rank = static_cast<std::uint64_t>(q * static_cast<double>(total_ - 1));
        std::uint64_t seen = 0;
        for (std::size_t i = 0; i < kSteps; ++i) {
            seen += counts_[i];
            if (seen > rank)
                return std::min(largest_, static_cast<Microseconds>(std::exp(kLogStep * static_cast<double>(i + 1))));
        }
        return largest_;
    }

private:
    static constexpr double kLogStep = 0.0198026;  // ln(1.02)
    static constexpr std::size_t kSteps = 1100;    // up to 2800 s
    std::array<std::uint32_t, kSteps> counts_{};
    std::uint64_t total_ = 0;
    Microseconds largest_ = 0;
};

// The longest interval between two signs of progress; an interval that is still open counts up to now. Only time in
// which progress was due counts: a connection that has nothing to expect is idle.
class Gap {
public:
    void progress(Microseconds now)
    {
        if (due_) close(now);
        last_ = now;
    }
    void expect(Microseconds now)
    {
        if (!due_) last_ = now;
        due_ = true;
    }
    void idle(Microseconds now)
    {
        if (due_) close(now);
        due_ = false;
    }
    // Later questions concern only what ends after now; an open interval keeps its beginning.
    void mark()
    {
        longest_ = 0;
        ended_ = 0;
    }
    Microseconds longest(Microseconds now) const { return due_ ? std::max(longest_, now - last_) : longest_; }
    Microseconds ended(Microseconds now) const { return due_ && now - last_ > longest_ ? now : ended_; }
    // True while the longest interval has not ended yet.
    bool open(Microseconds now) const { return due_ && now - last_ > longest_; }

private:
    void close(Microseconds now)
    {
        if (now - last_ <= longest_) return;
        longest_ = now - last_;
        ended_ = now;
    }
    bool due_ = false;
    Microseconds last_ = 0;
    Microseconds longest_ = 0;
    Microseconds ended_ = 0;
};

}  // namespace colo::load
