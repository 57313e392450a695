// SPDX-License-Identifier: Apache-2.0
#pragma once

// R8: the secondary's guest may ask for a neighbour that the primary's guest knows already; nobody on the network hears
// the question. It is answered from what mirrored traffic told.

#include "proxy/address_book.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

namespace colo::proxy {

class Neighbours {
public:
    void learn(std::uint8_t nic, const Packet& mirrored);
    // The answer to an ARP request or neighbour solicitation of our guest, or nothing.
    FramePtr answer(std::uint8_t nic, const Packet& from_guest) const;

private:
    static constexpr std::size_t kMax = 1024;  // per family; the table of a host is smaller
    // Whom a full table forgets for one that named itself (ARP, advertisement): the oldest of those that were only seen
    // as a source (far addresses behind a router, or made up), then the oldest of the others. One that was only seen
    // makes nobody leave.
    template <class Key, class Hash>
    class Table {
    public:
        const Mac* find(const Key& key) const
        {
            const auto at = entries_.find(key);
            return at == entries_.end() ? nullptr : &at->second.mac;
        }
        void learn(const Key& key, const Mac& mac, bool named)
        {
            const auto at = entries_.find(key);
            if (at != entries_.end()) {
                if (named) at->second = {mac, true, ++clock_};
                return;
            }
            if (entries_.size() >= kMax) {
                if (!named) return;
                const auto older = [](const auto& a, const auto& b) {
                    return std::pair(a.second.named, a.second.since) < std::pair(b.second.named, b.second.since);
                };
                entries_.erase(std::min_element(entries_.begin(), entries_.end(), older));
            }
            entries_.emplace(key, Entry{mac, named, ++clock_});
        }

    private:
        struct Entry {
            Mac mac;
            bool named;
            std::uint64_t since;
        };
        std::unordered_map<Key, Entry, Hash> entries_;
        std::uint64_t clock_ = 0;
    };
    struct Ip6Hash {
        std::size_t operator()(const std::pair<std::uint8_t, Ip6>& key) const noexcept;
    };
    FramePtr answer_arp(std::uint8_t nic, const Packet& request) const;
    FramePtr answer_solicitation(std::uint8_t nic, const Packet& request) const;
    Table<std::uint64_t, std::hash<std::uint64_t>> ip4_;  // nic << 32 | address
    Table<std::pair<std::uint8_t, Ip6>, Ip6Hash> ip6_;
};

}  // namespace colo::proxy
