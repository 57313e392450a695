// SPDX-License-Identifier: Apache-2.0
#include "proxy/secondary_impl.h"

namespace colo::proxy {

// A handshake of our guest: its first number is its own. The client will tell P's (R3).
void SecondaryProxyImpl::note_guest_syn(SecondaryFlow& flow, const Packet& packet)
{
    if (flow.learning && flow.learning->guest_isn == packet.seq) return;
    if (flow.covered && packet.seq + flow.wire_offset + 1 == *flow.covered) return;  // repeated
    flow.wire_offset = flow.timestamp_offset = 0;
    flow.learning_carried = flow.closed = flow.established = flow.opened = false;
    flow.guest_fin.reset();
    flow.client_fin.reset();
    flow.covered.reset();
    flow.client_ack.reset();
    flow.client_tsecr.reset();
    flow.guest_ack.reset();
    flow.guest_tsecr.reset();
    flow.highest_timestamp = 0;
    journal_bytes_ -= flow.journal.memory();
    if (packet.has(kTcpAck))
        flow.journal.begun(packet.ack);
    else
        flow.journal.clear();
    journal_bytes_ += flow.journal.memory();
    flow.learning =
        TakeOver::HalfOpen{flow.key.nic,       flow.key.guest_ip, flow.key.peer_ip,     flow.key.guest_port,
                           flow.key.peer_port, packet.seq,        packet.options.tsval, packet.options.has_timestamp()};
}

void SecondaryProxyImpl::note_guest(SecondaryFlow& flow, const Packet& packet, Time now)
{
    if (packet.has(kTcpSyn)) note_guest_syn(flow, packet);
    if (packet.options.has_timestamp()) {
        flow.guest_tsval = packet.options.tsval;
        flow.guest_tsval_at = now;
        flow.has_timestamp = true;
    }
    journal_bytes_ -= flow.journal.memory();
    if (packet.has(kTcpRst)) {
        flow.journal.clear();
        flow.closed = true;
    } else if (packet.has(kTcpAck)) {
        flow.closed = false;
        if (!packet.has(kTcpSyn)) flow.established = true;
        if (packet.options.has_timestamp()) flow.guest_tsecr = packet.options.tsecr;
        if (packet.has(kTcpFin)) flow.guest_fin = packet.seq + packet.sequence_size() + flow.wire_offset;
        if (!flow.guest_ack || seq_after(packet.ack, *flow.guest_ack)) flow.guest_ack = packet.ack;
        flow.journal.acknowledged(packet.ack, now, options_.reinject_interval);
    }
    journal_bytes_ += flow.journal.memory();
    give_more(flow);
}

void SecondaryProxyImpl::keep_for_replay(std::uint8_t nic, const FramePtr& frame)
{
    replay_.push_back({nic, frame});
    replay_bytes_ += memory(frame);
    std::size_t drop = 0;  // the oldest: the client has had the longest time to get it from P
    while (replay_bytes_ > options_.replay_bytes_max && drop < replay_.size())
        replay_bytes_ -= memory(replay_[drop++].frame);
    replay_.erase(replay_.begin(), replay_.begin() + static_cast<std::ptrdiff_t>(drop));
}

void SecondaryProxyImpl::guest_frame(std::uint8_t nic, const FramePtr& frame, Time now)
{
    if (running_ == 0) return;
    const Packet packet = parse_packet(frame->view());
    guest_heard_ = now;
    ++stats_.guest_frames;
    stats_.guest_bytes += frame->bytes.size();
    addresses_.from_guest(nic, packet);
    FramePtr wire = frame;
    if (packet.kind == PacketKind::tcp) {
        if (SecondaryFlow* flow = flow_of(key_from_guest(nic, packet), now)) {
            note_guest(*flow, packet, now);
            wire = rewritten(frame, packet, {flow->wire_offset, 0, flow->timestamp_offset, 0});
        }
    }
    if (packet.kind != PacketKind::opaque) sink_.output(nic, running_, wire);  // P cannot compare the others
    keep_for_replay(nic, wire);
    if (const FramePtr answer = neighbours_.answer(nic, packet)) sink_.to_guest(nic, answer);
}

}  // namespace colo::proxy
