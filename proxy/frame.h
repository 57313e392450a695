// SPDX-License-Identifier: Apache-2.0
#pragma once

// A frame as it travels everywhere in the service: a 10-byte virtio-net header (struct virtio_net_hdr, little endian, as
// PACKET_VNET_HDR and a tap with IFF_VNET_HDR of size 10 use it) followed by the Ethernet frame, up to 64 KiB with GSO.

#include "core/types.h"

#include <cstring>
#include <memory>

namespace colo::proxy {

inline constexpr std::size_t kVnetHeaderSize = 10;
inline constexpr std::size_t kMaxFrameSize = kVnetHeaderSize + 14 + 4 + 65535;

// Immutable once shared; several queues (hold, mirror, journal) keep the same bytes. `bytes` includes the vnet header.
struct Frame {
    Bytes bytes;
    ByteView view() const { return bytes; }
    ByteView ethernet() const { return ByteView(bytes).subspan(kVnetHeaderSize); }
};
using FramePtr = std::shared_ptr<const Frame>;

inline FramePtr make_frame(Bytes bytes) { return std::make_shared<const Frame>(Frame{std::move(bytes)}); }

}  // namespace colo::proxy
