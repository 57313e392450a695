// SPDX-License-Identifier: Apache-2.0
#pragma once

// R8: the secondary's guest may ask for a neighbour that the primary's guest knows already; nobody on the network hears
// the question. It is answered from what mirrored traffic told.

#include "proxy/address_book.h"

#include <unordered_map>

namespace colo::proxy {

class Neighbours {
public:
    void learn(std::uint8_t nic, const Packet& mirrored);
    // The answer to an ARP request or neighbour solicitation of our guest, or nothing.
    FramePtr answer(std::uint8_t nic, const Packet& from_guest) const;

private:
    static constexpr std::size_t kMax = 1024;  // per family; the table of a host is smaller
    struct Ip6Hash {
        std::size_t operator()(const std::pair<std::uint8_t, Ip6>& key) const noexcept;
    };
    FramePtr answer_arp(std::uint8_t nic, const Packet& request) const;
    FramePtr answer_solicitation(std::uint8_t nic, const Packet& request) const;
    std::unordered_map<std::uint64_t, Mac> ip4_;  // nic << 32 | address
    std::unordered_map<std::pair<std::uint8_t, Ip6>, Mac, Ip6Hash> ip6_;
};

}  // namespace colo::proxy
