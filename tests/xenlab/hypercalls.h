// SPDX-License-Identifier: Apache-2.0
#pragma once

// How often this process called the hypervisor: its requests at /dev/xen/privcmd, whichever library made them. For a mapping
// of foreign frames the kernel itself makes several hypercalls (one for each 16 frames), and for unmapping them again others, of
// which nobody outside of it knows; so mapped frames are counted, too.

#include <cstdint>

namespace colo::xen {

struct HypercallCount {
    std::uint64_t calls = 0;          // each request is one, also one that maps
    std::uint64_t map_calls = 0;
    std::uint64_t frames_mapped = 0;
    friend HypercallCount operator-(const HypercallCount& a, const HypercallCount& b)
    {
        return {a.calls - b.calls, a.map_calls - b.map_calls, a.frames_mapped - b.frames_mapped};
    }
};

HypercallCount hypercalls();   // since the program began

}  // namespace colo::xen
