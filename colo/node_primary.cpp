// SPDX-License-Identifier: Apache-2.0
#include "colo/node_hello.h"
#include "colo/node_impl.h"
#include "core/breakage.h"
#include "proxy/proxy.h"

namespace colo {

using Output = proxy::PrimaryProxy::Output;
using replication::Mode;
using replication::PowerState;
using replication::TriggerReason;

// Times guest_answer. Without a copy that could go on, waiting for a slow device model is all that can be done.
constexpr int kOnlyCopyPatience = 10;

// ---- hello ------------------------------------------------------------------------------------------------------------

void NodeImpl::open_primary_session(SessionId session, const replication::GuestDescription& guest, Time now)
{
    if (step_ != Step::alone || session == 0) {
        act(action::SessionFailed{"this side has no unprotected guest to protect (it is " +
                                  std::string(colo::to_string(protection_)) + ")"});
        act(action::CloseSession{"not ready"});
        return;
    }
    session_ = session;
    guest_ = guest;
    const bool cut_late = p_.cut_late;
    p_ = {};
    p_.cut_late = cut_late;
    d_ = {};
    m_ = {};
    m_.on = plan_.kind == SessionKind::migration;
    m_.pauses = plan_.pause_before_switchover;
    colo_entered_ = colo_exited_ = false;
    enter(Step::hello, now + config_.hello_deadline);
    change(Protection::connecting, "");
    send(make_hello(config_, state_, session, guest_, memory_));
}

void NodeImpl::on_hello_ack(const replication::HelloAck& ack, Time now)
{
    if (step_ != Step::hello) return violation("hello-ack twice", now);
    if (auto r = check_hello_ack(session_, ack); !r) return violation(r.error().text, now);
    if (ack.generation <= state_.generation) return open_primary(now);
    state_.generation = ack.generation;
    persist([this](const Result<void>& result, Time at) {
        if (!result) return lost("the state file cannot be written: " + result.error().text, at);
        set_output(static_cast<std::uint8_t>(Output::flow));
        open_primary(at);
    });
}

void NodeImpl::open_primary(Time now)
{
    act(action::OpenSession{session_, state_.generation});
    // A guest that is migrated has all the time that its link takes: it is served meanwhile, and can be cancelled.
    enter(Step::first_copy, m_.on ? kNever : now + config_.first_copy_deadline);
    beat();
    change(Protection::syncing, m_.on ? "migration" : "first copy");
    mode_policy_.begin_session(now);
    pacer_.begin_session(now);
    note_mode(m_.on ? Mode::migration : mode_policy_.mode(), m_.on ? "" : mode_policy_.reason());
    begin_epoch(now);
}

// ---- epochs -----------------------------------------------------------------------------------------------------------

void NodeImpl::begin_epoch(Time)
{
    const bool reuse = broken(Breakage::epoch_reused_after_abort) && step_ == Step::aborting;
    if (!reuse) ++p_.epoch;
    send(replication::Begin{p_.epoch, p_.base, mode_});
    const Duration ahead = mode_ == Mode::buffered ? config_.buffered_interval_min : config_.checkpoint_interval;
    act(action::StartEpoch{p_.epoch, p_.base, pacer_.last_cut() + ahead, m_.on});
}

void NodeImpl::initial_copy_converged(Epoch epoch, Time now)
{
    if (step_ == Step::first_copy && epoch == p_.epoch) copy_converged(now);
}

CheckpointPacer::Due NodeImpl::next_cut() const
{
    if (o_.ask != Ask::none) return {};   // the peer is about to resign
    const Duration minimum = mode_ == Mode::buffered ? config_.buffered_interval_min : config_.checkpoint_interval_min;
    CheckpointPacer::Due due = pacer_.due(config_.checkpoint_interval, minimum);
    // A guest that is off on both sides does not change.
    if (due.reason == TriggerReason::period && power_ != PowerState::running && p_.cut_power == power_) due.at = kNever;
    const Time change = mode_policy_.change_due();
    if (change < due.at && power_ == PowerState::running)
        due = {std::max(change, pacer_.last_cut() + minimum), TriggerReason::mode_change};
    return due;
}

void NodeImpl::first_cut(Time now)
{
    if (renewing_ || seized_) {
        p_.first_cut_waits = true;
        return;
    }
    start_cut(TriggerReason::first, now);
}

void NodeImpl::maybe_cut(Time now)
{
    if (step_ != Step::steady || renewing_ || seized_) return;
    const CheckpointPacer::Due due = next_cut();
    if (due.at <= now) start_cut(due.reason, now);
}

void NodeImpl::trigger(TriggerReason reason, Time now)
{
    if (!primary_session()) return;
    // The comparer of the next epoch is not open yet: this difference is what the cut under way settles.
    if (step_ == Step::cutting && reason == TriggerReason::mismatch) return;
    // So does a cut that is under way for the staging that was nearly full; an abort empties it.
    if (reason == TriggerReason::staging_full && step_ != Step::steady && step_ != Step::wait_applied) return;
    pacer_.trigger(reason);
    maybe_cut(now);
}

void NodeImpl::start_cut(TriggerReason reason, Time now)
{
    p_.cut_late = false;   // guest work is in order: nothing of an earlier session can still be on its way
    p_.cut_mode = m_.on ? Mode::migration : mode_policy_.choose(reason, now);
    p_.cut_mode_reason = m_.on ? "" : mode_policy_.reason();
    p_.cut_power = power_;
    p_.cut_reason = reason;
    pacer_.cut_begun(now);
    ++triggers_[static_cast<std::size_t>(reason)];
    p_.cut_stops = false;
    enter(Step::cutting, now + with_limit(config_.transfer_deadline));  // until cut_begun
    const Duration answer = config_.guest_answer * (p_.base == 0 ? kOnlyCopyPatience : 1);
    if (!m_.on) return act(action::StartCut{p_.epoch, p_.base, reason, p_.cut_mode, config_.pause_bound, answer, p_.cut_power});
    // The guest is stopped for good, so a long pause is no reason to begin again; and it stays stopped.
    m_.holds_guest = true;
    const PowerState left = p_.cut_power == PowerState::running ? PowerState::paused : p_.cut_power;
    act(action::StartCut{p_.epoch, p_.base, reason, p_.cut_mode, answer, answer, left});
}

void NodeImpl::cut_progress(Epoch epoch, Time now)
{
    if (step_ != Step::cutting || epoch != p_.epoch || p_.cut_stops || deadline_ == kNever) return;
    deadline_ = now + with_limit(config_.transfer_deadline);
}

void NodeImpl::cut_begun(Epoch epoch, Time now)
{
    if (step_ != Step::cutting || epoch != p_.epoch) return;
    p_.cut_stops = true;
    // Longer than any cut can take by its own bounds: past it the guest thread or the device model hangs.
    // A migration sends in it what a generous downtime limit leaves.
    deadline_ = now + config_.guest_answer * 2 +
                (m_.on ? with_limit(config_.transfer_deadline) + config_.guest_answer * kOnlyCopyPatience : config_.pause_bound * 3);
}

void NodeImpl::cut_done(Epoch epoch, Result<void> result, Time now)
{
    const bool died = !result && result.error().code == Errc::guest_died;
    if (std::exchange(p_.cut_late, false)) {
        // Its session is over, but it may have sealed the proxy after our last word.
        set_output(output_);
        if (died) guest_does_not_answer(result.error().text, now);
        return;
    }
    if (step_ != Step::cutting || epoch != p_.epoch) return;
    if (died) return guest_does_not_answer(result.error().text, now);
    if (!result) return m_.on ? switch_over_failed(result.error(), now) : abort_cut(result.error(), now);
    // The guest thread has gone on to make the guest anew, and what is to be sent would wait behind that.
    if (renewing_ && !m_.on) return abort_cut(make_error(Errc::failed, "the guest was reset at the same time"), now);
    p_.running = epoch;
    pacer_.cut_succeeded();
    send(replication::Cut{epoch, p_.cut_reason});
    enter(Step::transferring, now + with_limit(config_.transfer_deadline));
    act(action::SendEpoch{epoch});
}

// ---- abort (R7) -------------------------------------------------------------------------------------------------------

void NodeImpl::abort_cut(const Error& error, Time now)
{
    ++aborts_;
    p_.abort_cause = error.text;
    pacer_.cut_aborted();
    if (p_.cut_reason != TriggerReason::period && p_.cut_reason != TriggerReason::first) pacer_.trigger(p_.cut_reason);
    act(action::AbortEpoch{p_.epoch});
    if (p_.base == 0) set_output(static_cast<std::uint8_t>(Output::flow));
    enter(Step::aborting, now + config_.staged_deadline);
    send(replication::Abort{p_.epoch});
}

void NodeImpl::on_abort_ok(const replication::AbortOk& message, Time now)
{
    if (step_ != Step::aborting || message.epoch != p_.epoch) return violation("abort-ok out of order", now);
    const bool too_often = pacer_.aborts_in_row() >= config_.abort_limit;
    const std::string why = std::to_string(pacer_.aborts_in_row()) + " checkpoints in a row had to be given up, the last one for: " + p_.abort_cause;
    if (p_.base == 0 && too_often) {
        send(replication::Close{why});
        return lost(why, now);
    }
    if (p_.base == 0) {
        enter(Step::first_copy, m_.on ? kNever : now + config_.first_copy_deadline);
        p_.first_epoch_waits = renewing_ || seized_;   // its dirty log does not come on meanwhile
        return p_.first_epoch_waits ? void() : begin_epoch(now);
    }
    begin_epoch(now);
    enter(Step::steady);
    if (!too_often || o_.ask != Ask::none) return maybe_cut(now);
    p_.pressure = why;
    (void)negotiate(Ask::pressure, now);
}

// ---- transfer, STAGED, APPLIED ----------------------------------------------------------------------------------------

void NodeImpl::transfer_done(Epoch epoch, Result<replication::Manifest> manifest, Time now)
{
    if (step_ != Step::transferring || epoch != p_.epoch) return;
    if (!manifest) return lost("transfer of epoch " + std::to_string(epoch) + ": " + manifest.error().text, now);
    manifest->base = p_.base;
    manifest->mode = p_.cut_mode;
    manifest->power = p_.cut_power;
    if (m_.on && m_.power_event) return switch_over_failed(make_error(Errc::failed, "the guest went off, or was reset, at the same time"), now);
    if (p_.base != 0) return send_end(std::move(*manifest), now);
    // From END of the first epoch on the peer may be the one to run: on disk before it can be true.
    p_.manifest = std::move(*manifest);
    state_.in_session = true;
    state_.session = session_;
    step_ = Step::ending;
    persist([this](const Result<void>& result, Time at) {
        if (!result) return lost("the state file cannot be written: " + result.error().text, at);
        send_end(std::exchange(p_.manifest, {}), at);
    });
}

void NodeImpl::send_end(replication::Manifest manifest, Time now)
{
    p_.peer_eligible = true;
    enter(Step::wait_staged, now + with_limit(config_.staged_deadline));   // the channels' queues may still be full
    send(replication::End{p_.epoch, std::move(manifest)});
}

void NodeImpl::on_staged(const replication::Staged& message, Time now)
{
    if (step_ != Step::wait_staged || message.epoch != p_.epoch) return violation("staged out of order", now);
    p_.base = p_.epoch;
    ++checkpoints_;
    act(action::ReleaseStaged{p_.base});
    enter(Step::wait_applied, now + config_.apply_deadline);
    if (!m_.on) begin_epoch(now);
}

void NodeImpl::on_applied(const replication::Applied& message, Time now)
{
    if (step_ != Step::wait_applied || message.epoch != p_.base) return violation("applied out of order", now);
    p_.applied = p_.base;
    if (m_.on) return give_away(now);
    act(action::OpenComparer{p_.applied, p_.cut_mode});
    note_mode(p_.cut_mode, p_.cut_mode_reason);
    if (!std::exchange(colo_entered_, true)) act(action::ColoEntered{Role::primary});
    change(Protection::in_sync, "");
    enter(Step::steady);
    if (hand_over_for_ports(now)) return;
    maybe_cut(now);
}

void NodeImpl::note_mode(Mode mode, const std::string& reason)
{
    if (mode == mode_ && reason == mode_reason_) return;
    mode_ = mode;
    mode_reason_ = reason;
    act(action::ModeChanged{mode, reason});
}

void NodeImpl::set_checkpoint_interval(Duration interval, Time now)
{
    config_.checkpoint_interval = interval;
    trigger(TriggerReason::operator_request, now);
}

void NodeImpl::set_pause_bound(Duration bound)
{
    config_.pause_bound = bound;
}

void NodeImpl::set_page_channels(std::uint8_t count)
{
    config_.page_channels = count;
}

// ---- ends of the session ----------------------------------------------------------------------------------------------

void NodeImpl::on_resign(const replication::Resign& message, Time now)
{
    if (step_ == Step::hello) return violation("resign before hello", now);
    const bool asked = o_.ask == Ask::failover || o_.ask == Ask::unprotect;
    const std::string why = (p_.pressure.empty() ? "" : p_.pressure + "; ") + "the secondary resigned: " + message.cause;
    close_session(why);
    p_.peer_eligible = false;
    leave_colo(asked ? ColoExitReason::request : ColoExitReason::error, why);
    go_alone(why, now);
}

// The last words crossed: this side has handed over, and the secondary never runs. It kept that on its disk before it said
// so; this side's stopped guest is all there is.
void NodeImpl::on_resign_while_abdicating(const replication::Resign& message, Time now)
{
    const std::string why = "the secondary resigned while this side handed over: " + message.cause;
    close_session(why);
    end_migration(make_error(Errc::failed, why));
    m_.holds_guest = false;
    state_.outdated = false;
    state_.reason.clear();
    guest_stopped_ = false;
    resume_guest();
    go_alone(why, now);
}

void NodeImpl::on_handover(Time now)
{
    // Both at once: what the primary asked for wins, whoever wanted it; the secondary yields when it gets our request (Inv17).
    if (o_.ask != Ask::none) return;
    if (!p_.peer_eligible) return violation("handover before the first checkpoint", now);
    o_.finishing = true;
    abdicate("the operator failed over to the secondary", now);
}

void NodeImpl::primary_power_event(PowerState power, Time now)
{
    // A reset of a paused guest does not let it run.
    if (power != PowerState::running || power_ != PowerState::paused) power_ = power;
    m_.power_event = m_.power_event || m_.holds_guest;
    trigger(TriggerReason::power_event, now);
}

void NodeImpl::guest_renewing(bool on, Time now) { hold_cuts(on, seized_, now); }

void NodeImpl::hold_cuts(bool renewing, bool seized, Time now)
{
    const bool before = renewing_ || seized_, held = renewing || seized;
    renewing_ = renewing;
    seized_ = seized;
    if (before == held) return;
    // One that waits for the guest thread, which makes the guest anew, is not late.
    if (step_ == Step::cutting && !p_.cut_stops) deadline_ = held ? kNever : now + with_limit(config_.transfer_deadline);
    if (held || !primary_session()) return;
    if (std::exchange(p_.first_epoch_waits, false)) return begin_epoch(now);
    if (!std::exchange(p_.first_cut_waits, false)) return maybe_cut(now);
    // All of it is dirty now: a migration sends that in rounds, while the guest runs, and not in its last cut.
    if (m_.on && step_ == Step::first_copy) return abort_cut(make_error(Errc::failed, "another tool, or a reset, had the guest"), now);
    start_cut(TriggerReason::first, now);
}

void NodeImpl::resume_guest()
{
    if (power_ != PowerState::paused) return act(action::ResumeGuest{});
    // Its driver kills a device model that does not answer this either, and that is noticed.
    act(action::StopGuest{"paused by an operator"});
}

// It hangs, or it died and the event follows. With a copy elsewhere that is the same: S is faster than waiting. Without one
// it is the only guest there is: it gets its chance to come back.
void NodeImpl::guest_does_not_answer(const std::string& why, Time now)
{
    const bool only_one = step_ == Step::alone || (primary_session() && !p_.peer_eligible);
    if (!only_one) return primary_guest_lost(why, now);
    if (primary_session()) {
        send(replication::Close{why});
        lost("the device model does not answer: " + why, now);
        p_.cut_late = false;
    }
    resume_guest();
}

// A copy that moves is better than one that stands still, and this side knows first: the peer would have to find out, close
// and wait for the lease, while we notice its closing at once. Without a copy it is the only guest there is: only said.
void NodeImpl::own_health(bool ok, const std::string& why, Time now)
{
    if (ok) {
        const bool said = !unwell_.empty() && reason_ == unwell_;
        unwell_.clear();
        if (said) change(protection_, well_reason_);
        return;
    }
    const bool said = !unwell_.empty() && reason_ == unwell_;
    if (!said) well_reason_ = reason_;
    unwell_ = why;
    if (role_ != Role::primary) return;
    // Under a resignation that was asked for, the secondary may already be the one that never runs.
    if (primary_session() && p_.peer_eligible && o_.ask == Ask::none) {
        guest_present_ = guest_stopped_ = false;
        act(action::KillGuest{why});
        return abdicate(why, now);
    }
    if (step_ == Step::alone || primary_session()) say_unwell();
}

void NodeImpl::say_unwell()
{
    change(protection_, unwell_);
}

// Clients do not reach this copy any more, or not on every network: one that they do reach is better. The other side
// takes no session with a port that failed, so this does not go back and forth.
void NodeImpl::ports(const std::string& unusable, Time now)
{
    port_fault_ = unusable;
    if (unusable.empty()) return;
    if (role_ == Role::primary) {
        if (hand_over_for_ports(now)) return;
        if (step_ == Step::alone || primary_session()) change(protection_, unusable);
    } else if (step_ == Step::following) {
        resign(unusable, now);
    } else if (step_ == Step::wait_hello || step_ == Step::greeting) {
        refuse(unusable, now);
    } else if (step_ == Step::standby) {
        change(protection_, unusable);
    }
}

// Under a resignation that was asked for, the secondary may already be the one that never runs.
bool NodeImpl::hand_over_for_ports(Time now)
{
    if (port_fault_.empty() || !primary_session() || !p_.peer_eligible || o_.ask != Ask::none) return false;
    abdicate(port_fault_, now);
    return true;
}

void NodeImpl::primary_guest_lost(const std::string& why, Time now)
{
    if (!guest_present_) return;
    guest_present_ = guest_stopped_ = false;
    act(action::KillGuest{why});
    set_output(static_cast<std::uint8_t>(Output::frozen));
    if (primary_session() && p_.peer_eligible) return abdicate("the device model was lost: " + why, now);
    if (primary_session()) {
        send(replication::Close{why});
        close_session(why);
        leave_colo(ColoExitReason::error, why);
        return dead(Protection::failed, "the guest was lost and no copy was complete: " + why);
    }
    if (deciding()) {
        // The session is closed, so nobody can be told: the peer gets its grant because we never ask for one.
        state_.outdated = true;
        state_.reason = "the device model was lost: " + why;
        persist();
        finish_operator(make_error(Errc::guest_died, why));
        return dead(Protection::abdicated, state_.reason);
    }
    if (step_ == Step::abdicating || step_ == Step::stopped) return;
    dead(Protection::failed, "the guest was lost: " + why);
}

}  // namespace colo
