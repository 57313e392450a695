// SPDX-License-Identifier: Apache-2.0
// A program of its own, because it forks and must not have had threads before.
#include "tests/unit/colo/heartbeat_thread_parts.h"

#include <gmock/gmock.h>

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace colo {
namespace {

using testing::HasSubstr;
using namespace heartbeat_test;

// A host that was frozen while the other side took over: its first news must be the higher generation, and its lease
// must be over by the time it runs again.
TEST(HeartbeatThread, Inv18_FrozenProcessWakesToTheHigherGeneration)
{
    const Ends ends = two_ports();
    int news[2];
    ASSERT_EQ(pipe(news), 0);
    const pid_t child = fork();  // before this process has a second thread
    ASSERT_GE(child, 0);
    if (child == 0) {
        HeartbeatSetup setup;
        setup.paths = {{ends.a, ends.b}};
        setup.times.first_beat_within = Duration{60'000'000};
        setup.domain_uuid = kUuid;
        HeartbeatThread* self = nullptr;
        const auto say = [&](char what) { static_cast<void>(!write(news[1], &what, 1)); };
        setup.peer_lost = [&](const PeerLost&) { say('l'); };
        setup.higher_generation = [&](Generation generation) {
            say(generation == 4 && self->lease_until() < now() ? 'h' : '?');
        };
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
    times.loss = Duration{2'000'000};  // a busy machine must not make us lose the child before it is frozen
    const auto s = start(at_s.setup({{ends.b, ends.a}}, times));
    s->become({Role::secondary, 3, 0, false});
    s->become({Role::secondary, 3, kSession, false});
    EXPECT_EQ(next(), 'r');
    kill(child, SIGSTOP);
    EXPECT_TRUE(wait_until([&] { return !at_s.events().empty(); }));
    EXPECT_THAT(at_s.events(), testing::ElementsAre(HasSubstr("no beat for")));
    s->close_session();
    s->become({Role::primary, 4, 0, false});
    std::this_thread::sleep_for(std::chrono::milliseconds(100));  // some announcements pile up in its socket
    kill(child, SIGCONT);
    char what = next();
    if (what == 'l') what = next();  // it may have lost us before it was stopped
    EXPECT_EQ(what, 'h');
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
}

}  // namespace
}  // namespace colo
