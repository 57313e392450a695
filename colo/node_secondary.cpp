// SPDX-License-Identifier: Apache-2.0
#include "colo/node_hello.h"
#include "colo/node_impl.h"
#include "core/breakage.h"

namespace colo {

using replication::Mode;
using replication::PowerState;

// ---- hello ------------------------------------------------------------------------------------------------------------

void NodeImpl::open_secondary_session(const replication::GuestDescription& guest, Time now)
{
    if (step_ != Step::standby) {
        send(replication::Refuse{"this side is not a secondary that waits for a primary: it is " +
                                 std::string(colo::to_string(protection_)) + (reason_.empty() ? "" : " (" + reason_ + ")")});
        act(action::CloseSession{"not ready"});
        return;
    }
    guest_ = guest;
    s_ = {};
    d_ = {};
    m_ = {};
    colo_entered_ = colo_exited_ = false;
    enter(Step::wait_hello, now + config_.hello_deadline);
}

void NodeImpl::refuse(const std::string& reason, Time now)
{
    send(replication::Refuse{reason});
    lost("refused the primary: " + reason, now);
}

void NodeImpl::on_hello(const replication::Hello& hello, Time now)
{
    if (step_ != Step::wait_hello) return violation("hello twice", now);
    if (!port_fault_.empty()) return refuse(port_fault_, now);
    const auto version = check_hello(config_, guest_, memory_, hello);
    if (!version) return refuse(version.error().text, now);
    session_ = hello.session;
    step_ = Step::greeting;
    if (hello.generation <= state_.generation) return accept_hello(*version, now);
    state_.generation = hello.generation;
    persist([this, v = *version](const Result<void>& result, Time at) {
        if (!result) return refuse("the state file cannot be written: " + result.error().text, at);
        accept_hello(v, at);
    });
}

void NodeImpl::accept_hello(std::uint16_t version, Time now)
{
    act(action::OpenSession{session_, state_.generation});
    send(replication::HelloAck{version, session_, state_.generation, memory_.free});
    enter(Step::following, now + config_.first_copy_deadline);
    change(Protection::syncing, "first copy");
}

// ---- an epoch arrives -------------------------------------------------------------------------------------------------

void NodeImpl::on_begin(const replication::Begin& message, Time now)
{
    if (step_ != Step::following || s_.stage != Stage::none) return violation("begin out of order", now);
    if (message.epoch <= s_.highest) return violation("epoch " + std::to_string(message.epoch) + " was used before", now);
    if (message.base != s_.staged) return violation("epoch on a base that is not the last staged one", now);
    if (!accept_kind(message.mode, now)) return;
    // Our generation may be above the one the primary had at hello: beats wait until it has heard of it.
    if (s_.highest == 0) beat();
    s_.highest = s_.open = message.epoch;
    s_.stage = Stage::open;
    act(action::StageBegin{message.epoch, message.base});
}

void NodeImpl::on_cut(const replication::Cut& message, Time now)
{
    if (s_.stage != Stage::open || message.epoch != s_.open) return violation("cut out of order", now);
    s_.stage = Stage::cut;
    s_.stage_deadline = m_.on ? kNever : now + config_.transfer_deadline * 2;   // the source's downtime limit is not known here
    deadline_ = kNever;
}

void NodeImpl::on_end(const replication::End& message, Time now)
{
    if (s_.stage != Stage::cut || message.epoch != s_.open || s_.job != Job::none) return violation("end out of order", now);
    if (message.manifest.base != s_.staged) return violation("manifest with another base", now);
    if ((message.manifest.mode == Mode::migration) != m_.on) return violation("manifest of another kind of session", now);
    s_.stage = Stage::ended;
    s_.stage_deadline = m_.on ? kNever : now + config_.staged_deadline * 2;     // it ends the session when it has waited enough
    s_.arriving_mode = message.manifest.mode;
    s_.arriving_power = message.manifest.power;
    act(action::StageFinish{message.epoch, message.manifest});
}

// Asked for once: the cut settles it, and an epoch that is cut already cannot be made smaller.
void NodeImpl::staging_full(Epoch epoch, Time)
{
    if (step_ != Step::following || s_.stage != Stage::open || epoch != s_.open || s_.staged == 0) return;
    if (std::exchange(s_.told_full, epoch) == epoch) return;
    send(replication::TriggerRequest{replication::TriggerReason::staging_full});
}

void NodeImpl::on_abort(const replication::Abort& message, Time now)
{
    if ((s_.stage != Stage::open && s_.stage != Stage::cut) || message.epoch != s_.open)
        return violation("abort out of order", now);
    s_.stage = Stage::none;
    s_.stage_deadline = kNever;
    if (broken(Breakage::epoch_reused_after_abort)) s_.highest = s_.open - 1;
    if (s_.staged == 0 && !m_.on) deadline_ = now + config_.first_copy_deadline;
    act(action::StageDrop{message.epoch});
    send(replication::AbortOk{message.epoch});
}

void NodeImpl::stage_complete(Epoch epoch, Result<void> verified, Time now)
{
    if (step_ != Step::following || s_.stage != Stage::ended || epoch != s_.open) return;
    if (!verified) return resign("epoch " + std::to_string(epoch) + " failed verification: " + verified.error().text, now);
    if (s_.staged == 0) return become_eligible(now);
    commit(now);
}

void NodeImpl::become_eligible(Time)
{
    s_.stage = Stage::persisting;
    state_.role = Role::secondary;
    state_.session = session_;
    state_.in_session = state_.eligible = true;
    state_.outdated = false;
    state_.reason.clear();
    persist([this](const Result<void>& result, Time at) {
        if (!result) return resign("the state file cannot be written: " + result.error().text, at);
        commit(at);
    });
}

// R1: from here on the only runnable state is this epoch.
void NodeImpl::commit(Time now)
{
    s_.eligible = true;
    s_.staged = s_.open;
    s_.staged_mode = s_.arriving_mode;
    s_.staged_power = s_.arriving_power;
    s_.stage = Stage::none;
    s_.stage_deadline = kNever;
    s_.loaded = s_.rolled = false;
    act(action::Commit{s_.staged});
    send(replication::Staged{s_.staged});
    s_.job = Job::applying;
    s_.guest_died = false;
    s_.job_loads = s_.staged_mode != Mode::buffered;
    act(action::Apply{s_.staged, s_.job_loads ? Mode::lock_step : Mode::buffered, s_.job_loads && !m_.on});
    if (d_.peer_abdicated) lost("the primary abdicated", now);
}

// ---- apply, roll forward ----------------------------------------------------------------------------------------------

void NodeImpl::apply_done(Epoch epoch, Result<void> result, Duration took, std::uint32_t own_dirty, Time now)
{
    if (s_.job == Job::none || epoch != s_.staged) return;
    if (result && s_.guest_died && s_.job == Job::applying && s_.job_loads)
        result = make_error(Errc::guest_died, "the device model died right after the load");
    if (!result) return apply_failed(result.error(), now);
    s_.job = Job::none;
    s_.applied = s_.staged;
    if (s_.job_loads) {
        s_.loaded = true;
        s_.guest_died = false;
        s_.own_power = s_.staged_power;
    }
    if (deciding()) {
        d_.finished_staged = true;
        return continue_take_over(now);
    }
    if (step_ != Step::following) return;
    send(replication::Applied{s_.applied, static_cast<std::uint32_t>(took.count()), own_dirty});
    note_mode(s_.staged_mode, s_.staged_mode == Mode::buffered ? "as the primary says" : "");
    if (m_.on) return change(Protection::syncing, "the guest is loaded, the source has the last word");
    if (!std::exchange(colo_entered_, true)) act(action::ColoEntered{Role::secondary});
    change(Protection::in_sync, "");
}

void NodeImpl::apply_failed(const Error& error, Time now)
{
    if (s_.rolled) {
        s_.job = Job::none;
        return cannot_run("epoch " + std::to_string(s_.staged) + " could not be loaded: " + error.text, now);
    }
    // R1: forward, never back. A fresh device model, everything from the shadow.
    const bool resume = s_.job_loads && s_.staged_mode == Mode::lock_step && !deciding();
    s_.rolled = true;
    s_.guest_died = false;
    s_.job = Job::rolling;
    s_.job_loads = true;
    act(action::RollForward{s_.staged, resume});
}

// The only state that this side may run cannot be run: never again in this session.
void NodeImpl::cannot_run(const std::string& cause, Time now)
{
    if (step_ == Step::following) return resign(cause, now);
    act(action::KillGuest{cause});
    guest_present_ = false;
    state_.outdated = true;
    state_.eligible = state_.in_session = false;
    state_.reason = cause;
    finish_operator(make_error(Errc::failed, cause));
    end_migration(make_error(Errc::failed, cause));
    dead(Protection::outdated, cause);
    persist([this, cause](const Result<void>& result, Time at) { outdated_persisted(result, cause, at); });
}

void NodeImpl::secondary_guest_lost(const std::string& why, Time now)
{
    const std::string cause = "the device model was lost: " + why;
    if (s_.job != Job::none) {
        s_.guest_died = true;   // the job's own result decides, unless it was already on its way
        return;
    }
    if (step_ == Step::standby) return prepare_standby();
    if (step_ == Step::wait_hello || step_ == Step::greeting) {
        send(replication::Refuse{cause});
        close_session(cause);
        act(action::SessionFailed{cause});
        return prepare_standby();
    }
    // Lock-step: what clients saw is in that guest alone. Buffered, or before the first load: the shadow has it all. So it
    // has of a guest that was migrated and has not run here.
    if (m_.on && deciding() && step_ != Step::going_live && s_.staged != 0) {
        s_.loaded = false;
        s_.guest_died = true;
        return load_for_take_over();
    }
    const bool needed = s_.loaded || s_.staged == 0;
    if (!needed) {
        s_.guest_died = true;
        return;
    }
    if (step_ == Step::following)
        resign(cause, now);
    else if (deciding())
        cannot_run(cause, now);
}

// ---- resigning --------------------------------------------------------------------------------------------------------

void NodeImpl::resign(const std::string& cause, Time now)
{
    const bool stored = s_.eligible || s_.stage == Stage::persisting;
    s_.eligible = false;
    s_.stage = Stage::none;
    s_.job = Job::none;
    act(action::KillGuest{cause});
    guest_present_ = false;
    leave_colo(s_.asked_to_resign || o_.waits ? ColoExitReason::request : ColoExitReason::error, cause);
    change(Protection::standby, "resigned: " + cause);
    enter(Step::resigning, now + resign_time());
    if (!stored) return send(replication::Resign{cause});
    state_.eligible = state_.in_session = false;
    state_.outdated = true;
    state_.reason = cause;
    persist([this, cause](const Result<void>& result, Time at) {
        // A promise that a restart could break is not given: the primary must ask for a grant instead.
        if (!result) return resigned(at);
        send(replication::Resign{cause});
    });
}

void NodeImpl::resigned(Time)
{
    close_session("resigned");
    finish_operator({});
    prepare_standby();
}

void NodeImpl::on_resign_request(Time now)
{
    if (step_ != Step::following) return violation("resign-request out of order", now);
    s_.asked_to_resign = true;
    if (o_.ask != Ask::none) finish_operator(make_error(Errc::refused, "the primary takes over at the same time"));
    resign("asked by the primary", now);
}

// The primary has stopped its guest for a side that never runs it. It can take that back, but only on the word that this
// side's storage still has to keep: the session stays open as long as the primary waits for its end.
void NodeImpl::on_abdicate_while_resigning(Time now)
{
    if (!std::exchange(d_.peer_abdicated, true)) deadline_ = std::max(deadline_, now + config_.staged_deadline);
}

void NodeImpl::on_abdicate(const replication::Abdicate& message, Time now)
{
    const std::string why = (m_.on ? "migrated here, the source says: " : "the primary abdicated: ") + message.cause;
    d_.peer_abdicated = true;
    // The first epoch is complete but not verified yet: it is all there is, so it is finished.
    if (!s_.eligible && (s_.stage == Stage::ended || s_.stage == Stage::persisting)) return;
    if (m_.on && s_.eligible) send(replication::Close{kTakesOver});   // the source need not guess what became of its guest
    lost(why, now);
}

}  // namespace colo
