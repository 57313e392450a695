// SPDX-License-Identifier: Apache-2.0
#include "colo/heartbeat.h"
#include "colo/node_impl.h"
#include "core/breakage.h"
#include "proxy/proxy.h"

namespace colo {

using Output = proxy::PrimaryProxy::Output;

// ---- the session ends -------------------------------------------------------------------------------------------------

void NodeImpl::peer_lost(const std::string& why, Time now)
{
    lost("the peer is lost: " + why, now);
}

void NodeImpl::channel_lost(const std::string& why, Time now)
{
    lost("the connection to the peer is lost: " + why, now);
}

void NodeImpl::protocol_error(const Error& error, Time now)
{
    if (session_open()) violation(error.text, now);
}

void NodeImpl::violation(const std::string& what, Time now)
{
    send(replication::Close{what});
    lost("the peer broke the protocol: " + what, now);
}

void NodeImpl::lost(const std::string& why, Time now)
{
    if (step_ == Step::abdicating) return m_.on ? end_of_source(now) : finish_abdication(now);
    if (step_ == Step::resigning) return resigned(now);
    if (primary_session()) {
        if (p_.peer_eligible) return decide(why, now);
        close_session(why);
        leave_colo(ColoExitReason::error, why);
        return go_alone(why, now);
    }
    if (!secondary_session()) return;
    if (s_.eligible) return decide(why, now);
    const bool touched = step_ == Step::following;
    close_session(why);
    leave_colo(ColoExitReason::error, why);
    if (touched) return prepare_standby();
    s_ = {};
    m_ = {};
    session_ = 0;
    enter(Step::standby);
    change(Protection::standby, why);
}

// Nothing of the session is sent or honoured afterwards.
void NodeImpl::close_session(const std::string& why)
{
    after_persist_ = {};
    if (step_ == Step::cutting) p_.cut_late = true;
    act(action::CloseSession{why});
}

void NodeImpl::leave_colo(ColoExitReason reason, const std::string& why)
{
    if (m_.on) return end_migration(make_error(Errc::failed, why));
    if (!colo_entered_) return act(action::SessionFailed{why});
    if (!std::exchange(colo_exited_, true)) act(action::ColoExit{role_, reason});
}

// Primary without a peer that could run: never eligible, or it resigned.
void NodeImpl::go_alone(const std::string& why, Time now)
{
    const bool clear = state_.in_session;
    state_.in_session = false;
    state_.session = 0;
    reason_ = why;
    d_.why.clear();
    serve_on(now);
    if (clear) persist();
}

// The peer may run or be about to: output held (P), going on silently (S) until somebody has the word.
void NodeImpl::decide(const std::string& why, Time now)
{
    const Epoch partial = s_.stage == Stage::none ? 0 : s_.open;
    const bool wished = o_.ask == Ask::failover || o_.ask == Ask::unprotect || o_.finishing;
    // Who ends the protection says nothing about the other copy; who fails over while its host is silent does.
    if (o_.ask == Ask::failover || o_.vouches) d_.vouched = true;
    o_.ask = Ask::none;
    d_.why = why;
    if (broken(Breakage::grant_without_closing)) {
        enter(Step::asking);
        d_.request_out = true;
        return act(action::RequestGrant{state_.generation + 1, link_down_, d_.peer_abdicated});
    }
    close_session(why);
    enter(Step::closing);
    beat();
    if (role_ == Role::primary) set_output(static_cast<std::uint8_t>(Output::hold));
    s_.stage = Stage::none;
    if (partial != 0) act(action::StageDrop{partial});
    if (!m_.on) {
        if (!std::exchange(colo_entered_, true)) act(action::ColoEntered{role_});
        leave_colo(wished ? ColoExitReason::request : ColoExitReason::error, why);
    } else if (role_ == Role::primary) {
        m_.why = why;   // either side may be the one that goes on: failed or completed is said when that is known
        if (broken(Breakage::migration_judged_early)) end_migration(make_error(Errc::failed, why));
    }
    change(Protection::deciding, why);
    (void)now;
}

void NodeImpl::session_closed(Time last_answer, Time now)
{
    if (step_ != Step::closing) return;
    if (role_ == Role::primary) return ask(now);
    load_for_take_over();
    if (step_ != Step::closing) return;
    d_.not_before = d_.peer_abdicated ? now : last_answer + config_.lease * kLeaseMarginPercent / 100 + Duration{1};
    if (now >= d_.not_before) return ask(now);
    enter(Step::lease_wait, d_.not_before);
}

// ---- grant ------------------------------------------------------------------------------------------------------------

void NodeImpl::ask(Time now)
{
    enter(Step::asking);
    if (d_.override_generation != 0) return grant(d_.override_generation, now);
    if (config_.arbiter == ArbiterKind::manual) {
        if (d_.vouched || d_.peer_abdicated) return grant(state_.generation + 1, now);
        finish_operator(make_error(Errc::timed_out, reason_ + "; now the operator must decide who goes on"));
        return change(Protection::deciding,
                      reason_ + "; waiting for the operator: when the other copy is known not to run, `coloctl failover " +
                          config_.domain_name + "`");
    }
    // The peer's word that it never runs again in this session is on its disk (in_session was, before it could give it).
    // A fence command could only shoot a host that ended in order.
    if (config_.arbiter == ArbiterKind::command && d_.peer_abdicated) return grant(state_.generation + 1, now);
    if (role_ == Role::primary && !unwell_.empty()) {
        // The healthy copy goes first: it may ask after its lease wait. Without one there is time to recover.
        change(Protection::deciding, unwell_ + "; does not ask for the grant until that is over");
        return enter(Step::asking, now + config_.grant_retry);
    }
    if (std::exchange(d_.request_out, true)) return;
    act(action::RequestGrant{state_.generation + 1, link_down_ || !port_fault_.empty(), d_.peer_abdicated});
}

void NodeImpl::grant_result(Generation generation, GrantOutcome outcome, const std::string& detail, Time now)
{
    d_.request_out = false;
    if (step_ != Step::asking || generation != state_.generation + 1) return;
    switch (outcome) {
    case GrantOutcome::granted: return grant(generation, now);
    case GrantOutcome::refused:
        if (broken(Breakage::outdated_side_runs)) return grant(generation, now);
        m_.refused = m_.on;
        return become_outdated("generation " + std::to_string(generation) + " was refused: " + detail, now);
    case GrantOutcome::unknown:
        // Only a primary in its session asks for this generation besides us, and this one has given its word on disk. A
        // source asks all the same, if it does not hear that its guest runs.
        if (d_.peer_abdicated && (!m_.on || broken(Breakage::destination_runs_ungranted))) return grant(generation, now);
        change(Protection::deciding, "no answer of the arbiter: " + detail + "; asking again");
        return enter(Step::asking, now + config_.grant_retry);
    }
}

// Ours. On disk first, then anything else.
void NodeImpl::grant(Generation generation, Time)
{
    d_.generation = generation;
    state_ = {state_.domain_uuid, generation, Role::primary, 0, false, false, false, ""};
    enter(Step::granted);
    persist([this](const Result<void>& result, Time at) {
        if (!result) {
            change(Protection::deciding, "the state file cannot be written: " + result.error().text + "; trying again");
            return enter(Step::granted, at + config_.grant_retry);
        }
        d_.stored = true;
        if (role_ == Role::primary) return serve_on(at);
        continue_take_over(at);
    });
}

// S: buffered mode loads once, here. The state is decided (R1), so it need not wait for the grant.
void NodeImpl::load_for_take_over()
{
    if (s_.loaded || s_.job != Job::none || s_.staged == 0) return;
    s_.job = s_.guest_died ? Job::rolling : Job::applying;
    s_.rolled = s_.guest_died;
    s_.guest_died = false;
    s_.job_loads = true;
    if (s_.rolled)
        act(action::RollForward{s_.staged, false});
    else
        act(action::Apply{s_.staged, replication::Mode::lock_step, false});
}

void NodeImpl::continue_take_over(Time)
{
    if (s_.job != Job::none) return;
    if (!s_.loaded) return load_for_take_over();
    if (step_ != Step::granted || !d_.stored) return;
    if (m_.on && std::exchange(begin_paused_, false) && s_.own_power == replication::PowerState::running)
        s_.own_power = replication::PowerState::paused;
    enter(Step::going_live);
    act(action::GoLive{d_.generation, d_.finished_staged, s_.own_power});
}

void NodeImpl::went_live(Result<void> result, Time now)
{
    if (step_ != Step::going_live) return;
    if (!result) return cannot_run("going live failed: " + result.error().text, now);
    role_ = Role::primary;
    guest_present_ = true;
    guest_stopped_ = false;
    power_ = s_.own_power;
    end_migration({});
    serve_on(now);
}

// This side serves without a copy: a grant, a resignation, or nobody was ever eligible.
void NodeImpl::serve_on(Time)
{
    const bool cut_late = p_.cut_late;
    p_ = {};
    p_.cut_late = cut_late;
    s_ = {};
    const std::string lost = std::exchange(d_, {}).why;
    session_ = 0;
    mode_ = replication::Mode::lock_step;
    mode_reason_.clear();
    guest_stopped_ = false;
    if (role_ == Role::primary) end_migration(make_error(Errc::failed, m_.why));   // the destination said its own before
    if (!lost.empty()) reason_ = lost;
    settle_migration(make_error(Errc::failed, reason_));
    enter(Step::alone);
    set_output(static_cast<std::uint8_t>(Output::flow));
    let_held_guest_run();
    m_ = {};
    migrated_ = false;
    beat();
    std::string why = reason_.empty() ? "no secondary" : reason_;
    if (!port_fault_.empty()) why += "; " + port_fault_;
    change(Protection::unprotected, why);
    if (!unwell_.empty()) {
        well_reason_ = reason_;
        say_unwell();
    }
    finish_operator({});
}

// ---- outdated, abdicated ----------------------------------------------------------------------------------------------

void NodeImpl::higher_generation(Generation generation, Time now)
{
    if (generation <= state_.generation) return;
    if (step_ == Step::stopped) {
        if (is_the_migrations(generation)) settle_migration({});
        state_.generation = generation;
        return state_.outdated ? persist_outdated(state_.reason) : persist();
    }
    m_.taken = m_.on && p_.peer_eligible && is_the_migrations(generation);
    if (m_.taken && step_ == Step::abdicating) {   // its beats say that the destination runs
        state_.generation = generation;
        finish_abdication(now);
        return persist();
    }
    const bool could_run = role_ == Role::primary || s_.eligible;
    if (!could_run) {
        // A secondary that never was complete claims nothing. Before the hello it does not know the generation yet.
        if (step_ == Step::following) lost("generation " + std::to_string(generation) + " was granted elsewhere", now);
        return;
    }
    state_.generation = generation;
    become_outdated("generation " + std::to_string(generation) + " was granted to the other side", now);
}

// Two sides serve: whatever granted them both, neither can know which one the clients believe.
void NodeImpl::generation_conflict(Generation generation, Time now)
{
    if (step_ != Step::alone || generation != state_.generation) return;
    become_outdated("both sides serve in generation " + std::to_string(generation) +
                        "; both are stopped until the operator chooses one of them",
                    now);
}

// Freeze first, think afterwards.
void NodeImpl::become_outdated(const std::string& cause, Time)
{
    migrated_ = m_.on && role_ == Role::primary && m_.taken;
    const bool open = m_.refused && role_ == Role::primary && !migrated_;
    const std::string why = (migrated_ ? "migrated to the destination: " : open ? "the destination has the grant, and is not heard to run the guest, which is kept here: " : "") + cause;
    if (role_ == Role::primary) {
        set_output(static_cast<std::uint8_t>(Output::frozen));
        if (guest_present_) act(action::StopGuest{why});
        guest_stopped_ = guest_present_;
    } else {
        act(action::KillGuest{why});
        guest_present_ = false;
    }
    if (session_open()) close_session(why);
    if (migrated_) end_migration({});
    if (session_ != 0 && !open) leave_colo(ColoExitReason::error, why);
    state_.outdated = true;
    d_.why.clear();
    state_.eligible = state_.in_session = false;
    state_.reason = why;
    finish_operator(make_error(Errc::refused, why));
    dead(migrated_ || open ? Protection::abdicated : Protection::outdated, why);
    persist_outdated(why);
}

void NodeImpl::persist_outdated(const std::string& why)
{
    persist([this, why](const Result<void>& result, Time at) { outdated_persisted(result, why, at); });
}

void NodeImpl::outdated_persisted(const Result<void>& result, const std::string&, Time now)
{
    if (step_ != Step::stopped) return;
    if (!result) return enter(Step::stopped, now + config_.grant_retry);
    // An old secondary has nothing to keep: it can be resynchronised at once. An old primary keeps its stopped guest for
    // the operator who may have to accept the loss of the other one.
    if (role_ == Role::secondary) prepare_standby();
}

// P never runs again in this session; S may ask at once.
void NodeImpl::abdicate(const std::string& cause, Time now)
{
    const bool wished = std::exchange(o_.finishing, false);
    set_output(static_cast<std::uint8_t>(Output::frozen));
    if (step_ == Step::cutting) p_.cut_late = true;
    if (guest_present_) act(action::StopGuest{cause});
    guest_stopped_ = guest_present_;
    state_.outdated = true;
    state_.in_session = true;
    state_.reason = cause;
    if (!m_.on) leave_colo(wished ? ColoExitReason::request : ColoExitReason::error, cause);   // else with the other's answer
    change(Protection::abdicated, cause);
    // S may have to finish the epoch that it is verifying before it closes.
    enter(Step::abdicating, now + config_.staged_deadline);
    finish_operator(make_error(Errc::refused, cause));
    // Said before it is written, which may take as long as the disk likes: in_session is there since END of the first
    // epoch, and with it this side does not start either.
    send(replication::Abdicate{cause});
    persist();
}

void NodeImpl::finish_abdication(Time now)
{
    if (may_take_back()) return take_back(now);
    std::string why = state_.reason;
    close_session(why);
    migrated_ = m_.on && m_.taken;
    if (migrated_)
        end_migration({});
    else if (m_.on)
        why += ", which did not confirm that it takes over; it may run all the same, so the guest stays stopped here. If it is "
               "known not to run: `coloctl failover " + config_.domain_name + " --accept-data-loss`";
    dead(Protection::abdicated, why);
}

}  // namespace colo
