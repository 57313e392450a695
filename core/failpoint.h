// SPDX-License-Identifier: Apache-2.0
#pragma once

// Fault-injection points of the checkpoint's phases, for integration tests with real guests and for operators who want
// to rehearse a disaster. Off unless `colod --enable-fault-injection` was given; then `x-` QMP or
// COLOD_FAULT="point[#n]=action" arms one. A point that is not armed costs one relaxed load.

#include "core/error.h"

#include <string_view>

namespace colo::failpoint {

// The points, in the order a checkpoint passes them; tests iterate over this list.
inline constexpr std::string_view kPoints[] = {
    "p-precapture", "p-before-stop", "p-after-stop", "p-after-save", "p-after-seal", "p-before-cont", "p-after-cont",
    "p-mid-transfer", "p-before-end", "p-after-end", "p-before-release", "p-after-release",
    "s-mid-stage", "s-before-staged", "s-after-staged", "s-after-stop", "s-mid-apply", "s-before-load",
    "s-after-load", "s-before-cont", "s-after-applied", "s-before-grant", "s-before-live", "s-after-live",
};

// action: kill (SIGKILL ourselves; the device model dies with us), hang (this thread sleeps for ever), stop (SIGSTOP
// ourselves), delay:MS, error (the step fails), device-model-kill (SIGKILL the device model).
// spec: "point=action" or "point#3=action" (third time it is passed).
Result<void> arm(std::string_view spec);

// Returns an error only for the action `error`. `device_model_pid` is 0 where there is none.
Result<void> pass(std::string_view point, int device_model_pid = 0);

}  // namespace colo::failpoint
