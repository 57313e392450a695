// SPDX-License-Identifier: Apache-2.0
#pragma once

// Frames as the proxy sees them: a parser over spans that never allocates and never fails (what it does not understand
// is `opaque`: held, never compared), and rewriting in place. Offsets count from the start of the frame, vnet header
// included.

#include "core/types.h"
#include "proxy/frame.h"

#include <array>
#include <cstdint>
#include <optional>

namespace colo::proxy {

inline std::uint16_t load_be16(const std::uint8_t* at)
{
    return static_cast<std::uint16_t>(std::uint32_t{at[0]} << 8 | at[1]);
}
inline std::uint32_t load_be32(const std::uint8_t* at)
{
    return std::uint32_t{at[0]} << 24 | std::uint32_t{at[1]} << 16 | std::uint32_t{at[2]} << 8 | at[3];
}
inline void store_be16(std::uint8_t* to, std::uint16_t value)
{
    to[0] = static_cast<std::uint8_t>(value >> 8);
    to[1] = static_cast<std::uint8_t>(value);
}
inline void store_be32(std::uint8_t* to, std::uint32_t value)
{
    store_be16(to, static_cast<std::uint16_t>(value >> 16));
    store_be16(to + 2, static_cast<std::uint16_t>(value));
}

// Sequence numbers live on a circle; these are meaningful while the two are less than 2^31 apart.
inline bool seq_before(std::uint32_t a, std::uint32_t b)
{
    return static_cast<std::int32_t>(a - b) < 0;
}
inline bool seq_after(std::uint32_t a, std::uint32_t b)
{
    return static_cast<std::int32_t>(a - b) > 0;
}

// struct virtio_net_hdr
inline constexpr std::uint8_t kVnetNeedsChecksum = 1;
inline constexpr std::uint8_t kVnetDataValid = 2;
inline constexpr std::uint8_t kVnetGsoNone = 0, kVnetGsoTcp4 = 1, kVnetGsoUdp = 3, kVnetGsoTcp6 = 4, kVnetGsoUdpL4 = 5;

inline constexpr std::size_t kEthernetHeaderSize = 14;
inline constexpr std::uint16_t kEtherTypeIpv4 = 0x0800, kEtherTypeArp = 0x0806, kEtherTypeRarp = 0x8035,
                               kEtherTypeVlan = 0x8100, kEtherTypeQinq = 0x88a8, kEtherTypeIpv6 = 0x86dd;

inline constexpr std::uint8_t kTcpFin = 0x01, kTcpSyn = 0x02, kTcpRst = 0x04, kTcpPush = 0x08, kTcpAck = 0x10,
                              kTcpUrgent = 0x20, kTcpEce = 0x40, kTcpCwr = 0x80;

enum class PacketKind : std::uint8_t { opaque, arp, tcp, udp, icmp };
enum class OpaqueCause : std::uint8_t { none, malformed, vlan, ipv6, fragment, other_ethernet, other_ip };
const char* to_string(OpaqueCause cause);

struct TcpOptions {
    std::uint16_t mss = 0;             // 0: absent
    std::uint8_t window_scale = 0xff;  // 0xff: absent
    bool sack_permitted = false;
    std::uint8_t sack_blocks = 0;
    std::uint16_t sack_at = 0;       // offset of the first block
    std::uint16_t timestamp_at = 0;  // offset of TSval, 0: absent
    std::uint32_t tsval = 0, tsecr = 0;
    bool has_timestamp() const { return timestamp_at != 0; }
};

struct Packet {
    PacketKind kind = PacketKind::opaque;
    OpaqueCause cause = OpaqueCause::none;
    std::uint16_t ether_type = 0;
    const std::uint8_t* frame = nullptr;  // the bytes that were parsed
    std::uint32_t size = 0;
    std::uint32_t l3 = 0, l4 = 0;        // offsets
    std::uint32_t payload = 0, end = 0;  // offsets; `end` from the IP header: Ethernet padding is not payload
    std::uint32_t source_ip = 0, target_ip = 0;
    std::uint16_t source_port = 0, target_port = 0;
    // ICMP: type, code; ARP: operation in icmp_type. Identifier of an echo is in source_port and target_port.
    std::uint8_t icmp_type = 0, icmp_code = 0;
    std::uint8_t ip_protocol = 0;  // IPv4
    std::uint8_t tcp_flags = 0;
    std::uint16_t window = 0;
    std::uint32_t seq = 0, ack = 0;
    TcpOptions options;

    std::uint32_t payload_size() const { return end - payload; }
    ByteView payload_bytes() const { return {frame + payload, payload_size()}; }
    bool has(std::uint8_t flag) const { return (tcp_flags & flag) != 0; }
    // Bytes of a connection that only the guest can put in their place.
    bool tcp_fragment() const { return cause == OpaqueCause::fragment && ip_protocol == 6; }
    // Sequence space this segment occupies.
    std::uint32_t sequence_size() const { return payload_size() + (has(kTcpSyn) ? 1u : 0u) + (has(kTcpFin) ? 1u : 0u); }
    const std::uint8_t* target_mac() const { return frame + kVnetHeaderSize; }
    const std::uint8_t* source_mac() const { return frame + kVnetHeaderSize + 6; }
};

// `frame` must stay alive as long as the Packet is used. A frame shorter than vnet + Ethernet header is malformed and
// must not be asked for MACs (size < kVnetHeaderSize + kEthernetHeaderSize).
Packet parse_packet(ByteView frame) noexcept;

// Added to the fields of a TCP segment (mod 2^32). `ack_add` covers the ACK field and SACK blocks, which name the same
// bytes; ACK, SACK and TSecr only where the ACK flag is set.
struct TcpRewrite {
    std::uint32_t seq_add = 0, ack_add = 0, tsval_add = 0, tsecr_add = 0;
    bool identity() const { return seq_add == 0 && ack_add == 0 && tsval_add == 0 && tsecr_add == 0; }
};
// The checksum stays right: a full one is updated incrementally, a partial one (NEEDS_CSUM: pseudo header only) does
// not cover these fields. `packet` must be the parse of `frame` and of kind tcp; its seq, ack and timestamps are not
// updated.
void rewrite_tcp(std::span<std::uint8_t> frame, const Packet& packet, const TcpRewrite& rewrite) noexcept;
// A rewritten copy, or `frame` itself where nothing changes.
FramePtr rewritten(const FramePtr& frame, const Packet& packet, const TcpRewrite& rewrite);

// A client's segment that is given to a guest again long after it came: with a TSval that the guest, which last echoed
// `heard`, does not take for an old duplicate (PAWS, RFC 7323 5.3). It has since heard a later one, as of a repetition,
// and would refuse these bytes for ever. A SYN begins a clock of its own and stays as it is.
FramePtr given_again(const FramePtr& frame, std::optional<std::uint32_t> heard);

// Completes a partial checksum (NEEDS_CSUM) for a cable without offload and clears the flag; nothing if the header's
// offsets lie outside the frame.
void finish_checksum(std::span<std::uint8_t> frame) noexcept;

// RFC 1071 sum over `bytes`, starting at an even (or odd) place; not folded, not inverted.
std::uint64_t checksum_add(std::uint64_t sum, ByteView bytes, bool odd = false) noexcept;
std::uint16_t checksum_fold(std::uint64_t sum) noexcept;  // folded and inverted

}  // namespace colo::proxy
