// SPDX-License-Identifier: Apache-2.0
#pragma once

// Who is out there on the client network: the stations that spoke to our guest last, and a way to ask them whether they
// still hear this host. Used when the hosts have lost each other, to find out which of them the clients can reach.

#include "core/error.h"
#include "core/types.h"
#include "proxy/file_descriptor.h"

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace colo::proxy {

using StationMac = std::array<std::uint8_t, 6>;

struct Client {
    std::uint8_t nic = 0;
    std::uint32_t ip4 = 0;  // host order
    StationMac mac{};
    bool operator==(const Client&) const = default;
};

// To `guest` alone, and not from `host`, whose own interface the guest's bridge may be: what a host says to itself does not
// show that anybody reaches it.
bool from_client(ByteView frame, const StationMac& guest, const StationMac& host);

// The last few stations that sent something to our guest, latest first. IPv4 and ARP only; bounded, cheap enough for
// every frame. Whoever named itself (ARP: a neighbour, or the router) is kept apart from mere sources: those may be far
// away behind a router, appear with its MAC, and do not answer.
class RecentClients {
public:
    static constexpr std::size_t kMaxNamed = 4, kMaxSeen = 4;
    // A frame with its vnet header, from a client (see above).
    void saw(std::uint8_t nic, ByteView frame);
    std::vector<Client> list() const;

private:
    static void add(std::vector<Client>& list, std::size_t max, const Client& client);
    std::vector<Client> named_, seen_;
};

// The address of a host's interface; all zero if it has none.
StationMac interface_mac(const std::string& interface);

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
    ArpProbe(FileDescriptor fd, int index, const StationMac& mac) : fd_(std::move(fd)), index_(index), mac_(mac) {}
    FileDescriptor fd_;
    int index_;
    StationMac mac_;
};

}  // namespace colo::proxy
