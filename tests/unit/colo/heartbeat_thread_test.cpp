// SPDX-License-Identifier: Apache-2.0
// The heartbeat with real sockets, threads and processes. Nothing here depends on how fast the machine is: healthy
// pairs have generous times, everything else is waited for.
#include "tests/unit/colo/heartbeat_thread_parts.h"

#include <gmock/gmock.h>

namespace colo {
namespace {

using testing::HasSubstr;

using namespace heartbeat_test;

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

TEST(HeartbeatThread, LeaseIsToldFromTheBeginningOfASessionToItsEnd)
{
    const Ends ends = two_ports();
    Recorder at_p, at_s;
    HeartbeatSetup setup = at_p.setup({{ends.a, ends.b}}, generous());
    std::mutex mutex;
    std::vector<Time> told;
    setup.lease = [&](Time until) {
        const std::lock_guard lock(mutex);
        told.push_back(until);
    };
    const auto p = start(std::move(setup));
    const auto s = start(at_s.setup({{ends.b, ends.a}}, generous()));
    open_session(*p, *s);
    {
        const std::lock_guard lock(mutex);
        ASSERT_FALSE(told.empty());
        EXPECT_EQ(told.front(), Time{0}) << "no lease before the first answer, and the receiver knows";
    }
    ASSERT_TRUE(wait_until([&] {
        const std::lock_guard lock(mutex);
        return told.back() > now();
    }));
    p->close_session();
    const std::lock_guard lock(mutex);
    EXPECT_EQ(told.back(), Time{0});
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
    for (const std::size_t size :
         {std::size_t{0}, std::size_t{1}, std::size_t{127}, std::size_t{129}, std::size_t{300}})
        send(peer.get(), long_one.data(), size);
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
    const auto p = start(at_p.setup(
        {{"203.0.113.1:7001", "203.0.113.2:7001"}, {ends.a, ends.b}, {"[2001:db8::1]:7001", "[2001:db8::2]:7001"}},
        generous()));
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

}  // namespace
}  // namespace colo
