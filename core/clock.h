// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.h"

namespace colo {

Time now();                                   // CLOCK_BOOTTIME
int poll_timeout_ms(Deadline deadline);       // for poll(2): rounded up, 0 if past, at most 1 hour

}  // namespace colo
