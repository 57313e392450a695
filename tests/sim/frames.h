// SPDX-License-Identifier: Apache-2.0
#pragma once

// Frames of the simulated network: TCP with timestamps and UDP over IPv4 over Ethernet, checksums always set and checked.

#include "core/types.h"
#include "proxy/frame.h"

#include <array>
#include <optional>
#include <string>

namespace colo::sim {

using Mac = std::array<std::uint8_t, 6>;
inline constexpr Mac kGuestMac{0x02, 0, 0, 0, 0, 0x01};
inline constexpr Mac kClientMac{0x02, 0, 0, 0, 0, 0x99};
inline constexpr std::uint32_t kGuestIp = 0x0a000001, kClientIp = 0x0a000063;
inline constexpr std::uint16_t kTcpPort = 7, kUdpPort = 9;

namespace tcp_flag {
inline constexpr std::uint8_t kFin = 1, kSyn = 2, kRst = 4, kPush = 8, kAck = 16;
}

struct Segment {
    bool udp = false;
    std::uint16_t source_port = 0, target_port = 0;
    std::uint32_t seq = 0, ack = 0;
    std::uint8_t flags = 0;
    std::uint32_t tsval = 0, tsecr = 0;
    Bytes payload;

    bool has(std::uint8_t flag) const { return (flags & flag) != 0; }
    std::uint32_t length() const
    {
        return static_cast<std::uint32_t>(payload.size()) + (has(tcp_flag::kSyn) ? 1u : 0u) + (has(tcp_flag::kFin) ? 1u : 0u);
    }
};

Bytes make_frame(const Segment& segment, bool from_guest);
// Nothing for anything else (ARP, announcements) and for wrong checksums; `damaged` tells these apart.
std::optional<Segment> read_frame(ByteView frame, bool* damaged = nullptr);
std::string describe(ByteView frame);   // for traces
Mac source_mac(ByteView frame);
Mac target_mac(ByteView frame);

inline bool seq_less(std::uint32_t a, std::uint32_t b) { return static_cast<std::int32_t>(a - b) < 0; }
inline std::uint32_t seq_max(std::uint32_t a, std::uint32_t b) { return seq_less(a, b) ? b : a; }

}  // namespace colo::sim
