// SPDX-License-Identifier: Apache-2.0
#pragma once

// Arbiter `command`: a fence command of the operator, run by /bin/sh -c in a process group of its own, with
// COLO_DOMAIN, COLO_UUID, COLO_GENERATION, COLO_ROLE (ours) and COLO_PEER in its environment.
//   exit 0    granted: the peer is dead and cannot resume by itself
//   exit 10   refused: the peer is the one to run
//   else, killed by a signal, or late (the whole group is killed): unknown; it is run again later

#include "colo/arbiter.h"

namespace colo {

inline constexpr int kFenceExitGranted = 0;
inline constexpr int kFenceExitRefused = 10;

Result<std::unique_ptr<Arbiter>> make_command_arbiter(const ArbiterSettings& settings);

}  // namespace colo
