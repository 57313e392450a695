// SPDX-License-Identifier: Apache-2.0
#include "colo/copy_memory.h"

#include <algorithm>

namespace colo {

CopyMemory copy_memory(const replication::GuestDescription& guest, const replication::StagerLimits& limits,
                       std::optional<std::uint64_t> available, std::uint64_t resident)
{
    CopyMemory memory;
    memory.needed = guest.ram_pages() * kPageSize + replication::stager_bytes(guest, limits);
    // 0 would mean that it is not known.
    if (available) memory.free = std::max<std::uint64_t>(*available + resident, 1);
    return memory;
}

}  // namespace colo
