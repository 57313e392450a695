// SPDX-License-Identifier: Apache-2.0
#include "core/breakage.h"
#include "core/check.h"
#include "proxy/primary_impl.h"

#include <fmt/format.h>

namespace colo::proxy {

using replication::TriggerReason;

std::string describe(const FlowKey& key)
{
    const auto ip = [](std::uint32_t v) {
        return fmt::format("{}.{}.{}.{}", v >> 24, v >> 16 & 255, v >> 8 & 255, v & 255);
    };
    switch (key.kind) {
    case PacketKind::arp: return fmt::format("ARP on nic {}", key.nic);
    case PacketKind::icmp: return fmt::format("ICMP {} -> {}", ip(key.guest_ip), ip(key.peer_ip));
    case PacketKind::opaque: return fmt::format("nic {}", key.nic);
    default:
        return fmt::format("{} {}:{} -> {}:{}", key.kind == PacketKind::tcp ? "TCP" : "UDP", ip(key.guest_ip),
                           key.guest_port, ip(key.peer_ip), key.peer_port);
    }
}

bool PrimaryProxyImpl::may_release(Time now) const
{
    if (output_ == Output::protect) return now < lease_ || broken(Breakage::lease_ignored);
    return output_ == Output::flow;
}

void PrimaryProxyImpl::trigger(TriggerReason reason, const std::string& detail, Time now)
{
    if (!trigger_allowed()) return;
    triggered_ = true;
    triggered_at_ = now;
    next_late_ = now + kTriggerAgain;
    sink_.trigger(reason, detail);
}

void PrimaryProxyImpl::note_holding(PrimaryFlow& flow)
{
    const bool listed = flow.holding_index != PrimaryFlow::kNotHolding;
    if (listed == !flow.held.empty()) return;
    if (!listed) {
        flow.holding_index = holding_.size();
        holding_.push_back(&flow);
        return;
    }
    holding_[flow.holding_index] = holding_.back();
    holding_.back()->holding_index = flow.holding_index;
    holding_.pop_back();
    flow.holding_index = PrimaryFlow::kNotHolding;
}

// R8, R4: the reason by which a frame may leave now, or none.
std::optional<ReleaseReason> PrimaryProxyImpl::reason_for(PrimaryFlow& flow, const Held& held)
{
    if (session_ == 0) return std::nullopt;
    if (held.tag < staged_) return ReleaseReason::staged(session_, staged_);
    const auto matched = ReleaseReason::matched(session_, held.tag);
    if (flow.datagrams) return held.matched ? std::optional(matched) : std::nullopt;
    if (!flow.tcp) return std::nullopt;
    if (held.has_ack) {
        flow.tcp->input().confirmed(journalled_);
        // Bytes that belong to no flow we know may be what this ACK is about.
        const bool by_journal = journalled_ >= untracked_number_;
        if (!flow.tcp->ack_covered(held.ack, comparable(held.tag), by_journal)) return std::nullopt;
    }
    if (held.span.reset)
        return comparing() && flow.tcp->reset_matches(held.span, pending_) ? std::optional(matched) : std::nullopt;
    return flow.tcp->released(held.span) ? std::optional(matched) : std::nullopt;
}

void PrimaryProxyImpl::note_matched(Time held_since, Time now)
{
    const Time since = std::max(held_since, open_since_);
    if (warming(since))
        deadline_.matched_warming(now - since);
    else
        deadline_.matched(now - since);
}

void PrimaryProxyImpl::emit(PrimaryFlow& flow, const Held& held, const ReleaseReason& reason, Time now)
{
    switch (reason.kind()) {
    case ReleaseReason::Kind::matched:
        ++stats_.released_matched;
        if (comparing() && (!flow.tcp || held.span.end > held.span.start)) note_matched(held.since, now);
        break;
    case ReleaseReason::Kind::staged:
        ++stats_.released_staged;
        deadline_.count((now - held.since).count());
        break;
    default: ++stats_.released_unprotected; break;
    }
    sink_.to_wire(flow.key.nic, held.frame, reason);
}

void PrimaryProxyImpl::pump(PrimaryFlow& flow, Time now)
{
    while (!flow.held.empty()) {
        const auto reason = reason_for(flow, flow.held.front());
        if (!reason) break;
        if (!may_release(now)) {
            lease_blocked_ = true;
            break;
        }
        const Held held = std::move(flow.held.front());
        flow.held.pop_front();
        held_bytes_ -= held.memory();
        --held_frames_;
        emit(flow, held, *reason, now);
    }
    note_holding(flow);
}

void PrimaryProxyImpl::pump_all(Time now)
{
    lease_blocked_ = false;
    for (std::size_t i = 0; i < holding_.size();) {
        PrimaryFlow* flow = holding_[i];
        pump(*flow, now);
        if (i < holding_.size() && holding_[i] == flow) ++i;
    }
}

void PrimaryProxyImpl::compare_tcp(PrimaryFlow& flow, Time now)
{
    if (!comparing() || applied_ == 0 || output_ != Output::protect) return;
    const std::uint64_t bytes = flow.tcp->compared_bytes();
    const bool known = flow.tcp->difference_reported();
    const Verdict verdict = flow.tcp->compare(pending_);
    stats_.compared_bytes += flow.tcp->compared_bytes() - bytes;
    if (verdict == Verdict::equal) return;
    if (!known) ++stats_.mismatches;
    flow.tcp->report_difference();
    if (trigger_allowed()) trigger(TriggerReason::mismatch, describe(flow.key) + ": different bytes", now);
}

void PrimaryProxyImpl::match_datagrams(PrimaryFlow& flow)
{
    if (!comparing()) return;
    for (Held& held : flow.held) {
        if (flow.datagrams->empty()) return;
        if (held.matched || !comparable(held.tag)) continue;
        held.matched = flow.datagrams->take_equal(parse_packet(held.frame->view()));
    }
}

// What is held was compared with all earlier ones of S already.
bool PrimaryProxyImpl::match_new_datagram(PrimaryFlow& flow, const Packet& peer)
{
    if (!comparing()) return false;
    for (Held& held : flow.held) {
        if (held.matched || !comparable(held.tag) || !same_datagram(parse_packet(held.frame->view()), peer)) continue;
        return held.matched = true;
    }
    return false;
}

void PrimaryProxyImpl::protect(PrimaryFlow& flow, const Packet& packet, const FramePtr& frame, Time now)
{
    Held held;
    held.frame = frame;
    held.tag = tag_;
    held.since = now;
    if (broken(Breakage::release_unmatched)) return emit(flow, held, ReleaseReason::matched(session_, tag_), now);
    const bool room = held_bytes_ + held.memory() <= options_.hold_bytes_max;
    const std::size_t before = flow.peer_memory();
    if (flow.tcp) {
        protect_tcp(flow, packet, std::move(held), room, now);
    } else {
        if (flow.datagrams && comparing() && comparable(tag_)) held.matched = flow.datagrams->take_equal(packet);
        hold(flow, std::move(held), room, now);
    }
    compare_bytes_ += flow.peer_memory() - before;
}

void PrimaryProxyImpl::protect_tcp(PrimaryFlow& flow, const Packet& packet, Held held, bool room, Time now)
{
    // Bytes are kept for comparison in both modes: the mode may change while they wait.
    held.span = flow.tcp->own_segment(packet, held.frame, flow.held.empty(), session_ != 0 && room);
    held.ack = packet.ack;
    held.has_ack = packet.has(kTcpAck);
    compare_tcp(flow, now);
    pump(flow, now);
    const bool repeated = packet.payload_size() != 0 && flow.tcp->released(held.span);
    if (!flow.held.empty() && repeated && may_release(now)) {
        // A retransmission of what S owns must not wait behind new bytes: the client is stuck without it.
        if (const auto reason = reason_for(flow, held)) {
            overtake(flow, packet, held);
            return emit(flow, held, *reason, now);
        }
    }
    hold(flow, std::move(held), room, now);
}

// Its clock must not make what waits look old: the client would drop that (PAWS).
void PrimaryProxyImpl::overtake(const PrimaryFlow& flow, const Packet& packet, Held& held)
{
    if (!packet.options.has_timestamp()) return;
    std::uint32_t oldest = packet.options.tsval;
    for (const Held& waiting : flow.held) {
        const Packet earlier = parse_packet(waiting.frame->view());
        if (!earlier.options.has_timestamp()) continue;
        if (seq_before(earlier.options.tsval, oldest)) oldest = earlier.options.tsval;
        break;
    }
    held.frame = rewritten(held.frame, packet, {0, 0, oldest - packet.options.tsval, 0});
}

void PrimaryProxyImpl::hold(PrimaryFlow& flow, Held held, bool room, Time now)
{
    if (flow.held.empty()) {
        const auto reason = reason_for(flow, held);
        if (reason && may_release(now)) return emit(flow, held, *reason, now);
        if (reason) lease_blocked_ = true;
    }
    if (!room) {
        ++stats_.dropped_overflow;
        return trigger(TriggerReason::staging_full, "no room for more held output", now);
    }
    held_bytes_ += held.memory();
    ++held_frames_;
    flow.held.push_back(std::move(held));
    note_holding(flow);
    if (!trigger_allowed()) return;
    next_late_ = std::min(next_late_, due_of(flow));
    if (mode_ == replication::Mode::buffered && !needs_cut(flow, now)) return;
    trigger_if_waiting(now);
}

// Buffered: if S owns everything a flow says and only the bytes that it acknowledges are on their way to S's journal,
// then what is missing is a round trip, not a checkpoint.
bool PrimaryProxyImpl::needs_cut(PrimaryFlow& flow, Time now)
{
    constexpr Duration kJournalTime{5'000};
    if (reason_for(flow, flow.held.front())) return false;  // waits for the lease
    if (!flow.tcp || !flow.tcp->released(flow.held.back().span)) return true;
    const Time again = flow.held.front().since + kJournalTime;
    if (now >= again) return true;
    next_late_ = std::min(next_late_, again);
    return false;
}

void PrimaryProxyImpl::trigger_if_waiting(Time now)
{
    if (holding_.empty() || !trigger_allowed()) return;
    if (mode_ == replication::Mode::buffered) {
        for (PrimaryFlow* flow : holding_)
            if (needs_cut(*flow, now)) return trigger(TriggerReason::buffered_output, describe(flow->key), now);
        return;
    }
    if (held_bytes_ > options_.hold_bytes_max / 5 * 4)
        trigger(TriggerReason::staging_full, fmt::format("{} bytes of output held", held_bytes_), now);
}

// When the oldest frame of the flow counts as late. Datagrams of S that differ from the one we wait for: not at once,
// since their order may differ, but soon.
Time PrimaryProxyImpl::due_of(const PrimaryFlow& flow) const
{
    const Held& oldest = flow.held.front();
    const Time since = std::max(oldest.since, open_since_);
    const Time due = since + (warming(since) ? deadline_.warming() : deadline_.current());
    if (!flow.datagrams || oldest.matched || flow.datagrams->empty()) return due;
    const Duration grace = std::min(Duration{5000}, options_.hold_deadline_min / 4);
    return std::min(due, std::max(since, flow.datagrams->oldest()) + grace);
}

Time PrimaryProxyImpl::earliest_due() const
{
    Time due = kNever;
    for (const PrimaryFlow* flow : holding_) due = std::min(due, due_of(*flow));
    return due;
}

void PrimaryProxyImpl::check_late(Time now)
{
    if (now < next_late_) return;
    next_late_ = kNever;
    if (triggered_ && pending_ == 0) {  // nobody has cut since: it was lost, or is not urgent to the driver
        if (now >= triggered_at_ + kTriggerAgain)
            triggered_ = false;
        else
            next_late_ = triggered_at_ + kTriggerAgain;
    }
    if (!trigger_allowed()) return;
    if (mode_ == replication::Mode::buffered) return trigger_if_waiting(now);
    for (PrimaryFlow* flow : holding_) {
        const auto reason = reason_for(*flow, flow->held.front());
        if (reason) continue;  // waits for the lease, not for S
        const Time due = due_of(*flow);
        if (now < due) {
            next_late_ = std::min(next_late_, due);
            continue;
        }
        if (flow->key.kind == PacketKind::opaque) {
            ++stats_.no_comparison;
            return trigger(TriggerReason::no_comparison,
                           fmt::format("nic {}: {}", flow->key.nic, to_string(flow->cause)), now);
        }
        if (flow->datagrams && !flow->datagrams->empty()) {
            ++stats_.mismatches;
            return trigger(TriggerReason::mismatch, describe(flow->key) + ": different datagram", now);
        }
        ++stats_.late;
        // S's answer takes at least this long. Rare, it changes little; if most output is late, the deadline must grow,
        // or a slow host would drown in checkpoints.
        const Time since = std::max(flow->held.front().since, open_since_);
        if (warming(since))
            deadline_.late_warming();
        else
            deadline_.matched(now - since);
        return trigger(TriggerReason::late_output, describe(flow->key), now);
    }
}

void PrimaryProxyImpl::drop_held(PrimaryFlow& flow)
{
    for (const Held& held : flow.held) held_bytes_ -= held.memory();
    held_frames_ -= flow.held.size();
    flow.held.clear();
    note_holding(flow);
}

void PrimaryProxyImpl::release_everything(Time now)
{
    for (const auto& replay : std::exchange(replay_, {}))
        sink_.to_wire(replay.nic, replay.frame, ReleaseReason::replay(generation_));
    while (!holding_.empty()) {
        PrimaryFlow& flow = *holding_.back();
        while (!flow.held.empty()) {
            const Held held = std::move(flow.held.front());
            flow.held.pop_front();
            held_bytes_ -= held.memory();
            --held_frames_;
            emit(flow, held, ReleaseReason::unprotected(generation_), now);
        }
        note_holding(flow);
    }
    COLO_CHECK(held_bytes_ == 0 && held_frames_ == 0);
    for (PrimaryFlow& flow : flows_)
        if (flow.tcp) flow.tcp->own_everything();
    for (PrimaryFlow& flow : flows_)
        if (flow.datagrams) flow.datagrams->clear();
    compare_bytes_ = 0;
    for (const PeerFrame& f : future_) compare_bytes_ += f.frame->bytes.size() + 96;
}

}  // namespace colo::proxy
