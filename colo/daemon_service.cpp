// SPDX-License-Identifier: Apache-2.0
// What the control interface asks for.
#include "colo/control_interface.h"
#include "colo/daemon.h"
#include "colo/handlers/refusals.h"
#include "core/clock.h"

#include <algorithm>
#include <chrono>
#include <csignal>

namespace colo {
namespace {

constexpr Duration kGuestCall{2'000'000};
constexpr Duration kDeviceState{10'000'000};
constexpr std::size_t kWaitingMax = 64;
// Shorter than what coloctl waits for one answer: it shall show our reason, not that there was none.
constexpr std::chrono::seconds kOperatorAnswer{4};

}  // namespace

ServiceIdentity Daemon::identity() const
{
    ServiceIdentity identity;
    identity.version = COLO_VERSION;
    identity.domain = config_.domain.name;
    identity.uuid = config_.domain.uuid;
    identity.kvm_present = ::access("/dev/kvm", F_OK) == 0;
    identity.kvm_enabled = guest_created_ && guest_->description().accelerator == "kvm";
    return identity;
}

schema::RunState Daemon::run_state() const
{
    const NodeStatus status = node_->status();
    if (powered_off_ || (status.role == Role::primary && status.power == replication::PowerState::powered_off))
        return schema::RunState::shutdown;
    if (status.role == Role::primary && status.power == replication::PowerState::panicked)
        return schema::RunState::guest_panicked;
    // Changes together with the migration's status. Until then the guest that was stopped for it belongs to nobody yet.
    if (status.migrated) return schema::RunState::postmigrate;
    if (status.switching && !guest_running_) return schema::RunState::finish_migrate;
    if (status.migrating && status.role == Role::secondary && !guest_running_) return schema::RunState::inmigrate;
    switch (status.protection) {
    case Protection::idle: return schema::RunState::prelaunch;
    case Protection::standby:
    case Protection::connecting:
    case Protection::syncing:
        if (status.role == Role::secondary) return schema::RunState::inmigrate;
        break;
    case Protection::failed: return schema::RunState::internal_error;
    case Protection::outdated:
    case Protection::abdicated: return guest_running_ ? schema::RunState::running : stopped_as_.value();
    default: break;
    }
    if (!held_.empty() && status.role == Role::primary) return schema::RunState::paused;
    if (guest_running_) return suspended_ ? schema::RunState::suspended : schema::RunState::running;
    const bool paused = status.power == replication::PowerState::paused;
    if (reset_while_stopped_ && (session_ == 0 || paused)) return schema::RunState::prelaunch;
    if (paused) return stopped_as_.value();
    return session_ != 0 || status.protection == Protection::deciding ? schema::RunState::colo : stopped_as_.value();
}

// Guest work for one command: on the guest thread, behind whatever checkpoint is under way there.
void Daemon::with_guest(std::function<Result<void>(replication::Guest&, Deadline)> work, Duration bound, Done done)
{
    auto shared = std::make_shared<Done>(std::move(done));
    guest_worker_->post([this, work = std::move(work), bound, shared] {
        const auto result = work(*guest_, now() + bound);
        post([shared, result] { (*shared)(result); });
    });
}

// The node knows first: a cut that it starts from now on leaves the guest paused (or lets it run), whatever the order in
// which cut and command reach the guest.
void Daemon::pause(bool paused, std::function<Result<void>(replication::Guest&, Deadline)> work, Done done)
{
    Result<void> allowed;
    feed([&](Node& node) { allowed = node.pause(paused, now()); });
    if (!allowed) return done(allowed);
    with_guest(std::move(work), kGuestCall, [this, paused, done = std::move(done)](const Result<void>& result) {
        if (!result) feed([&](Node& node) { (void)node.pause(!paused, now()); });
        done(result);
    });
}

void Daemon::stop(schema::RunState as, Done done)
{
    stopped_as_.stop(as);  // before the observer hears of it
    pause(true, [](replication::Guest& guest, Deadline deadline) { return guest.stop(deadline); },
          [this, done = std::move(done)](const Result<void>& stopped) {
              if (!stopped) stopped_as_.stop(schema::RunState::paused);
              done(stopped);
          });
}

void Daemon::cont(Done done)
{
    pause(false, [](replication::Guest& guest, Deadline deadline) { return guest.resume(deadline); }, std::move(done));
}

void Daemon::quit()
{
    // The answer has to leave first.
    post([this] { end_in_order(); });
}

void Daemon::migrate_incoming(const std::string& uri, std::optional<SessionKind> kind, Done done)
{
    if (listener_ && !incoming_failed_) return done(make_error(Errc::refused, "The incoming migration has already been started"));
    listener_.reset();   // first: the new one may want the same port; a moment's wait, and no session is there to suffer
    auto listener = SessionListener::open(uri, [this](SessionChannels channels) {
        auto shared = std::make_shared<SessionChannels>(std::move(channels));
        post([this, shared] { arrived(std::move(*shared)); });
    }, session_sockets(longest_epoch()));
    if (!listener) return done(listener.error());
    listener_ = std::move(*listener);
    incoming_failed_ = false;
    node_->await_session(kind);
    done({});
}

void Daemon::migrate_cancel()
{
    const NodeStatus status = node_->status();
    if (status.protection == Protection::in_sync || status.role != Role::primary) return;
    if (session_ == 0) return;
    if (!link_) session_ = 0;   // still dialling: dialled() drops what comes
    feed([](Node& node) { node.cancel_session("cancelled by the operator", now()); });
    // A destination that has the whole guest answers first: it steps back, or has it already.
    if (session_ != 0) return;
    if (control_) control_->observer().outgoing(TransferPhase::cancelled);
}

void Daemon::migrate_continue()
{
    feed([](Node& node) { node.switch_over(now()); });
}

std::vector<schema::SocketAddress> Daemon::listening() const
{
    if (!listener_) return {};
    if (listener_->uri().starts_with(kUnixScheme)) {
        schema::SocketAddressUnix address;
        address.path = listener_->uri().substr(kUnixScheme.size());
        return {schema::SocketAddress{address}};
    }
    const auto uri = parse_tcp_uri(listener_->uri());
    if (!uri) return {};
    schema::SocketAddressInet inet;
    inet.host = uri->host;
    inet.port = std::to_string(uri->port);
    (uri->host.find(':') == std::string::npos ? inet.ipv4 : inet.ipv6) = true;
    return {schema::SocketAddress{inet}};
}

std::vector<std::string> Daemon::blocked_reasons() const
{
    const NodeStatus status = node_->status();
    if (status.protection == Protection::outdated || status.protection == Protection::abdicated ||
        status.protection == Protection::failed)
        return {std::string("this side is ") + to_string(status.protection) + ": " + status.reason};
    if (powered_off_) return {"the guest is powered off"};
    return {};
}

std::uint64_t Daemon::bytes_sent() const
{
    return page_sender_ ? page_sender_->bytes_sent() : checkpoints_.sent_bytes();
}

TransferFacts Daemon::transfer() const
{
    TransferFacts facts;
    const auto as_int = [](std::uint64_t v) { return static_cast<std::int64_t>(std::min<std::uint64_t>(v, INT64_MAX)); };
    const std::uint64_t sent = bytes_sent();
    facts.ram.page_size = static_cast<std::int64_t>(kPageSize);
    facts.ram.total = as_int(config_.guest.memory_mib << 20);
    facts.ram.transferred = as_int(sent);
    facts.ram.remaining = as_int(copy_.left_bytes);
    // The log has a transfer when it is complete.
    const bool complete = checkpoints_.count() > 0;
    const std::uint64_t zero = complete ? checkpoints_.zero_pages() : copy_.stats.zero;
    const std::uint64_t pages = complete ? checkpoints_.pages() : copy_.stats.zero + copy_.stats.delta + copy_.stats.full;
    facts.ram.duplicate = as_int(zero);
    facts.ram.normal = as_int(pages - std::min(pages, zero));
    facts.ram.dirty_pages_rate = as_int(copy_.dirty_pages_per_second);
    facts.ram.normal_bytes = facts.ram.normal * facts.ram.page_size;
    facts.ram.downtime_bytes = switch_begun_.us != 0 ? sent - std::min(sent, switch_sent_) : 0;
    facts.ram.precopy_bytes = sent - facts.ram.downtime_bytes;
    facts.ram.multifd_bytes = sent;
    facts.ram.dirty_sync_count = as_int(std::max<std::uint64_t>(passes_, 1));
    const Time end = session_ != 0 ? now() : session_ended_;
    const Duration total = session_begun_.us != 0 && end > session_begun_ ? end - session_begun_ : Duration{0};
    facts.total_time_ms = total.count() / 1000;
    facts.setup_time_ms = setup_done_ > session_begun_ ? (setup_done_ - session_begun_).count() / 1000 : 0;
    if (total.count() > 0) {
        facts.ram.mbps = static_cast<double>(sent) * 8.0 / static_cast<double>(total.count());
        facts.ram.pages_per_second = pages * 1'000'000 / static_cast<std::uint64_t>(total.count());
    }
    if (const CheckpointRecord* last = checkpoints_.last()) facts.downtime_ms = last->cut.pause.count() / 1000;
    facts.expected_downtime_ms = facts.downtime_ms;
    if (const NodeStatus status = node_->status(); status.migrating || status.migrated) {
        facts.expected_downtime_ms = copy_.expected_downtime.count() / 1000;
        facts.downtime_ms = switch_took_.value_or(Duration{0}).count() / 1000;
    }
    const std::uint64_t full_bytes = checkpoints_.full_pages() * kPageSize;
    facts.deltas.pages = as_int(checkpoints_.delta_pages());
    facts.deltas.bytes = as_int(checkpoints_.raw_bytes() - std::min(checkpoints_.raw_bytes(), full_bytes));
    facts.deltas.cache_miss = as_int(checkpoints_.full_pages());
    if (const std::uint64_t tried = checkpoints_.delta_pages() + checkpoints_.full_pages(); tried > 0)
        facts.deltas.cache_miss_rate = static_cast<double>(checkpoints_.full_pages()) / static_cast<double>(tried);
    if (facts.deltas.bytes > 0)
        facts.deltas.encoding_rate = static_cast<double>(facts.deltas.pages * facts.ram.page_size) / static_cast<double>(facts.deltas.bytes);
    return facts;
}

void Daemon::lost_heartbeat(Done done)
{
    Result<void> accepted;
    feed([&](Node& node) {
        accepted = node.lost_heartbeat(now());
        if (accepted) operator_command_ = schema::OperatorCommand{"x-colo-lost-heartbeat", true, {}};
    });
    if (accepted && control_) control_->observer().colo_failover_started();
    done(accepted);
}

void Daemon::failover(bool accept_data_loss, Done done)
{
    Result<void> accepted;
    feed([&](Node& node) {
        accepted = node.failover(accept_data_loss, now());
        if (accepted) operator_command_ = schema::OperatorCommand{"x-colo-failover", true, {}};
    });
    if (!accepted) return done(accepted);
    if (control_) control_->observer().colo_failover_started();
    done({});
}

void Daemon::unprotect(Done done)
{
    Result<void> accepted;
    feed([&](Node& node) {
        accepted = node.unprotect(now());
        if (!accepted) return;
        // The node accepts one at a time, so nobody else waits. The outcome may come before feed() returns.
        operator_command_ = schema::OperatorCommand{"x-colo-unprotect", true, {}};
        operator_waiting_ = done;
    });
    if (!accepted) return done(accepted);
    if (!operator_waiting_) return;
    operator_timer_.expires_after(kOperatorAnswer);
    operator_timer_.async_wait([this](const boost::system::error_code& error) {
        if (error || !operator_waiting_) return;
        const NodeStatus status = node_->status();
        std::exchange(operator_waiting_, nullptr)(
            make_error(Errc::timed_out, std::string("not done yet, it goes on: this side is ") + to_string(status.protection) +
                                            (status.reason.empty() ? "" : " (" + status.reason + ")")));
    });
}

void Daemon::do_checkpoint(Done done)
{
    const NodeStatus status = node_->status();
    if (status.role != Role::primary || status.protection != Protection::in_sync) return done({});
    if (seized_) return done(make_error(Errc::refused, held_));   // until that is over none is made
    if (checkpoint_waiting_.size() >= kWaitingMax) return done(make_error(Errc::limit, "too many checkpoints are waited for"));
    checkpoint_waiting_.emplace_back(std::max(status.epoch, status.staged) + 1, std::move(done));
    feed([](Node& node) { node.trigger(replication::TriggerReason::operator_request, now()); });
}

void Daemon::give_up_checkpoints(const Error& why)
{
    for (auto& [epoch, done] : std::exchange(checkpoint_waiting_, {})) done(why);
}

void Daemon::save_device_state(const std::string& file, bool live, Done done)
{
    stopped_as_.begin_save(guest_running_);   // what a client sees between STOP and RESUME
    with_guest([file, live](replication::Guest& g, Deadline d) { return g.save_device_state(file, live, d); },
               kDeviceState,
               [this, done = std::move(done)](const Result<void>& result) {
                   stopped_as_.end_save();
                   done(result);
               });
}

void Daemon::load_device_state(const std::string& file, Done done)
{
    if (session_ != 0) return done(refusal_error(Refused::session_state));
    with_guest([file](replication::Guest& g, Deadline d) { return g.load_device_state(file, d); }, kDeviceState, std::move(done));
}

void Daemon::set_global_dirty_log(bool enable, Done done)
{
    with_guest([enable](replication::Guest& g, Deadline d) { return g.set_global_dirty_log(enable, d); }, kGuestCall, std::move(done));
}

void Daemon::set_checkpoint_interval(Duration interval)
{
    feed([&](Node& node) { node.set_checkpoint_interval(interval, now()); });
}

void Daemon::set_pause_bound(Duration bound)
{
    node_->set_pause_bound(bound);
    primary_->set_downtime_limit(bound);
}

void Daemon::set_page_channels(std::uint8_t count)
{
    page_channels_ = count;
}

void Daemon::set_bandwidth(std::uint64_t bytes_per_second)
{
    bandwidth_ = bytes_per_second;
    if (page_sender_) page_sender_->set_bandwidth(bytes_per_second);
}

void Daemon::set_delta_cache(std::uint64_t bytes)
{
    delta_cache_ = bytes;
    primary_->set_options(capture_options());
}

void Daemon::set_compression(replication::Compression compression, int level)
{
    compression_ = compression;
    compression_level_ = level;
    primary_->set_options(capture_options());
}

}  // namespace colo
