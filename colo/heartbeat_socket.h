// SPDX-License-Identifier: Apache-2.0
#pragma once

// Internal to heartbeat_thread.cpp: the UDP socket of one heartbeat path. Never blocks; a path that is down loses its
// datagrams and is tried again with the next beat.

#include "colo/channel.h"
#include "core/error.h"
#include "core/types.h"

#include <sys/socket.h>

#include <optional>
#include <span>
#include <string>

namespace colo {

class HeartbeatSocket {
public:
    static Result<HeartbeatSocket> open(const std::string& local, const std::string& peer);

    int fd() const { return fd_.get(); }
    void send(ByteView datagram) noexcept;
    enum class Received : std::uint8_t { datagram, foreign, nothing };
    // `foreign`: something arrived that did not come from the peer's address. `size` may exceed the buffer: too long.
    Received receive(std::span<std::uint8_t> buffer, std::size_t& size) noexcept;

private:
    HeartbeatSocket(Fd fd, const sockaddr_storage& peer, socklen_t length)
        : fd_(std::move(fd)), peer_(peer), peer_length_(length)
    {
    }
    bool from_peer(const sockaddr_storage& from) const noexcept;

    Fd fd_;
    sockaddr_storage peer_{};
    socklen_t peer_length_ = 0;
};

}  // namespace colo
