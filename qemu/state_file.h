// SPDX-License-Identifier: Apache-2.0
#pragma once

// Files in memory through which device state goes into and out of QEMU. QEMU inherits the descriptors and opens them by
// /proc/self/fd/N, so nothing has a name in a file system and nothing is left behind.

#include "core/error.h"
#include "qemu/process.h"

#include <string>

namespace colo::qemu {

// Target of xen-save-devices-state, source of xen-load-devices-state.
class StateFile {
public:
    static Result<StateFile> create();
    int fd() const { return fd_.get(); }
    Result<Bytes> read() const;          // bounded by kMaxDeviceState
    Result<void> write(ByteView state);  // replaces the content

private:
    Fd fd_;
};

// A state that somebody stored. Regular files only: anything else may keep us waiting for ever.
Result<Bytes> read_state_from(const std::string& path);

// A qcow2 image which holds nothing but one internal snapshot, "c", whose VM state is what write() put there. Loading that
// snapshot with `snapshot-load` is how a stock QEMU is fed an xen-save-devices-state stream any number of times. The
// layout is fixed at creation (64 KiB clusters):
//   0 header | 1 refcount table | 2 refcount block | 3 active L1 | 4 snapshot table | 5 snapshot L1 | 6 L2 | 7... VM state
// The virtual disk is one cluster without data. L2 and the VM state clusters are referenced by both L1 tables (refcount 2):
// going to the snapshot then changes nothing in the file but the active L1, to the same content.
class SnapshotFile {
public:
    static Result<SnapshotFile> create();
    int fd() const { return fd_.get(); }
    Result<void> write(ByteView state);

private:
    Fd fd_;
};

}  // namespace colo::qemu
