// SPDX-License-Identifier: Apache-2.0
// Not a test: measures the data path. In a namespace of its own it pumps between a tap port and a second tap that
// carries the address of a "guest", while a ProxyRuntime joins the tap port with a wire.
//   proxy_pass_through WIRE GUEST_TAP GUEST_NETNS_PATH SECONDS [direct]
// direct: only the pump, wire and guest tap joined without the runtime.
#include "core/clock.h"
#include "proxy/packet.h"
#include "proxy/runtime.h"
#include "proxy/tap_device.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <thread>

namespace {

using namespace colo;
using namespace colo::proxy;

struct Events final : RuntimeEvents {
    void trigger(replication::TriggerReason, const std::string&) override {}
    void channel_lost(SessionId, const Error&) override {}
    void own_mac_seen(std::uint8_t) override {}
    void port_failed(std::uint8_t, bool, const Error& why) override
    {
        std::fprintf(stderr, "port failed: %s\n", why.text.c_str());
    }
};

FileDescriptor tap_in(const char* netns, const char* name)
{
    FileDescriptor result;
    std::thread([&] {
        const FileDescriptor ns(::open(netns, O_RDONLY | O_CLOEXEC));
        if (::setns(ns.get(), CLONE_NEWNET) != 0) return;
        if (auto fd = open_tap(name)) result = std::move(*fd);
    }).join();
    return result;
}

void pump(int from, int to, const std::atomic<bool>& stop)
{
    std::vector<std::uint8_t> buffer(70000);
    while (!stop) {
        pollfd p{from, POLLIN, 0};
        if (::poll(&p, 1, 100) <= 0) continue;
        for (;;) {
            const ssize_t n = ::read(from, buffer.data(), buffer.size());
            if (n <= 0) break;
            if (::write(to, buffer.data(), static_cast<std::size_t>(n)) < 0) continue;
        }
    }
}

int fail(const Error& error)
{
    std::fprintf(stderr, "%s\n", error.text.c_str());
    return 1;
}

}  // namespace

int main(int argc, char** argv)
{
    if (argc < 5) return 2;
    const bool direct = argc > 5 && std::strcmp(argv[5], "direct") == 0;
    FileDescriptor guest = tap_in(argv[3], argv[2]);
    if (!guest.valid()) return fail(make_error(Errc::failed, "guest tap"));
    const unsigned offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
    (void)::ioctl(guest.get(), TUNSETOFFLOAD, offloads);
    std::atomic<bool> stop{false};
    std::unique_ptr<ProxyRuntime> runtime;
    std::unique_ptr<WirePort> wire;
    Events events;
    int inner = -1;
    if (!direct) {
        RuntimeNic nic;
        auto port = make_tap_port("ptool", 0);
        if (!port) return fail(port.error());
        auto made = make_wire(argv[1]);
        if (!made) return fail(made.error());
        nic.port = std::move(*port);
        nic.wire = std::move(*made);
        inner = nic.port->guest_fd();
        (void)::ioctl(inner, TUNSETOFFLOAD, offloads);
        RuntimeOptions options;
        options.proxy.nics = {Mac{0x52, 0x54, 0, 0, 0, 1}};
        std::vector<RuntimeNic> nics;
        nics.push_back(std::move(nic));
        auto started = make_proxy_runtime(std::move(options), std::move(nics), events);
        if (!started) return fail(started.error());
        runtime = std::move(*started);
        const Deadline soon = now() + std::chrono::seconds(1);
        if (auto r = runtime->become_primary(soon); !r) return fail(r.error());
        runtime->set_output(PrimaryProxy::Output::flow, 1);
    } else {
        auto made = open_tap(argv[1]);
        if (!made) return fail(made.error());
        (void)::ioctl(made->get(), TUNSETOFFLOAD, offloads);
        static FileDescriptor plain = std::move(*made);
        inner = plain.get();
    }
    std::thread in([&] { pump(inner, guest.get(), stop); });
    std::thread out([&] { pump(guest.get(), inner, stop); });
    std::printf("ready\n");
    std::fflush(stdout);
    ::poll(nullptr, 0, std::atoi(argv[4]) * 1000);
    if (runtime) {
        const RuntimeStats s = runtime->stats();
        std::printf("port rx %lu tx %lu full %lu invalid %lu | wire rx %lu tx %lu full %lu invalid %lu\n",
                    s.ports[0].received, s.ports[0].sent, s.ports[0].dropped_full, s.ports[0].dropped_invalid,
                    s.wires[0].received, s.wires[0].sent, s.wires[0].dropped_full, s.wires[0].dropped_invalid);
    }
    stop = true;
    in.join();
    out.join();
    return 0;
}
