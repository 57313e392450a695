// SPDX-License-Identifier: Apache-2.0
#pragma once

// What runs inside the simulated guest: a TCP and UDP service whose whole state lives in guest memory and in the few
// registers that travel with the device state. It answers real frames. Given the same state and the same input in the same
// order two copies answer alike, except where the program asks for time or chance of its own host (ISNs, op kTime, when it
// gets to run): that makes copies diverge as real ones do.

#include "frames.h"
#include "guest_ram.h"
#include "random.h"

#include <functional>

namespace colo::sim {

enum class Op : std::uint8_t { echo = 1, time, count, write, read, download, close };

struct Request {
    std::uint32_t op = 0, id = 0, argument = 0, length = 0;   // length of the payload that follows
};
struct Response {
    std::uint32_t id = 0, op = 0;
    std::uint64_t value = 0, chain = 0;
    std::uint32_t length = 0, zero = 0;   // of the body that follows
};
inline constexpr std::size_t kMaxRequestPayload = 3800, kMaxBody = 8192;
std::uint64_t next_chain(std::uint64_t chain, const Request& request, ByteView payload, std::uint64_t value);
Bytes body_bytes(std::uint64_t chain, std::uint32_t length);

// CPU registers: in the device state, not in memory.
struct Registers {
    std::int64_t clock_us = 0;        // guest time at the last stop
    std::uint64_t random = 0;         // program's own generator: state, so equal in both copies until they diverge
    std::uint64_t steps = 0;
    std::uint64_t check = 0;          // sum over what the program wrote: memory and registers must fit (Inv07)
    std::uint32_t powered_off = 0, zero = 0;
};

class ServiceHost {   // what the program reaches outside of itself
public:
    virtual ~ServiceHost() = default;
    virtual void transmit(Bytes frame) = 0;
    virtual std::uint64_t host_chance() = 0;                                  // differs between the copies
    virtual std::uint64_t disk_write(std::uint32_t sector, std::uint64_t value) = 0;
    virtual std::uint64_t disk_read(std::uint32_t sector) = 0;
};

inline constexpr std::size_t kConnections = 6;
inline constexpr std::size_t kServicePages = 1 + kConnections + kConnections * 4;   // kernel, connections, send buffers
inline constexpr std::size_t kSendBuffer = 4 * kPageSize;

class Service {
public:
    Service(GuestRam& ram, Registers& registers, ServiceHost& host) : ram_(ram), cpu_(registers), host_(host) {}

    void boot();
    void receive(const Segment& segment, std::int64_t clock_us);
    // Acknowledgements, retransmission, memory traffic. Returns when it wants to run again (guest clock).
    std::int64_t run(std::int64_t clock_us, std::uint32_t pages_to_dirty);
    bool consistent() const;
    // What the state in `ram` has received of each client (port, next byte).
    static std::vector<std::pair<std::uint16_t, std::uint32_t>> received(ByteView ram);

private:
    struct Kernel {
        std::uint64_t magic, counter, udp_counter, check;
    };
    struct Connection {
        std::uint32_t state, ack_due;
        std::uint32_t peer_port, iss;
        std::uint32_t una, nxt, end;       // sequence: first not acknowledged, next to send, end of what is queued
        std::uint32_t rcv_nxt, ts_recent, fin_queued;
        std::uint64_t chain;
        std::int64_t resend_at;
        std::uint32_t resend_us, filled;   // bytes of a request that have arrived
        std::uint8_t request[sizeof(Request) + kMaxRequestPayload];
    };
    static_assert(sizeof(Connection) <= kPageSize);
    enum State : std::uint32_t { kClosed = 0, kSynReceived, kEstablished, kLastAck };

    std::size_t address(std::size_t slot) const { return (1 + slot) * kPageSize; }
    std::size_t buffer(std::size_t slot) const { return (1 + kConnections + slot * 4) * kPageSize; }
    Connection load(std::size_t slot) const { return ram_.get<Connection>(address(slot)); }
    void store(std::size_t slot, const Connection& c) { ram_.put(address(slot), c); }
    void receive_udp(const Segment& segment);
    void open(const Segment& segment, std::int64_t clock_us);
    void established(std::size_t slot, Connection& c, const Segment& segment, std::int64_t clock_us);
    void take_payload(std::size_t slot, Connection& c, const Segment& segment);
    void serve(std::size_t slot, Connection& c);
    void queue(std::size_t slot, Connection& c, ByteView data);
    void send_new(std::size_t slot, Connection& c, std::int64_t clock_us);
    void send_range(std::size_t slot, const Connection& c, std::uint32_t from, std::uint32_t to, std::int64_t clock_us);
    void send(const Connection& c, std::uint32_t seq, std::uint8_t flags, Bytes payload, std::int64_t clock_us);
    void note_write(std::uint64_t what);

    GuestRam& ram_;
    Registers& cpu_;
    ServiceHost& host_;
};

}  // namespace colo::sim
