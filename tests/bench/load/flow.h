// SPDX-License-Identifier: Apache-2.0
#pragma once

// One flow of the load: a connection that talks to one service of the guest and verifies every byte it gets back. A flow
// never reconnects: once lost it stays lost and is counted. All flows live on one thread.

#include "tests/bench/load/meter.h"

#include <cstdint>
#include <map>
#include <memory>
#include <string>

namespace colo::load {

enum class FlowState : std::uint8_t { connecting, open, finished, lost };
const char* to_string(FlowState state);

struct FlowStats {
    FlowState state = FlowState::connecting;
    std::string problem;               // why it was lost, or the first wrong answer
    Microseconds lost_at = 0;
    std::uint64_t answers = 0;         // complete, verified answers
    std::uint64_t verified_bytes = 0;  // received and compared, or sent and confirmed by the guest's checksum
    std::uint64_t moved_bytes = 0;     // handed to or received from the kernel, verified or not (throughput)
    std::uint64_t wrong_bytes = 0;
    std::uint64_t missing = 0;         // datagrams without an answer (UDP may lose; reported, not a failure)
    std::uint64_t repeated = 0;        // datagrams answered more than once (likewise)
    std::uint64_t restarted = 0;       // connect flow: connections made
    Histogram latency;                 // since the last mark
    Gap gap;                           // since the last mark
};

using Settings = std::map<std::string, std::string, std::less<>>;

// Value of a numeric setting; `fallback` if absent. Throws std::invalid_argument with the name for a bad number.
double number(const Settings& settings, const std::string& name, double fallback);

class Flow {
public:
    Flow(std::string kind, std::string guest) : kind_(std::move(kind)), guest_(std::move(guest)) {}
    virtual ~Flow();
    Flow(const Flow&) = delete;
    Flow& operator=(const Flow&) = delete;

    // Opens the socket; non-blocking. Failure makes the flow lost.
    virtual void start(Microseconds now) = 0;
    virtual void on_ready(std::uint32_t events, Microseconds now) = 0;
    virtual void on_time(Microseconds now) = 0;              // called when deadline() has passed
    virtual Microseconds deadline() const { return 0; }      // 0: none
    virtual std::uint32_t wanted() const = 0;                // epoll events
    // Finish in order: what is under way ends and is verified; then the state is `finished`.
    virtual void stop(Microseconds now) = 0;

    int descriptor() const { return descriptor_; }
    const std::string& kind() const { return kind_; }
    bool active() const { return stats_.state == FlowState::connecting || stats_.state == FlowState::open; }
    const FlowStats& stats() const { return stats_; }
    void mark();

protected:
    bool open_stream(std::uint16_t port, Microseconds now);
    bool open_datagram(std::uint16_t port, Microseconds now);
    // True once the connection is established; loses the flow on an error.
    bool established(Microseconds now);
    void lose(const std::string& why, Microseconds now);
    void finish(Microseconds now);
    void wrong(std::uint64_t bytes, const std::string& what);
    void close_descriptor();

    FlowStats stats_;
    int descriptor_ = -1;

private:
    bool open_socket(int type, std::uint16_t port, Microseconds now);
    std::string kind_;
    std::string guest_;
};

// kind: echo, upload, download, udp, differing, connect. nullptr: no such kind. Throws std::invalid_argument.
std::unique_ptr<Flow> make_flow(const std::string& kind, const std::string& guest, const Settings& settings);

std::unique_ptr<Flow> make_echo(const std::string& guest, const Settings& settings);
std::unique_ptr<Flow> make_differing(const std::string& guest, const Settings& settings);
std::unique_ptr<Flow> make_connect(const std::string& guest, const Settings& settings);
std::unique_ptr<Flow> make_datagram(const std::string& guest, const Settings& settings);
std::unique_ptr<Flow> make_upload(const std::string& guest, const Settings& settings);
std::unique_ptr<Flow> make_download(const std::string& guest, const Settings& settings);

}  // namespace colo::load
