// SPDX-License-Identifier: Apache-2.0
#include "core/breakage.h"
#include "proxy/primary_impl.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace colo::proxy {

bool PrimaryProxyImpl::accept_from_wire(std::uint8_t nic, const Packet& packet, Time now)
{
    if (packet.size < kVnetHeaderSize + kEthernetHeaderSize) return false;
    if (nic >= options_.nics.size()) return true;
    const Mac& mac = options_.nics[nic];
    if (std::memcmp(packet.source_mac(), mac.data(), 6) == 0) {
        if (now - own_mac_reported_ >= std::chrono::seconds(1)) {
            own_mac_reported_ = now;
            sink_.own_mac_seen(nic);
        }
        return false;
    }
    const bool group = (packet.target_mac()[0] & 1) != 0;
    return group || std::memcmp(packet.target_mac(), mac.data(), 6) == 0;
}

PrimaryFlow* PrimaryProxyImpl::flow_of(const FlowKey& key, Time now)
{
    const auto may_go = [&](PrimaryFlow& oldest) {
        if (oldest.tcp) oldest.tcp->input().confirmed(journalled_);
        return oldest.may_go(now);
    };
    PrimaryFlow* flow = flows_.use_or_add(key, now, may_go);
    if (flow == nullptr || flow->tcp || flow->datagrams) return flow;
    if (key.kind == PacketKind::tcp)
        flow->tcp = std::make_unique<TcpCompare>();
    else
        flow->datagrams = std::make_unique<DatagramCompare>();
    return flow;
}

// The client answered a handshake that our guest began before we went live: it names the number it was told (R3).
void PrimaryProxyImpl::learn_offset(PrimaryFlow& flow, const Packet& packet)
{
    if (!flow.learning || !packet.has(kTcpAck) || packet.has(kTcpRst)) return;
    flow.wire_offset = packet.ack - (flow.learning->guest_isn + 1);
    if (flow.learning->has_timestamp && packet.options.has_timestamp() && packet.options.tsecr != 0)
        flow.timestamp_offset = packet.options.tsecr - flow.learning->guest_tsval;
    flow.syn_contained = packet.ack;
    flow.learning.reset();
}

FramePtr PrimaryProxyImpl::to_guest_numbers(PrimaryFlow& flow, const Packet& packet, const FramePtr& frame)
{
    learn_offset(flow, packet);
    return rewritten(frame, packet, {0, 0 - flow.wire_offset, 0, 0 - flow.timestamp_offset});
}

FramePtr PrimaryProxyImpl::to_wire_numbers(PrimaryFlow& flow, const Packet& packet, const FramePtr& frame)
{
    if (packet.has(kTcpSyn)) {
        const bool learning = flow.learning && flow.learning->guest_isn == packet.seq;
        const bool contained = flow.syn_contained && packet.seq + flow.wire_offset + 1 == *flow.syn_contained;
        if (!learning && !contained) {  // a new connection with the same addresses: its numbers are the guest's
            flow.wire_offset = flow.timestamp_offset = 0;
            flow.learning.reset();
            flow.syn_contained.reset();
        }
    }
    return rewritten(frame, packet, {flow.wire_offset, 0, flow.timestamp_offset, 0});
}

void PrimaryProxyImpl::mirror_input(std::uint8_t nic, PrimaryFlow* flow, const Packet& packet, const FramePtr& frame,
                                    Time given)
{
    if (session_ == 0) return;
    sink_.mirror(nic, tag_, ++number_, frame);
    if (broken(Breakage::ack_on_mirror_receipt)) return;
    if (flow == nullptr) {
        if (packet.kind == PacketKind::tcp || packet.tcp_fragment()) untracked_number_ = number_;
        return;
    }
    flow->tcp->input().confirmed(journalled_);
    flow->tcp->mirrored(packet, number_);
    keep_unconsumed(*flow, packet, frame, given);
}

// Anybody can send a RST with these addresses; our guest believes the one that has the very next number (RFC 5961).
bool PrimaryProxyImpl::believed(const PrimaryFlow& flow, const Packet& client_reset)
{
    return flow.tcp->guest_ack() && client_reset.seq == *flow.tcp->guest_ack();
}

void PrimaryProxyImpl::keep_unconsumed(PrimaryFlow& flow, const Packet& packet, const FramePtr& frame, Time given)
{
    if (packet.has(kTcpRst) && believed(flow, packet)) return forget_unconsumed(flow);
    if (packet.has(kTcpRst) || packet.sequence_size() == 0) return;
    const std::uint32_t end = packet.seq + packet.sequence_size();
    if (flow.input.repeated(packet.seq, end, given)) return;
    const std::size_t before = flow.input.memory();
    flow.input.add({packet.seq, end, frame, given},
                   options_.journal_bytes_max - std::min(unconsumed_bytes_, options_.journal_bytes_max));
    unconsumed_bytes_ += flow.input.memory() - before;
}

void PrimaryProxyImpl::consumed(PrimaryFlow& flow, const Packet& from_guest)
{
    if (from_guest.has(kTcpRst)) return forget_unconsumed(flow);
    if (!from_guest.has(kTcpAck)) return;
    unconsumed_bytes_ -= flow.input.memory();
    if (from_guest.has(kTcpSyn)) flow.input.begun(from_guest.ack);
    flow.input.acknowledged(from_guest.ack);
    unconsumed_bytes_ += flow.input.memory();
}

void PrimaryProxyImpl::forget_unconsumed(PrimaryFlow& flow)
{
    unconsumed_bytes_ -= flow.input.memory();
    flow.input.clear();
}

// R5: S must see again what our guest has not consumed at the cut. A guest that was heard a while after it was given a
// frame has emptied its rings since: the frame is in its memory, and with that in the checkpoint (beyond a gap of the
// stream), or it was ignored (a wrong number, no listener). Without this limit, input that is never acknowledged would
// be mirrored at every cut for ever. A guest that is silent may be stalled with the frame before its door: it is kept.
void PrimaryProxyImpl::mirror_unconsumed(PrimaryFlow& flow, Time now)
{
    constexpr Duration kConsumedAfter{2'000'000}, kHeardAfter{1'000'000};
    if (session_ == 0) return;
    unconsumed_bytes_ -= flow.input.memory();
    flow.input.forget_given_before(std::min(now - kConsumedAfter, guest_heard_ - kHeardAfter));
    const std::optional<std::uint32_t> lost = flow.input.lost_from();
    if (lost) flow.tcp->input().missing(tag_, *lost);
    for (const Unconsumed::Entry& entry : flow.input.take_all())
        mirror_input(flow.key.nic, &flow, parse_packet(entry.frame->view()), entry.frame, entry.given);
}

// What the guest was given at the take-over and has not acknowledged yet; from now on it is mirrored like any other
// input.
void PrimaryProxyImpl::mirror_taken_over(PrimaryFlow& flow, const Reinjector::Entry& entry, Time now)
{
    const Packet packet = parse_packet(entry.frame->view());
    const FramePtr frame = rewritten(entry.frame, packet, {0, flow.wire_offset, 0, flow.timestamp_offset});
    keep_unconsumed(flow, packet, frame, now);
}

void PrimaryProxyImpl::mirror_again(std::uint8_t nic, const FramePtr& guest_numbers, Time now)
{
    const Packet packet = parse_packet(guest_numbers->view());
    PrimaryFlow* flow = packet.kind == PacketKind::tcp ? flows_.find(key_from_peer(nic, packet)) : nullptr;
    const std::uint32_t size = packet.sequence_size();
    if (flow != nullptr && size != 0 && flow->input.repeated(packet.seq, packet.seq + size, now)) return;
    FramePtr frame = guest_numbers;
    if (flow != nullptr) frame = rewritten(frame, packet, {0, flow->wire_offset, 0, flow->timestamp_offset});
    mirror_input(nic, flow, packet, frame, now);
}

void PrimaryProxyImpl::wire_frame(std::uint8_t nic, const FramePtr& frame, Time now)
{
    const Packet packet = parse_packet(frame->view());
    if (output_ == Output::frozen || !accept_from_wire(nic, packet, now)) return;
    ++stats_.wire_frames;
    stats_.wire_bytes += packet.size - kVnetHeaderSize;
    PrimaryFlow* flow = nullptr;
    if (packet.kind == PacketKind::tcp) {
        const FlowKey key = key_from_peer(nic, packet);
        flow = session_ != 0 ? flow_of(key, now) : flows_.use(key, now);
    }
    mirror_input(nic, flow, packet, frame, now);
    if (flow == nullptr) return sink_.to_guest(nic, frame);
    flow->tcp->client_segment(packet);
    if (packet.has(kTcpRst) && believed(*flow, packet)) flow->reinject.clear();
    sink_.to_guest(nic, flow->translated() ? to_guest_numbers(*flow, packet, frame) : frame);
}

// Unprotected: nothing is kept, but the numbers are followed, because protection can begin at any time.
void PrimaryProxyImpl::flowing(PrimaryFlow* flow, std::uint8_t nic, const Packet& packet, const FramePtr& frame)
{
    if (flow != nullptr && flow->tcp) {
        const std::size_t before = flow->peer_memory();
        flow->tcp->own_segment(packet, frame, true, false);
        flow->tcp->own_everything();
        compare_bytes_ -= before - flow->peer_memory();
    }
    ++stats_.released_unprotected;
    sink_.to_wire(nic, frame, ReleaseReason::unprotected(generation_));
}

void PrimaryProxyImpl::guest_frame(std::uint8_t nic, const FramePtr& frame, Time now)
{
    Packet packet = parse_packet(frame->view());
    guest_heard_ = now;
    ++stats_.guest_frames;
    stats_.guest_bytes += frame->bytes.size() - std::min(frame->bytes.size(), kVnetHeaderSize);
    if (output_ == Output::frozen) return;
    addresses_.from_guest(nic, packet);
    PrimaryFlow* flow = nullptr;
    FramePtr wire = frame;
    if (packet.kind == PacketKind::tcp) {
        flow = flow_of(key_from_guest(nic, packet), now);
        if (flow != nullptr) consumed(*flow, packet);
        if (flow != nullptr && !flow->reinject.empty()) {
            if (packet.has(kTcpSyn) && packet.has(kTcpAck)) flow->reinject.begun(packet.ack);
            if (packet.has(kTcpRst))
                flow->reinject.clear();
            else if (packet.has(kTcpAck))
                flow->reinject.acknowledged(packet.ack, now, options_.reinject_interval);
            if (packet.has(kTcpAck) && packet.options.has_timestamp()) flow->guest_tsecr = packet.options.tsecr;
            flow->reinject.give_more(
                [&](const Reinjector::Entry& e) { sink_.to_guest(nic, given_again(e.frame, flow->guest_tsecr)); });
        }
        if (flow != nullptr && flow->translated()) {
            wire = to_wire_numbers(*flow, packet, frame);
            if (wire != frame) packet = parse_packet(wire->view());
        }
    } else if (packet.kind != PacketKind::opaque && output_ != Output::flow) {
        flow = flow_of(key_from_guest(nic, packet), now);
    }
    if (output_ == Output::flow) return flowing(flow, nic, packet, wire);
    if (flow == nullptr) {
        while (opaque_.size() <= nic) {
            opaque_.emplace_back();
            opaque_.back().key.nic = static_cast<std::uint8_t>(opaque_.size() - 1);
        }
        flow = &opaque_[nic];
        flow->cause = packet.cause;
    }
    protect(*flow, packet, wire, now);
}

void PrimaryProxyImpl::peer_output(std::uint8_t nic, Epoch epoch, const FramePtr& frame, Time now)
{
    if (session_ == 0 || mode_ == replication::Mode::buffered || epoch < applied_) return;
    if (epoch == applied_) return handle_peer(nic, frame, now);
    // The output channel may be faster than the APPLIED of the control channel.
    const std::size_t size = frame->bytes.size() + 96;
    if (compare_bytes_ + size > options_.compare_bytes_max) {
        ++stats_.dropped_overflow;
        return;
    }
    compare_bytes_ += size;
    future_.push_back({nic, epoch, frame});
}

void PrimaryProxyImpl::handle_peer(std::uint8_t nic, const FramePtr& frame, Time now)
{
    const Packet packet = parse_packet(frame->view());
    if (packet.kind == PacketKind::opaque || applied_ == 0 || output_ != Output::protect) return;
    if (compare_bytes_ + frame->bytes.size() > options_.compare_bytes_max) {
        ++stats_.dropped_overflow;
        return;
    }
    PrimaryFlow* flow = flow_of(key_from_guest(nic, packet), now);
    if (flow == nullptr) return;
    const std::size_t before = flow->peer_memory();
    if (flow->tcp) {
        flow->tcp->peer_segment(packet, frame);
        compare_tcp(*flow, now);
    } else {
        flow->datagrams->forget_before(now - options_.hold_deadline_max * 2);
        if (!match_new_datagram(*flow, packet)) flow->datagrams->add(frame, now);
        if (!flow->held.empty()) next_late_ = std::min(next_late_, due_of(*flow));
    }
    compare_bytes_ += flow->peer_memory() - before;
    pump(*flow, now);
}

}  // namespace colo::proxy
