// SPDX-License-Identifier: Apache-2.0
#include "core/breakage.h"
#include "proxy/secondary_impl.h"

#include <algorithm>

namespace colo::proxy {

// A client drops segments whose TSval is below what it has seen (PAWS). Measured lag plus a margin for the time a
// message takes, and never below what is known to have been released.
void SecondaryProxyImpl::raise_timestamps(SecondaryFlow& flow) const
{
    constexpr std::uint32_t kMarginTicks = 10;
    flow.timestamp_offset += kMarginTicks;
    if (flow.guest_tsval == 0) return;
    const auto at_least = [&flow](std::uint32_t value) {
        if (seq_before(flow.guest_tsval + flow.timestamp_offset, value))
            flow.timestamp_offset = value - flow.guest_tsval;
    };
    if (flow.client_tsecr) at_least(*flow.client_tsecr);
    if (flow.highest_timestamp != 0) at_least(flow.highest_timestamp);
}

void SecondaryProxyImpl::take_over_flow(SecondaryFlow& flow, TakeOver& result) const
{
    if (flow.closed && !flow.translated()) return;
    if (flow.learning) {
        result.half_open.push_back(*flow.learning);
        return;
    }
    // The client wants to begin it and our guest has not said a word yet: its numbers will be its own.
    if (!flow.client_ack && !flow.guest_ack && !flow.covered) return;
    raise_timestamps(flow);
    replication::FlowState state;
    state.nic = flow.key.nic;
    state.guest_ip = flow.key.guest_ip;
    state.peer_ip = flow.key.peer_ip;
    state.guest_port = flow.key.guest_port;
    state.peer_port = flow.key.peer_port;
    state.wire_offset = flow.wire_offset;
    state.timestamp_offset = flow.timestamp_offset;
    state.covered_seq = flow.covered.value_or(0);
    state.acked_seq = flow.guest_ack.value_or(0);
    state.highest_timestamp = flow.guest_tsval + flow.timestamp_offset;
    state.flags = flow.has_timestamp ? 1 : 0;
    result.section.flows.push_back(state);
}

bool SecondaryProxyImpl::needed(const TakeOver::Replay& replay)
{
    const Packet packet = parse_packet(replay.frame->view());
    if (packet.kind != PacketKind::tcp || packet.sequence_size() == 0) return true;
    const SecondaryFlow* flow = flows_.find(key_from_guest(replay.nic, packet));
    if (flow == nullptr || !flow->client_ack || flow->learning) return true;
    return seq_after(packet.seq + packet.sequence_size(), *flow->client_ack);
}

// P may have released newer clocks since this frame was sent; the client would drop the replay as old (PAWS).
FramePtr SecondaryProxyImpl::with_present_clock(const TakeOver::Replay& replay, Time now)
{
    const Packet packet = parse_packet(replay.frame->view());
    if (packet.kind != PacketKind::tcp || !packet.options.has_timestamp()) return replay.frame;
    const SecondaryFlow* flow = flows_.find(key_from_guest(replay.nic, packet));
    if (flow == nullptr || flow->learning || flow->closed) return replay.frame;
    const auto since = static_cast<std::uint32_t>((now - flow->guest_tsval_at).count() / 1000);
    const std::uint32_t present = flow->guest_tsval + flow->timestamp_offset + since;
    return rewritten(replay.frame, packet, {0, 0, present - packet.options.tsval, 0});
}

TakeOver SecondaryProxyImpl::take_over(Time now)
{
    TakeOver result;
    if (paused_) update_lag(now);
    paused_ = false;
    struct Unacknowledged {
        std::uint64_t number;
        std::uint8_t nic;
        FramePtr frame;
    };
    std::vector<Unacknowledged> journal;
    for (const SecondaryFlow& flow : flows_)
        for (const Reinjector::Entry& entry : flow.journal.entries())
            journal.push_back({entry.number, flow.key.nic, to_guest_numbers(&flow, entry.frame)});
    std::sort(journal.begin(), journal.end(), [](const auto& a, const auto& b) { return a.number < b.number; });
    captured_.clear();
    for (auto& entry : journal) captured_.push_back({entry.nic, std::move(entry.frame)});
    capturing_ = true;
    deliver_waiting(
        now);  // also input of an epoch that was never staged: the client may have been told that we have it
    capturing_ = false;
    if (!broken(Breakage::journal_forgotten)) result.reinject = std::move(captured_);
    captured_.clear();
    result.section.last_input = last_number_;
    for (SecondaryFlow& flow : flows_) take_over_flow(flow, result);
    for (const TakeOver::Replay& replay : replay_)
        if (needed(replay)) result.replay.push_back({replay.nic, with_present_clock(replay, now)});
    replay_.clear();
    replay_bytes_ = 0;
    result.addresses = addresses_.addresses();
    return result;
}

}  // namespace colo::proxy
