// SPDX-License-Identifier: Apache-2.0
#include "core/breakage.h"
#include "proxy/secondary_impl.h"

#include <algorithm>
#include <iterator>
#include <unordered_map>

namespace colo::proxy {
namespace {

FlowKey key_of(const replication::FlowState& state)
{
    return {state.nic, PacketKind::tcp, state.guest_port, state.peer_port, state.guest_ip, state.peer_ip};
}

}  // namespace

SecondaryProxyImpl::SecondaryProxyImpl(const ProxyOptions& options, SecondarySink& sink)
    : options_(options),
      sink_(sink),
      flows_(std::max<std::size_t>(options.flows_max, 1), options.hash_seed),
      addresses_(options.nics, {})
{
}

SecondaryFlow* SecondaryProxyImpl::flow_of(const FlowKey& key, Time now)
{
    SecondaryFlow* flow = flows_.find(key);
    if (flow != nullptr) {
        flows_.touch(*flow, now);
        return flow;
    }
    flow = flows_.use_or_add(key, now, [&](const SecondaryFlow& oldest) { return oldest.may_go(now, lag_ticks_); });
    // Not begun in this epoch and not in the manifest: P's numbers, but our guest's clock lags.
    if (flow != nullptr) flow->timestamp_offset = lag_ticks_;
    return flow;
}

void SecondaryProxyImpl::not_journalled(Epoch epoch)
{
    gap_ = std::max(gap_.value_or(0), epoch);
}

void SecondaryProxyImpl::input(std::uint8_t nic, Epoch epoch, std::uint64_t number, const FramePtr& frame, Time now)
{
    if (number <= last_number_) return;
    if (number != last_number_ + 1) not_journalled(epoch);
    last_number_ = number;
    ++stats_.wire_frames;
    stats_.wire_bytes += frame->bytes.size();
    const Packet packet = parse_packet(frame->view());
    neighbours_.learn(nic, packet);
    const bool contained = running_ == 0 ? current(epoch) : epoch < running_;  // a checkpoint has it or will have it
    if (!contained) {
        if (packet.tcp_fragment()) not_journalled(epoch);  // given once, in no connection's journal
        Waiting input{nic, epoch, number, frame};
        if (current(epoch) && !stopped()) {
            deliver(input, now);
        } else if (journal_bytes_ + memory(frame) <= options_.journal_bytes_max) {
            journal_bytes_ += memory(frame);
            waiting_.push_back(std::move(input));
        } else {
            ++stats_.dropped_overflow;
            not_journalled(epoch);
        }
    }
    if (!gap_) sink_.journalled(epoch, number);
}

// A RST that our guest will not believe (RFC 5961) may come from anybody: it changes nothing.
void SecondaryProxyImpl::note_client(SecondaryFlow& flow, const Packet& packet)
{
    if (packet.has(kTcpRst)) {
        if (!flow.guest_ack || packet.seq != *flow.guest_ack) return;
        journal_bytes_ -= flow.journal.memory();
        flow.journal.clear();
        flow.closed = true;
        return;
    }
    if (packet.has(kTcpFin)) flow.client_fin = packet.seq + packet.sequence_size();
    if (!packet.has(kTcpAck)) return;
    if (!flow.client_ack || packet.has(kTcpSyn) || seq_after(packet.ack, *flow.client_ack))
        flow.client_ack = packet.ack;
    const std::uint32_t tsecr = packet.options.tsecr;
    if (packet.options.has_timestamp() && tsecr != 0 && (!flow.client_tsecr || seq_after(tsecr, *flow.client_tsecr)))
        flow.client_tsecr = tsecr;
    learn_offset(flow, packet);
}

// R3: the client acknowledges P's SYN; our guest sent its own.
void SecondaryProxyImpl::learn_offset(SecondaryFlow& flow, const Packet& packet)
{
    if (!flow.learning) return;
    flow.wire_offset = packet.ack - (flow.learning->guest_isn + 1);
    if (flow.learning->has_timestamp && packet.options.has_timestamp() && packet.options.tsecr != 0) {
        flow.timestamp_offset = packet.options.tsecr - flow.learning->guest_tsval;
        // Our guest answered later than P's: the echo then shows too small a distance. Kernels with the same state
        // count from the same base, and the distance is the lag of the clock.
        const std::uint32_t missing = lag_ticks_ - flow.timestamp_offset;
        if (!flow.learning_carried && missing < 10'000) flow.timestamp_offset = lag_ticks_;
    }
    flow.covered = packet.ack;
    flow.learning.reset();
    flow.learning_carried = false;
}

FramePtr SecondaryProxyImpl::to_guest_numbers(const SecondaryFlow* flow, const FramePtr& frame) const
{
    if (flow == nullptr || !flow->translated()) return frame;
    const Packet packet = parse_packet(frame->view());
    return rewritten(frame, packet, {0, 0 - flow->wire_offset, 0, 0 - flow->timestamp_offset});
}

void SecondaryProxyImpl::give_more(SecondaryFlow& flow)
{
    if (stopped() || capturing_) return;
    flow.journal.give_more([&](const Reinjector::Entry& entry) {
        sink_.to_guest(flow.key.nic, to_guest_numbers(&flow, given_again(entry.frame, flow.guest_tsecr)));
    });
}

bool SecondaryProxyImpl::journal_input(const Waiting& input, const Packet& packet, SecondaryFlow* flow, Time now)
{
    const std::uint32_t size = packet.sequence_size();
    if (size == 0 || packet.has(kTcpRst)) return true;
    if (flow == nullptr) {
        not_journalled(input.epoch);
        return true;
    }
    const std::uint32_t end = packet.seq + size;
    if (!packet.has(kTcpSyn) && flow->guest_ack && !seq_after(end, *flow->guest_ack)) return true;
    if (flow->journal.has(packet.seq, end)) return true;
    Reinjector::Entry entry{input.number, input.epoch, packet.seq, end, input.frame};
    if (journal_bytes_ + memory(input.frame) > options_.journal_bytes_max || flow->journal.full(entry)) {
        ++stats_.dropped_overflow;
        not_journalled(input.epoch);
        return true;
    }
    const bool give = flow->journal.add(std::move(entry), now, options_.reinject_interval);
    journal_bytes_ += memory(input.frame);
    next_reinject_ = std::min(next_reinject_, flow->journal.due());
    return give;
}

void SecondaryProxyImpl::deliver(const Waiting& input, Time now)
{
    const Packet packet = parse_packet(input.frame->view());
    SecondaryFlow* flow = nullptr;
    if (packet.kind == PacketKind::tcp) {
        flow = flow_of(key_from_peer(input.nic, packet), now);
        if (flow != nullptr) note_client(*flow, packet);
        if (!journal_input(input, packet, flow, now) && !capturing_) return;
    }
    FramePtr frame = to_guest_numbers(flow, input.frame);
    if (capturing_)
        captured_.push_back({input.nic, std::move(frame)});
    else
        sink_.to_guest(input.nic, frame);
}

void SecondaryProxyImpl::deliver_waiting(Time now)
{
    while (!waiting_.empty() && (capturing_ || (current(waiting_.front().epoch) && !stopped()))) {
        const Waiting input = std::move(waiting_.front());
        waiting_.pop_front();
        journal_bytes_ -= memory(input.frame);
        deliver(input, now);
    }
}

void SecondaryProxyImpl::peer_cut(Epoch epoch, Time now)
{
    if (cuts_.size() >= 16) cuts_.pop_front();
    cuts_.push_back({epoch, now});
}

// The port was drained under the old epoch, and its unread input is gone with our guest's state. What comes before the
// new state runs waits: in the port it would reach a guest that has, or will have, seen it.
void SecondaryProxyImpl::seal(Time)
{
    sealed_ = true;
}

// P's clock went on from the cut, ours goes on from now with the state of the cut.
void SecondaryProxyImpl::update_lag(Time now)
{
    const auto cut = std::find_if(cuts_.begin(), cuts_.end(), [this](const CutTime& c) { return c.epoch == running_; });
    if (cut == cuts_.end()) return;
    const auto ticks = static_cast<std::uint32_t>(std::max<std::int64_t>(0, (now - cut->time).count()) / 1000 + 1);
    for (SecondaryFlow& flow : flows_) {
        if (!flow.learning)
            flow.timestamp_offset += ticks - lag_ticks_;
        else if (flow.learning_carried)
            flow.learning->guest_tsval -= ticks - lag_ticks_;
    }
    lag_ticks_ = ticks;
}

void SecondaryProxyImpl::take_state(const replication::FlowState& state, Time now)
{
    SecondaryFlow* flow = flow_of(key_of(state), now);
    if (flow == nullptr) return;
    if ((state.flags & kFlowHalfOpen) != 0) {
        flow->learning = TakeOver::HalfOpen{state.nic,
                                            state.guest_ip,
                                            state.peer_ip,
                                            state.guest_port,
                                            state.peer_port,
                                            state.covered_seq,
                                            state.highest_timestamp - lag_ticks_,
                                            (state.flags & 1) != 0};
        flow->learning_carried = true;
        flow->timestamp_offset = 0;
        return;
    }
    const bool zeroed = broken(Breakage::offsets_zeroed_at_apply);
    flow->wire_offset = zeroed ? 0 : state.wire_offset;
    flow->timestamp_offset = zeroed ? 0 : state.timestamp_offset + lag_ticks_;
    flow->covered = state.covered_seq;
    flow->highest_timestamp = state.highest_timestamp;
    flow->has_timestamp = (state.flags & 1) != 0;
    flow->established = true;
    flow->opened = (state.flags & kFlowOpened) != 0;
}

// P gives us its input again, but P may be gone: what the checkpoint's guest has not acknowledged, a primary before it may
// have acknowledged to the client. That outlives the apply, in the journals and among what still waits.
void SecondaryProxyImpl::drop_contained(Epoch epoch, const replication::ProxySection& section)
{
    std::unordered_map<FlowKey, std::uint32_t, FlowKeyHash> acked(section.flows.size(), FlowKeyHash{options_.hash_seed});
    for (const replication::FlowState& state : section.flows)
        if ((state.flags & kFlowHalfOpen) == 0) acked.emplace(key_of(state), state.acked_seq);
    for (SecondaryFlow& flow : flows_) {
        journal_bytes_ -= flow.journal.memory();
        if (const auto at = acked.find(flow.key); at != acked.end()) flow.journal.keep_for(epoch, at->second);
        flow.journal.drop_older(epoch);
        journal_bytes_ += flow.journal.memory();
    }
    std::deque<Waiting> kept;
    while (!waiting_.empty() && waiting_.front().epoch < epoch) {
        Waiting input = std::move(waiting_.front());
        waiting_.pop_front();
        const Packet packet = parse_packet(input.frame->view());
        const auto at = packet.kind == PacketKind::tcp ? acked.find(key_from_peer(input.nic, packet)) : acked.end();
        if (at != acked.end() && Reinjector::missing(packet, at->second)) {
            input.epoch = epoch;
            kept.push_back(std::move(input));
        } else {
            journal_bytes_ -= memory(input.frame);
        }
    }
    waiting_.insert(waiting_.begin(), std::make_move_iterator(kept.begin()), std::make_move_iterator(kept.end()));
}

void SecondaryProxyImpl::applied(Epoch epoch, const replication::ProxySection& section, Time now)
{
    if (epoch < running_) return;
    sealed_ = false;
    running_ = alias_ = epoch;
    if (gap_ && *gap_ < epoch) gap_.reset();
    lag_ticks_ = 0;
    for (SecondaryFlow& flow : flows_) {
        flow.journal.hurry(now);  // a guest that is loaded again has forgotten what it was given
        flow.wire_offset = flow.timestamp_offset = 0;
        flow.learning_carried = flow.closed = flow.has_timestamp = flow.opened = false;
        flow.guest_fin.reset();
        flow.learning.reset();
        flow.covered.reset();
        flow.guest_ack.reset();
        flow.guest_tsecr.reset();
        flow.guest_tsval = flow.highest_timestamp = 0;
    }
    drop_contained(epoch, section);  // first, so that the flows of the manifest find room
    flows_.remove_if([](const SecondaryFlow& flow) { return flow.journal.empty(); });
    for (const replication::FlowState& state : section.flows) take_state(state, now);
    update_lag(now);
    if (!broken(Breakage::replay_after_staged)) {
        replay_.clear();
        replay_bytes_ = 0;
    }
    next_reinject_ = now;
    deliver_waiting(now);
}

void SecondaryProxyImpl::aborted(Epoch epoch, Time now)
{
    alias_ = std::max(alias_, epoch);
    if (running_ != 0) return deliver_waiting(now);
    while (!waiting_.empty() && waiting_.front().epoch <= alias_) {  // the first checkpoint will contain it
        journal_bytes_ -= memory(waiting_.front().frame);
        waiting_.pop_front();
    }
}

void SecondaryProxyImpl::set_paused(bool paused, Time now)
{
    if (paused_ == paused) return;
    paused_ = paused;
    if (paused || running_ == 0) return;
    update_lag(now);
    deliver_waiting(now);
    next_reinject_ = now;
}

void SecondaryProxyImpl::tick(Time now)
{
    if (running_ == 0 || stopped() || now < next_reinject_) return;
    next_reinject_ = kNever;
    if (broken(Breakage::journal_forgotten)) return;
    for (SecondaryFlow& flow : flows_) {
        if (flow.journal.due() <= now) {
            journal_bytes_ -= flow.journal.memory();
            stats_.reinjected += flow.journal.inject(now, guest_heard_, [&](const Reinjector::Entry& entry) {
                sink_.to_guest(flow.key.nic, to_guest_numbers(&flow, given_again(entry.frame, flow.guest_tsecr)));
            });
            journal_bytes_ += flow.journal.memory();
        }
        next_reinject_ = std::min(next_reinject_, flow.journal.due());
    }
}

ProxyStats SecondaryProxyImpl::stats() const
{
    ProxyStats stats = stats_;
    stats.flows = flows_.size();
    stats.journal_bytes = journal_bytes_;
    stats.journal_frames = waiting_.size();
    for (const SecondaryFlow& flow : flows_) stats.journal_frames += flow.journal.size();
    return stats;
}

std::unique_ptr<SecondaryProxy> make_secondary_proxy(const ProxyOptions& options, SecondarySink& sink)
{
    return std::make_unique<SecondaryProxyImpl>(options, sink);
}

}  // namespace colo::proxy
