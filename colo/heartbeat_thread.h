// SPDX-License-Identifier: Apache-2.0
#pragma once

// Drives HeartbeatCore: one thread, one UDP socket per path, a CLOCK_BOOTTIME timer. The thread touches only locked
// memory and runs with real-time priority where that is permitted (logged once if not), so that a machine whose CPUs
// are full of guests does not look dead.
//
// Threads: peer_lost, higher_generation and conflict are called from the heartbeat thread without a lock held and must only post;
// lease also from whoever calls become() or close_session(). Everything else may be called from any thread and does not
// block (a priority-inheriting mutex is held for microseconds).

#include "colo/heartbeat.h"
#include "core/error.h"

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace colo {

struct HeartbeatEndpoints {
    std::string local, peer;  // "IP:PORT" or "[IP6]:PORT"
};

struct HeartbeatSetup {
    std::vector<HeartbeatEndpoints> paths;  // 1 .. kMaxHeartbeatPaths
    HeartbeatTimes times;
    std::string domain_uuid;
    std::function<void(PeerLost)> peer_lost;
    std::function<void(Generation)> higher_generation;
    std::function<void(Generation)> conflict;   // the peer announces the generation that we announce
    // P: whenever lease_until() changes, and on every become() and close_session(). Called with the mutex held, in
    // order; must neither block nor call back.
    std::function<void(Time until)> lease;
    bool realtime = true;
};

class HeartbeatThread {
public:
    // Binds the sockets and starts the thread, silent until become(). An address that this host does not have yet is
    // accepted (IP_FREEBIND): a path may come up later.
    static Result<std::unique_ptr<HeartbeatThread>> start(HeartbeatSetup setup);
    ~HeartbeatThread();
    HeartbeatThread(const HeartbeatThread&) = delete;
    HeartbeatThread& operator=(const HeartbeatThread&) = delete;

    // On return no beat of the former identity is sent any more. The first beat of the new one leaves at once.
    void become(const HeartbeatIdentity& identity);
    // On return nothing of the session is answered or honoured any more. See HeartbeatCore::close_session.
    Time close_session();

    // Progress of our own parts. Whoever does the work calls progressed() at least every progress_timeout / 4 while
    // healthy.
    void progressed(ProgressCounter counter) noexcept
    {
        progress_[static_cast<std::size_t>(counter)].fetch_add(1, std::memory_order_relaxed);
    }
    // The part does not exist at present (0 is not judged by the peer), e.g. no guest on a standby.
    void not_judged(ProgressCounter counter) noexcept
    {
        progress_[static_cast<std::size_t>(counter)].store(0, std::memory_order_relaxed);
    }
    void set_epoch(Epoch epoch) noexcept { epoch_.store(epoch, std::memory_order_relaxed); }

    // P: releasing is allowed while now() < lease_until(). Lock-free, for the proxy thread.
    Time lease_until() const noexcept { return Time{lease_until_us_.load(std::memory_order_acquire)}; }
    const std::atomic<std::int64_t>& lease_until_us() const noexcept { return lease_until_us_; }
    Time grant_not_before() const;
    HeartbeatStatus status() const;
    bool realtime() const noexcept { return realtime_.load(std::memory_order_relaxed); }

private:
    struct Loop;  // sockets, timer, core and the thread's function
    HeartbeatThread();
    std::array<std::atomic<std::uint64_t>, kProgressCounters> progress_{};
    std::atomic<Epoch> epoch_{0};
    std::atomic<std::int64_t> lease_until_us_{0};
    std::atomic<bool> realtime_{false};
    std::unique_ptr<Loop> loop_;
};

}  // namespace colo
