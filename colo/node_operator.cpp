// SPDX-License-Identifier: Apache-2.0
#include "colo/node_impl.h"
#include "colo/standby_texts.h"

namespace colo {
namespace {

constexpr const char* kNotInColo = "The feature 'colo' is not enabled";
constexpr const char* kUnderWay = "COLO failover is already activated";

}  // namespace

bool NodeImpl::in_colo() const
{
    if (deciding() || step_ == Step::abdicating) return true;
    return colo_entered_ && (primary_session() || (step_ == Step::following && s_.eligible));
}

void NodeImpl::finish_operator(Result<void> result)
{
    const bool waits = o_.waits;
    o_ = {};
    if (waits) act(action::OperatorDone{std::move(result)});
}

Result<void> NodeImpl::pause(bool paused, Time now)
{
    using replication::PowerState;
    if (role_ == Role::secondary && !state_.outdated) return make_error(Errc::refused, kStoppedThere);
    if (migrated_ && !paused) return make_error(Errc::refused, kMigratedAway);
    if (role_ != Role::primary || step_ == Step::stopped || step_ == Step::abdicating || state_.outdated)
        return make_error(Errc::refused, std::string("This side may not run the guest: it is ") + colo::to_string(protection_) +
                                             (reason_.empty() ? "" : " (" + reason_ + ")"));
    if (m_.holds_guest) return make_error(Errc::refused, "Migration is not finalized yet");
    const PowerState wanted = paused ? PowerState::paused : PowerState::running;
    if (!paused && (power_ == PowerState::powered_off || power_ == PowerState::panicked))
        return make_error(Errc::refused, "Resetting the Virtual Machine is required");
    if (power_ == wanted || power_ == PowerState::powered_off || power_ == PowerState::panicked) return {};
    power_ = wanted;
    trigger(replication::TriggerReason::power_event, now);
    return {};
}

Result<void> NodeImpl::lost_heartbeat(Time now)
{
    if (step_ == Step::stopped && state_.outdated)
        return make_error(Errc::refused, "this copy is outdated (" + state_.reason +
                                             "): only `coloctl failover " + config_.domain_name +
                                             " --accept-data-loss` makes it run");
    if (!in_colo()) return make_error(Errc::refused, kNotInColo);
    if (o_.waits || o_.ask != Ask::none || step_ == Step::abdicating) return make_error(Errc::refused, kUnderWay);
    if (!deciding()) return negotiate(Ask::failover, now);
    const bool open = step_ == Step::closing || step_ == Step::lease_wait || step_ == Step::asking;
    if (config_.arbiter != ArbiterKind::manual || !open || d_.vouched) return make_error(Errc::refused, kUnderWay);
    o_.waits = o_.finishing = true;
    d_.vouched = true;
    if (step_ == Step::asking) ask(now);
    return {};
}

Result<void> NodeImpl::failover(bool accept, Time now)
{
    const bool session = in_colo() && !deciding();
    return accept && !session ? accept_data_loss(now) : lost_heartbeat(now);
}

// The link is up: the peer is asked to step back. Should it not answer, the session is closed and the grant decides.
Result<void> NodeImpl::negotiate(Ask ask, Time now)
{
    o_.waits = ask != Ask::pressure;
    o_.ask = ask;
    o_.deadline = now + resign_time();
    if (role_ == Role::primary)
        send(replication::ResignRequest{});
    else
        send(replication::Handover{});
    return {};
}

void NodeImpl::operator_expired(Time now)
{
    o_.finishing = o_.ask != Ask::pressure;
    o_.vouches = o_.ask == Ask::failover;
    o_.ask = Ask::none;
    lost("the peer did not step back within " + std::to_string(resign_time().count() / 1000) + " ms", now);
}

Result<void> NodeImpl::unprotect(Time now)
{
    if (o_.waits || o_.ask != Ask::none || deciding() || step_ == Step::abdicating)
        return make_error(Errc::refused, kUnderWay);
    if (primary_session() && !p_.peer_eligible) {
        o_.waits = true;   // cancelling ends in serve_on, which answers
        cancel_session("unprotected by the operator", now);
        return {};
    }
    if (primary_session()) return negotiate(Ask::unprotect, now);
    if (step_ == Step::following) {
        o_.waits = true;
        resign("the operator ended the protection on the secondary", now);
        return {};
    }
    return make_error(Errc::refused, kNotInColo);
}

Result<void> NodeImpl::hand_over(Time now)
{
    if (!primary_session() || !p_.peer_eligible) return make_error(Errc::refused, kNotInColo);
    if (o_.waits || o_.ask != Ask::none || step_ == Step::abdicating) return make_error(Errc::refused, kUnderWay);
    o_.finishing = true;
    abdicate("the primary's daemon ends", now);
    return {};
}

void NodeImpl::cancel_session(const std::string& why, Time now)
{
    // The destination may be the one to run: it is asked to step back. When it has the guest already, nothing is left to cancel.
    if (m_.on && primary_session() && p_.peer_eligible && o_.ask == Ask::none) {
        (void)negotiate(Ask::pressure, now);
        return;
    }
    const bool primary = primary_session() && !p_.peer_eligible;
    const bool secondary = secondary_session() && !s_.eligible;
    if (!primary && !secondary) return;
    send(replication::Close{why});
    lost(why, now);
}

// The operator knows that the other copy is lost, or gives it up.
Result<void> NodeImpl::accept_data_loss(Time now)
{
    if (step_ == Step::alone || step_ == Step::booting) return make_error(Errc::refused, "this side serves already");
    if (deciding()) {
        const bool open = step_ == Step::closing || step_ == Step::lease_wait || step_ == Step::asking;
        if (!open || d_.override_generation != 0) return make_error(Errc::refused, kUnderWay);
        o_.waits = true;
        d_.override_generation = next_thousand(state_.generation);
        if (step_ == Step::asking) ask(now);
        return {};
    }
    if (step_ != Step::stopped && step_ != Step::standby)
        return make_error(Errc::refused, "a session is being set up or ended; try again when it is over");
    o_.waits = true;
    state_.generation = next_thousand(state_.generation);
    reason_ = "the operator accepted the loss of the other copy";
    if (step_ == Step::standby) {
        act(action::KillGuest{reason_});
        guest_present_ = false;
    }
    if (!guest_present_) {
        start_primary(now);
        return {};
    }
    role_ = Role::primary;
    d_ = {};
    grant_on_stopped_guest();
    return {};
}

void NodeImpl::grant_on_stopped_guest()
{
    state_ = {state_.domain_uuid, state_.generation, Role::primary, 0, false, false, false, ""};
    persist([this](const Result<void>& result, Time now) {
        if (!result) {
            // Still stopped, still outdated on disk: the operator may try again.
            state_.outdated = true;
            return finish_operator(with_context("the state file cannot be written", result.error()));
        }
        guest_stopped_ = false;
        if (power_ == replication::PowerState::paused) power_ = replication::PowerState::running;
        act(action::ResumeGuest{});
        serve_on(now);
    });
}

}  // namespace colo
