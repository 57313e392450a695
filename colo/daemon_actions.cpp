// SPDX-License-Identifier: Apache-2.0
// Carries out the node's actions, in order, and feeds the answers back.
#include "colo/client_reach.h"
#include "colo/control_interface.h"
#include "colo/daemon.h"
#include "core/clock.h"
#include "core/failpoint.h"
#include "core/log.h"
#include "schema/codec.h"

#include <chrono>

namespace colo {
namespace {

constexpr Duration kRuntimeCall{300'000};      // a call to the proxy thread; below progress_timeout
constexpr Duration kGuestCall{2'000'000};
constexpr Duration kOnlyCopyCall{20'000'000};  // no other copy could go on: patience
constexpr Duration kCloseFlush{20'000};
constexpr Duration kStoreSlow{2'000'000};  // the operator should know

Duration milliseconds(std::uint32_t value) { return Duration{static_cast<std::int64_t>(value) * 1000}; }

}  // namespace

void Daemon::post(std::function<void()> job)
{
    boost::asio::post(io_, std::move(job));
}

// Actions may make the node produce more (an action that fails at once); only the outermost call loops.
void Daemon::pump()
{
    if (pumping_) return;
    pumping_ = true;
    for (auto actions = node_->take_actions(); !actions.empty(); actions = node_->take_actions())
        for (const Action& action : actions) perform(action);
    pumping_ = false;
    // Outdated, dead or decided meanwhile: nobody may be shot for that any more. The node takes no late answer either.
    if (errand_->wants_any() && node_->status().step != "asking") errand_->cancel();
    arm_timer();
}

void Daemon::arm_timer()
{
    const Time next = node_->next_deadline();
    if (next == kNever) {
        node_timer_.cancel();
        return;
    }
    const Duration wait = std::max(next - now(), Duration{0});
    node_timer_.expires_after(std::chrono::microseconds(wait.count()));
    node_timer_.async_wait([this](const boost::system::error_code& error) {
        if (!error) feed([](Node& node) { node.tick(now()); });
    });
}

void Daemon::perform(const Action& action)
{
    std::visit([this](const auto& a) { on(a); }, action);
}

void Daemon::on(const action::BootGuest&)
{
    // Not the first one: the operator gave the other copy up, and a guest or a proxy of an earlier role is left here.
    const bool again = guest_created_;
    powered_off_ = suspended_ = false;
    guest_worker_->post([this, again] {
        Result<void> result = again ? runtime_->stand_down(now() + kRuntimeCall) : Result<void>{};
        if (result) result = runtime_->become_primary(now() + kRuntimeCall);
        if (result) runtime_->set_output(proxy::PrimaryProxy::Output::flow, 0);
        if (result && again) result = guest_->recreate(now() + boot_time());
        if (result) result = again ? guest_->resume(now() + kGuestCall) : guest_->create(replication::StartMode::boot, now() + boot_time());
        if (result && again) guest_->took_over();   // as a copy it was made
        post([this, result, again] {
            guest_created_ = true;
            feed([&](Node& node) { node.guest_booted(result, now()); });
            if (result || again) return;
            // Nothing can be served or protected here; whoever started us should see it.
            spdlog::error("the guest does not start: {}", result.error().text);
            exit_status_ = 1;
            finish();
        });
    });
}

void Daemon::on(const action::PrepareStandby&)
{
    drop_channels(Duration{0});
    if (secondary_) secondary_->close();
    const bool created = guest_created_;
    guest_created_ = true;
    guest_worker_->post([this] {
        if (auto r = runtime_->stand_down(now() + kRuntimeCall); !r) spdlog::error("proxy does not stand down: {}", r.error().text);
    });
    secondary_->prepare_standby(created, boot_time());
}

void Daemon::on(const action::Send& a)
{
    if (std::holds_alternative<replication::Staged>(a.message)) (void)failpoint::pass("s-before-staged", guest_->device_model_pid());
    if (link_)
        if (auto r = link_->send(a.message); !r)
            post([this, text = r.error().text] { feed([&](Node& node) { node.channel_lost(text, now()); }); });
    if (std::holds_alternative<replication::Staged>(a.message)) (void)failpoint::pass("s-after-staged", guest_->device_model_pid());
    if (std::holds_alternative<replication::Applied>(a.message)) (void)failpoint::pass("s-after-applied", guest_->device_model_pid());
    if (std::holds_alternative<replication::End>(a.message)) (void)failpoint::pass("p-after-end", guest_->device_model_pid());
}

void Daemon::on(const action::Persist& a)
{
    stored_ = a.state;
    auto slow = std::make_shared<boost::asio::steady_timer>(io_, std::chrono::microseconds(kStoreSlow.count()));
    slow->async_wait([this, slow, token = a.token](const boost::system::error_code& error) {
        if (error) return;
        const std::string why = "the state file in " + config_.state.directory + " could not be written for " +
                                std::to_string(kStoreSlow.count() / 1'000'000) + " s; is its disk all right?";
        spdlog::error("{}", why);
        feed([&](Node& node) { node.persist_slow(token, why, now()); });
    });
    storage_worker_->post([this, state = a.state, token = a.token, slow] {
        const auto result = state_directory_->store(state);
        post([this, token, result, slow] {
            slow->cancel();
            feed([&](Node& node) { node.persisted(token, result, now()); });
        });
    });
}

void Daemon::on(const action::OpenSession& a)
{
    session_ = a.session;
    checkpoints_.clear();
    passes_ = 0;
    copy_ = {};
    switch_begun_ = {};
    switch_sent_ = 0;
    switch_took_.reset();
    last_peer_text_.clear();
    // What another one did is over once a copy follows again; a port that failed stays failed.
    std::erase_if(warnings_, [](const std::string& text) { return text.starts_with(kAddressClash); });
    session_begun_ = now();
    setup_done_ = now();
    log::set_peer(peer_);
    adopt_channels(std::move(channels_));
}

void Daemon::on(const action::StartEpoch& a)
{
    next_pass();
    primary_->start_epoch(a);
}

void Daemon::on(const action::StartCut& a) { primary_->start_cut(a); }
void Daemon::on(const action::SendEpoch& a) { primary_->send_epoch(a.epoch); }

void Daemon::on(const action::AbortEpoch& a)
{
    checkpoints_.aborted();
    runtime_->aborted(a.epoch);
    primary_->abort_epoch(a.epoch);
}

void Daemon::on(const action::ReleaseStaged& a)
{
    (void)failpoint::pass("p-before-release", guest_->device_model_pid());
    runtime_->staged(a.epoch);
    primary_->staged(a.epoch);
    checkpoints_.staged(a.epoch, now());
    (void)failpoint::pass("p-after-release", guest_->device_model_pid());
    heartbeat_->set_epoch(a.epoch);
    log::set_epoch(a.epoch);
    for (auto it = checkpoint_waiting_.begin(); it != checkpoint_waiting_.end();) {
        if (it->first > a.epoch) {
            ++it;
            continue;
        }
        it->second({});
        it = checkpoint_waiting_.erase(it);
    }
}

void Daemon::on(const action::OpenComparer& a)
{
    runtime_->set_mode(a.mode);
    runtime_->applied(a.epoch);
    checkpoints_.applied(a.epoch, now());
    const CheckpointRecord* last = checkpoints_.find(a.epoch);
    if (last == nullptr) return;
    if (control_) control_->observer().checkpoint_applied(checkpoint_sample(*last));
    spdlog::debug("checkpoint {} ({}): pause {} us, {} pages, {} bytes, staged after {} us, applied after {} us", a.epoch,
                  replication::to_string(last->reason), last->cut.pause.count(), last->capture.fetched,
                  last->capture.sent_bytes, (last->staged - last->cut_begun).count(), (last->applied - last->cut_begun).count());
}

void Daemon::on(const action::StageBegin& a) { secondary_->stage_begin(a.epoch, a.base); }

void Daemon::on(const action::StageDrop& a)
{
    secondary_->stage_drop(a.epoch);
    runtime_->aborted(a.epoch);
}

void Daemon::on(const action::StageFinish& a) { secondary_->stage_finish(a.epoch, a.manifest); }

void Daemon::on(const action::Commit& a)
{
    secondary_->commit(a.epoch);
    heartbeat_->set_epoch(a.epoch);
    log::set_epoch(a.epoch);
}

void Daemon::on(const action::Apply& a) { secondary_->apply(a, milliseconds(config_.replication.apply_deadline_ms)); }
void Daemon::on(const action::RollForward& a)
{
    spdlog::warn("the device model did not take epoch {}: rolling forward on a new one", a.epoch);
    secondary_->roll_forward(a, boot_time());
}

void Daemon::on(const action::CloseSession& a)
{
    spdlog::info("session closed: {}", a.why);
    loss_noticed_ = now();
    loss_detection_.reset();
    const HeartbeatStatus beats = heartbeat_->status();
    for (std::size_t i = 0; i < beats.path_count; ++i)
        if (const HeartbeatPathStatus& path = beats.paths[i]; path.heard)
            loss_detection_ = std::min(loss_detection_.value_or(Duration::max()), loss_noticed_ - path.last_beat);
    session_ended_ = now();
    const Time last_answer = heartbeat_->close_session();
    drop_channels(kCloseFlush);
    runtime_->end_session();
    if (primary_) primary_->close();
    give_up_checkpoints(make_error(Errc::closed, "the session ended: " + a.why));
    post([this, last_answer] {
        feed([&](Node& node) { node.session_closed(last_answer, now()); });
        if (ending_) finish();
    });
}

void Daemon::on(const action::SetOutput& a)
{
    const auto output = static_cast<proxy::PrimaryProxy::Output>(a.output);
    if (output == proxy::PrimaryProxy::Output::frozen) runtime_->freeze();
    if (output == proxy::PrimaryProxy::Output::flow) thaw(a.generation);
    runtime_->set_output(output, a.generation);
    if (output == proxy::PrimaryProxy::Output::flow && a.generation != 0) note_failover(a.generation);
}

// The node lets output flow only behind a decision that is on disk; a frozen proxy follows it. The heartbeat thread may have
// frozen it since for a generation that the node has not heard of yet: that freeze stays, also if it comes just now (the
// core holds everything until the order that follows this one).
void Daemon::thaw(Generation generation)
{
    if (frozen_for_.load() > generation) return;
    runtime_->thaw();
    if (frozen_for_.load() > generation) runtime_->freeze();
}

// The waits that are about this host, not about the protocol: both sides of a fence command must not shoot each other, and
// a side whose clients are cut off should let the other one win (see also seek_clients).
void Daemon::on(const action::RequestGrant& a)
{
    const Role role = node_->status().role;
    Duration wait{0};
    if (a.client_link_down) wait += milliseconds(config_.arbiter.link_penalty_ms);
    if (config_.arbiter.kind == ArbiterKind::command && role == Role::secondary && !a.peer_abdicated)
        wait += milliseconds(config_.arbiter.fence_delay_ms);
    errand_->want(a.generation);
    const bool contested = !a.peer_abdicated;
    if (wait == Duration{0}) return ask_arbiter(a.generation, role, contested);
    auto timer = std::make_shared<boost::asio::steady_timer>(io_, std::chrono::microseconds(wait.count()));
    timer->async_wait([this, timer, generation = a.generation, role, contested](const boost::system::error_code& error) {
        if (!error && errand_->wants(generation)) ask_arbiter(generation, role, contested);
    });
}

// `contested`: the peer may ask too.
void Daemon::ask_arbiter(Generation generation, Role role, bool contested)
{
    if (contested && std::exchange(clients_sought_for_, generation) != generation) {  // once, not with every repetition
        const bool fences = config_.arbiter.kind == ArbiterKind::command;
        const Duration limit = unreached_wait(role, milliseconds(config_.arbiter.unreached_delay_ms),
                                              milliseconds(fences ? config_.arbiter.fence_delay_ms : 0));
        ReachQuestion question{role, limit, runtime_->stats().clients, runtime_->host_interfaces(),
                               [this] { return runtime_->last_heard(); },
                               [this, generation] { return errand_->wants(generation); }};
        arbiter_worker_->post([question = std::move(question)] {
            if (const ReachAnswer answer = seek_clients(question); !answer.text.empty())
                spdlog::log(answer.reached ? spdlog::level::debug : spdlog::level::warn, "before asking: {}", answer.text);
        });
    }
    arbiter_worker_->post([this] { (void)failpoint::pass("s-before-grant", guest_->device_model_pid()); });
    errand_->ask({generation, role, config_.peer.address}, milliseconds(config_.arbiter.timeout_ms), [this, generation](const GrantResult& result) {
        spdlog::info("generation {}: {}{}{}", generation,
                     result.outcome == GrantOutcome::granted ? "granted" : result.outcome == GrantOutcome::refused ? "refused" : "not decided",
                     result.reason.empty() ? "" : ": ", result.reason);
        post([this, generation, result] {
            feed([&](Node& node) { node.grant_result(generation, result.outcome, result.reason, now()); });
        });
    });
}

void Daemon::on(const action::StopGuest& a)
{
    spdlog::warn("guest stopped: {}", a.why);
    if (a.only_copy) {
        // Nobody else has this guest: one that is late is asked for longer, and is not killed for it.
        guest_worker_->post([this] {
            const auto r = guest_->stop(now() + kOnlyCopyCall);
            if (r) return post([this] { feed([](Node& node) { node.guest_halted(now()); }); });
            post([this, text = "the guest does not stop: " + r.error().text] { feed([&](Node& node) { node.channel_lost(text, now()); }); });
        });
        return;
    }
    guest_worker_->post([this] {
        if (auto r = guest_->stop(now() + kGuestCall); !r) {
            spdlog::error("guest does not stop ({}): killed", r.error().text);
            guest_->kill();
        }
    });
}

void Daemon::on(const action::ResumeGuest&)
{
    guest_worker_->post([this] {
        auto r = guest_->carry_out_reset(true, now() + boot_time());   // one that came while it was not clear who runs it
        if (r) r = run_resume(*guest_, now() + kOnlyCopyCall);
        if (r) return;
        // Nobody else would notice a guest that is paused for ever and counts as serving.
        post([this, text = "it does not resume: " + r.error().text] {
            feed([&](Node& node) { node.guest_event({replication::GuestEventKind::device_model_died, text}, now()); });
        });
    });
}

void Daemon::on(const action::KillGuest& a)
{
    spdlog::warn("guest killed: {}", a.why);
    guest_->kill();
}

void Daemon::on(const action::GoLive& a)
{
    guest_worker_->post([this, generation = a.generation, power = a.power] {
        (void)failpoint::pass("s-before-live", guest_->device_model_pid());
        guest_->took_over();   // first: a daemon that dies from here on has granted it to itself, and the next one must know
        Result<void> result = runtime_->go_live(generation, now() + kGuestCall);
        if (result && power == replication::PowerState::running && !guest_->running()) result = run_resume(*guest_, now() + kGuestCall);
        // This copy rebooted by itself, and no checkpoint has come since to take that back.
        if (result && power == replication::PowerState::running && !guest_->running()) result = guest_->carry_out_reset(true, now() + boot_time());
        if (result) (void)failpoint::pass("s-after-live", guest_->device_model_pid());
        post([this, result, generation] {
            if (result) {
                note_failover(generation);
                secondary_->release_memory();
            }
            feed([&](Node& node) { node.went_live(result, now()); });
        });
        if (result) guest_->dirty_log().stop();   // of the copy that it was; it costs, and nobody reads it
    });
}

void Daemon::on(const action::Beat& a)
{
    HeartbeatIdentity identity;
    identity.role = a.role;
    identity.generation = a.generation;
    identity.session = a.session;
    identity.closed = a.closed;
    heartbeat_->become(identity);
}

void Daemon::on(const action::Changed& a)
{
    const NodeStatus status = node_->status();
    log::set_role(to_string(status.role));
    if (a.protection != protection_) protection_since_ = now();
    protection_ = a.protection;
    protection_reason_ = a.reason;
    const auto level = a.protection == Protection::outdated || a.protection == Protection::failed ? spdlog::level::err
                       : a.protection == Protection::deciding || a.protection == Protection::abdicated ? spdlog::level::warn
                                                                                                       : spdlog::level::info;
    spdlog::log(level, "{}{}{}", schema::to_string(state_of(status, powered_off_)), a.reason.empty() ? "" : ": ", a.reason);
    if (a.protection == Protection::standby && early_)
        post([this, early = std::exchange(early_, nullptr)] { arrived(std::move(*early)); });
    if (!control_) return;
    if (a.protection == Protection::syncing) {
        if (status.role == Role::primary)
            control_->observer().outgoing(TransferPhase::active);
        else
            control_->observer().incoming(TransferPhase::active);
    }
    control_->observer().state_changed();
}

void Daemon::on(const action::ColoExit& a)
{
    (void)a.mode;
    if (!control_) return;
    if (a.reason == ColoExitReason::error)
        control_->observer().colo_peer_lost();
    else
        control_->observer().colo_left(true);
}

void Daemon::on(const action::ColoEntered& a)
{
    if (control_)
        control_->observer().colo_entered(a.mode == Role::primary ? schema::COLOMode::primary : schema::COLOMode::secondary);
}

void Daemon::on(const action::SessionFailed& a)
{
    if (!control_) return;
    if (node_->status().role == Role::primary)
        control_->observer().outgoing(TransferPhase::failed, a.reason);
    else {
        incoming_failed_ = true;
        control_->observer().incoming(TransferPhase::failed, a.reason);
    }
}

void Daemon::on(const action::SwitchOver& a)
{
    if (control_) control_->observer().outgoing(a.waits ? TransferPhase::pre_switchover : TransferPhase::device);
}

void Daemon::on(const action::Migrated&)
{
    if (switch_begun_.us != 0) switch_took_ = now() - switch_begun_;
    const bool source = node_->status().migrated;
    if (source) spdlog::info("migrated: the guest stood still for {} us", switch_took_.value_or(Duration{0}).count());
    if (!control_) return;
    if (source)
        control_->observer().outgoing(TransferPhase::completed);
    else
        control_->observer().incoming(TransferPhase::completed);
}

void Daemon::on(const action::OperatorDone& a) { answer_operator(a.result); }

void Daemon::on(const action::ModeChanged& a)
{
    mode_reason_ = a.reason;
    spdlog::info("mode {}: {}", replication::to_string(a.mode), a.reason);
    if (control_) control_->observer().state_changed();
}

void Daemon::answer_operator(const Result<void>& result)
{
    if (operator_command_ && operator_command_->pending) {
        operator_command_->pending = false;
        if (!result) operator_command_->error = result.error().text;
        spdlog::info("{}: {}", operator_command_->command, result ? "done" : result.error().text);
    }
    operator_timer_.cancel();
    if (const Done done = std::exchange(operator_waiting_, nullptr)) done(result);
}

// This side's output flows on its own after a loss.
void Daemon::note_failover(Generation generation)
{
    if (loss_noticed_.us == 0) return;
    schema::FailoverReport report;
    report.time_ms = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
    report.cause = protection_reason_;
    report.generation = generation;
    report.duration_us = static_cast<std::uint64_t>((now() - loss_noticed_).count());
    if (loss_detection_) report.detection_us = static_cast<std::uint64_t>(std::max<std::int64_t>(loss_detection_->count(), 0));
    last_failover_ = report;
    spdlog::info("live {} us after the loss was noticed, generation {}", report.duration_us, report.generation);
    loss_noticed_ = {};
}

}  // namespace colo
