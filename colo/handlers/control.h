// SPDX-License-Identifier: Apache-2.0
#pragma once

// The QMP commands of the daemon. Owns what the control interface remembers (settings, migration and COLO status) and
// turns what the daemon observes into events. Control thread only.
//
//   qmp::Registry registry;
//   qmp::Server server(io, registry, options);    // emits the events
//   Control control(service, server, registry);   // adds every command of the schema
//   server.start();

#include "colo/handlers/job_table.h"
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
    const MigrationSettings& settings() const { return settings_; }
    MigrationBook& book() { return book_; }
    JobTable& jobs() { return jobs_; }
    // What clients handed over; for `fd:NAME`: fds().take_named(reply.monitor(), NAME).
    qmp::FdStore& fds() { return *fds_; }

    // What is told beyond what clients of the established interface expect; all off at first.
    const schema::ReportingOptions& reporting() const { return reporting_; }
    void set_reporting(const schema::ReportingOptions& options);

    // What the check of capabilities needs to know.
    CapabilityFacts capability_facts() const;
    // Whether the latest URI of an incoming migration was of a kind that takes several connections.
    void set_several_connections(bool possible) { several_connections_ = possible; }

    void guest_stopped() override;
    void guest_resumed() override;
    void outgoing(TransferPhase phase, const std::string& error) override;
    void incoming(TransferPhase phase, const std::string& error) override;
    void outgoing_pass(std::uint64_t pass) override;
    void colo_entered(schema::COLOMode mode) override;
    void colo_peer_lost() override;
    void colo_failover_started() override;
    void colo_left(bool ok, const std::string& error) override;
    void shutdown(bool guest, schema::ShutdownCause cause) override;
    void checkpoint_applied(const schema::CheckpointSample& checkpoint) override;
    void reset(bool guest, schema::ShutdownCause cause) override;
    void power_button() override;
    void suspended() override;
    void woken() override;
    void panicked() override;
    void state_changed() override;

private:
    Service& service_;
    qmp::EventSink& events_;
    std::shared_ptr<qmp::FdStore> fds_;
    MigrationSettings settings_;
    MigrationBook book_;
    JobTable jobs_;
    bool several_connections_ = true;
    schema::ReportingOptions reporting_;
    std::optional<bool> running_;  // as last reported by an event
    std::optional<schema::events::XColoStateChange> last_state_;
};

// The text for whatever must wait for the end of a migration or of COLO.
inline constexpr const char* kInProgress = "There's a migration process in progress";

// Each adds the commands of one schema file.
void add_base_commands(Control& control, qmp::Registry& registry);
void add_migration_commands(Control& control, qmp::Registry& registry);
void add_postcopy_commands(Control& control, qmp::Registry& registry);  // and others that act on a running migration
void add_colo_commands(Control& control, qmp::Registry& registry);
void add_job_commands(Control& control, qmp::Registry& registry);
void add_snapshot_commands(Control& control, qmp::Registry& registry);  // and those of disks
void add_machine_commands(Control& control, qmp::Registry& registry);
void add_dirty_rate_commands(Control& control, qmp::Registry& registry);
void add_fd_commands(Control& control, qmp::Registry& registry);

// The checks and the start that `migrate` and `x-colo-protect` share. Empty uri: the configured peer.
void start_transfer(Control& control, const std::string& uri, SessionKind kind, qmp::TypedReply<void> reply);
// Why no migration can start now: in progress, inmigrate, postmigrate, blocked.
Result<void> check_outgoing(Control& control);
// Why no stream of a guest can go or come under the parameters as they are: there is no TLS.
Result<void> check_credentials(const Control& control);

}  // namespace colo
