// SPDX-License-Identifier: Apache-2.0
#include "frames.h"

#include <tins/tins.h>

namespace colo::proxy::test {
namespace {

Tins::HWAddress<6> hardware(const Mac& mac)
{
    return Tins::HWAddress<6>(mac.data());
}
Tins::IPv4Address address(std::uint32_t ip)
{
    return Tins::IPv4Address(__builtin_bswap32(ip));
}

FramePtr finish(Tins::PDU& pdu)
{
    const auto raw = pdu.serialize();
    Bytes bytes(kVnetHeaderSize, 0);
    bytes.insert(bytes.end(), raw.begin(), raw.end());
    return make_frame(std::move(bytes));
}

Tins::EthernetII ethernet(bool from_guest)
{
    return from_guest ? Tins::EthernetII(hardware(kClientMac), hardware(kGuestMac))
                      : Tins::EthernetII(hardware(kGuestMac), hardware(kClientMac));
}

Tins::IP ip(bool from_guest, std::uint16_t id, std::uint8_t ttl, std::uint32_t client_ip = kClientIp)
{
    Tins::IP ip =
        from_guest ? Tins::IP(address(client_ip), address(kGuestIp)) : Tins::IP(address(kGuestIp), address(client_ip));
    ip.id(id);
    ip.ttl(ttl);
    return ip;
}

}  // namespace

FramePtr tcp(const Segment& s)
{
    Tins::TCP tcp = s.from_guest ? Tins::TCP(s.peer_port, s.guest_port) : Tins::TCP(s.guest_port, s.peer_port);
    tcp.seq(s.seq);
    tcp.ack_seq(s.ack);
    tcp.window(s.window);
    tcp.flags(s.flags);
    if (s.mss != 0) tcp.mss(s.mss);
    if (s.sack_permitted) tcp.sack_permitted();
    if (s.timestamp) tcp.timestamp(s.timestamp->first, s.timestamp->second);
    if (s.window_scale) tcp.winscale(*s.window_scale);
    if (!s.sack.empty()) tcp.sack(s.sack);
    Tins::EthernetII frame = ethernet(s.from_guest) / ip(s.from_guest, s.ip_id, s.ttl, s.client_ip) / tcp;
    if (!s.data.empty()) frame /= Tins::RawPDU(s.data);
    return finish(frame);
}

FramePtr udp(bool from_guest, std::uint16_t guest_port, std::uint16_t peer_port, const std::string& data,
             std::uint16_t ip_id, std::uint8_t ttl, std::uint32_t client_ip)
{
    const Tins::UDP udp = from_guest ? Tins::UDP(peer_port, guest_port) : Tins::UDP(guest_port, peer_port);
    Tins::EthernetII frame = ethernet(from_guest) / ip(from_guest, ip_id, ttl, client_ip) / udp / Tins::RawPDU(data);
    return finish(frame);
}

FramePtr icmp_echo(bool from_guest, bool reply, std::uint16_t id, std::uint16_t sequence, std::uint8_t ttl)
{
    Tins::ICMP icmp(reply ? Tins::ICMP::ECHO_REPLY : Tins::ICMP::ECHO_REQUEST);
    icmp.id(id);
    icmp.sequence(sequence);
    Tins::EthernetII frame = ethernet(from_guest) / ip(from_guest, 1, ttl) / icmp / Tins::RawPDU("0123456789");
    return finish(frame);
}

FramePtr arp(bool from_guest, bool reply, std::uint32_t sender_ip, std::uint32_t target_ip)
{
    Tins::ARP arp(address(target_ip), address(sender_ip));
    arp.opcode(reply ? Tins::ARP::REPLY : Tins::ARP::REQUEST);
    arp.sender_hw_addr(hardware(from_guest ? kGuestMac : kClientMac));
    Tins::EthernetII frame = ethernet(from_guest) / arp;
    return finish(frame);
}

FramePtr raw_ethernet(bool from_guest, std::uint16_t type, const Bytes& payload)
{
    Bytes bytes(kVnetHeaderSize, 0);
    const Mac& target = from_guest ? kClientMac : kGuestMac;
    const Mac& source = from_guest ? kGuestMac : kClientMac;
    bytes.insert(bytes.end(), target.begin(), target.end());
    bytes.insert(bytes.end(), source.begin(), source.end());
    bytes.push_back(static_cast<std::uint8_t>(type >> 8));
    bytes.push_back(static_cast<std::uint8_t>(type));
    bytes.insert(bytes.end(), payload.begin(), payload.end());
    return make_frame(std::move(bytes));
}

FramePtr fragment(const FramePtr& ipv4)
{
    Bytes bytes = ipv4->bytes;
    bytes[kVnetHeaderSize + kEthernetHeaderSize + 6] |= 0x20;
    return make_frame(std::move(bytes));
}

FramePtr padded(const FramePtr& frame, std::size_t ethernet_size)
{
    Bytes bytes = frame->bytes;
    if (bytes.size() < kVnetHeaderSize + ethernet_size) bytes.resize(kVnetHeaderSize + ethernet_size, 0xa5);
    return make_frame(std::move(bytes));
}

FramePtr with_partial_checksum(const FramePtr& frame)
{
    Bytes bytes = frame->bytes;
    const std::size_t l3 = kVnetHeaderSize + 14, l4 = l3 + (bytes[l3] & 15) * 4u;
    const std::size_t field = bytes[l3 + 9] == 6 ? 16 : 6;
    const std::size_t length = (std::size_t{bytes[l3 + 2]} << 8 | bytes[l3 + 3]) - (l4 - l3);
    std::uint64_t sum = bytes[l3 + 9] + length;
    for (std::size_t i = l3 + 12; i < l3 + 20; i += 2) sum += std::uint64_t{bytes[i]} << 8 | bytes[i + 1];
    while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
    bytes[l4 + field] = static_cast<std::uint8_t>(sum >> 8);
    bytes[l4 + field + 1] = static_cast<std::uint8_t>(sum);
    bytes[0] = kVnetNeedsChecksum;
    bytes[6] = static_cast<std::uint8_t>(l4 - kVnetHeaderSize);
    bytes[8] = static_cast<std::uint8_t>(field);
    return make_frame(std::move(bytes));
}

bool checksum_valid(const FramePtr& frame)
{
    Tins::EthernetII parsed(frame->bytes.data() + kVnetHeaderSize,
                            static_cast<std::uint32_t>(frame->bytes.size() - kVnetHeaderSize));
    const auto before = parsed.find_pdu<Tins::TCP>() ? parsed.rfind_pdu<Tins::TCP>().checksum()
                                                     : parsed.rfind_pdu<Tins::UDP>().checksum();
    (void)parsed.serialize();  // fills in the right one
    const auto after = parsed.find_pdu<Tins::TCP>() ? parsed.rfind_pdu<Tins::TCP>().checksum()
                                                    : parsed.rfind_pdu<Tins::UDP>().checksum();
    return before == after;
}

Decoded decode_tcp(const FramePtr& frame)
{
    const Tins::EthernetII parsed(frame->bytes.data() + kVnetHeaderSize,
                                  static_cast<std::uint32_t>(frame->bytes.size() - kVnetHeaderSize));
    const auto& tcp = parsed.rfind_pdu<Tins::TCP>();
    Decoded decoded;
    decoded.seq = tcp.seq();
    decoded.ack = tcp.ack_seq();
    decoded.flags = static_cast<std::uint8_t>(tcp.flags());
    if (tcp.search_option(Tins::TCP::TSOPT) != nullptr) {
        decoded.tsval = tcp.timestamp().first;
        decoded.tsecr = tcp.timestamp().second;
    }
    if (tcp.search_option(Tins::TCP::SACK) != nullptr) decoded.sack = tcp.sack();
    if (const auto* raw = tcp.find_pdu<Tins::RawPDU>())
        decoded.data.assign(raw->payload().begin(), raw->payload().end());
    return decoded;
}

}  // namespace colo::proxy::test
