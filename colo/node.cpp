// SPDX-License-Identifier: Apache-2.0
#include "colo/node_impl.h"
#include "proxy/proxy.h"

#include <algorithm>

namespace colo {

const char* to_string(Role role)
{
    switch (role) {
    case Role::none: return "none";
    case Role::primary: return "primary";
    case Role::secondary: return "secondary";
    }
    return "unknown";
}

// The names of the control interface: log, refusals and status call a state the same.
const char* to_string(Protection protection)
{
    switch (protection) {
    case Protection::unprotected: return "unprotected";
    case Protection::connecting: return "connecting";
    case Protection::syncing: return "synchronizing";
    case Protection::in_sync: return "protected";
    case Protection::deciding: return "peer-lost";
    case Protection::outdated: return "outdated";
    case Protection::idle:
    case Protection::standby: return "waiting";
    case Protection::abdicated:
    case Protection::failed: return "stopped";
    }
    return "unknown";
}

const char* NodeImpl::to_string(Step step)
{
    switch (step) {
    case Step::stopped: return "stopped";
    case Step::booting: return "booting";
    case Step::alone: return "alone";
    case Step::hello: return "hello";
    case Step::first_copy: return "first-copy";
    case Step::pre_switchover: return "pre-switchover";
    case Step::cutting: return "cutting";
    case Step::aborting: return "aborting";
    case Step::ending: return "ending";
    case Step::transferring: return "transferring";
    case Step::wait_staged: return "wait-staged";
    case Step::wait_applied: return "wait-applied";
    case Step::steady: return "steady";
    case Step::preparing: return "preparing";
    case Step::standby: return "standby";
    case Step::wait_hello: return "wait-hello";
    case Step::greeting: return "greeting";
    case Step::following: return "following";
    case Step::resigning: return "resigning";
    case Step::closing: return "closing";
    case Step::lease_wait: return "lease-wait";
    case Step::asking: return "asking";
    case Step::granted: return "granted";
    case Step::going_live: return "going-live";
    case Step::abdicating: return "abdicating";
    }
    return "unknown";
}

NodeImpl::NodeImpl(const NodeConfig& config) : config_(config), mode_policy_(config) {}

std::unique_ptr<Node> make_node(const NodeConfig& config)
{
    return std::make_unique<NodeImpl>(config);
}

std::vector<Action> NodeImpl::take_actions()
{
    return std::exchange(actions_, {});
}

// ---- small helpers ----------------------------------------------------------------------------------------------------

void NodeImpl::enter(Step step, Time deadline)
{
    step_ = step;
    deadline_ = deadline;
}

void NodeImpl::change(Protection protection, const std::string& reason)
{
    if (protection == protection_ && reason == reason_) return;
    protection_ = protection;
    reason_ = reason;
    act(action::Changed{protection, reason});
}

// What our heartbeats say follows from the step alone.
void NodeImpl::beat()
{
    if (step_ == Step::stopped)
        act(action::Beat{Role::none, state_.generation, 0, false});
    else if (deciding())
        act(action::Beat{role_, state_.generation, session_, true});
    else if (primary_session() || step_ == Step::following)
        act(action::Beat{role_, state_.generation, session_, false});
    else
        act(action::Beat{role_, role_ == Role::primary ? state_.generation : 0, 0, false});
}

void NodeImpl::set_output(std::uint8_t output)
{
    output_ = output;
    act(action::SetOutput{output, state_.generation});
}

// A newer decision supersedes what waited for an older one; the newest state is what counts on disk as well.
void NodeImpl::persist(AfterPersist then)
{
    ++token_;
    unwritten_ = true;
    after_persist_ = std::move(then);
    act(action::Persist{state_, token_});
}

void NodeImpl::persisted(std::uint64_t token, Result<void> result, Time now)
{
    if (token != token_) return;
    unwritten_ = false;
    if (!slow_reason_.empty() && std::exchange(slow_reason_, {}) == reason_) change(protection_, prompt_reason_);
    if (!after_persist_) return;
    const AfterPersist then = std::exchange(after_persist_, {});
    then(result, now);
}

void NodeImpl::persist_slow(std::uint64_t token, const std::string& why, Time)
{
    if (token != token_ || !unwritten_) return;
    if (slow_reason_.empty() || slow_reason_ != reason_) prompt_reason_ = reason_;
    slow_reason_ = prompt_reason_.empty() ? why : prompt_reason_ + "; " + why;
    change(protection_, slow_reason_);
}

// ---- start ------------------------------------------------------------------------------------------------------------

bool NodeImpl::may_run(std::string& why) const
{
    const std::string remedy =
        "start it as a secondary so that the running copy resynchronises it, or, if the other copy is known to be lost, "
        "`coloctl failover " + config_.domain_name + " --accept-data-loss`";
    if (state_.outdated)
        why = "this copy is outdated (" + (state_.reason.empty() ? std::string("overtaken") : state_.reason) + "); " + remedy;
    else if (state_.eligible)
        why = "this copy was a secondary and the primary may still run; " + remedy;
    else if (state_.in_session)
        why = "this copy ended while a secondary was ready to take over, which may run now; " + remedy;
    return why.empty();
}

void NodeImpl::start(const PersistentState& state, StartIntent intent, Time now)
{
    if (step_ != Step::stopped) return;
    migrated_ = outcome_open_ = false;
    state_ = state;
    if (state_.domain_uuid.empty()) state_.domain_uuid = config_.domain_uuid;
    if (intent == StartIntent::secondary) {
        role_ = Role::secondary;
        if (std::exchange(guest_present_, false)) act(action::KillGuest{"becomes a secondary"});
        prepare_standby();
        return;
    }
    role_ = Role::primary;
    if (intent == StartIntent::primary_accept_data_loss) {
        (void)accept_data_loss(now);
        return;
    }
    std::string why;
    if (!may_run(why)) {
        act(action::Beat{Role::none, state_.generation, 0, false});
        change(Protection::outdated, why);
        return;
    }
    start_primary(now);
}

void NodeImpl::start_primary(Time)
{
    role_ = Role::primary;
    state_ = {state_.domain_uuid, std::max<Generation>(state_.generation, 1), Role::primary, 0, false, false, false, ""};
    power_ = replication::PowerState::running;
    enter(Step::booting);
    if (protection_ == Protection::idle) change(Protection::idle, "the guest is being booted");
    persist([this](const Result<void>& result, Time) {
        if (!result) {
            finish_operator(result.error());
            return dead(Protection::failed, "the state file cannot be written: " + result.error().text);
        }
        act(action::BootGuest{});
    });
}

void NodeImpl::guest_booted(Result<void> result, Time now)
{
    if (step_ != Step::booting) return;
    if (!result) {
        finish_operator(result.error());
        return dead(Protection::failed, "the guest did not start: " + result.error().text);
    }
    guest_present_ = true;
    guest_stopped_ = false;
    reason_.clear();
    serve_on(now);
}

void NodeImpl::prepare_standby()
{
    s_ = {};
    d_ = {};
    m_ = {};
    session_ = 0;
    role_ = Role::secondary;
    guest_present_ = false;
    enter(Step::preparing);
    if (protection_ == Protection::idle)
        change(Protection::idle, "the copy for a primary is being prepared");
    beat();
    act(action::PrepareStandby{});
}

void NodeImpl::standby_ready(Result<void> result, Time)
{
    if (step_ != Step::preparing) return;
    if (!result) return dead(Protection::failed, "the standby guest cannot be prepared: " + result.error().text);
    guest_present_ = true;
    enter(Step::standby);
    change(Protection::standby, !port_fault_.empty() ? port_fault_
                                : state_.outdated
                                    ? "outdated (" + state_.reason + "), waits for a primary to resynchronise it"
                                    : "waits for a primary");
}

void NodeImpl::dead(Protection protection, const std::string& why)
{
    outcome_open_ = outcome_open_ || (m_.on && !m_.told && role_ == Role::primary);
    p_.peer_eligible = false;
    s_ = {};
    d_ = {};
    m_ = {};
    session_ = 0;
    enter(Step::stopped);
    beat();
    change(protection, why);
    finish_operator(make_error(Errc::failed, why));   // whatever was asked for, it ends here
}

// ---- time -------------------------------------------------------------------------------------------------------------

void NodeImpl::tick(Time now)
{
    if (o_.ask != Ask::none && now >= o_.deadline) operator_expired(now);
    if (now >= deadline_) {
        deadline_ = kNever;
        step_expired(now);
    }
    if (step_ == Step::following && now >= s_.stage_deadline) {
        s_.stage_deadline = kNever;
        lost("the primary did not finish epoch " + std::to_string(s_.open) + " in time", now);
    }
    maybe_cut(now);
}

Time NodeImpl::next_deadline() const
{
    Time next = deadline_;
    if (o_.ask != Ask::none) next = std::min(next, o_.deadline);
    if (step_ == Step::following) next = std::min(next, s_.stage_deadline);
    if (step_ == Step::steady && !renewing_ && !seized_) next = std::min(next, next_cut().at);
    return next;
}

void NodeImpl::step_expired(Time now)
{
    const std::string epoch = std::to_string(p_.epoch);
    switch (step_) {
    case Step::hello: return lost("the peer did not answer the hello in time", now);
    case Step::first_copy:
        return lost(p_.first_cut_waits || p_.first_epoch_waits
                        ? "another tool, or a reset, had the guest for as long as a first copy may take"
                        : "the first copy did not converge in time; give it more bandwidth or a quieter guest",
                    now);
    case Step::cutting:
        // A slow link is no reason to give up a guest that runs.
        if (!p_.cut_stops)
            return lost("the pages ahead of the cut of epoch " + epoch + " could not be sent in time", now);
        return guest_does_not_answer("the cut of epoch " + epoch + " did not end", now);
    case Step::aborting: return lost("the secondary did not confirm the abort of epoch " + epoch + " in time", now);
    case Step::ending:
    case Step::transferring: return lost("epoch " + epoch + " could not be transferred in time", now);
    case Step::wait_staged: return lost("the secondary did not stage epoch " + epoch + " in time", now);
    case Step::wait_applied:
        return lost("the secondary did not apply epoch " + std::to_string(p_.base) + " in time", now);
    case Step::wait_hello:
    case Step::greeting: return lost("no hello in time", now);
    case Step::following: return lost("the first copy did not arrive in time", now);
    case Step::resigning: return resigned(now);
    case Step::abdicating: return finish_abdication(now);
    case Step::lease_wait:
    case Step::asking: return ask(now);
    case Step::granted: return grant(d_.generation, now);   // the state file could not be written: again
    case Step::stopped:
        if (state_.outdated)
            persist([this](const Result<void>& result, Time at) { outdated_persisted(result, state_.reason, at); });
        return;
    default: return;
    }
}

// ---- events of either role --------------------------------------------------------------------------------------------

void NodeImpl::message(const replication::Message& message, Time now)
{
    namespace r = replication;
    if (step_ == Step::abdicating || step_ == Step::resigning) {
        // Both have said their last word; only the end of the session matters.
        const auto* resign = std::get_if<r::Resign>(&message);
        if (resign != nullptr && step_ == Step::abdicating && guest_present_) return on_resign_while_abdicating(*resign, now);
        if (step_ == Step::resigning && std::holds_alternative<r::Abdicate>(message)) return on_abdicate_while_resigning(now);
        const auto* last = std::get_if<r::Close>(&message);
        if (step_ == Step::abdicating && last != nullptr) last_word(last->cause);
        if (std::holds_alternative<r::Close>(message) || std::holds_alternative<r::Resign>(message)) lost("closed", now);
        return;
    }
    if (!session_open()) return;
    if (const auto* close = std::get_if<r::Close>(&message)) return lost("the peer closed the session: " + close->cause, now);
    if (primary_session()) {
        if (const auto* m = std::get_if<r::HelloAck>(&message)) return on_hello_ack(*m, now);
        if (const auto* m = std::get_if<r::Refuse>(&message)) return lost("the secondary refused: " + m->reason, now);
        if (const auto* m = std::get_if<r::Staged>(&message)) return on_staged(*m, now);
        if (const auto* m = std::get_if<r::Applied>(&message)) return on_applied(*m, now);
        if (const auto* m = std::get_if<r::AbortOk>(&message)) return on_abort_ok(*m, now);
        if (const auto* m = std::get_if<r::Resign>(&message)) return on_resign(*m, now);
        if (std::holds_alternative<r::Handover>(message)) return on_handover(now);
        if (const auto* m = std::get_if<r::TriggerRequest>(&message)) return trigger(m->reason, now);
    } else {
        if (const auto* m = std::get_if<r::Hello>(&message)) return on_hello(*m, now);
        if (const auto* m = std::get_if<r::Begin>(&message)) return on_begin(*m, now);
        if (const auto* m = std::get_if<r::Cut>(&message)) return on_cut(*m, now);
        if (const auto* m = std::get_if<r::End>(&message)) return on_end(*m, now);
        if (const auto* m = std::get_if<r::Abort>(&message)) return on_abort(*m, now);
        if (const auto* m = std::get_if<r::Abdicate>(&message)) return on_abdicate(*m, now);
        if (std::holds_alternative<r::ResignRequest>(message)) return on_resign_request(now);
    }
    violation(std::string(r::name_of(message)) + " sent by the wrong side", now);
}

void NodeImpl::guest_event(const replication::GuestEvent& event, Time now)
{
    namespace r = replication;
    const bool primary = role_ == Role::primary;
    switch (event.kind) {
    case r::GuestEventKind::device_model_died:
        seized_ = false;   // it is nobody's any more
        return primary ? primary_guest_lost(event.detail, now) : secondary_guest_lost(event.detail, now);
    case r::GuestEventKind::power_button:
    case r::GuestEventKind::suspended:
    case r::GuestEventKind::woken:   // memory and devices say so, and nothing else has to
    case r::GuestEventKind::gone: return;
    // Checkpoints go on, and both copies with them: nobody failed, and whoever holds it will let it go.
    case r::GuestEventKind::paused_outside:
    case r::GuestEventKind::resumed_outside: return hold_cuts(renewing_, false, now);
    // The last one stays good until then: if whoever has it destroys it, the copy goes on.
    case r::GuestEventKind::seized_outside: return hold_cuts(renewing_, true, now);
    case r::GuestEventKind::power_off:
    case r::GuestEventKind::panicked:
    case r::GuestEventKind::reset: break;
    }
    hold_cuts(renewing_, false, now);   // whoever had it has done with it
    const auto power = event.kind == r::GuestEventKind::power_off  ? r::PowerState::powered_off
                       : event.kind == r::GuestEventKind::panicked ? r::PowerState::panicked
                                                                   : r::PowerState::running;
    if (primary) return primary_power_event(power, now);
    // R9: held. It counts only as a divergence, or at go-live as what this copy did.
    s_.own_power = power;
    if (step_ == Step::following && s_.eligible && s_.job == Job::none)
        send(r::TriggerRequest{r::TriggerReason::power_event});
}

void NodeImpl::carrier(bool up, Time)
{
    link_down_ = !up;
}

NodeStatus NodeImpl::status() const
{
    NodeStatus status;
    status.role = role_;
    status.protection = protection_;
    status.reason = reason_;
    status.generation = state_.generation;
    status.session = session_;
    const bool secondary = role_ == Role::secondary;
    status.epoch = secondary ? s_.staged : p_.running;
    status.staged = secondary ? s_.staged : p_.base;
    status.applied = secondary ? s_.applied : p_.applied;
    status.mode = mode_;
    status.mode_reason = mode_reason_;
    status.peer_eligible = p_.peer_eligible;
    status.eligible = s_.eligible;
    status.outdated = state_.outdated;
    status.failover_under_way = o_.waits || step_ == Step::granted || step_ == Step::going_live;
    status.migrating = m_.on && (session_open() || deciding());
    status.switching = m_.holds_guest || outcome_open_;
    status.migrated = migrated_;
    status.step = to_string(step_);
    if (step_ == Step::following) {
        static constexpr const char* kStages[] = {"", "/staging", "/cut", "/verifying", "/persisting"};
        status.step += s_.job == Job::none ? kStages[static_cast<std::size_t>(s_.stage)]
                                           : (s_.job == Job::applying ? "/applying" : "/rolling-forward");
    }
    status.triggers = triggers_;
    status.checkpoints = checkpoints_;
    status.aborts = aborts_;
    // The copy on a secondary that is not loaded will be what was staged.
    status.power = !secondary ? power_ : s_.loaded ? s_.own_power : s_.staged_power;
    return status;
}

}  // namespace colo
