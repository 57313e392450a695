// SPDX-License-Identifier: Apache-2.0
#pragma once

// Flows by key, bounded. A full table gives up the least recently used flow that may go for a new one; which may, the
// owner says: never one whose loss somebody would notice (invariant 29). If none may, the new one is refused.
//
// `Flow` has: FlowKey key; Time last_active;

#include "core/types.h"
#include "proxy/packet.h"

#include <algorithm>
#include <list>
#include <unordered_map>

namespace colo::proxy {

struct FlowKey {
    std::uint8_t nic = 0;
    PacketKind kind = PacketKind::opaque;
    std::uint16_t guest_port = 0, peer_port = 0;
    std::uint32_t guest_ip = 0, peer_ip = 0;
    bool operator==(const FlowKey&) const = default;
};

// FlowState::flags: the handshake began on the host before this one and the client has not named its number yet. Then
// covered_seq is the guest's first number and highest_timestamp the TSval of its SYN, both in guest numbers.
inline constexpr std::uint8_t kFlowHalfOpen = 8;
// The guest is beyond the handshake: a SYN that follows begins another connection.
inline constexpr std::uint8_t kFlowOpened = 16;

// ARP has one flow per NIC; order among its frames is kept, their content says the rest.
inline FlowKey key_from_guest(std::uint8_t nic, const Packet& packet)
{
    if (packet.kind == PacketKind::arp) return {nic, packet.kind, 0, 0, 0, 0};
    return {nic, packet.kind, packet.source_port, packet.target_port, packet.source_ip, packet.target_ip};
}
inline FlowKey key_from_peer(std::uint8_t nic, const Packet& packet)
{
    if (packet.kind == PacketKind::arp) return {nic, packet.kind, 0, 0, 0, 0};
    return {nic, packet.kind, packet.target_port, packet.source_port, packet.target_ip, packet.source_ip};
}

struct FlowKeyHash {
    // Clients choose addresses and ports: the seed keeps them from choosing collisions.
    std::uint64_t seed = 0x9e3779b97f4a7c15u;
    std::size_t operator()(const FlowKey& key) const noexcept
    {
        const std::uint64_t ports = std::uint64_t{key.guest_port} << 32 | std::uint64_t{key.peer_port} << 16 |
                                    std::uint64_t{key.nic} << 8 | static_cast<std::uint8_t>(key.kind);
        return mix(mix((std::uint64_t{key.guest_ip} << 32 | key.peer_ip) ^ seed) ^ ports);
    }
    static std::uint64_t mix(std::uint64_t v) noexcept
    {
        v = (v ^ v >> 33) * 0xff51afd7ed558ccdu;
        v = (v ^ v >> 33) * 0xc4ceb9fe1a85ec53u;
        return v ^ v >> 33;
    }
};

template <class Flow>
class FlowTable {
    using List = std::list<Flow>;

public:
    FlowTable(std::size_t max, std::uint64_t hash_seed) : max_(max), index_(16, FlowKeyHash{hash_seed}) {}

    Flow* find(const FlowKey& key)
    {
        const auto at = index_.find(key);
        return at == index_.end() ? nullptr : &*at->second;
    }
    void touch(Flow& flow, Time now)
    {
        flow.last_active = now;
        const auto at = index_.find(flow.key);
        flows_.splice(flows_.end(), flows_, at->second);
    }
    // Finds and touches.
    Flow* use(const FlowKey& key, Time now)
    {
        const auto at = index_.find(key);
        if (at == index_.end()) return nullptr;
        at->second->last_active = now;
        flows_.splice(flows_.end(), flows_, at->second);
        return &*at->second;
    }
    // `may_go(Flow&)`: asked only when the table is full. nullptr: none of those asked may go.
    template <class MayGo>
    Flow* use_or_add(const FlowKey& key, Time now, MayGo may_go)
    {
        if (Flow* flow = use(key, now)) return flow;
        if (flows_.size() >= max_ && !evict_one(may_go)) return nullptr;
        flows_.emplace_back();
        flows_.back().key = key;
        flows_.back().last_active = now;
        index_.emplace(key, std::prev(flows_.end()));
        return &flows_.back();
    }
    template <class Predicate>
    void remove_if(Predicate predicate)
    {
        for (auto it = flows_.begin(); it != flows_.end();) {
            const auto next = std::next(it);
            if (predicate(*it)) erase(it);
            it = next;
        }
    }
    std::size_t size() const { return flows_.size(); }
    auto begin() { return flows_.begin(); }
    auto end() { return flows_.end(); }
    auto begin() const { return flows_.begin(); }
    auto end() const { return flows_.end(); }

private:
    void erase(typename List::iterator it)
    {
        index_.erase(it->key);
        flows_.erase(it);
    }
    // The oldest come first. One that must stay goes to the back (as under the hand of a clock), or a few of them would
    // hide all others for ever.
    template <class MayGo>
    bool evict_one(MayGo& may_go)
    {
        constexpr std::size_t kLook = 256;
        const std::size_t look = std::min(kLook, flows_.size());
        for (std::size_t i = 0; i < look; ++i) {
            const auto oldest = flows_.begin();
            if (may_go(*oldest)) {
                erase(oldest);
                return true;
            }
            flows_.splice(flows_.end(), flows_, oldest);
        }
        return false;
    }

    std::size_t max_;
    List flows_;  // least recently used first
    std::unordered_map<FlowKey, typename List::iterator, FlowKeyHash> index_;
};

}  // namespace colo::proxy
