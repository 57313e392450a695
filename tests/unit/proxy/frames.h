// SPDX-License-Identifier: Apache-2.0
#pragma once

// Frames for tests, encoded and decoded by libtins, so that an error of our own parser cannot hide.

#include "proxy/packet.h"
#include "proxy/proxy.h"

#include <optional>
#include <random>
#include <string>

namespace colo::proxy::test {

inline constexpr Mac kGuestMac{0x52, 0x54, 0, 0, 0, 1};
inline constexpr Mac kClientMac{0x52, 0x54, 0, 0, 0, 0x99};
inline constexpr std::uint32_t kGuestIp = 0x0a4d0002, kClientIp = 0x0a4d0001;  // 10.77.0.2, 10.77.0.1

class Random {
public:
    explicit Random(std::uint64_t seed) : engine_(seed) {}
    std::uint32_t operator()() { return static_cast<std::uint32_t>(engine_()); }
    std::uint32_t below(std::uint32_t n) { return static_cast<std::uint32_t>(engine_() % n); }
    bool chance(std::uint32_t percent) { return below(100) < percent; }

private:
    std::mt19937_64 engine_;
};

struct Segment {
    bool from_guest = true;
    std::uint16_t guest_port = 80, peer_port = 40000;
    std::uint32_t seq = 0, ack = 0;
    std::uint8_t flags = kTcpAck;
    std::string data = {};
    std::optional<std::pair<std::uint32_t, std::uint32_t>> timestamp = {};  // TSval, TSecr
    std::vector<std::uint32_t> sack = {};                                   // edges, in pairs
    std::uint16_t mss = 0;
    std::optional<std::uint8_t> window_scale = {};
    bool sack_permitted = false;
    std::uint16_t window = 65000;
    std::uint16_t ip_id = 1;
    std::uint8_t ttl = 64;
    std::uint32_t client_ip = kClientIp;
};
FramePtr tcp(const Segment& segment);
FramePtr udp(bool from_guest, std::uint16_t guest_port, std::uint16_t peer_port, const std::string& data,
             std::uint16_t ip_id = 1, std::uint8_t ttl = 64, std::uint32_t client_ip = kClientIp);
FramePtr icmp_echo(bool from_guest, bool reply, std::uint16_t id, std::uint16_t sequence, std::uint8_t ttl = 64);
FramePtr arp(bool from_guest, bool reply, std::uint32_t sender_ip, std::uint32_t target_ip);
FramePtr raw_ethernet(bool from_guest, std::uint16_t type, const Bytes& payload);
FramePtr fragment(const FramePtr& ipv4);  // as the first of several
FramePtr padded(const FramePtr& frame, std::size_t ethernet_size);
FramePtr with_partial_checksum(const FramePtr& frame);  // as a guest with checksum offload sends it

// By libtins: the TCP or UDP checksum is right (recomputed by serialising again).
bool checksum_valid(const FramePtr& frame);
struct Decoded {
    std::uint32_t seq = 0, ack = 0, tsval = 0, tsecr = 0;
    std::uint8_t flags = 0;
    std::vector<std::uint32_t> sack;
    std::string data = {};
};
Decoded decode_tcp(const FramePtr& frame);

}  // namespace colo::proxy::test
