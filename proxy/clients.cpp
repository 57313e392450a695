// SPDX-License-Identifier: Apache-2.0
#include "proxy/clients.h"

#include "proxy/address_book.h"
#include "proxy/packet.h"

#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace colo::proxy {
namespace {

constexpr std::size_t kArpSize = 28;
constexpr std::size_t kIp4Source = 12;
constexpr std::size_t kArpSender = 8, kArpSenderIp = 14, kArpTarget = 18;
constexpr std::uint16_t kRequest = 1, kReply = 2;
constexpr int kFramesAtOnce = 256;  // a flood of ARP must not keep us from the arbiter

}  // namespace

bool from_client(ByteView frame, const StationMac& guest, const StationMac& host)
{
    if (frame.size() < kVnetHeaderSize + kEthernetHeaderSize) return false;
    const std::uint8_t* const ethernet = frame.data() + kVnetHeaderSize;
    return std::memcmp(ethernet, guest.data(), 6) == 0 && std::memcmp(ethernet + 6, guest.data(), 6) != 0 &&
           std::memcmp(ethernet + 6, host.data(), 6) != 0;
}

void RecentClients::saw(std::uint8_t nic, ByteView frame)
{
    constexpr std::size_t kHeaders = kVnetHeaderSize + kEthernetHeaderSize;
    if (frame.size() < kHeaders + 20) return;
    const std::uint8_t* const ethernet = frame.data() + kVnetHeaderSize;
    const std::uint8_t* const body = frame.data() + kHeaders;
    const std::uint16_t type = load_be16(ethernet + 12);
    const bool arp = type == kEtherTypeArp && frame.size() >= kHeaders + kArpSize;
    if (!arp && type != kEtherTypeIpv4) return;
    Client client{nic, load_be32(body + (arp ? kArpSenderIp : kIp4Source)), {}};
    std::memcpy(client.mac.data(), arp ? body + kArpSender : ethernet + 6, 6);
    if (client.ip4 == 0 || (client.mac[0] & 1) != 0) return;
    arp ? add(named_, kMaxNamed, client) : add(seen_, kMaxSeen, client);
}

void RecentClients::add(std::vector<Client>& list, std::size_t max, const Client& client)
{
    if (!list.empty() && list.front() == client) return;
    const auto at = std::find_if(list.begin(), list.end(),
                                 [&](const Client& c) { return c.nic == client.nic && c.ip4 == client.ip4; });
    if (at != list.end())
        list.erase(at);
    else if (list.size() >= max)
        list.pop_back();
    list.insert(list.begin(), client);
}

std::vector<Client> RecentClients::list() const
{
    std::vector<Client> all = named_;
    for (const Client& client : seen_)
        if (std::find(all.begin(), all.end(), client) == all.end()) all.push_back(client);
    return all;
}

StationMac interface_mac(const std::string& interface)
{
    StationMac mac{};
    ifreq request{};
    std::strncpy(request.ifr_name, interface.c_str(), IFNAMSIZ - 1);
    const FileDescriptor fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (::ioctl(fd.get(), SIOCGIFHWADDR, &request) == 0) std::memcpy(mac.data(), request.ifr_hwaddr.sa_data, 6);
    return mac;
}

Result<ArpProbe> ArpProbe::open(const std::string& interface)
{
    FileDescriptor fd(::socket(AF_PACKET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, htons(kEtherTypeArp)));
    if (!fd.valid()) return errno_error("AF_PACKET socket (CAP_NET_RAW needed)", errno);
    ifreq request{};
    std::strncpy(request.ifr_name, interface.c_str(), IFNAMSIZ - 1);
    if (::ioctl(fd.get(), SIOCGIFINDEX, &request) != 0) return errno_error("interface " + interface, errno);
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(kEtherTypeArp);
    address.sll_ifindex = request.ifr_ifindex;
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        return errno_error("bind to " + interface, errno);
    return ArpProbe(std::move(fd), address.sll_ifindex, interface_mac(interface));
}

Result<void> ArpProbe::ask(const Client& client)
{
    const FramePtr frame = make_arp(kRequest, client.mac, mac_, 0, Mac{}, client.ip4);
    const ByteView arp = frame->ethernet().subspan(kEthernetHeaderSize, kArpSize);
    sockaddr_ll to{};
    to.sll_family = AF_PACKET;
    to.sll_protocol = htons(kEtherTypeArp);
    to.sll_ifindex = index_;
    to.sll_halen = 6;
    std::memcpy(to.sll_addr, client.mac.data(), 6);
    if (::sendto(fd_.get(), arp.data(), arp.size(), MSG_DONTWAIT | MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&to),
                 sizeof to) < 0)
        return errno_error("ARP probe", errno);
    return {};
}

bool ArpProbe::answered(const std::vector<Client>& asked)
{
    bool found = false;
    for (int i = 0; i < kFramesAtOnce; ++i) {
        std::array<std::uint8_t, 64> arp;
        const ssize_t size = ::recv(fd_.get(), arp.data(), arp.size(), MSG_DONTWAIT);
        if (size < 0) return found;
        if (static_cast<std::size_t>(size) < kArpSize || load_be16(arp.data() + 6) != kReply) continue;
        if (std::memcmp(arp.data() + kArpTarget, mac_.data(), 6) != 0) continue;
        const std::uint32_t sender = load_be32(arp.data() + kArpSenderIp);
        found = found || std::any_of(asked.begin(), asked.end(), [&](const Client& c) { return c.ip4 == sender; });
    }
    return found;
}

}  // namespace colo::proxy
