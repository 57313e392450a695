// SPDX-License-Identifier: Apache-2.0
#pragma once

// The two halves of the control interface.
//
// Service: what the QMP command handlers see of the daemon. The daemon implements it and only states facts; argument
// checks, the texts of the interface, which members query-migrate shows in which state, and when an event is due are
// the business of colo/handlers.
//
// ServiceObserver: what the daemon tells the handlers when something happened. colo/handlers/control.h implements it.
//
// Threads: every call in both directions is made on the control thread and does not block. A `Done` is called exactly
// once, on the control thread, possibly before the call returns; the daemon holds it to a deadline of its own (no
// command may wait for ever). Errors are written for the operator: Error::text becomes the answer's description.

#include "colo/session_plan.h"
#include "core/error.h"
#include "schema/types.h"  // generated from schema/*.json

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace colo {

using Done = std::function<void(Result<void>)>;

// The report of `x-query-colo`; its members are described in schema/extensions.json.
using StatusReport = schema::ProtectionReport;

struct ServiceIdentity {
    std::string version;   // "0.1.0"
    std::string domain;    // configured name
    std::string uuid;      // 36 characters, lower case; empty: all zero
    bool kvm_enabled = false;
    bool kvm_present = false;
};

// Counters of the current or latest outgoing or incoming transfer. Times in milliseconds.
struct TransferFacts {
    schema::MigrationStats ram;            // all 17 members, never negative
    std::int64_t total_time_ms = 0;        // since it was accepted; frozen when it ends
    std::int64_t setup_time_ms = 0;
    std::int64_t expected_downtime_ms = 0; // while running
    std::int64_t downtime_ms = 0;          // of the last cut; of a migration until the destination has taken over
    schema::XBZRLECacheStats deltas;       // all but the configured size
};

class DiskEngine;  // colo/disk_engine.h

class Service {
public:
    virtual ~Service() = default;

    virtual ServiceIdentity identity() const = 0;
    virtual schema::RunState run_state() const = 0;

    // Only called where a change is due (running -> paused, save-vm or restore-vm; a startable state -> running). `as`
    // is the run state until the guest runs again.
    virtual void stop(schema::RunState as, Done done) = 0;
    virtual void cont(Done done) = 0;
    // In run state inmigrate: whether a guest that is migrated here waits for `cont` instead of running on. A copy that is
    // protected does what its primary's guest does.
    virtual void begin_paused(bool paused) = 0;
    // Orderly end of the daemon. Must return first and act afterwards: the answer still has to go out.
    virtual void quit() = 0;

    // Protects the guest with the secondary that waits at `uri` ("tcp:HOST:PORT" or "unix:PATH"; empty: the configured
    // peer), or moves it there, as `plan` says. `done` as soon as the session is being set up, before a connection exists; only errors known at once are
    // reported there (nothing configured, outdated, wrong role). What follows arrives at the observer.
    virtual void migrate(const std::string& uri, const SessionPlan& plan, Done done) = 0;
    // Listens for a primary that wants to protect or to move its guest, as `kind` says, or either; `done` when listening. Only
    // called in run state inmigrate.
    virtual void migrate_incoming(const std::string& uri, std::optional<SessionKind> kind, Done done) = 0;
    // What the side that listens waits for now; until a session comes, the capabilities may change.
    virtual void await_session(SessionKind kind) = 0;
    // Returns at once; the observer gets `cancelled` (or whatever won the race).
    virtual void migrate_cancel() = 0;
    // Lets a migration go on that waits in pre-switchover.
    virtual void migrate_continue() = 0;
    // Where an incoming session is awaited or runs; empty otherwise.
    virtual std::vector<schema::SocketAddress> listening() const = 0;
    virtual TransferFacts transfer() const = 0;
    // Why a migration would be refused now; empty if it would not.
    virtual std::vector<std::string> blocked_reasons() const = 0;

    virtual StatusReport status() const = 0;

    // The operator vouches that the peer is dead. `done` when the decision is accepted (not when it is carried out), or
    // with the reason why not (outdated, ineligible).
    virtual void lost_heartbeat(Done done) = 0;
    virtual void failover(bool accept_data_loss, Done done) = 0;
    virtual void unprotect(Done done) = 0;
    // Takes one checkpoint; `done` when it is STAGED. Succeeds at once without a session.
    virtual void do_checkpoint(Done done) = 0;

    using Checked = std::function<void(Result<std::vector<schema::GuestCheck>>)>;
    virtual void precheck(Checked done) = 0;

    virtual void save_device_state(const std::string& file, bool live, Done done) = 0;
    virtual void load_device_state(const std::string& file, Done done) = 0;
    virtual void set_global_dirty_log(bool enable, Done done) = 0;

    // Null for a guest without disks.
    virtual DiskEngine* disks() { return nullptr; }
    // The buttons of the machine; refused where this side does not decide about the guest. The observer tells the
    // effect.
    virtual void system_reset(Done done) = 0;
    virtual void system_powerdown(Done done) = 0;

    // Arguments are in range, and nothing is being measured. dirty_rate() says `measuring` on return.
    virtual Result<void> calc_dirty_rate(schema::DirtyRateMeasureMode mode, std::int64_t calc_time_s,
                                         std::uint64_t sample_pages) = 0;
    virtual schema::DirtyRateInfo dirty_rate() const = 0;
    virtual bool counts_vcpu_dirty_pages() const = 0;  // mode dirty-ring
};

// Phases of a transfer as the daemon knows them. Terminal: completed, failed, cancelled. Protection has setup, active,
// failed and cancelled; the others are those of a plain migration.
enum class TransferPhase : std::uint8_t {
    setup,
    wait_unplug,
    active,
    pre_switchover,
    device,
    postcopy_active,
    postcopy_paused,
    postcopy_recover,
    completed,
    failed,
    cancelled,
};

class ServiceObserver {
public:
    virtual ~ServiceObserver() = default;

    // The guest really stopped or started executing (checkpoints included). The daemon calls this in the order in which
    // it happened, after run_state() already says so.
    virtual void guest_stopped() = 0;
    virtual void guest_resumed() = 0;

    // Progress of the copy up to the first STAGED. `error` is the text of failed, may be empty.
    // The daemon reports `setup` only for transfers that it started itself (configured peer, re-protection by a
    // cluster); those that a command started are already known.
    virtual void outgoing(TransferPhase phase, const std::string& error = {}) = 0;
    virtual void incoming(TransferPhase phase, const std::string& error = {}) = 0;
    // A pass over dirty memory begins, on the side that sends: 1 is the first full copy, each checkpoint is one more.
    virtual void outgoing_pass(std::uint64_t pass) = 0;

    // COLO proper. entered: first STAGED was sent (secondary) or received (primary).
    // peer_lost: the loop ended without a decision. failover_started: decided, by an operator or an arbiter. left: this
    // side is out of the mode; `ok` false: it could not go on (secondary resigned, a grant was refused), `error` says
    // why. Between entered and left, outgoing() and incoming() are not called.
    virtual void colo_entered(schema::COLOMode mode) = 0;
    virtual void colo_peer_lost() = 0;
    virtual void colo_failover_started() = 0;
    virtual void colo_left(bool ok, const std::string& error = {}) = 0;

    // The guest (guest = true) or the daemon goes down. Not called for the `quit` command, which reports itself.
    virtual void shutdown(bool guest, schema::ShutdownCause cause) = 0;
    // The guest was reset, by itself (guest = true) or by system_reset. The power button was pressed. The guest put
    // itself to sleep, and woke up again. All of them only where the guest serves, not of a copy that follows.
    virtual void reset(bool guest, schema::ShutdownCause cause) = 0;
    virtual void power_button() = 0;
    virtual void suspended() = 0;
    virtual void woken() = 0;
    // The guest's kernel gave up; run_state() says so. It stays where it is until it is reset.
    virtual void panicked() = 0;

    // The secondary runs with a checkpoint, or has it staged where it does not run. On the primary.
    virtual void checkpoint_applied(const schema::CheckpointSample& checkpoint) = 0;

    // Something in status() changed that an operator would want to see: role, state, mode, health, generation.
    virtual void state_changed() = 0;
};

}  // namespace colo
