// SPDX-License-Identifier: Apache-2.0
// conformance_server SOCKET STATE: the real commands over a daemon that has no guest, for comparisons with the
// reference.
#include "colo/handlers/control.h"
#include "fake_service.h"
#include "qmp/server.h"
#include "schema/codec.h"

#include <boost/asio/io_context.hpp>

#include <csignal>
#include <cstdio>
#include <string>

namespace {

using colo::schema::RunState;

// A guest without contents: stopping and starting it changes the run state, nothing else.
class EmptyGuest : public colo::test::FakeService {
public:
    EmptyGuest() { who = {"test", "", "", false, true}; }
    void stop(RunState as, colo::Done done) override { become(as, done); }
    void cont(colo::Done done) override { become(RunState::running, done); }
    void system_reset(colo::Done done) override
    {
        if (state == RunState::paused) state = RunState::prelaunch;
        observer->reset(false, colo::schema::ShutdownCause::host_qmp_system_reset);
        done({});
    }
    void system_powerdown(colo::Done done) override
    {
        observer->power_button();
        done({});
    }

    colo::ServiceObserver* observer = nullptr;

private:
    void become(RunState next, const colo::Done& done)
    {
        state = next;
        next == RunState::running ? observer->guest_resumed() : observer->guest_stopped();
        done({});
    }
};

}  // namespace

int main(int argc, char** argv)
{
    colo::schema::Decoder decoder;
    EmptyGuest guest;
    if (argc != 3 || !colo::schema::decode(decoder, colo::schema::Value(std::string(argv[2])), guest.state)) {
        std::fprintf(stderr, "usage: conformance_server SOCKET RUN-STATE\n");
        return 2;
    }
    std::signal(SIGPIPE, SIG_IGN);
    boost::asio::io_context io;
    colo::qmp::Registry registry;
    colo::qmp::ServerOptions options;
    options.path = argv[1];
    options.version = colo::interface_version("test");
    colo::qmp::Server server(io, registry, options);
    colo::Control control(guest, server, registry);
    guest.observer = &control;
    if (auto started = server.start(); !started) {
        std::fprintf(stderr, "%s\n", started.error().text.c_str());
        return 1;
    }
    io.run();
    return 0;
}
