// SPDX-License-Identifier: Apache-2.0
#include "proxy/neighbours.h"

#include "proxy/flow_table.h"

#include <cstring>

namespace colo::proxy {
namespace {

constexpr std::size_t kIp6Header = kVnetHeaderSize + kEthernetHeaderSize;
constexpr std::size_t kIcmp6 = kIp6Header + 40;
constexpr std::uint8_t kSolicitation = 135, kAdvertisement = 136;

Mac mac_at(const std::uint8_t* at)
{
    Mac mac;
    std::memcpy(mac.data(), at, 6);
    return mac;
}
Ip6 ip6_at(const std::uint8_t* at)
{
    Ip6 ip;
    std::memcpy(ip.data(), at, 16);
    return ip;
}

bool is_neighbour_discovery(const Packet& packet, std::uint8_t type)
{
    return packet.ether_type == kEtherTypeIpv6 && packet.size >= kIcmp6 + 24 && packet.frame[kIp6Header + 6] == 58 &&
           packet.frame[kIcmp6] == type;
}

}  // namespace

std::size_t Neighbours::Ip6Hash::operator()(const std::pair<std::uint8_t, Ip6>& key) const noexcept
{
    std::uint64_t high, low;
    std::memcpy(&high, key.second.data(), 8);
    std::memcpy(&low, key.second.data() + 8, 8);
    return FlowKeyHash::mix(FlowKeyHash::mix(high ^ key.first) ^ low);
}

void Neighbours::learn(std::uint8_t nic, const Packet& mirrored)
{
    if (mirrored.size < kVnetHeaderSize + kEthernetHeaderSize) return;
    if (mirrored.kind != PacketKind::opaque) {
        if (mirrored.source_ip == 0) return;
        const std::uint64_t key = std::uint64_t{nic} << 32 | mirrored.source_ip;
        if (mirrored.kind == PacketKind::arp) return ip4_.learn(key, mac_at(mirrored.frame + mirrored.l3 + 8), true);
        // Behind a router this is the router's MAC for a far address, which the guest never asks for.
        return ip4_.learn(key, mac_at(mirrored.source_mac()), false);
    }
    if (mirrored.ether_type != kEtherTypeIpv6 || mirrored.size < kIcmp6) return;
    const bool advertised = is_neighbour_discovery(mirrored, kAdvertisement);
    const auto key = std::pair(nic, ip6_at(advertised ? mirrored.frame + kIcmp6 + 8 : mirrored.frame + kIp6Header + 8));
    ip6_.learn(key, mac_at(mirrored.source_mac()), advertised);
}

FramePtr Neighbours::answer(std::uint8_t nic, const Packet& from_guest) const
{
    if (from_guest.kind == PacketKind::arp && from_guest.icmp_type == 1) return answer_arp(nic, from_guest);
    if (is_neighbour_discovery(from_guest, kSolicitation)) return answer_solicitation(nic, from_guest);
    return nullptr;
}

FramePtr Neighbours::answer_arp(std::uint8_t nic, const Packet& request) const
{
    if (request.source_ip == 0 || request.source_ip == request.target_ip) return nullptr;  // a claim, not a question
    const Mac* const known = ip4_.find(std::uint64_t{nic} << 32 | request.target_ip);
    if (known == nullptr) return nullptr;
    const Mac asker = mac_at(request.frame + request.l3 + 8);
    return make_arp(2, asker, *known, request.target_ip, asker, request.source_ip);
}

FramePtr Neighbours::answer_solicitation(std::uint8_t nic, const Packet& request) const
{
    const Ip6 asker = ip6_at(request.frame + kIp6Header + 8), target = ip6_at(request.frame + kIcmp6 + 8);
    if (asker == Ip6{}) return nullptr;  // duplicate address detection
    const Mac* const known = ip6_.find({nic, target});
    if (known == nullptr) return nullptr;
    return make_neighbour_advertisement(mac_at(request.source_mac()), *known, target, asker, true);
}

}  // namespace colo::proxy
