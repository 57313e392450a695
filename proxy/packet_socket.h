// SPDX-License-Identifier: Apache-2.0
#pragma once

// AF_PACKET with a virtio-net header in both directions, so that segmentation and checksums stay undone on the way.

#include "core/error.h"
#include "proxy/file_descriptor.h"
#include "proxy/port.h"

namespace colo::proxy {

class PacketSocket {
public:
    // `queue`: of the host, with its discipline. `direct`: past it, so that a full ring of the device is refused and
    // not dropped behind the queue; only for a device that takes our large segments as they are.
    enum class Transmit : std::uint8_t { queue, direct };
    // In the network namespace of the calling thread. Receives nothing until listen(true).
    static Result<PacketSocket> open(const std::string& interface, Transmit transmit);

    int fd() const { return fd_.get(); }
    Result<void> listen(bool on);
    Result<void> set_promiscuous();
    // Kernel-side filter: targets in `macs` and groups.
    Result<void> filter(const std::vector<std::array<std::uint8_t, 6>>& macs);
    Result<std::size_t> receive(std::size_t max, const std::function<void(FramePtr)>& take);
    Result<SendResult> send(ByteView frame);
    bool carrier() const;
    const PortStats& stats() const { return stats_; }

private:
    PacketSocket(FileDescriptor fd, int index, std::string interface);
    FramePtr frame_from(std::size_t slot, std::size_t size, bool truncated, const void* auxiliary);

    static constexpr std::size_t kBatch = 16;
    FileDescriptor fd_;
    int index_;
    std::string interface_;
    std::vector<Bytes> buffers_;
    PortStats stats_;
};

}  // namespace colo::proxy
