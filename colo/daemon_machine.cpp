// SPDX-License-Identifier: Apache-2.0
// The guest as a machine: its power events, its buttons, how fast it dirties its memory.
#include "colo/control_interface.h"
#include "colo/daemon.h"
#include "colo/handlers/refusals.h"
#include "core/clock.h"
#include "core/log.h"

namespace colo {
namespace {

constexpr Duration kButton{10'000'000};  // a channel that is late is dead, and the guest with it: patience

}  // namespace

void Daemon::guest_event(const replication::GuestEvent& event)
{
    using Kind = replication::GuestEventKind;
    spdlog::info("guest: {}", event.detail);
    const bool primary = node_->status().role == Role::primary;
    const auto tell = [&](auto call) {
        if (primary && control_) call(control_->observer());
    };
    switch (event.kind) {
    case Kind::power_button: return tell([](ServiceObserver& o) { o.power_button(); });
    case Kind::suspended:
    case Kind::woken:
        suspended_ = event.kind == Kind::suspended;
        return tell([this](ServiceObserver& o) { suspended_ ? o.suspended() : o.woken(); });
    case Kind::device_model_died:
        died_attached_ = attached_;
        suspended_ = false;
        dirty_rate_->abandon("the device model died");
        if (guest_running_ && control_) control_->observer().guest_stopped();
        guest_running_ = false;
        held_.clear();
        seized_ = false;
        break;
    case Kind::gone: return guest_worker_->post([this] { guest_->let_go(); });
    case Kind::paused_outside:
    case Kind::seized_outside:
        held_ = event.detail;
        seized_ = event.kind == Kind::seized_outside;
        // Here the word failover would mean that the copy goes.
        if (seized_ && primary && node_->status().protection == Protection::in_sync)
            held_ += "; should that tool be gone without letting it go, run on the OTHER host: coloctl failover " + config_.domain.name;
        if (seized_) give_up_checkpoints(make_error(Errc::refused, held_));
        spdlog::warn("the guest is held: {}", held_);
        break;
    case Kind::resumed_outside:
        held_.clear();
        seized_ = false;
        break;
    case Kind::reset:
        suspended_ = seized_ = false;
        if (!primary) break;
        powered_off_ = false;
        reset_while_stopped_ = !guest_running_;
        if (!event.by_host) carry_out_reset();
        tell([&](ServiceObserver& o) {
            o.reset(!event.by_host,
                    event.by_host ? schema::ShutdownCause::host_qmp_system_reset : schema::ShutdownCause::guest_reset);
        });
        break;
    case Kind::power_off:
        seized_ = false;
        powered_off_ = powered_off_ || primary;
        tell([](ServiceObserver& o) { o.shutdown(true, schema::ShutdownCause::guest_shutdown); });
        break;
    case Kind::panicked:   // stopped, not off: no SHUTDOWN
        seized_ = false;
        tell([](ServiceObserver& o) { o.panicked(); });
        break;
    }
    feed([&](Node& node) { node.guest_event(event, now()); });
}

// In front of the cut for which the event asks: both are jobs of the guest thread.
void Daemon::carry_out_reset()
{
    const NodeStatus status = node_->status();
    // Where it may not run, or goes elsewhere, it stays as it is; should it be let go here after all, ResumeGuest looks again.
    if (status.outdated || status.switching || status.protection == Protection::abdicated || status.protection == Protection::failed) return;
    const bool run = status.power == replication::PowerState::running;
    renew_guest([run](replication::Guest& guest, Deadline deadline) { return guest.carry_out_reset(run, deadline); },
                [this](const Result<void>& result) {
                    if (!result) guest_event({replication::GuestEventKind::device_model_died, "it does not start again: " + result.error().text});
                });
}

// Some guests take as long as a boot for it: no checkpoint that waits behind it is late.
void Daemon::renew_guest(std::function<Result<void>(replication::Guest&, Deadline)> renew, Done done)
{
    if (renewing_++ == 0) feed([](Node& node) { node.guest_renewing(true, now()); });
    with_guest(std::move(renew), boot_time(), [this, done = std::move(done)](const Result<void>& result) {
        if (--renewing_ == 0) feed([](Node& node) { node.guest_renewing(false, now()); });
        done(result);
    });
}

// A copy that follows has no power events of its own: what happens to the primary's guest arrives with the next
// checkpoint.
Result<void> Daemon::decides_about_guest() const
{
    const NodeStatus status = node_->status();
    if (status.role == Role::secondary) return refusal_error(Refused::standby);
    if (status.role != Role::primary || !guest_created_) return make_error(Errc::refused, "There is no guest here yet");
    if (status.outdated || status.protection == Protection::abdicated)
        return make_error(Errc::refused, std::string("This side does not run the guest: it is ") +
                                             to_string(status.protection) +
                                             (status.reason.empty() ? "" : " (" + status.reason + ")"));
    return {};
}

void Daemon::precheck(Checked done)
{
    if (!guest_created_) return done(make_error(Errc::refused, "There is no guest here yet"));
    guest_worker_->post([this, done = std::move(done)]() mutable {
        auto checks = guest_->precheck(now() + kButton);
        post([done = std::move(done), checks = std::move(checks)] {
            if (!checks) return done(checks.error());
            std::vector<schema::GuestCheck> out;
            for (const replication::GuestCheck& one : *checks) {
                schema::GuestCheck made;
                made.check = one.check;
                made.ok = one.ok;
                made.text = one.text;
                out.push_back(std::move(made));
            }
            done(std::move(out));
        });
    });
}

void Daemon::system_reset(Done done)
{
    if (auto r = decides_about_guest(); !r) return done(r);
    if (node_->status().switching) return done(make_error(Errc::refused, "Migration is not finalized yet"));
    renew_guest([](replication::Guest& guest, Deadline deadline) { return guest.reset(deadline); }, std::move(done));
}

void Daemon::system_powerdown(Done done)
{
    if (auto r = decides_about_guest(); !r) return done(r);
    with_guest([](replication::Guest& guest, Deadline deadline) { return guest.powerdown(deadline); }, kButton,
               std::move(done));
}

Result<void> Daemon::calc_dirty_rate(schema::DirtyRateMeasureMode mode, std::int64_t calc_time_s,
                                     std::uint64_t sample_pages)
{
    if (auto r = decides_about_guest(); !r) return r;
    dirty_rate_->start({mode, calc_time_s, sample_pages});
    // The window opens with a checkpoint; one that is taken now saves waiting for the period.
    if (mode == schema::DirtyRateMeasureMode::dirty_bitmap && node_->status().protection == Protection::in_sync)
        feed([](Node& node) { node.trigger(replication::TriggerReason::operator_request, now()); });
    return {};
}

}  // namespace colo
