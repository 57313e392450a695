// SPDX-License-Identifier: Apache-2.0
#include "core/clock.h"

#include <algorithm>
#include <ctime>

namespace colo {

Time now()
{
    timespec ts{};
    clock_gettime(CLOCK_BOOTTIME, &ts);
    return Time{static_cast<std::int64_t>(ts.tv_sec) * 1'000'000 + ts.tv_nsec / 1000};
}

int poll_timeout_ms(Deadline deadline)
{
    const Time t = now();
    if (deadline <= t) return 0;
    const std::int64_t us = deadline.us == kNever.us ? 3'600'000'000 : deadline.us - t.us;
    return static_cast<int>(std::min<std::int64_t>((us + 999) / 1000, 3'600'000));
}

namespace {
class SystemClock final : public Clock {
public:
    Time now() const override { return colo::now(); }
};
}  // namespace

const Clock& system_clock()
{
    static const SystemClock clock;
    return clock;
}

}  // namespace colo
