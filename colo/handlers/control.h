// SPDX-License-Identifier: Apache-2.0
#pragma once

// The QMP commands of the daemon. Owns what the control interface remembers (settings, migration and COLO status) and
// turns what the daemon observes into events. Control thread only.
//
//   qmp::Registry registry;
//   qmp::Server server(io, registry, options);    // emits the events
//   Control control(service, server, registry);   // adds every command of the schema
//   server.start();

#include "colo/handlers/migration_book.h"
#include "colo/handlers/migration_settings.h"
#include "colo/service.h"
#include "qmp/event.h"
#include "qmp/registry.h"

#include <memory>
#include <optional>

namespace colo {

// The version that greetings and query-version give.
schema::VersionInfo interface_version(const std::string& service_version);

class Control : public ServiceObserver {
public:
    // All three must outlive it.
    Control(Service& service, qmp::EventSink& events, qmp::Registry& registry);

    Service& service() { return service_; }
    qmp::EventSink& events() { return events_; }
    MigrationSettings& settings() { return settings_; }
    MigrationBook& book() { return book_; }
    // What clients handed over; for `fd:NAME`: fds().take_named(reply.monitor(), NAME).
    qmp::FdStore& fds() { return *fds_; }

    // Whether a guest that arrives by an incoming session is to run afterwards; `stop` and `cont` in run state
    // inmigrate decide it.
    bool run_after_incoming() const { return run_after_incoming_; }
    void set_run_after_incoming(bool run) { run_after_incoming_ = run; }

    void guest_stopped() override;
    void guest_resumed() override;
    void outgoing(TransferPhase phase, const std::string& error) override;
    void incoming(TransferPhase phase, const std::string& error) override;
    void colo_entered(schema::COLOMode mode) override;
    void colo_peer_lost() override;
    void colo_failover_started() override;
    void colo_left(bool ok, const std::string& error) override;
    void shutdown(bool guest, schema::ShutdownCause cause) override;
    void state_changed() override;

private:
    Service& service_;
    qmp::EventSink& events_;
    std::shared_ptr<qmp::FdStore> fds_;
    MigrationSettings settings_;
    MigrationBook book_;
    bool run_after_incoming_ = true;
    std::optional<bool> running_;  // as last reported by an event
    std::optional<schema::events::XColoStateChange> last_state_;
};

// Each adds the commands of one schema file.
void add_base_commands(Control& control, qmp::Registry& registry);
void add_migration_commands(Control& control, qmp::Registry& registry);
void add_colo_commands(Control& control, qmp::Registry& registry);
void add_fd_commands(Control& control, qmp::Registry& registry);
void add_pending_commands(qmp::Registry& registry);

// The checks and the start that `migrate` and `x-colo-protect` share. Empty uri: the configured peer.
void start_protection(Control& control, const std::string& uri, qmp::TypedReply<void> reply);
// Why no migration can start now: in progress, inmigrate, postmigrate, blocked.
Result<void> check_outgoing(Control& control);

}  // namespace colo
