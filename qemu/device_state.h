// SPDX-License-Identifier: Apache-2.0
#pragma once

// The stream of `xen-save-devices-state`: CPU and device state of a QEMU without its RAM. Layout (all big endian):
//   u32 0x5145564d "QEVM", u32 version 3
//   per section: u8 4 (full), u32 id, u8 length + name, u32 instance, u32 version, data, u8 0x7e, u32 id
//   u8 0 (end)
// The data of a section carries no length; its end is found by the footer followed by something that can follow one.

#include "core/error.h"
#include "core/types.h"

#include <string>
#include <vector>

namespace colo::qemu {

inline constexpr std::size_t kMaxDeviceState = 16u << 20;

struct StateSection {
    std::string name;   // "0000:00:03.0/virtio-net"
    std::uint32_t instance = 0;
    std::uint32_t version = 0;
    std::uint64_t bytes = 0;   // of data, between header and footer
};
using StateSections = std::vector<StateSection>;

// Errc::corrupt says at which offset and why; Errc::limit for a blob of more than kMaxDeviceState.
Result<StateSections> parse_device_state(ByteView blob);

// Same sections in the same order with the same versions as `accepted`? Sizes may differ (requests in flight), but not
// beyond kMaxDeviceState. Errc::refused names the first difference.
Result<void> check_sections(const StateSections& accepted, const StateSections& offered);

}  // namespace colo::qemu
