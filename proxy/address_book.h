// SPDX-License-Identifier: Apache-2.0
#pragma once

// Which addresses our guest uses, from what it sends; and the frames that tell the network where it lives now.

#include "proxy/packet.h"
#include "proxy/proxy.h"

namespace colo::proxy {

class AddressBook {
public:
    AddressBook(std::vector<Mac> nics, GuestAddresses known);

    void from_guest(std::uint8_t nic, const Packet& packet);
    GuestAddresses addresses() const;
    // RARP, gratuitous ARP (request and reply form are both honoured; the request form is sent), unsolicited NA.
    std::vector<FramePtr> announcements(std::uint8_t nic) const;

private:
    // IPv4 sources that the guest never named in ARP. More than a few of them: the guest routes for others, whose
    // addresses are not ours to announce.
    struct Observed {
        std::vector<std::uint32_t> ip4;
        bool routes = false;
    };
    void observe_ip4(std::uint8_t nic, std::uint32_t ip);
    void add_ip6(std::uint8_t nic, const std::uint8_t* ip);
    static constexpr std::size_t kMaxIp4 = 64, kMaxIp6 = 32, kMaxObserved = 4;
    std::vector<Mac> nics_;
    GuestAddresses addresses_;  // IPv4: named in ARP by the guest itself
    std::vector<Observed> observed_;
};

FramePtr make_rarp(const Mac& mac);
FramePtr make_arp(std::uint16_t operation, const Mac& ethernet_target, const Mac& sender, std::uint32_t sender_ip,
                  const Mac& target, std::uint32_t target_ip);
// Solicited answers a probe, otherwise to all nodes.
FramePtr make_neighbour_advertisement(const Mac& ethernet_target, const Mac& sender, const Ip6& sender_ip,
                                      const Ip6& target_ip, bool solicited);

}  // namespace colo::proxy
