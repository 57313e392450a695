// SPDX-License-Identifier: Apache-2.0
#include "colo/handlers/migration_book.h"

namespace colo {

using schema::COLOExitReason;
using schema::COLOMode;
using schema::MigrationStatus;

namespace {

bool busy(MigrationStatus status)
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
    return status != MigrationStatus::setup && busy(status);
}

bool cancellable(MigrationStatus status)
{
    return busy(status) && status != MigrationStatus::cancelling && status != MigrationStatus::colo;
}

MigrationStatus status_of(TransferPhase phase)
{
    switch (phase) {
    case TransferPhase::setup: return MigrationStatus::setup;
    case TransferPhase::wait_unplug: return MigrationStatus::wait_unplug;
    case TransferPhase::active: return MigrationStatus::active;
    case TransferPhase::pre_switchover: return MigrationStatus::pre_switchover;
    case TransferPhase::device: return MigrationStatus::device;
    case TransferPhase::postcopy_active: return MigrationStatus::postcopy_active;
    case TransferPhase::postcopy_paused: return MigrationStatus::postcopy_paused;
    case TransferPhase::postcopy_recover: return MigrationStatus::postcopy_recover;
    case TransferPhase::completed: return MigrationStatus::completed;
    case TransferPhase::failed: return MigrationStatus::failed;
    case TransferPhase::cancelled: return MigrationStatus::cancelled;
    }
    return MigrationStatus::failed;
}

// States in which query-migrate tells how far it is.
bool shows_progress(MigrationStatus status)
{
    switch (status) {
    case MigrationStatus::active:
    case MigrationStatus::cancelling:
    case MigrationStatus::pre_switchover:
    case MigrationStatus::device:
    case MigrationStatus::postcopy_active:
    case MigrationStatus::postcopy_paused:
    case MigrationStatus::postcopy_recover: return true;
    default: return false;
    }
}

}  // namespace

bool follows(MigrationStatus from, MigrationStatus to)
{
    using S = MigrationStatus;
    // A session of ours that fails before it was active was not announced by a command. What failed and was cancelled
    // already stays cancelled.
    if (from == S::none || from == S::failed) return to == S::setup || to == S::active || to == S::failed;
    if (!busy(from)) return to == S::setup || to == S::active;
    if (to == S::cancelling) return cancellable(from);
    if (to == S::failed) return true;
    switch (from) {
    case S::setup: return to == S::active || to == S::wait_unplug || to == S::colo;
    case S::wait_unplug: return to == S::active;
    case S::active: return to == S::pre_switchover || to == S::completed || to == S::colo || to == S::postcopy_active;
    case S::pre_switchover: return to == S::device;
    case S::device: return to == S::completed || to == S::postcopy_active;
    case S::postcopy_active: return to == S::postcopy_paused || to == S::completed;
    case S::postcopy_paused: return to == S::postcopy_recover;
    case S::postcopy_recover: return to == S::postcopy_active || to == S::postcopy_paused;
    case S::cancelling: return to == S::cancelled || to == S::colo || to == S::completed;  // or it was too late to cancel
    case S::colo: return to == S::completed;
    default: return false;
    }
}

bool MigrationBook::sending() const
{
    return busy(outgoing_.status) || in_colo();
}

bool MigrationBook::in_progress() const
{
    return sending() || incoming_busy(incoming_.status);
}

void MigrationBook::report(Side& side, MigrationStatus status, const std::string& error)
{
    if (side.status == MigrationStatus::cancelling && status == MigrationStatus::failed)
        status = MigrationStatus::cancelled;
    if (status == MigrationStatus::cancelled && cancellable(side.status)) change(side, MigrationStatus::cancelling);
    if (side.status == status || follows(side.status, status)) change(side, status, error);
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

bool MigrationBook::cancel_outgoing()
{
    if (!cancellable(outgoing_.status)) return false;
    change(outgoing_, MigrationStatus::cancelling);
    return true;
}

// A side that was a source before and becomes a destination now would otherwise go on showing the old story.
void MigrationBook::start_incoming()
{
    if (!busy(outgoing_.status)) outgoing_ = {};
    change(incoming_, MigrationStatus::setup);
}

void MigrationBook::refuse_incoming()
{
    if (incoming_.status == MigrationStatus::setup) incoming_ = {};
}

void MigrationBook::outgoing(TransferPhase phase, const std::string& error)
{
    report(outgoing_, status_of(phase), error);
}

void MigrationBook::incoming(TransferPhase phase, const std::string& error)
{
    if (phase == TransferPhase::setup)
        start_incoming();
    else
        report(incoming_, status_of(phase), error);
}

void MigrationBook::pass(std::uint64_t number)
{
    if (settings_.enabled(schema::MigrationCapability::events))
        events_.emit(schema::events::MigrationPass{static_cast<std::int64_t>(number)});
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

void MigrationBook::add_statistics(schema::MigrationInfo& info, const Service& service) const
{
    const TransferFacts facts = service.transfer();
    info.ram = facts.ram;
    info.total_time = facts.total_time_ms;
    info.setup_time = facts.setup_time_ms;
    if (settings_.enabled(schema::MigrationCapability::xbzrle)) {
        info.xbzrle_cache = facts.deltas;
        info.xbzrle_cache->cache_size = settings_.parameters().xbzrle_cache_size.value_or(0);
    }
    if (info.status != MigrationStatus::completed) {
        info.expected_downtime = facts.expected_downtime_ms;
        return;
    }
    info.downtime = facts.downtime_ms;
    info.ram->remaining = 0;
    info.ram->dirty_pages_rate = 0;
}

schema::MigrationInfo MigrationBook::outgoing_info(const Service& service) const
{
    schema::MigrationInfo info;
    info.status = outgoing_.status;
    if (outgoing_.status == MigrationStatus::failed && !outgoing_.error.empty()) info.error_desc = outgoing_.error;
    const bool live = live_statistics_ && outgoing_.status == MigrationStatus::colo;
    if (shows_progress(outgoing_.status) || outgoing_.status == MigrationStatus::completed || live)
        add_statistics(info, service);
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
