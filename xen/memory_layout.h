// SPDX-License-Identifier: Apache-2.0
#pragma once

// Which frames an HVM domain has, and which of them belong to this host.

#include "replication/guest.h"
#include "xen/control.h"

#include <vector>

namespace colo::xen {

struct MemoryLayout {
    std::vector<replication::MemoryRegion> regions;   // ascending, not adjacent; special frames are in them
    std::vector<Gfn> special_frames;                  // ascending

    // Every frame of the regions that may be copied.
    replication::PageSet ram() const;
    bool operator==(const MemoryLayout&) const = default;
};

// More regions than this are no memory map but a guest that balloons single frames: Errc::unsupported.
inline constexpr std::size_t kMaxRegions = 4096;
// The largest gfn space looked through: 64 TiB.
inline constexpr Gfn kMaxGfnLimit = Gfn{1} << 34;

// Frames of the local xenstored, xenconsoled and device model: rings in the guest's gfn space. Ascending.
Result<std::vector<Gfn>> special_frames(Control& control);

// Finds out by mapping: nobody but the hypervisor knows what is populated, and it tells only by trying. Ends when as many
// frames were found as the domain owns; the hole of a usual domain is not walked through. The domain may run, but then
// frames can come and go.
Result<MemoryLayout> probe_layout(Control& control);

}  // namespace colo::xen
