// SPDX-License-Identifier: Apache-2.0
#pragma once

// Who is out there on the client network: the stations that spoke last, and a way to ask them whether they still hear
// this host. Used when the hosts have lost each other, to find out which of them the clients can reach.

#include "core/error.h"
#include "core/types.h"
#include "proxy/file_descriptor.h"

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace colo::proxy {

struct Client {
    std::uint8_t nic = 0;
    std::uint32_t ip4 = 0;  // host order
    std::array<std::uint8_t, 6> mac{};
    bool operator==(const Client&) const = default;
};

// The last few stations that sent something to our guest, latest first. IPv4 and ARP only; bounded, cheap enough for
// every frame. An address behind a router appears with the router's MAC and will not answer; the router itself appears
// by the ARP that it speaks from time to time.
class RecentClients {
public:
    static constexpr std::size_t kMax = 8;
    // A frame with its vnet header, from the wire or mirrored by the peer.
    void saw(std::uint8_t nic, ByteView frame);
    const std::vector<Client>& list() const { return clients_; }

private:
    void add(const Client& client);
    std::vector<Client> clients_;
};

// ARP in this host's own name (its interface's MAC, no IP: RFC 5227 calls it a probe), so that no switch and no client
// learns anything about the guest from it. One thread. The interface is looked up in the caller's network namespace.
class ArpProbe {
public:
    static Result<ArpProbe> open(const std::string& interface);
    int fd() const { return fd_.get(); }
    Result<void> ask(const Client& client);
    // Whether any of `asked` has answered since open(); reads everything that waits, at most a bounded number of frames.
    bool answered(const std::vector<Client>& asked);

private:
    ArpProbe(FileDescriptor fd, int index, std::array<std::uint8_t, 6> mac)
        : fd_(std::move(fd)), index_(index), mac_(mac)
    {
    }
    FileDescriptor fd_;
    int index_;
    std::array<std::uint8_t, 6> mac_;
};

}  // namespace colo::proxy
