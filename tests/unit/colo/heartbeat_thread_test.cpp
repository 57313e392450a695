// SPDX-License-Identifier: Apache-2.0
// The heartbeat with real sockets, threads and processes. Nothing here depends on how fast the machine is: healthy pairs
// have generous times, everything else is waited for.
#include "colo/heartbeat_thread.h"

#include "colo/channel.h"
#include "core/clock.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <mutex>
#include <thread>

namespace colo {
namespace {

using testing::HasSubstr;

constexpr const char* kUuid = "01234567-89ab-cdef-0123-456789abcdef";
constexpr SessionId kSession = 77;

// Binds an unused UDP port; it is free again when the descriptor is closed.
std::pair<Fd, std::string> bind_port()
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
Ends two_ports()
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

HeartbeatTimes generous()
{
    HeartbeatTimes times;
    times.loss = Duration{30'000'000};
    times.lease = Duration{29'000'000};
    times.progress_timeout = Duration{60'000'000};
    times.first_beat_within = Duration{60'000'000};
    times.gap_tolerance = Duration{60'000'000};
    return times;
}

std::unique_ptr<HeartbeatThread> start(HeartbeatSetup setup)
{
    auto thread = HeartbeatThread::start(std::move(setup));
    EXPECT_TRUE(thread) << thread.error().text;
    return thread ? std::move(*thread) : nullptr;
}

// Both know the generation before either speaks, as after a hello.
void open_session(HeartbeatThread& p, HeartbeatThread& s)
{
    s.become({Role::secondary, 3, 0, false});
    p.become({Role::primary, 3, kSession, false});
    s.become({Role::secondary, 3, kSession, false});
}

TEST(HeartbeatThread, PairOnTwoPathsRenewsTheLeaseAndMeasuresThem)
{
    const Ends one = two_ports(), two = two_ports();
    Recorder at_p, at_s;
    const auto p = start(at_p.setup({{one.a, one.b}, {two.a, two.b}}, generous()));
    const auto s = start(at_s.setup({{one.b, one.a}, {two.b, two.a}}, generous()));
    EXPECT_EQ(p->lease_until(), Time{0});
    s->set_epoch(5);
    open_session(*p, *s);
    ASSERT_TRUE(wait_until([&] { return p->lease_until() > now(); }));
    const Time before = p->lease_until();
    ASSERT_TRUE(wait_until([&] { return p->lease_until() > before; })) << "renewed";
    ASSERT_TRUE(wait_until([&] {
        const HeartbeatStatus status = p->status();
        return status.paths[0].rtt_us > 0 && status.paths[1].rtt_us > 0 && status.peer_epoch == 5;
    }));
    EXPECT_EQ(p->status().paths[0].foreign, 0u);
    EXPECT_GT(s->grant_not_before(), now());
    EXPECT_THAT(at_p.events(), testing::IsEmpty());
    EXPECT_THAT(at_s.events(), testing::IsEmpty());
}

TEST(HeartbeatThread, PeerThatGoesAwayIsLost)
{
    const Ends ends = two_ports();
    HeartbeatTimes times;
    times.first_beat_within = Duration{60'000'000};
    Recorder at_p, at_s;
    const auto p = start(at_p.setup({{ends.a, ends.b}}, times));
    auto s = start(at_s.setup({{ends.b, ends.a}}, times));
    open_session(*p, *s);
    ASSERT_TRUE(wait_until([&] { return p->lease_until().us != 0; }));
    s.reset();
    ASSERT_TRUE(wait_until([&] { return !at_p.events().empty(); }));
    EXPECT_THAT(at_p.events(), testing::ElementsAre(HasSubstr("no beat for")));
    EXPECT_LT(p->lease_until(), now());
}

TEST(HeartbeatThread, StandingStillIsLossOnceItHasMoved)
{
    const Ends ends = two_ports();
    HeartbeatTimes times = generous();
    times.progress_timeout = Duration{50'000};
    Recorder at_p, at_s;
    const auto p = start(at_p.setup({{ends.a, ends.b}}, times));
    const auto s = start(at_s.setup({{ends.b, ends.a}}, times));
    open_session(*p, *s);
    ASSERT_TRUE(wait_until([&] { return p->lease_until().us != 0 && s->status().paths[0].received > 20; }));
    EXPECT_THAT(at_s.events(), testing::IsEmpty()) << "nothing to judge yet";
    p->progressed(ProgressCounter::guest);
    ASSERT_TRUE(wait_until([&] { return !at_s.events().empty(); }));
    EXPECT_THAT(at_s.events(), testing::ElementsAre(HasSubstr("the peer's guest has not moved")));
    EXPECT_THAT(at_p.events(), testing::IsEmpty());
}

TEST(HeartbeatThread, ClosingEndsAnswersAtOnceAndTellsThePeer)
{
    const Ends ends = two_ports();
    Recorder at_p, at_s;
    const auto p = start(at_p.setup({{ends.a, ends.b}}, generous()));
    const auto s = start(at_s.setup({{ends.b, ends.a}}, generous()));
    open_session(*p, *s);
    ASSERT_TRUE(wait_until([&] { return p->lease_until().us != 0; }));
    const Time last = s->close_session();
    EXPECT_GT(last.us, 0);
    ASSERT_TRUE(wait_until([&] { return !at_p.events().empty(); }));
    EXPECT_THAT(at_p.events(), testing::ElementsAre(HasSubstr("closed the session")));
    EXPECT_EQ(s->close_session(), last);
    EXPECT_EQ(s->status().last_answer, last);
}

TEST(HeartbeatThread, GarbageAndStrangersHaveNoEffect)
{
    const Ends ends = two_ports();
    Recorder at_p, at_s;
    const auto p = start(at_p.setup({{ends.a, ends.b}}, generous()));
    const auto stranger = bind_port();
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons(static_cast<std::uint16_t>(std::stoi(ends.a.substr(ends.a.find(':') + 1))));
    const auto send = [&](int fd, const void* data, std::size_t size) {
        sendto(fd, data, size, 0, reinterpret_cast<const sockaddr*>(&to), sizeof to);
    };
    p->become({Role::primary, 3, kSession, false});
    // A valid beat of a higher generation, but not from the peer's address.
    replication::Beat beat;
    beat.domain = *replication::parse_domain_id(kUuid);
    beat.generation = 9;
    const replication::BeatBytes bytes = replication::encode(beat);
    send(stranger.first.get(), bytes.data(), bytes.size());
    ASSERT_TRUE(wait_until([&] { return p->status().paths[0].foreign == 1; }));
    EXPECT_EQ(p->status().highest_generation_seen, 0u);
    // From the peer's address, but damaged: every length, and a flipped bit.
    const Fd peer(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in from = to;
    from.sin_port = htons(static_cast<std::uint16_t>(std::stoi(ends.b.substr(ends.b.find(':') + 1))));
    ASSERT_EQ(bind(peer.get(), reinterpret_cast<const sockaddr*>(&from), sizeof from), 0);
    std::array<std::uint8_t, 300> long_one{};
    std::copy(bytes.begin(), bytes.end(), long_one.begin());
    for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{127}, std::size_t{129}, std::size_t{300}}) send(peer.get(), long_one.data(), size);
    replication::BeatBytes flipped = bytes;
    flipped[40] ^= 1;
    send(peer.get(), flipped.data(), flipped.size());
    ASSERT_TRUE(wait_until([&] { return p->status().paths[0].foreign == 7; }));
    EXPECT_EQ(p->status().highest_generation_seen, 0u);
    // And whole it counts.
    send(peer.get(), bytes.data(), bytes.size());
    ASSERT_TRUE(wait_until([&] { return !at_p.events().empty(); }));
    EXPECT_THAT(at_p.events(), testing::ElementsAre("higher 9"));
}

TEST(HeartbeatThread, PathThatIsNotThereYetDoesNotStopTheOthers)
{
    const Ends ends = two_ports();
    Recorder at_p, at_s;
    const auto p = start(at_p.setup({{"203.0.113.1:7001", "203.0.113.2:7001"}, {ends.a, ends.b}, {"[2001:db8::1]:7001", "[2001:db8::2]:7001"}}, generous()));
    const auto s = start(at_s.setup({{ends.b, ends.a}}, generous()));
    open_session(*p, *s);
    EXPECT_TRUE(wait_until([&] { return p->lease_until() > now(); }));
}

TEST(HeartbeatThread, SetupThatCannotWorkIsRefused)
{
    Recorder r;
    EXPECT_FALSE(HeartbeatThread::start(r.setup({}, generous())));
    EXPECT_FALSE(HeartbeatThread::start(r.setup({{"localhost:1", "127.0.0.1:2"}}, generous())));
    EXPECT_FALSE(HeartbeatThread::start(r.setup({{"127.0.0.1:0", "[::1]:2"}}, generous())));
    const auto taken = bind_port();
    const auto refused = HeartbeatThread::start(r.setup({{taken.second, "127.0.0.1:9"}}, generous()));
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().text, HasSubstr(taken.second));
}

// A host that was frozen while the other side took over: its first news must be the higher generation, and its lease must
// be over by the time it runs again.
TEST(HeartbeatThread, Inv18_FrozenProcessWakesToTheHigherGeneration)
{
    const Ends ends = two_ports();
    int news[2];
    ASSERT_EQ(pipe(news), 0);
    const pid_t child = fork();   // before this process has a second thread
    ASSERT_GE(child, 0);
    if (child == 0) {
        HeartbeatSetup setup;
        setup.paths = {{ends.a, ends.b}};
        setup.times.first_beat_within = Duration{60'000'000};
        setup.domain_uuid = kUuid;
        HeartbeatThread* self = nullptr;
        const auto say = [&](char what) { static_cast<void>(!write(news[1], &what, 1)); };
        setup.peer_lost = [&](const PeerLost&) { say('l'); };
        setup.higher_generation = [&](Generation generation) { say(generation == 4 && self->lease_until() < now() ? 'h' : '?'); };
        auto started = HeartbeatThread::start(std::move(setup));
        if (!started) _exit(1);
        self = started->get();
        self->become({Role::primary, 3, kSession, false});
        while (self->lease_until().us == 0) usleep(1000);
        say('r');
        for (;;) pause();
    }
    close(news[1]);
    const Fd reading(news[0]);
    const auto next = [&] {
        pollfd one{reading.get(), POLLIN, 0};
        char what = '-';
        if (poll(&one, 1, 60'000) != 1 || read(reading.get(), &what, 1) != 1) what = '!';
        return what;
    };
    Recorder at_s;
    HeartbeatTimes times;
    times.first_beat_within = Duration{60'000'000};
    times.loss = Duration{2'000'000};   // a busy machine must not make us lose the child before it is frozen
    const auto s = start(at_s.setup({{ends.b, ends.a}}, times));
    s->become({Role::secondary, 3, 0, false});
    s->become({Role::secondary, 3, kSession, false});
    EXPECT_EQ(next(), 'r');
    kill(child, SIGSTOP);
    EXPECT_TRUE(wait_until([&] { return !at_s.events().empty(); }));
    EXPECT_THAT(at_s.events(), testing::ElementsAre(HasSubstr("no beat for")));
    s->close_session();
    s->become({Role::primary, 4, 0, false});
    std::this_thread::sleep_for(std::chrono::milliseconds(100));   // some announcements pile up in its socket
    kill(child, SIGCONT);
    char what = next();
    if (what == 'l') what = next();   // it may have lost us before it was stopped
    EXPECT_EQ(what, 'h');
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
}

}  // namespace
}  // namespace colo
