// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.h"

namespace colo::sim {

inline std::uint64_t mix(std::uint64_t a, std::uint64_t b = 0)
{
    std::uint64_t z = a + 0x9e3779b97f4a7c15u + (b << 6) + (b >> 2) + b * 0xff51afd7ed558ccdu;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

// Splitmix64: the only source of chance in a run, so that a seed is a whole run.
class Random {
public:
    explicit Random(std::uint64_t seed) : state_(mix(seed, 0x5eed)) {}
    std::uint64_t next() { return mix(state_ += 0x9e3779b97f4a7c15u); }
    std::uint64_t below(std::uint64_t n) { return n == 0 ? 0 : next() % n; }
    bool chance(double p) { return static_cast<double>(next() >> 11) * 0x1.0p-53 < p; }
    Duration between(std::int64_t low_us, std::int64_t high_us)
    {
        return Duration{low_us + static_cast<std::int64_t>(below(static_cast<std::uint64_t>(high_us - low_us + 1)))};
    }

private:
    std::uint64_t state_;
};

}  // namespace colo::sim
