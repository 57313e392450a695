// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a copy of the guest takes on this host and what there is for it, for the hello (colo/node.h has the value).

#include "colo/node.h"
#include "replication/engine.h"

#include <cstdint>
#include <optional>

namespace colo {

// `available`: what the host can still give; nothing if that is not known. `resident`: what the guest's RAM takes
// already, and so is no longer available; a standby that waits has a little, one that was filled ahead may have all of
// it.
CopyMemory copy_memory(const replication::GuestDescription& guest, const replication::StagerLimits& limits,
                       std::optional<std::uint64_t> available, std::uint64_t resident);

}  // namespace colo
