// SPDX-License-Identifier: Apache-2.0
#pragma once

// What an embedded guest is made of, and QEMU's command line from it.

#include "core/error.h"
#include "core/types.h"

#include <array>
#include <functional>
#include <string>
#include <vector>

namespace colo::qemu {

struct EmbeddedNic {
    std::string id = "net0";                 // the operator's name for it; PCI slots follow the order of the list
    std::array<std::uint8_t, 6> mac{};
    std::uint32_t offload_features = 0;      // what the frame port promises; goes into the description
    // Value of -netdev, with id=net<place in the list>; gets the number under which QEMU will have `fd`
    // (FramePort::netdev_argument), or -1.
    std::function<std::string(int fd_in_guest)> netdev_argument;
    int fd = -1;                             // inherited by every QEMU of this guest (FramePort::guest_fd), stays the caller's
};

struct EmbeddedGuestOptions {
    std::string name;                        // of the domain; -name, memfd name
    std::string run_directory;               // must exist: serial.log, qemu.log, cache of self-tests
    std::string qemu_binary = "qemu-system-x86_64";
    std::string machine = "pc-i440fx-7.2";   // a versioned one: both sides must build the same
    std::string cpu_model = "qemu64";        // named, never "host": both sides must have the same
    std::uint32_t memory_mib = 256;
    std::uint32_t vcpus = 1;
    std::string kernel, initrd, append;      // kernel: a bzImage (a PVH ELF would be written again by each load's reset)
    std::string accelerator = "auto";        // "auto", "tcg", "kvm"
    std::string dirty_log = "auto";          // "auto", "uffd-wp", "soft-dirty", "compare"
    std::string device_load = "auto";        // "auto", "snapshot", "xen-load"
    // A text on the serial console that proves life in the KVM self-test; empty: any output.
    std::string life_sign;
    Duration kvm_test_time = std::chrono::seconds(10);
    bool raise_priority = true;              // real-time priority during a cut, see cut_priority.h
    std::vector<EmbeddedNic> nics;
};

// Numbers of inherited descriptors, in this order behind kFirstInheritedFd; NIC descriptors follow.
struct InheritedFds {
    int ram, control, state, probe, serial, saved_state, snapshot, first_nic;
};
InheritedFds inherited_fd_numbers();

// Checks what can be checked without QEMU: Errc::invalid names the option.
Result<void> check_options(const EmbeddedGuestOptions& options);

struct CommandLine {
    std::vector<std::string> argv;
    std::string device_list;   // the part that decides what the guest sees, for the description
};
// Starts stopped (-S).
CommandLine make_command_line(const EmbeddedGuestOptions& options, const std::string& accelerator);

// Digest over content, as hex: of the files kernel and initrd and of append. Errc names the file that cannot be read.
Result<std::string> boot_digest(const EmbeddedGuestOptions& options);
std::string text_digest(const std::string& text);

}  // namespace colo::qemu
