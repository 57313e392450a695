// SPDX-License-Identifier: Apache-2.0
#include "colo/handlers/control.h"

#include "core/check.h"

namespace colo {

schema::VersionInfo interface_version(const std::string& service_version)
{
    return {.qemu = {.major = 7, .minor = 0, .micro = 0}, .package = "colod " + service_version};
}

Control::Control(Service& service, qmp::EventSink& events, qmp::Registry& registry)
    : service_(service), events_(events), fds_(registry.fds()), book_(events, settings_), jobs_(events)
{
    qmp::add_introspection(registry);
    add_base_commands(*this, registry);
    add_migration_commands(*this, registry);
    add_postcopy_commands(*this, registry);
    add_colo_commands(*this, registry);
    add_job_commands(*this, registry);
    add_snapshot_commands(*this, registry);
    add_machine_commands(*this, registry);
    add_dirty_rate_commands(*this, registry);
    add_fd_commands(*this, registry);
    COLO_CHECK(registry.missing().empty());
}

CapabilityFacts Control::capability_facts() const
{
    return {.waiting = service_.run_state() == schema::RunState::inmigrate,
            .several_connections = several_connections_};
}

void Control::guest_stopped()
{
    if (running_ == std::optional(false)) return;
    running_ = false;
    events_.emit(schema::events::Stop{});
}

void Control::guest_resumed()
{
    if (running_ == std::optional(true)) return;
    running_ = true;
    events_.emit(schema::events::Resume{});
}

void Control::outgoing(TransferPhase phase, const std::string& error)
{
    book_.outgoing(phase, error);
}
void Control::incoming(TransferPhase phase, const std::string& error)
{
    book_.incoming(phase, error);
}
void Control::outgoing_pass(std::uint64_t pass)
{
    book_.pass(pass);
}
void Control::colo_entered(schema::COLOMode mode)
{
    book_.colo_entered(mode);
}
void Control::colo_peer_lost()
{
    book_.colo_peer_lost();
}
void Control::colo_failover_started()
{
    book_.colo_failover_started();
}
void Control::colo_left(bool ok, const std::string& error)
{
    book_.colo_left(ok, error);
}

void Control::shutdown(bool guest, schema::ShutdownCause cause)
{
    events_.emit(schema::events::Shutdown{guest, cause});
}

void Control::set_reporting(const schema::ReportingOptions& options)
{
    reporting_ = options;
    book_.set_live_statistics(options.live_statistics);
}

void Control::checkpoint_applied(const schema::CheckpointSample& checkpoint)
{
    if (!reporting_.checkpoint_events) return;
    events_.emit(schema::events::XColoCheckpoint{checkpoint.epoch, checkpoint.trigger, checkpoint.pause_us,
                                                 checkpoint.pages, checkpoint.sent_bytes, checkpoint.staged_us,
                                                 checkpoint.applied_us});
}

void Control::state_changed()
{
    const StatusReport report = service_.status();
    book_.settle(report.state, report.reason);
    const schema::events::XColoStateChange state{report.role,    report.state,  report.mode,
                                                 report.healthy, report.reason, report.generation};
    if (last_state_ == state) return;
    last_state_ = state;
    events_.emit(state);
}

}  // namespace colo
