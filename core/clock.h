// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.h"

namespace colo {

Time now();                                   // CLOCK_BOOTTIME
int poll_timeout_ms(Deadline deadline);       // for poll(2): rounded up, 0 if past, at most 1 hour

// The seam for code that the simulator runs in virtual time. Sans-I/O cores do not even need this: their events carry
// `now`. Thread-safe.
class Clock {
public:
    virtual ~Clock() = default;
    virtual Time now() const = 0;
};
const Clock& system_clock();

}  // namespace colo
