// SPDX-License-Identifier: Apache-2.0
#include "core/breakage.h"
#include "proxy/primary_impl.h"

#include <algorithm>

namespace colo::proxy {

using replication::TriggerReason;

PrimaryProxyImpl::PrimaryProxyImpl(const ProxyOptions& options, PrimarySink& sink)
    : PrimaryProxyImpl(options, sink, TakeOver{}, Time{})
{
}

PrimaryProxyImpl::PrimaryProxyImpl(const ProxyOptions& options, PrimarySink& sink, const TakeOver& from, Time now)
    : options_(options),
      sink_(sink),
      flows_(std::max<std::size_t>(options.flows_max, 1), options.hash_seed),
      addresses_(options.nics, from.addresses),
      deadline_(options.hold_deadline_min, options.hold_deadline_max),
      replay_(from.replay)
{
    for (const replication::FlowState& state : from.section.flows) {
        PrimaryFlow* flow = flow_of(
            {state.nic, PacketKind::tcp, state.guest_port, state.peer_port, state.guest_ip, state.peer_ip}, now);
        if (flow == nullptr) continue;  // cannot be: the secondary had the same bound
        flow->wire_offset = state.wire_offset;
        flow->timestamp_offset = state.timestamp_offset;
        flow->syn_contained = state.covered_seq;
    }
    for (const TakeOver::HalfOpen& open : from.half_open) {
        PrimaryFlow* flow =
            flow_of({open.nic, PacketKind::tcp, open.guest_port, open.peer_port, open.guest_ip, open.peer_ip}, now);
        if (flow != nullptr) flow->learning = open;
    }
    std::uint64_t number = 0;
    for (const TakeOver::Input& input : from.reinject) {
        const Packet packet = parse_packet(input.frame->view());
        ++stats_.reinjected;
        const bool tracked = packet.kind == PacketKind::tcp && packet.sequence_size() != 0;
        PrimaryFlow* flow = tracked ? flow_of(key_from_peer(input.nic, packet), now) : nullptr;
        bool give = true;
        if (flow != nullptr) {
            give = flow->reinject.add({++number, 0, packet.seq, packet.seq + packet.sequence_size(), input.frame}, now,
                                      options_.reinject_interval);
            next_reinject_ = std::min(next_reinject_, flow->reinject.due());
        }
        if (give) sink_.to_guest(input.nic, input.frame);
    }
}

void PrimaryProxyImpl::peer_journalled(Epoch, std::uint64_t number, Time now)
{
    if (session_ == 0 || number <= journalled_ || number > number_) return;
    journalled_ = number;
    for (std::size_t i = 0; i < holding_.size();) {
        PrimaryFlow* flow = holding_[i];
        if (flow->tcp) pump(*flow, now);
        if (i < holding_.size() && holding_[i] == flow) ++i;
    }
}

void PrimaryProxyImpl::begin_session(SessionId session, Time now)
{
    end_session(now);
    session_ = session;
    tag_ = pending_ = staged_ = applied_ = 0;
    number_ = journalled_ = untracked_number_ = 0;
    mode_ = replication::Mode::lock_step;
    for (PrimaryFlow* flow : holding_)  // whatever is held is contained in the first checkpoint
        for (Held& held : flow->held) held.tag = 0;
}

void PrimaryProxyImpl::end_session(Time)
{
    session_ = 0;
    pending_ = 0;
    triggered_ = lease_blocked_ = false;
    next_late_ = kNever;
    lease_ = kNever;
    sealed_inputs_.clear();
    future_.clear();
    forget_peer();
    for (PrimaryFlow& flow : flows_) {
        if (!flow.tcp) continue;
        flow.tcp->input().clear();
        forget_unconsumed(flow);
    }
}

void PrimaryProxyImpl::forget_peer()
{
    for (PrimaryFlow& flow : flows_) {
        if (flow.tcp) flow.tcp->forget_peer();
        if (flow.datagrams) flow.datagrams->clear();
    }
    compare_bytes_ = 0;
    for (const PeerFrame& f : future_) compare_bytes_ += f.frame->bytes.size() + 96;
}

void PrimaryProxyImpl::set_output(Output output, Generation generation, Time now)
{
    output_ = output;
    generation_ = generation;
    if (output == Output::flow) release_everything(now);
    if (output == Output::frozen) {
        replay_.clear();
        while (!holding_.empty()) drop_held(*holding_.back());
    }
}

void PrimaryProxyImpl::set_mode(replication::Mode mode, Time now)
{
    if (mode_ == mode) return;
    mode_ = mode;
    if (mode == replication::Mode::buffered) {
        future_.clear();
        forget_peer();
    }
    trigger_if_waiting(now);
    if (mode == replication::Mode::lock_step && trigger_allowed()) next_late_ = std::min(next_late_, earliest_due());
}

replication::ProxySection PrimaryProxyImpl::build_section() const
{
    replication::ProxySection section;
    for (const PrimaryFlow& flow : flows_) {
        if (!flow.tcp || section.flows.size() >= replication::kMaxFlows) continue;
        if (flow.tcp->closed() && !flow.translated())
            continue;  // a translated one that is open after all needs its offset
        if (!flow.tcp->known() && !flow.translated()) continue;
        replication::FlowState state = flow.tcp->state();
        if (!flow.tcp->known()) state.covered_seq = flow.syn_contained.value_or(0);
        state.nic = flow.key.nic;
        state.guest_ip = flow.key.guest_ip;
        state.peer_ip = flow.key.peer_ip;
        state.guest_port = flow.key.guest_port;
        state.peer_port = flow.key.peer_port;
        state.wire_offset = flow.wire_offset;
        state.timestamp_offset = flow.timestamp_offset;
        if (flow.learning) {
            state.flags = static_cast<std::uint8_t>(kFlowHalfOpen | (flow.learning->has_timestamp ? 1 : 0));
            state.covered_seq = flow.learning->guest_isn;
            state.highest_timestamp = flow.learning->guest_tsval;
        }
        section.flows.push_back(state);
    }
    section.last_input = number_;
    return section;
}

replication::ProxySection PrimaryProxyImpl::section() const
{
    return build_section();
}

replication::ProxySection PrimaryProxyImpl::seal(Epoch next, const std::vector<UnreadInput>& unread, Time now)
{
    replication::ProxySection section = build_section();
    for (PrimaryFlow& flow : flows_)
        if (flow.tcp) flow.tcp->seal(next);
    sealed_inputs_.push_back({next, number_});
    tag_ = pending_ = next;
    triggered_ = false;
    next_late_ = kNever;
    for (PrimaryFlow& flow : flows_) {
        if (!flow.tcp) continue;
        for (const Reinjector::Entry& entry : flow.reinject.entries()) mirror_taken_over(flow, entry, now);
        mirror_unconsumed(flow, now);
    }
    for (const UnreadInput& input : unread) {
        mirror_again(input.nic, input.frame, now);
        sink_.to_guest(input.nic, input.frame);
    }
    if (broken(Breakage::release_before_staged)) staged(next, now);
    return section;
}

void PrimaryProxyImpl::staged(Epoch epoch, Time now)
{
    if (session_ == 0 || epoch <= staged_) return;
    staged_ = epoch;
    while (!sealed_inputs_.empty() && sealed_inputs_.front().epoch <= epoch) {
        journalled_ = std::max(journalled_, sealed_inputs_.front().last);  // contained in the checkpoint
        sealed_inputs_.pop_front();
    }
    for (PrimaryFlow& flow : flows_) {
        if (!flow.tcp) continue;
        const std::size_t before = flow.peer_memory();
        flow.tcp->staged(epoch);
        compare_bytes_ -= before - flow.peer_memory();
    }
    pump_all(now);
}

void PrimaryProxyImpl::applied(Epoch epoch, Time now)
{
    if (session_ == 0 || epoch <= applied_) return;
    applied_ = epoch;
    if (pending_ <= epoch) pending_ = 0;
    triggered_ = false;
    open_since_ = now;
    deadline_.opened();
    forget_peer();
    for (const PeerFrame& peer : std::exchange(future_, {})) {
        compare_bytes_ -= peer.frame->bytes.size() + 96;
        if (peer.epoch >= epoch) peer_output(peer.nic, peer.epoch, peer.frame, now);
    }
    pump_all(now);
    if (holding_.empty()) return;
    trigger_if_waiting(now);
    if (trigger_allowed() && mode_ == replication::Mode::lock_step) next_late_ = std::min(next_late_, earliest_due());
}

// R7: the number is another name for the epoch before it; its output is compared like that one's.
void PrimaryProxyImpl::aborted(Epoch epoch, Time now)
{
    if (session_ == 0) return;
    triggered_ = false;
    if (pending_ != epoch) return;
    pending_ = 0;
    std::erase_if(sealed_inputs_, [epoch](const SealedInput& s) { return s.epoch == epoch; });
    for (std::size_t i = 0; i < holding_.size(); ++i) {
        PrimaryFlow& flow = *holding_[i];
        const std::size_t before = flow.peer_memory();
        if (flow.tcp) compare_tcp(flow, now);
        if (flow.datagrams) match_datagrams(flow);
        compare_bytes_ += flow.peer_memory() - before;
    }
    pump_all(now);
    trigger_if_waiting(now);
    if (!holding_.empty() && trigger_allowed()) next_late_ = now;
}

void PrimaryProxyImpl::set_lease(Time until, Time now)
{
    lease_ = until;
    if (lease_blocked_ && may_release(now)) pump_all(now);
}

void PrimaryProxyImpl::reinject_due(Time now)
{
    if (now < next_reinject_) return;
    next_reinject_ = kNever;
    for (PrimaryFlow& flow : flows_) {
        if (flow.reinject.due() <= now)
            stats_.reinjected += flow.reinject.inject(now, guest_heard_, [&](const Reinjector::Entry& e) {
                sink_.to_guest(flow.key.nic, given_again(e.frame, flow.guest_tsecr));
            });
        next_reinject_ = std::min(next_reinject_, flow.reinject.due());
    }
}

void PrimaryProxyImpl::tick(Time now)
{
    if (lease_blocked_ && may_release(now)) pump_all(now);
    check_late(now);
    if (output_ != Output::frozen) reinject_due(now);
}

Time PrimaryProxyImpl::next_deadline() const
{
    return output_ == Output::frozen ? next_late_ : std::min(next_late_, next_reinject_);  // frozen: nothing is given
}

ProxyStats PrimaryProxyImpl::stats() const
{
    ProxyStats stats = stats_;
    stats.held_frames = held_frames_;
    stats.held_bytes = held_bytes_;
    stats.flows = flows_.size();
    stats.hold_p50_us = deadline_.percentile_us(50);
    stats.hold_p99_us = deadline_.percentile_us(99);
    return stats;
}

std::unique_ptr<PrimaryProxy> make_primary_proxy(const ProxyOptions& options, PrimarySink& sink)
{
    return std::make_unique<PrimaryProxyImpl>(options, sink);
}

std::unique_ptr<PrimaryProxy> make_primary_proxy(const ProxyOptions& options, PrimarySink& sink, const TakeOver& from,
                                                 Time now)
{
    return std::make_unique<PrimaryProxyImpl>(options, sink, from, now);
}

}  // namespace colo::proxy
