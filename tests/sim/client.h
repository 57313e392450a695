// SPDX-License-Identifier: Apache-2.0
#pragma once

// The clients and the switch between them and the hosts. Clients check every byte: contents, order, chain of answers,
// acknowledged writes, counters (Inv01-03).

#include "frames.h"
#include "random.h"
#include "scheduler.h"
#include "service.h"

#include <map>
#include <memory>
#include <set>
#include <string>

namespace colo::sim {

// A learning switch: frames for the guest go where a frame of the guest's MAC last came from.
class Switch {
public:
    Switch(Scheduler& scheduler, Random random) : scheduler_(scheduler), random_(random) {}
    std::function<void(int host, ByteView frame)> to_host;
    std::function<void(ByteView frame)> to_client;
    void from_host(int host, ByteView frame);
    void from_client(ByteView frame);
    bool unplugged[2] = {false, false};
    double loss = 0, duplicate = 0, damage = 0;
    Duration delay{150}, jitter{100};

private:
    void carry(Bytes frame, std::function<void(ByteView)> deliver);
    Scheduler& scheduler_;
    Random random_;
    int guest_at_ = 0;
};

class Client {
public:
    Client(Scheduler& scheduler, Random random, std::function<void(ByteView)> send, std::function<void(const std::string&)> violation);

    void start(std::size_t connections);
    void receive(ByteView frame);
    void drain() { draining_ = true; }        // finish what is under way, ask for nothing more
    void give_up() { lost_ = true; }          // the guest's state is legitimately gone
    bool idle() const;
    std::string waiting_for() const;
    std::uint64_t answers() const { return answers_; }
    Duration longest_gap() const { return longest_gap_; }
    double time_share = 0.1;                  // of requests whose answers always differ
    double upload_share = 0.2;                // of requests that take several segments
    Duration segment_gap{0};                  // at most, between them
    Duration pause{2000};                     // between requests of one connection

private:
    struct Connection {
        enum class State : std::uint8_t { opening, open, closing, closed } state = State::opening;
        std::uint16_t port = 0;
        std::uint32_t iss = 0, una = 0, nxt = 0;
        Bytes unsent;                     // from una on: what is not acknowledged
        std::uint32_t irs = 0, rcv_nxt = 0, ts_recent = 0;
        Bytes history;                    // every byte of the server, from irs + 1
        std::size_t parsed = 0;
        bool fin_seen = false, fin_sent = false;
        Duration resend{60'000};
        Time resend_at = kNever;
        bool waiting = false;
        Request request;
        Bytes payload;
        std::uint64_t chain = 0, written = 0, count_floor = 0;
        Time asked{};
        int left = 0;
    };
    void open(std::size_t index);
    void ask(std::size_t index);
    void segment(Connection& c, std::uint32_t seq, std::uint8_t flags, ByteView payload);
    void transmit(Connection& c);
    void transmit_slowly(std::size_t index);
    void timer(std::size_t index, std::uint16_t port);
    void on_segment(std::size_t index, const Segment& s);
    void take(std::size_t index, Connection& c, const Segment& s);
    void parse(std::size_t index, Connection& c);
    void answered(std::size_t index, Connection& c, const Response& r, ByteView body);
    void udp_timer();
    void on_udp(const Segment& s);
    void gap(Time asked);

    Scheduler& scheduler_;
    Random random_;
    std::function<void(ByteView)> send_;
    std::function<void(const std::string&)> violation_;
    std::vector<Connection> connections_;
    std::uint16_t next_port_ = 20'000;
    std::set<std::uint64_t> counts_;
    std::uint64_t highest_count_ = 0;
    std::uint32_t udp_id_ = 0;
    std::map<std::uint32_t, std::uint64_t> udp_floor_;
    std::uint64_t udp_highest_ = 0;
    std::uint64_t answers_ = 0;
    Duration longest_gap_{0};
    bool draining_ = false, lost_ = false;
};

}  // namespace colo::sim
