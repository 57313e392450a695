// SPDX-License-Identifier: Apache-2.0
#pragma once

// A small TCP endpoint and a machine full of them, strict where a real one would reset or where a client would notice a
// failover: wrong numbers, contradicting bytes, clocks that run backwards. Copyable, because a checkpoint is a copy.

#include "frames.h"

#include <deque>
#include <map>

namespace colo::proxy::test {

using ConnectionId = std::pair<std::uint16_t, std::uint16_t>;  // guest port, client port

struct Fault {
    std::string what;  // empty: none
};

class Endpoint {
public:
    enum class State : std::uint8_t { closed, syn_sent, syn_received, established };

    Endpoint() = default;
    Endpoint(bool guest, ConnectionId id, std::uint32_t isn) : guest_(guest), id_(id), isn_(isn), una_(isn), next_(isn)
    {
    }

    void open(std::uint32_t clock, std::vector<FramePtr>& out);  // SYN
    // Reacts to a segment. `received` gets new in-order bytes.
    void segment(const Decoded& segment, std::uint32_t clock, std::string& received, std::vector<FramePtr>& out,
                 Fault& fault);
    void send(const std::string& data) { pending_ += data; }
    // Sends what may be sent in pieces of `piece` bytes; `again` repeats what is not acknowledged.
    void transmit(std::uint32_t clock, std::size_t piece, bool again, std::vector<FramePtr>& out);
    bool idle() const { return state_ == State::established && pending_.empty(); }
    bool established() const { return state_ == State::established; }
    std::uint32_t next() const { return next_; }
    std::uint32_t received_to() const { return receive_next_; }

private:
    FramePtr make(std::uint8_t flags, std::uint32_t seq, const std::string& data, std::uint32_t clock) const;
    bool check_overlap(const Decoded& segment, Fault& fault) const;

    bool guest_ = false;
    ConnectionId id_{};
    State state_ = State::closed;
    std::uint32_t isn_ = 0, una_ = 0, next_ = 0;  // una_..next_ is in flight
    std::uint32_t receive_first_ = 0, receive_next_ = 0;
    std::uint32_t timestamp_recent_ = 0;
    std::string pending_;  // from una_ (without the SYN)
    std::string history_;  // everything received
};

// Serves every connection: the reply to byte c at position i of the request stream is reply_to(c, i); a 'C' also makes
// it open a connection to the client, an 'R' is answered with a byte of this host's own choice.
class Machine {
public:
    struct Kernel {  // what a checkpoint copies
        std::map<ConnectionId, Endpoint> connections;
        std::map<ConnectionId, std::uint32_t> served;
        std::uint16_t next_port = 50000;
        std::uint64_t clock_us = 5'000'000;
    };
    explicit Machine(std::uint64_t salt) : random_(salt) {}

    void frame(const FramePtr& frame, Fault& fault);
    void pass(Duration time) { kernel.clock_us += static_cast<std::uint64_t>(time.count()); }
    void timer();  // repeats what is not acknowledged
    std::vector<FramePtr> take_output() { return std::exchange(output_, {}); }
    std::uint32_t clock() const { return static_cast<std::uint32_t>(kernel.clock_us / 1000); }

    Kernel kernel;

private:
    void serve(ConnectionId id, const std::string& request);
    Random random_;
    std::vector<FramePtr> output_;
};

char reply_to(char c, std::uint32_t position);

}  // namespace colo::proxy::test
