// SPDX-License-Identifier: Apache-2.0
#pragma once

// One running QEMU process and three control channels to it. Two belong to the guest thread: *control* for everything
// but save and continue, *state* for those two. QEMU reads a channel byte by byte, one turn of its main loop each
// (about 5 us), so all but the last byte of the command that comes next on *state* is written ahead of time. The third
// channel has a thread of its own, which watches the process, receives events and answers probes, so that it never
// delays a cut. The serial console is a fourth socket behind them.

#include "core/error.h"
#include "qemu/process.h"
#include "qemu/qmp_link.h"
#include "qemu/serial_log.h"
#include "replication/guest.h"

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>

namespace colo::qemu {

struct DeviceModelOptions {
    ProcessOptions process;          // inherited_fds without the channels, which are inserted at `channels_at`
    std::size_t channels_at = 0;
    std::string serial_log = {};  // see serial_log.h
    std::function<void(replication::GuestEvent)> on_event;
    std::atomic<std::int64_t>* progress_us = nullptr;   // set to now() whenever QEMU says anything; outlives the model
};

class DeviceModel {
public:
    // Returns once QEMU has answered on all channels, i.e. the machine is built.
    static Result<std::unique_ptr<DeviceModel>> start(DeviceModelOptions options, Deadline deadline);
    ~DeviceModel();   // kills

    QmpLink& control() { return *control_; }
    QmpLink& state() { return *state_; }
    // Writes all but the last byte of `command` on the state channel. Nothing may be prepared already.
    Result<void> prepare(std::string_view command, Deadline deadline);
    bool prepared(std::string_view command) const { return prepared_ == command; }
    // Writes the last byte of what is prepared. The answer is to be received from state().
    Result<void> launch(Deadline deadline);
    const std::string& version() const { return version_; }
    Process& process() { return *process_; }
    void kill() noexcept { process_->kill(); }   // any thread
    void probe();                                 // any thread
    bool gone() const { return gone_; }           // any thread
    // "QEMU was killed by signal 9; last words: ..."
    std::string obituary();

    // State of the last `snapshot-load` job as seen on the control channel.
    bool job_concluded = false;
    // The guest powered itself off or panicked, as seen on the control channel. Cleared by a reset and by a load.
    bool went_off = false;
    // Resets by `system_reset` as seen on the control channel.
    std::uint64_t host_resets = 0;

private:
    DeviceModel() = default;
    void on_control_event(std::string_view name, const boost::json::object& data);
    void watch();
    bool watch_once(QmpLink& link);
    void on_watched_event(std::string_view name, const boost::json::object& data);
    void report(replication::GuestEvent event);
    void touch();

    DeviceModelOptions options_;
    std::unique_ptr<Process> process_;
    std::unique_ptr<SerialLog> serial_;
    std::unique_ptr<QmpLink> control_, state_, watched_;
    std::string prepared_;
    std::string version_;
    Fd wake_;   // eventfd: probe wanted, or closing
    std::atomic<bool> probe_wanted_ = false, closing_ = false, gone_ = false;
    std::thread watcher_;
};

// Last lines of a log file, for error texts.
std::string last_words(const std::string& log_file);

}  // namespace colo::qemu
