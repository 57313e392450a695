// SPDX-License-Identifier: Apache-2.0
#pragma once

// Arbiter `lock`: a directory that both hosts share (NFS, cluster file system). Generation g belongs to whoever linked
// `<directory>/<domain-uuid>.<g>` first; the file names its owner and is never deleted. link(2) is the atomic step, on
// NFS too, but its answer may get lost: what counts is whose id is read back.

#include "colo/arbiter.h"

namespace colo {

Result<std::unique_ptr<Arbiter>> make_lock_arbiter(const ArbiterSettings& settings);

}  // namespace colo
