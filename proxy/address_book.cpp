// SPDX-License-Identifier: Apache-2.0
#include "proxy/address_book.h"

#include <algorithm>
#include <cstring>

namespace colo::proxy {
namespace {

constexpr std::size_t kSmallestFrame = 60;  // without frame check sequence
constexpr Mac kBroadcast{0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

Bytes ethernet(const Mac& target, const Mac& source, std::uint16_t type, std::size_t size)
{
    Bytes bytes(kVnetHeaderSize + std::max(size, kSmallestFrame), 0);
    std::memcpy(bytes.data() + kVnetHeaderSize, target.data(), 6);
    std::memcpy(bytes.data() + kVnetHeaderSize + 6, source.data(), 6);
    store_be16(bytes.data() + kVnetHeaderSize + 12, type);
    return bytes;
}

FramePtr arp_frame(std::uint16_t type, std::uint16_t operation, const Mac& ethernet_target, const Mac& sender,
                   std::uint32_t sender_ip, const Mac& target, std::uint32_t target_ip)
{
    Bytes bytes = ethernet(ethernet_target, sender, type, 42);
    std::uint8_t* arp = bytes.data() + kVnetHeaderSize + kEthernetHeaderSize;
    store_be16(arp, 1);
    store_be16(arp + 2, kEtherTypeIpv4);
    arp[4] = 6;
    arp[5] = 4;
    store_be16(arp + 6, operation);
    std::memcpy(arp + 8, sender.data(), 6);
    store_be32(arp + 14, sender_ip);
    std::memcpy(arp + 18, target.data(), 6);
    store_be32(arp + 24, target_ip);
    return make_frame(std::move(bytes));
}

}  // namespace

FramePtr make_rarp(const Mac& mac)
{
    return arp_frame(kEtherTypeRarp, 3, kBroadcast, mac, 0, mac, 0);
}

FramePtr make_arp(std::uint16_t operation, const Mac& ethernet_target, const Mac& sender, std::uint32_t sender_ip,
                  const Mac& target, std::uint32_t target_ip)
{
    return arp_frame(kEtherTypeArp, operation, ethernet_target, sender, sender_ip, target, target_ip);
}

FramePtr make_neighbour_advertisement(const Mac& ethernet_target, const Mac& sender, const Ip6& sender_ip,
                                      const Ip6& target_ip, bool solicited)
{
    constexpr std::size_t kIcmpSize = 32;
    Bytes bytes = ethernet(ethernet_target, sender, kEtherTypeIpv6, kEthernetHeaderSize + 40 + kIcmpSize);
    std::uint8_t* ip = bytes.data() + kVnetHeaderSize + kEthernetHeaderSize;
    ip[0] = 0x60;
    store_be16(ip + 4, kIcmpSize);
    ip[6] = 58;
    ip[7] = 255;
    std::memcpy(ip + 8, sender_ip.data(), 16);
    std::memcpy(ip + 24, target_ip.data(), 16);
    std::uint8_t* icmp = ip + 40;
    icmp[0] = 136;
    icmp[4] = solicited ? 0x60 : 0x20;  // override; solicited
    std::memcpy(icmp + 8, sender_ip.data(), 16);
    icmp[24] = 2;  // target link-layer address
    icmp[25] = 1;
    std::memcpy(icmp + 26, sender.data(), 6);
    std::uint64_t sum = checksum_add(0, {ip + 8, 32});
    sum += kIcmpSize + 58;
    sum = checksum_add(sum, {icmp, kIcmpSize});
    store_be16(icmp + 2, checksum_fold(sum));
    return make_frame(std::move(bytes));
}

AddressBook::AddressBook(std::vector<Mac> nics, GuestAddresses known)
    : nics_(std::move(nics)), addresses_(std::move(known)), observed_(nics_.size())
{
    addresses_.nics.resize(nics_.size());
}

namespace {

bool is_host_address(std::uint32_t ip)
{
    return ip != 0 && ip >> 28 != 0xe && ip != 0xffffffff;
}

void add_once(std::vector<std::uint32_t>& list, std::uint32_t ip, std::size_t max)
{
    if (std::find(list.begin(), list.end(), ip) == list.end() && list.size() < max) list.push_back(ip);
}

}  // namespace

void AddressBook::observe_ip4(std::uint8_t nic, std::uint32_t ip)
{
    Observed& observed = observed_[nic];
    if (observed.routes || (!observed.ip4.empty() && observed.ip4.front() == ip)) return;
    add_once(observed.ip4, ip, kMaxObserved + 1);
    if (observed.ip4.size() <= kMaxObserved) return;
    observed.routes = true;
    observed.ip4.clear();
}

GuestAddresses AddressBook::addresses() const
{
    GuestAddresses all = addresses_;
    for (std::size_t nic = 0; nic < nics_.size(); ++nic)
        for (const std::uint32_t ip : observed_[nic].ip4) add_once(all.nics[nic].ip4, ip, kMaxIp4);
    return all;
}

void AddressBook::add_ip6(std::uint8_t nic, const std::uint8_t* ip)
{
    Ip6 address;
    std::memcpy(address.data(), ip, 16);
    if (address[0] == 0xff || address == Ip6{}) return;
    auto& known = addresses_.nics[nic].ip6;
    if (std::find(known.begin(), known.end(), address) == known.end() && known.size() < kMaxIp6)
        known.push_back(address);
}

void AddressBook::from_guest(std::uint8_t nic, const Packet& packet)
{
    if (nic >= nics_.size() || packet.size < kVnetHeaderSize + kEthernetHeaderSize) return;
    if (std::memcmp(packet.source_mac(), nics_[nic].data(), 6) != 0) return;  // a bridge inside the guest
    if (packet.source_ip != 0) {
        if (!is_host_address(packet.source_ip)) return;
        if (packet.kind == PacketKind::arp)
            add_once(addresses_.nics[nic].ip4, packet.source_ip, kMaxIp4);
        else
            observe_ip4(nic, packet.source_ip);
        return;
    }
    constexpr std::size_t kIp6 = kVnetHeaderSize + kEthernetHeaderSize;
    if (packet.ether_type == kEtherTypeIpv6 && packet.size >= kIp6 + 40) add_ip6(nic, packet.frame + kIp6 + 8);
}

std::vector<FramePtr> AddressBook::announcements(std::uint8_t nic) const
{
    std::vector<FramePtr> frames;
    if (nic >= nics_.size()) return frames;
    const Mac& mac = nics_[nic];
    frames.push_back(make_rarp(mac));
    const GuestAddresses all = addresses();
    for (const std::uint32_t ip : all.nics[nic].ip4) frames.push_back(make_arp(1, kBroadcast, mac, ip, Mac{}, ip));
    constexpr Mac kAllNodesMac{0x33, 0x33, 0, 0, 0, 1};
    constexpr Ip6 kAllNodes{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
    for (const Ip6& ip : all.nics[nic].ip6)
        frames.push_back(make_neighbour_advertisement(kAllNodesMac, mac, ip, kAllNodes, false));
    return frames;
}

}  // namespace colo::proxy
