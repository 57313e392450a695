// SPDX-License-Identifier: Apache-2.0
#pragma once

// The guest port of an HVM domain on a host that is made of memory.

#include "core/clock.h"
#include "tests/unit/xen/fake_host.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

namespace colo::test {

// True as soon as `done` is; the bound is for a test that fails.
template <class Done>
bool eventually(const Done& done)
{
    const Deadline end = now() + std::chrono::seconds(60);
    while (!done()) {
        if (now() >= end) return false;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
}

class HvmGuestTest : public testing::Test {
protected:
    HvmGuestTest()
    {
        std::string pattern = testing::TempDir() + "hvm-XXXXXX";
        EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
        options.run_directory = pattern;
        options.name = "web";
        options.config_file = pattern + "/web.cfg";
        options.warm_up = Duration{0};
        options.nics = {{"net0", {2, 0, 0, 0, 0, 1}, 77}, {"net1", {2, 0, 0, 0, 0, 2}, -1}};
        std::ofstream(options.config_file) << "type = \"hvm\"\nmemory = 1\nname = \"of-the-operator\"\n";
    }
    ~HvmGuestTest() override
    {
        guest.reset();
        std::filesystem::remove_all(options.run_directory);
    }

    // Another daemon, after the one before has died.
    void start_daemon()
    {
        guest.reset();
        auto made = xen::make_hvm_guest(options, host.ports());
        ASSERT_TRUE(made) << made.error().text;
        guest = std::move(*made);
        guest->set_event_handler([this](replication::GuestEvent event) {
            const std::lock_guard lock(events_mutex);
            events.push_back(event.kind);
        });
        host.taken();
    }
    Result<void> create(replication::StartMode mode)
    {
        start_daemon();
        return guest->create(mode, soon());
    }
    void boot()
    {
        const auto r = create(replication::StartMode::boot);
        ASSERT_TRUE(r) << r.error().text;
        host.taken();
    }
    void follow()
    {
        const auto r = create(replication::StartMode::loadable);
        ASSERT_TRUE(r) << r.error().text;
        host.taken();
    }
    static Deadline soon() { return now() + std::chrono::seconds(60); }
    int pauses(xen::DomainId domain)
    {
        return host.with(domain, [](auto& d) { return d.control.pauses(); });
    }
    void shut_down(xen::DomainId domain, std::uint8_t reason)
    {
        host.with(domain, [&](auto& d) {
            d.control.described.shut_down = true;
            d.control.described.shutdown_reason = reason;
        });
    }
    std::size_t seen(replication::GuestEventKind kind)
    {
        const std::lock_guard lock(events_mutex);
        return static_cast<std::size_t>(std::count(events.begin(), events.end(), kind));
    }
    bool recorded() const { return std::filesystem::exists(options.run_directory + "/domain"); }

    FakeHost host;
    xen::HvmGuestOptions options;
    std::mutex events_mutex;
    std::vector<replication::GuestEventKind> events;
    std::unique_ptr<replication::Guest> guest;
};

}  // namespace colo::test
