// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace colo {

using Epoch = std::uint64_t;       // 0 = "no checkpoint yet"; strictly rises within a session, never reused (R7)
using SessionId = std::uint64_t;   // random, never 0 for a real session
using Generation = std::uint64_t;  // rises with every grant, persisted on both hosts
using Gfn = std::uint64_t;         // guest frame number, 4 KiB frames

inline constexpr std::size_t kPageSize = 4096;

using Bytes = std::vector<std::uint8_t>;
using ByteView = std::span<const std::uint8_t>;

// Monotonic time, microseconds of CLOCK_BOOTTIME (it goes on during suspend, which a lease needs).
// The sans-I/O cores never read a clock: every event carries `now`.
using Duration = std::chrono::microseconds;
struct Time {
    std::int64_t us = 0;
    auto operator<=>(const Time&) const = default;
    friend Time operator+(Time t, Duration d) { return {t.us + d.count()}; }
    friend Time operator-(Time t, Duration d) { return {t.us - d.count()}; }
    friend Duration operator-(Time a, Time b) { return Duration{a.us - b.us}; }
};
inline constexpr Time kNever{std::numeric_limits<std::int64_t>::max()};

// Deadline of a blocking call, on the same clock.
using Deadline = Time;

}  // namespace colo
