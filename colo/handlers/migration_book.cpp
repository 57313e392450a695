// SPDX-License-Identifier: Apache-2.0
#include "colo/handlers/migration_book.h"

namespace colo {

using schema::COLOExitReason;
using schema::COLOMode;
using schema::MigrationStatus;

namespace {

bool outgoing_busy(MigrationStatus status)
{
    switch (status) {
    case MigrationStatus::none:
    case MigrationStatus::cancelled:
    case MigrationStatus::completed:
    case MigrationStatus::failed: return false;
    default: return true;
    }
}

// An incoming side that only listens may still be configured.
bool incoming_busy(MigrationStatus status)
{
    return status != MigrationStatus::setup && outgoing_busy(status);
}

MigrationStatus status_of(TransferPhase phase)
{
    switch (phase) {
    case TransferPhase::setup: return MigrationStatus::setup;
    case TransferPhase::active: return MigrationStatus::active;
    case TransferPhase::completed: return MigrationStatus::completed;
    case TransferPhase::failed: return MigrationStatus::failed;
    case TransferPhase::cancelled: return MigrationStatus::cancelled;
    }
    return MigrationStatus::failed;
}

}  // namespace

bool MigrationBook::in_progress() const
{
    return outgoing_busy(outgoing_.status) || incoming_busy(incoming_.status);
}

void MigrationBook::change(Side& side, MigrationStatus status, const std::string& error)
{
    side.error = error;
    if (side.status == status) return;
    side.status = status;
    const bool always = &side == &incoming_ && status == MigrationStatus::setup;
    if (always || settings_.enabled(schema::MigrationCapability::events))
        events_.emit(schema::events::Migration{status});
}

void MigrationBook::start_outgoing()
{
    change(outgoing_, MigrationStatus::setup);
}

void MigrationBook::refuse_outgoing(const std::string& error)
{
    if (outgoing_.status == MigrationStatus::setup) change(outgoing_, MigrationStatus::failed, error);
}

void MigrationBook::cancel_outgoing()
{
    change(outgoing_, MigrationStatus::cancelling);
}

// A side that was a source before and becomes a destination now would otherwise go on showing the old story.
void MigrationBook::start_incoming()
{
    if (!outgoing_busy(outgoing_.status)) outgoing_ = {};
    change(incoming_, MigrationStatus::setup);
}

void MigrationBook::refuse_incoming()
{
    if (incoming_.status == MigrationStatus::setup) incoming_ = {};
}

void MigrationBook::outgoing(TransferPhase phase, const std::string& error)
{
    if (outgoing_.status == MigrationStatus::cancelling) {
        if (phase == TransferPhase::setup || phase == TransferPhase::active) return;
        if (phase == TransferPhase::failed) phase = TransferPhase::cancelled;
    }
    change(outgoing_, status_of(phase), error);
}

void MigrationBook::incoming(TransferPhase phase, const std::string& error)
{
    if (phase == TransferPhase::setup)
        start_incoming();
    else
        change(incoming_, status_of(phase), error);
}

void MigrationBook::colo_entered(COLOMode mode)
{
    mode_ = mode;
    reason_ = COLOExitReason::none;
    failing_over_ = false;
    exit_reported_ = false;
    change(mode == COLOMode::primary ? outgoing_ : incoming_, MigrationStatus::colo);
}

void MigrationBook::colo_exit(COLOExitReason reason)
{
    if (exit_reported_) return;
    exit_reported_ = true;
    events_.emit(schema::events::ColoExit{mode_, reason});
}

// The side stays in its mode until a failover or its refusal decides. A loss that is noticed while a failover is
// already under way is part of that failover.
void MigrationBook::colo_peer_lost()
{
    if (in_colo() && !failing_over_) colo_exit(COLOExitReason::error);
}

void MigrationBook::colo_failover_started()
{
    failing_over_ = in_colo();
}

void MigrationBook::colo_left(bool ok, const std::string& error)
{
    if (!in_colo()) return;
    Side& side = mode_ == COLOMode::primary ? outgoing_ : incoming_;
    change(side, ok ? MigrationStatus::completed : MigrationStatus::failed, error);
    reason_ = ok ? COLOExitReason::request : COLOExitReason::error;
    colo_exit(reason_);
    last_mode_ = mode_;
    mode_ = COLOMode::none;
    failing_over_ = false;
}

void MigrationBook::settle(schema::ProtectionState state, const std::string& reason)
{
    if (!exit_reported_ && !failing_over_) return;
    if (state == schema::ProtectionState::unprotected) colo_left(true, {});
    if (state == schema::ProtectionState::outdated || state == schema::ProtectionState::waiting)
        colo_left(false, reason);
}

schema::COLOStatus MigrationBook::colo_status() const
{
    if (failing_over_) return {mode_, COLOMode::none, COLOExitReason::processing};
    return {mode_, last_mode_, reason_};
}

schema::MigrationInfo MigrationBook::outgoing_info(const Service& service) const
{
    schema::MigrationInfo info;
    info.status = outgoing_.status;
    if (outgoing_.status == MigrationStatus::failed && !outgoing_.error.empty()) info.error_desc = outgoing_.error;
    const bool running = outgoing_.status == MigrationStatus::active || outgoing_.status == MigrationStatus::cancelling;
    const bool completed = outgoing_.status == MigrationStatus::completed;
    if (!running && !completed) return info;
    const TransferFacts facts = service.transfer();
    info.ram = facts.ram;
    info.total_time = facts.total_time_ms;
    info.setup_time = facts.setup_time_ms;
    if (running) info.expected_downtime = facts.expected_downtime_ms;
    if (completed) {
        info.downtime = facts.downtime_ms;
        info.ram->remaining = 0;
        info.ram->dirty_pages_rate = 0;
    }
    return info;
}

schema::MigrationInfo MigrationBook::info(const Service& service) const
{
    schema::MigrationInfo info;
    if (outgoing_.status != MigrationStatus::none) {
        info = outgoing_info(service);
    } else if (incoming_.status != MigrationStatus::none && incoming_.status != MigrationStatus::setup) {
        info.status = incoming_.status;
        if (incoming_.status == MigrationStatus::failed && !incoming_.error.empty()) info.error_desc = incoming_.error;
    }
    if (auto addresses = service.listening(); !addresses.empty()) info.socket_address = std::move(addresses);
    if (auto reasons = service.blocked_reasons(); !reasons.empty()) info.blocked_reasons = std::move(reasons);
    return info;
}

}  // namespace colo
