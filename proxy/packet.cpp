// SPDX-License-Identifier: Apache-2.0
#include "proxy/packet.h"

#include "core/check.h"

namespace colo::proxy {

const char* to_string(OpaqueCause cause)
{
    switch (cause) {
    case OpaqueCause::none: return "no room in the flow table";
    case OpaqueCause::malformed: return "malformed frame";
    case OpaqueCause::vlan: return "VLAN tag";
    case OpaqueCause::ipv6: return "IPv6";
    case OpaqueCause::fragment: return "IPv4 fragment";
    case OpaqueCause::other_ethernet: return "unknown EtherType";
    case OpaqueCause::other_ip: return "unknown IP protocol";
    }
    return "unknown";
}

namespace {

Packet& opaque(Packet& packet, OpaqueCause cause)
{
    packet.kind = PacketKind::opaque;
    packet.cause = cause;
    return packet;
}

// A bad option ends the list, as in the kernels that will read it: the segment itself counts.
void parse_options(Packet& packet, std::uint32_t at, std::uint32_t end)
{
    TcpOptions& options = packet.options;
    while (at < end) {
        const std::uint8_t kind = packet.frame[at];
        if (kind == 0) return;
        if (kind == 1) {
            ++at;
            continue;
        }
        if (at + 1 >= end) return;
        const std::uint8_t length = packet.frame[at + 1];
        if (length < 2 || at + length > end) return;
        const std::uint8_t* value = packet.frame + at + 2;
        if (kind == 2 && length == 4) options.mss = load_be16(value);
        if (kind == 3 && length == 3) options.window_scale = value[0];
        if (kind == 4 && length == 2) options.sack_permitted = true;
        if (kind == 5 && length >= 10 && (length - 2) % 8 == 0 && options.sack_blocks == 0) {
            options.sack_blocks = static_cast<std::uint8_t>((length - 2) / 8);
            options.sack_at = static_cast<std::uint16_t>(at + 2);
        }
        if (kind == 8 && length == 10 && !options.has_timestamp()) {
            options.timestamp_at = static_cast<std::uint16_t>(at + 2);
            options.tsval = load_be32(value);
            options.tsecr = load_be32(value + 4);
        }
        at += length;
    }
}

void parse_tcp(Packet& packet)
{
    if (packet.end - packet.l4 < 20) return static_cast<void>(opaque(packet, OpaqueCause::malformed));
    const std::uint8_t* tcp = packet.frame + packet.l4;
    const std::uint32_t header = (tcp[12] >> 4) * 4u;
    if (header < 20 || packet.l4 + header > packet.end)
        return static_cast<void>(opaque(packet, OpaqueCause::malformed));
    packet.kind = PacketKind::tcp;
    packet.source_port = load_be16(tcp);
    packet.target_port = load_be16(tcp + 2);
    packet.seq = load_be32(tcp + 4);
    packet.ack = load_be32(tcp + 8);
    packet.tcp_flags = tcp[13];
    packet.window = load_be16(tcp + 14);
    packet.payload = packet.l4 + header;
    parse_options(packet, packet.l4 + 20, packet.payload);
}

void parse_udp(Packet& packet)
{
    if (packet.end - packet.l4 < 8) return static_cast<void>(opaque(packet, OpaqueCause::malformed));
    const std::uint8_t* udp = packet.frame + packet.l4;
    const std::uint32_t length = load_be16(udp + 4);
    if (length < 8 || packet.l4 + length > packet.end) return static_cast<void>(opaque(packet, OpaqueCause::malformed));
    packet.kind = PacketKind::udp;
    packet.source_port = load_be16(udp);
    packet.target_port = load_be16(udp + 2);
    packet.payload = packet.l4 + 8;
    packet.end = packet.l4 + length;
}

void parse_icmp(Packet& packet)
{
    if (packet.end - packet.l4 < 8) return static_cast<void>(opaque(packet, OpaqueCause::malformed));
    const std::uint8_t* icmp = packet.frame + packet.l4;
    packet.kind = PacketKind::icmp;
    packet.icmp_type = icmp[0];
    packet.icmp_code = icmp[1];
    const bool has_identifier = icmp[0] == 0 || icmp[0] == 8 || (icmp[0] >= 13 && icmp[0] <= 18);
    if (has_identifier) packet.source_port = packet.target_port = load_be16(icmp + 4);
    packet.payload = packet.l4 + 4;  // everything after type, code and checksum
}

void parse_ipv4(Packet& packet)
{
    packet.l3 = kVnetHeaderSize + kEthernetHeaderSize;
    const std::uint32_t left = packet.size - packet.l3;
    const std::uint8_t* ip = packet.frame + packet.l3;
    if (left < 20 || ip[0] >> 4 != 4) return static_cast<void>(opaque(packet, OpaqueCause::malformed));
    const std::uint32_t header = (ip[0] & 15) * 4u;
    const std::uint32_t total = load_be16(ip + 2);
    if (header < 20 || total < header || total > left) return static_cast<void>(opaque(packet, OpaqueCause::malformed));
    packet.ip_protocol = ip[9];
    packet.source_ip = load_be32(ip + 12);
    packet.target_ip = load_be32(ip + 16);
    packet.l4 = packet.l3 + header;
    packet.payload = packet.l4;
    packet.end = packet.l3 + total;
    if ((load_be16(ip + 6) & 0x3fff) != 0) return static_cast<void>(opaque(packet, OpaqueCause::fragment));
    switch (packet.ip_protocol) {
    case 6: return parse_tcp(packet);
    case 17: return parse_udp(packet);
    case 1: return parse_icmp(packet);
    default: opaque(packet, OpaqueCause::other_ip);
    }
}

void parse_arp(Packet& packet)
{
    packet.l3 = packet.l4 = packet.payload = kVnetHeaderSize + kEthernetHeaderSize;
    const std::uint8_t* arp = packet.frame + packet.l3;
    if (packet.size - packet.l3 < 28 || load_be16(arp) != 1 || load_be16(arp + 2) != kEtherTypeIpv4 || arp[4] != 6 ||
        arp[5] != 4)
        return static_cast<void>(opaque(packet, OpaqueCause::malformed));
    packet.kind = PacketKind::arp;
    packet.icmp_type = arp[7];
    packet.end = packet.l3 + 28;
    packet.source_ip = load_be32(arp + 14);
    packet.target_ip = load_be32(arp + 24);
}

}  // namespace

Packet parse_packet(ByteView frame) noexcept
{
    Packet packet;
    packet.frame = frame.data();
    packet.size = static_cast<std::uint32_t>(frame.size());
    if (frame.size() < kVnetHeaderSize + kEthernetHeaderSize || frame.size() > kMaxFrameSize)
        return opaque(packet, OpaqueCause::malformed);
    packet.ether_type = load_be16(frame.data() + kVnetHeaderSize + 12);
    switch (packet.ether_type) {
    case kEtherTypeIpv4: parse_ipv4(packet); break;
    case kEtherTypeArp: parse_arp(packet); break;
    case kEtherTypeIpv6: opaque(packet, OpaqueCause::ipv6); break;
    case kEtherTypeVlan:
    case kEtherTypeQinq:
    case 0x9100: opaque(packet, OpaqueCause::vlan); break;
    default: opaque(packet, OpaqueCause::other_ethernet); break;
    }
    return packet;
}

std::uint64_t checksum_add(std::uint64_t sum, ByteView bytes, bool odd) noexcept
{
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        const bool high = ((i & 1) != 0) == odd;
        sum += high ? std::uint64_t{bytes[i]} << 8 : bytes[i];
    }
    return sum;
}

std::uint16_t checksum_fold(std::uint64_t sum) noexcept
{
    while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<std::uint16_t>(~sum);
}

void finish_checksum(std::span<std::uint8_t> frame) noexcept
{
    if (frame.size() < kVnetHeaderSize || (frame[0] & kVnetNeedsChecksum) == 0) return;
    const auto little = [&frame](std::size_t at) { return static_cast<std::size_t>(frame[at] | frame[at + 1] << 8); };
    const std::size_t start = kVnetHeaderSize + little(6), field = start + little(8);
    frame[0] = static_cast<std::uint8_t>(frame[0] & ~kVnetNeedsChecksum);
    if (field + 2 > frame.size()) return;
    std::uint16_t sum =
        checksum_fold(checksum_add(0, frame.subspan(start)));  // the field holds the pseudo header's sum
    if (sum == 0) sum = 0xffff;                                // 0 means "none" in UDP
    store_be16(frame.data() + field, sum);
    frame[6] = frame[7] = frame[8] = frame[9] = 0;
}

namespace {

// RFC 1624: HC' = ~(~HC + ~m + m'). `place` is the distance from the start of the summed area.
class FieldWriter {
public:
    FieldWriter(std::span<std::uint8_t> frame, std::uint32_t area) : frame_(frame), area_(area) {}

    void add(std::uint32_t at, std::uint32_t value)
    {
        if (value == 0) return;
        std::uint8_t* field = frame_.data() + at;
        const bool odd = ((at - area_) & 1) != 0;
        std::array<std::uint8_t, 4> inverted{};
        for (std::size_t i = 0; i < 4; ++i) inverted[i] = static_cast<std::uint8_t>(~field[i]);
        delta_ = checksum_add(delta_, inverted, odd);
        store_be32(field, load_be32(field) + value);
        delta_ = checksum_add(delta_, {field, 4}, odd);
    }
    std::uint64_t delta() const { return delta_; }

private:
    std::span<std::uint8_t> frame_;
    std::uint32_t area_;
    std::uint64_t delta_ = 0;
};

}  // namespace

void rewrite_tcp(std::span<std::uint8_t> frame, const Packet& packet, const TcpRewrite& rewrite) noexcept
{
    COLO_CHECK(packet.kind == PacketKind::tcp && frame.size() == packet.size);
    FieldWriter writer(frame, packet.l4);
    writer.add(packet.l4 + 4, rewrite.seq_add);
    const bool ack = packet.has(kTcpAck);
    if (ack) {
        writer.add(packet.l4 + 8, rewrite.ack_add);
        for (std::uint32_t i = 0; i < packet.options.sack_blocks * 2u; ++i)
            writer.add(packet.options.sack_at + i * 4, rewrite.ack_add);
    }
    if (packet.options.has_timestamp()) {
        writer.add(packet.options.timestamp_at, rewrite.tsval_add);
        if (ack) writer.add(packet.options.timestamp_at + 4u, rewrite.tsecr_add);
    }
    if ((frame[0] & kVnetNeedsChecksum) != 0) return;  // only the pseudo header is in it so far
    std::uint8_t* checksum = frame.data() + packet.l4 + 16;
    const std::uint64_t sum = std::uint64_t{static_cast<std::uint16_t>(~load_be16(checksum))} + writer.delta();
    store_be16(checksum, checksum_fold(sum));
}

FramePtr rewritten(const FramePtr& frame, const Packet& packet, const TcpRewrite& rewrite)
{
    if (rewrite.identity()) return frame;
    Bytes bytes = frame->bytes;
    rewrite_tcp(bytes, packet, rewrite);
    return make_frame(std::move(bytes));
}

FramePtr given_again(const FramePtr& frame, std::optional<std::uint32_t> heard)
{
    if (!heard) return frame;
    const Packet packet = parse_packet(frame->view());
    if (packet.kind != PacketKind::tcp || !packet.options.has_timestamp() || packet.has(kTcpSyn) ||
        !seq_before(packet.options.tsval, *heard))
        return frame;
    return rewritten(frame, packet, {0, 0, *heard - packet.options.tsval, 0});
}

}  // namespace colo::proxy
