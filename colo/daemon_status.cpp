// SPDX-License-Identifier: Apache-2.0
// The report behind x-query-colo: everything an operator wants to know, with a reason and advice for what is not well.
#include "colo/daemon.h"
#include "core/clock.h"

#include <fmt/format.h>

#include <cinttypes>
#include <cstdio>

namespace colo {
namespace {

std::uint64_t as_u64(std::int64_t v) { return v > 0 ? static_cast<std::uint64_t>(v) : 0; }

schema::DomainRole role_of(Role role)
{
    switch (role) {
    case Role::primary: return schema::DomainRole::primary;
    case Role::secondary: return schema::DomainRole::secondary;
    case Role::none: break;
    }
    return schema::DomainRole::none;
}

}  // namespace

// With a copy beside it, or while nobody knows who goes on, the other one may be the copy that took over: then an answer would draw
// its clients here, where they find nobody.
AddressClash address_clash(Protection protection, std::uint8_t nic)
{
    const bool alone = protection == Protection::unprotected || protection == Protection::connecting || protection == Protection::syncing;
    return {alone, fmt::format("{} on NIC {}: {}", kAddressClash, nic,
                               alone ? "an old primary still talks, or another machine has it"
                                     : "the other side took over, or another machine has it")};
}

schema::ProtectionState state_of(const NodeStatus& status, bool powered_off)
{
    using S = schema::ProtectionState;
    if (powered_off) return S::stopped;
    switch (status.protection) {
    case Protection::unprotected: return S::unprotected;
    case Protection::connecting: return S::connecting;
    case Protection::syncing: return S::synchronizing;
    case Protection::in_sync: return S::protected_;
    case Protection::deciding: return status.failover_under_way ? S::failing_over : S::peer_lost;
    case Protection::outdated: return S::outdated;
    case Protection::abdicated:
    case Protection::failed: return S::stopped;
    case Protection::standby:
    case Protection::idle: return S::waiting;
    }
    return S::stopped;
}

namespace {

// Beats count only while they name our session, open on both sides; then what the session has come to is true of the other
// side as well. Of a peer outside a session nothing is known.
std::optional<schema::ProtectionState> shared_state(const NodeStatus& status)
{
    switch (status.protection) {
    case Protection::connecting:
    case Protection::syncing:
    case Protection::in_sync: return state_of(status, false);
    default: return std::nullopt;
    }
}

// What a tired operator should type next.
std::optional<std::string> advice_for(const NodeStatus& status, const std::string& domain, const std::string& arbiter)
{
    switch (status.protection) {
    case Protection::unprotected: return "start a fresh secondary and run: coloctl protect " + domain;
    case Protection::outdated:
        return "restart this daemon as secondary and protect the other side again; only if the other side is gone for good: coloctl "
               "failover " + domain + " --accept-data-loss";
    case Protection::abdicated:
        if (status.switching)
            return "find out whether the other side runs the guest. If it does not, and never will: coloctl failover " + domain +
                   " --accept-data-loss; only if it does, restart this daemon as secondary to protect it";
        return "the other side serves now; restart this daemon as secondary to protect it";
    case Protection::failed: return "restart this daemon; the guest will boot anew";
    case Protection::deciding:
        if (arbiter == "manual") return "make sure that the other host is dead, then run: coloctl failover " + domain;
        return "the arbiter has not answered yet; look at the reason";
    default: return std::nullopt;
    }
}

schema::CheckpointStats checkpoint_stats(const CheckpointLog& log)
{
    schema::CheckpointStats stats;
    stats.count = log.count();
    stats.aborted = log.aborted_count();
    for (std::size_t i = 1; i < log.by_trigger().size(); ++i)
        if (log.by_trigger()[i] > 0)
            stats.by_trigger.push_back({static_cast<schema::CheckpointTrigger>(i - 1), log.by_trigger()[i]});
    stats.pages = log.pages();
    stats.raw_bytes = log.raw_bytes();
    stats.sent_bytes = log.sent_bytes();
    const auto pause = log.pause(), staged = log.staged_latency(), applied = log.applied_latency();
    stats.pause_p50_us = pause.p50_us;
    stats.pause_p99_us = pause.p99_us;
    stats.staged_p50_us = staged.p50_us;
    stats.staged_p99_us = staged.p99_us;
    stats.applied_p50_us = applied.p50_us;
    stats.applied_p99_us = applied.p99_us;
    if (const CheckpointRecord* last = log.last()) stats.last = checkpoint_sample(*last);
    return stats;
}

schema::NetworkStats network_stats(const proxy::ProxyStats& s)
{
    schema::NetworkStats n;
    n.wire_frames = s.wire_frames;
    n.wire_bytes = s.wire_bytes;
    n.guest_frames = s.guest_frames;
    n.guest_bytes = s.guest_bytes;
    n.released_matched = s.released_matched;
    n.released_staged = s.released_staged;
    n.released_unprotected = s.released_unprotected;
    n.compared_bytes = s.compared_bytes;
    n.mismatches = s.mismatches;
    n.late = s.late;
    n.no_comparison = s.no_comparison;
    n.dropped_overflow = s.dropped_overflow;
    n.held_frames = s.held_frames;
    n.held_bytes = s.held_bytes;
    n.flows = s.flows;
    n.reinjected = s.reinjected;
    n.journal_frames = s.journal_frames;
    n.journal_bytes = s.journal_bytes;
    n.hold_p50_us = s.hold_p50_us;
    n.hold_p99_us = s.hold_p99_us;
    return n;
}

const char* arbiter_name(ArbiterKind kind)
{
    switch (kind) {
    case ArbiterKind::manual: return "manual";
    case ArbiterKind::command: return "command";
    case ArbiterKind::lock: return "lock";
    }
    return "manual";
}

}  // namespace

schema::CheckpointSample checkpoint_sample(const CheckpointRecord& r)
{
    schema::CheckpointSample sample;
    sample.epoch = r.epoch;
    sample.trigger = static_cast<schema::CheckpointTrigger>(static_cast<int>(r.reason) - 1);
    sample.age_ms = as_u64((now() - r.cut_begun).count() / 1000);
    sample.pause_us = as_u64(r.cut.pause.count());
    const auto stage = [&](const char* name, Duration d) { sample.stages.push_back({name, as_u64(d.count())}); };
    stage("stop", r.cut.stop);
    stage("copy", r.cut.residue);
    stage("seal", r.cut.seal);
    stage("save", r.cut.save);
    stage("scan", r.cut.rescan);
    stage("cont", r.cut.resume);
    sample.pages = r.capture.zero + r.capture.delta + r.capture.full;
    sample.residue_pages = r.capture.residue;
    sample.raw_bytes = r.capture.raw_bytes;
    sample.sent_bytes = r.capture.sent_bytes;
    sample.staged_us = as_u64((r.staged - r.cut_begun).count());
    sample.applied_us = as_u64((r.applied - r.cut_begun).count());
    return sample;
}

void Daemon::set_announce(const proxy::AnnounceSchedule& schedule) { runtime_->set_announce(schedule); }

StatusReport Daemon::status() const
{
    const NodeStatus node = node_->status();
    const auto runtime = runtime_->stats();
    const HeartbeatStatus beats = heartbeat_->status();
    StatusReport report;
    report.format = 1;
    report.domain = config_.domain.name;
    report.uuid = config_.domain.uuid;
    report.role = role_of(node.role);
    report.state = state_of(node, powered_off_);
    report.state_age_ms = as_u64((now() - protection_since_).count() / 1000);
    report.healthy = node.protection == Protection::in_sync || node.protection == Protection::standby ||
                     node.protection == Protection::syncing || node.protection == Protection::connecting;
    report.reason = node.reason;
    if (!report.healthy && report.reason.empty() && node.protection == Protection::unprotected) report.reason = "no secondary: losing this host stops the service";
    report.arbiter = arbiter_name(config_.arbiter.kind);
    if (!report.healthy) report.advice = advice_for(node, config_.domain.name, report.arbiter);
    report.warnings = warnings_;
    if (!held_.empty()) report.warnings.push_back("the guest stands still: " + held_);
    if (!held_.empty() && report.reason.empty()) report.reason = "the guest stands still: " + held_;
    report.operator_command = operator_command_;
    report.run_state = run_state();
    report.generation = node.generation;
    if (node.session != 0) {
        char text[17];
        std::snprintf(text, sizeof text, "%016" PRIx64, node.session);
        report.session = text;
    }
    report.peer = session_ != 0 ? peer_ : config_.peer.address;
    report.mode = session_ == 0 || node.migrating ? schema::ReplicationMode::none
                  : node.mode == replication::Mode::buffered ? schema::ReplicationMode::buffered
                                                             : schema::ReplicationMode::lock_step;
    report.mode_reason = session_ == 0 ? "" : mode_reason_;
    report.epoch = node.epoch;
    report.eligible = node.role == Role::primary ? node.peer_eligible : node.eligible;
    report.outdated = node.outdated;
    report.checkpoints = checkpoint_stats(checkpoints_);
    report.network = network_stats(runtime.core);
    std::uint64_t freshest_us = UINT64_MAX;
    for (std::size_t i = 0; i < beats.path_count; ++i) {
        const HeartbeatPathStatus& path = beats.paths[i];
        schema::HeartbeatPath p;
        p.local = config_.heartbeat.paths[i].local;
        p.remote = config_.heartbeat.paths[i].peer;
        p.sent = path.sent;
        p.received = path.received;
        if (path.heard) {
            const std::uint64_t age = as_u64((now() - path.last_beat).count());
            p.last_received_age_us = age;
            p.alive = age < config_.heartbeat.loss_ms * 1000u;
            freshest_us = std::min(freshest_us, age);
        }
        report.heartbeat.push_back(std::move(p));
    }
    report.last_failover = last_failover_;
    if (freshest_us != UINT64_MAX) {
        schema::PeerReport peer;
        peer.age_ms = freshest_us / 1000;
        peer.address = peer_;
        peer.role = role_of(beats.peer_role);
        peer.healthy = peer.age_ms < config_.heartbeat.loss_ms;
        if (peer.healthy) peer.state = shared_state(node);
        if (!peer.healthy) {
            peer.reason = "no beat for " + std::to_string(peer.age_ms) + " ms";
            if (!last_peer_text_.empty()) peer.reason += "; before, it " + last_peer_text_;
        }
        peer.generation = beats.highest_generation_seen;
        peer.epoch = beats.peer_epoch;
        report.remote = peer;
    }
    return report;
}

}  // namespace colo
