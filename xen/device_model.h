// SPDX-License-Identifier: Apache-2.0
#pragma once

// The QEMU that xl started for an HVM domain, over one of its QMP sockets. Such a socket serves one client at a time; whoever
// comes meanwhile waits in a queue. What it answers is hostile input (qemu/qmp_link.h).

#include "core/error.h"
#include "core/types.h"
#include "qemu/qmp_link.h"

#include <memory>
#include <string>

namespace colo::xen {

// One thread. After Errc::timed_out, closed, corrupt or guest_died the channel is dead for good.
class DeviceModel {
public:
    virtual ~DeviceModel() = default;

    virtual const std::string& version() const = 0;
    // While it is stopped it writes no guest memory and answers no vCPU: these are to be paused first, and go on last.
    virtual Result<void> stop(Deadline deadline) = 0;
    virtual Result<void> cont(Deadline deadline) = 0;
    // Stops, and has it begin to save in the same breath. finish_save() is owed afterwards, before anything else.
    virtual Result<void> stop_and_begin_save(Deadline deadline) = 0;
    virtual Result<Bytes> finish_save(Deadline deadline) = 0;
    // Stopped, and stays so. After an error its state is unknown.
    virtual Result<void> load(ByteView state, Deadline deadline) = 0;
    // Has it report to the hypervisor what its DMA writes. Only then the dirty log knows.
    virtual Result<void> set_dirty_log(bool on, Deadline deadline) = 0;
    // Puts the tap behind `fd` into the hub of interface `nic`, in place of what a daemon before us had put there.
    virtual Result<void> connect_cable(std::size_t nic, int fd, Deadline deadline) = 0;
    // Into a regular file, for whoever asked; it stops for as long as that takes.
    virtual Result<void> save_to(const std::string& file, bool live, Deadline deadline) = 0;
    virtual Result<void> powerdown(Deadline deadline) = 0;   // presses the power button
};

// Errc::guest_died: there is no such socket, or nobody behind it. Errc::timed_out: another client holds it.
Result<std::unique_ptr<DeviceModel>> connect_device_model(const std::string& socket, Deadline deadline);

// Another channel to it, that has left negotiation. Errors as above.
Result<std::unique_ptr<qemu::QmpLink>> connect_monitor(const std::string& socket, Deadline deadline);

// What can be checked of a saved state: a device model on Xen marks neither the ends of its sections nor what it is made
// of, so beginning, version, end and size are all there is. Errc::corrupt or limit.
Result<void> check_model_state(ByteView state);

}  // namespace colo::xen
