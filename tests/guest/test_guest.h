// SPDX-License-Identifier: Apache-2.0
#pragma once

// The test guest for tests in C++: options, run directory, network, and a client of its services.

#include "core/clock.h"
#include "qemu/embedded_guest.h"

#include <condition_variable>
#include <mutex>
#include <string>
#include <vector>

namespace colo::test {

Deadline in_ms(long ms);

// Directory with vmlinuz and initrd.gz (scripts/build-guest): $COLO_GUEST_DIR.
std::string guest_image_directory();
std::string kernel_command_line(const std::string& more);

// Puts this process into a network namespace of its own, once. False if that is not permitted.
bool have_private_network();

// Permanent ARP entry for the guest at 10.77.0.2.
void fix_guest_neighbour(const std::array<std::uint8_t, 6>& mac);

// A tap; one of them at a time is selected: connected with 10.77.0.1/24 of this process.
class Tap {
public:
    explicit Tap(const std::string& name);
    ~Tap();
    Tap(const Tap&) = delete;
    Tap& operator=(const Tap&) = delete;
    int fd() const { return fd_; }
    void select();
    void unselect();
    int take_all();    // reads and drops what nobody read yet; how many frames

private:
    std::string name_;
    int fd_ = -1;
};

// A guest with a run directory that goes away with it, and its events.
class TestGuest {
public:
    // more: appended to the kernel command line. tap: may be nullptr.
    TestGuest(const std::string& name, const std::string& more, Tap* tap);
    ~TestGuest();

    qemu::EmbeddedGuestOptions options;    // change before make()
    qemu::EmbeddedGuest& make();           // once
    qemu::EmbeddedGuest& guest() { return *guest_; }
    std::string serial() const;
    bool wait_serial(const std::string& text, long ms) const;
    bool wait_event(replication::GuestEventKind kind, long ms);
    std::vector<replication::GuestEvent> events();

private:
    std::unique_ptr<qemu::EmbeddedGuest> guest_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<replication::GuestEvent> events_;
};

// One TCP connection to the guest at 10.77.0.2; lines in, lines out. Empty answer: it failed or took longer than 20 s.
class LineClient {
public:
    explicit LineClient(int port);
    ~LineClient();
    std::string ask(const std::string& line);

private:
    int fd_ = -1;
};

// UDP to the guest. Empty: nothing came within the time.
class UdpClient {
public:
    explicit UdpClient(int port);
    ~UdpClient();
    void send(const std::string& text);
    std::string receive(long ms);
    std::string ask(const std::string& text, long ms);

private:
    int fd_ = -1;
};

// A number in the status line of the guest's control service; -1 if it does not answer.
long long guest_status(const std::string& member);

}  // namespace colo::test
