// SPDX-License-Identifier: Apache-2.0
#pragma once

// Ports, a recorder of what the heartbeat reports, and patience: for the tests with real sockets.

#include "colo/channel.h"
#include "colo/heartbeat_thread.h"
#include "core/clock.h"

#include <gtest/gtest.h>

#include <arpa/inet.h>
#include <sys/socket.h>

#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace colo::heartbeat_test {

inline constexpr const char* kUuid = "01234567-89ab-cdef-0123-456789abcdef";
inline constexpr SessionId kSession = 77;

// Binds an unused UDP port; it is free again when the descriptor is closed.
inline std::pair<Fd, std::string> bind_port()
{
    Fd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    EXPECT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
    return {std::move(fd), "127.0.0.1:" + std::to_string(ntohs(address.sin_port))};
}

struct Ends {
    std::string a, b;
};
inline Ends two_ports()
{
    const auto first = bind_port(), second = bind_port();
    return {first.second, second.second};
}

class Recorder {
public:
    HeartbeatSetup setup(const std::vector<HeartbeatEndpoints>& paths, const HeartbeatTimes& times)
    {
        HeartbeatSetup s;
        s.paths = paths;
        s.times = times;
        s.domain_uuid = kUuid;
        s.peer_lost = [this](const PeerLost& lost) { add(lost.text()); };
        s.higher_generation = [this](Generation generation) { add("higher " + std::to_string(generation)); };
        return s;
    }
    std::vector<std::string> events() const
    {
        const std::lock_guard lock(mutex_);
        return events_;
    }

private:
    void add(std::string event)
    {
        const std::lock_guard lock(mutex_);
        events_.push_back(std::move(event));
    }
    mutable std::mutex mutex_;
    std::vector<std::string> events_;
};

template <class Condition>
bool wait_until(Condition condition)
{
    const Deadline until = now() + Duration{60'000'000};
    while (!condition()) {
        if (until <= now()) return false;
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return true;
}

inline HeartbeatTimes generous()
{
    HeartbeatTimes times;
    times.loss = Duration{30'000'000};
    times.lease = Duration{29'000'000};
    times.progress_timeout = Duration{60'000'000};
    times.first_beat_within = Duration{60'000'000};
    times.gap_tolerance = Duration{60'000'000};
    return times;
}

inline std::unique_ptr<HeartbeatThread> start(HeartbeatSetup setup)
{
    auto thread = HeartbeatThread::start(std::move(setup));
    EXPECT_TRUE(thread) << thread.error().text;
    return thread ? std::move(*thread) : nullptr;
}

}  // namespace colo::heartbeat_test
