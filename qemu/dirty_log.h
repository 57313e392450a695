// SPDX-License-Identifier: Apache-2.0
#pragma once

// Which pages of the shared RAM did QEMU write? Asked from outside, three ways:
//
//  uffd-wp     userfaultfd in WP_ASYNC mode (Linux 6.7) + PAGEMAP_SCAN: an atomic get-and-clear, at any time, about 1 ms
//              per GiB. Needs the userfaultfd that was injected when QEMU was started.
//  soft-dirty  /proc/PID/clear_refs + bit 55 of /proc/PID/pagemap. Reading and clearing are two steps, so a fetch while
//              the guest runs returns nothing (but for the first one) and everything comes with the final one: correct,
//              but no pre-capture.
//  compare     against a copy of RAM. Needs no kernel support. A page is dirty if it is not what the caller last got or
//              wrote through GuestMemory; therefore view() is off and each read() of a page counts as its capture.
//
// select_dirty_log() tests the first two on this host by really writing to a page; soft-dirty that is accepted and
// silently reports nothing (a kernel without CONFIG_MEM_SOFT_DIRTY) is found out that way.

#include "core/error.h"
#include "qemu/guest_ram.h"
#include "replication/guest.h"

#include <memory>
#include <string>

namespace colo::qemu {

enum class DirtyMethod : std::uint8_t { uffd_wp, soft_dirty, compare };
const char* to_string(DirtyMethod method);

struct DirtySelection {
    DirtyMethod method = DirtyMethod::compare;
    std::string why;   // why the better ones were not taken; empty if the best one was
};

// preference: "auto" or a method's name. A forced method that does not work here is refused with the reason.
Result<DirtySelection> select_dirty_log(const std::string& preference);
// One method, really tried in this process.
Result<void> test_dirty_method(DirtyMethod method);

// The mapping to be watched.
struct DirtyTarget {
    int pid = 0;
    std::uint64_t address = 0;   // of page 0 in that process
    std::uint64_t pages = 0;
    int userfaultfd = -1;        // of that process, for uffd-wp; stays the caller's
};

// Finds where `pid` maps the whole of the file with this inode (a memfd: device and inode from /proc/PID/maps).
Result<DirtyTarget> find_target(int pid, const GuestRam& ram);

// `ram` outlives the log.
Result<std::unique_ptr<replication::DirtyLog>> make_dirty_log(DirtyMethod method, const DirtyTarget& target, GuestRam& ram);

namespace detail {
std::unique_ptr<replication::DirtyLog> make_uffd_log(const DirtyTarget& target);
std::unique_ptr<replication::DirtyLog> make_soft_dirty_log(const DirtyTarget& target);
std::unique_ptr<replication::DirtyLog> make_compare_log(GuestRam& ram);
Result<void> arm_userfaultfd(int userfaultfd, std::uint64_t address, std::uint64_t bytes);
}  // namespace detail

}  // namespace colo::qemu
