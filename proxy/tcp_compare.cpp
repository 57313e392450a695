// SPDX-License-Identifier: Apache-2.0
#include "proxy/tcp_compare.h"

#include "proxy/flow_table.h"

#include <utility>

namespace colo::proxy {

SynShape syn_shape(const Packet& packet)
{
    return {static_cast<std::uint8_t>(packet.tcp_flags & (kTcpSyn | kTcpAck | kTcpEce | kTcpCwr)), packet.options.mss,
            packet.options.window_scale, packet.options.sack_permitted, packet.options.has_timestamp()};
}

void MirroredInput::add(std::uint64_t number, std::uint32_t seq_start)
{
    if (entries_.size() >= kMax) {  // coarser, never laxer: the two newest become one
        entries_.back().number = number;
        if (seq_before(seq_start, entries_.back().seq_start)) entries_.back().seq_start = seq_start;
        return;
    }
    entries_.push_back({number, seq_start});
}

void MirroredInput::confirmed(std::uint64_t number)
{
    while (!entries_.empty() && entries_.front().number <= number) entries_.pop_front();
}

void MirroredInput::missing(Epoch epoch, std::uint32_t seq_start)
{
    if (missing_ && seq_before(missing_->seq_start, seq_start)) seq_start = missing_->seq_start;
    missing_ = {epoch, seq_start};
}

void MirroredInput::staged(Epoch epoch)
{
    if (missing_ && missing_->epoch < epoch) missing_.reset();
}

bool MirroredInput::covers(std::uint32_t ack) const
{
    if (missing_ && seq_before(missing_->seq_start, ack)) return false;
    for (const Entry& entry : entries_)
        if (seq_before(entry.seq_start, ack)) return false;
    return true;
}

void TcpCompare::begin(Position at)
{
    known_ = true;
    diverged_ = difference_reported_ = closed_ = opened_ = fin_sent_ = fin_received_ = false;
    verified_ = next_ = at;
    syn_at_.reset();
    sealed_epoch_ = 0;
    mine_.clear();
    theirs_.clear();
    peer_reset_.reset();
}

void TcpCompare::note_own(const Packet& packet, Position end)
{
    if (end > next_) next_ = end;
    const bool acknowledges = established_ && guest_ack_ && seq_after(packet.ack, *guest_ack_) && packet.has(kTcpAck);
    if (!packet.has(kTcpRst | kTcpSyn) && (packet.payload_size() != 0 || packet.has(kTcpFin) || acknowledges))
        opened_ = true;
    if (packet.has(kTcpAck) && !packet.has(kTcpRst) && (!guest_ack_ || seq_after(packet.ack, *guest_ack_)))
        guest_ack_ = packet.ack;
    if (packet.options.has_timestamp() && (!highest_timestamp_ || seq_after(packet.options.tsval, *highest_timestamp_)))
        highest_timestamp_ = packet.options.tsval;
    if (packet.has(kTcpFin)) fin_sent_ = true;
    closed_ = packet.has(kTcpRst);
    if (packet.has(kTcpAck) && !packet.has(kTcpSyn)) established_ = true;
}

bool TcpCompare::keep(StreamWindow& window, const Packet& packet, const FramePtr& frame, Position start)
{
    // Before our guest's first segment S's may come in any order: verified_ is only where they began to.
    const Position floor = known_ ? verified_ : 0;
    const auto inserted = window.insert(start, frame, packet.payload, packet.payload_size(), floor);
    if (inserted == StreamWindow::Insert::conflict) return false;
    const Position fin = start + packet.payload_size();
    if (packet.has(kTcpFin) && fin >= floor) return window.insert_fin(fin);
    return true;
}

// A SYN with a number of its own begins a new incarnation of the connection.
StreamSpan TcpCompare::own_syn(const Packet& packet, const FramePtr& frame, bool queue_empty, bool comparing)
{
    const bool repeated = known_ && !foreign_ && syn_at_ && static_cast<std::uint32_t>(*syn_at_) == packet.seq;
    // After a checkpoint or a take-over the SYN itself was never seen; it lies right below the prefix.
    const bool contained =
        known_ && !syn_at_ && !established_ && static_cast<std::uint32_t>(verified_) == packet.seq + 1;
    if (!repeated && !contained) {
        if (known_ && !queue_empty) {
            foreign_ = true;
            return {0, 0, false, true};
        }
        begin(first_position(packet.seq));
        foreign_ = established_ = false;
        guest_ack_.reset();
        highest_timestamp_.reset();
        if (!peer_syn_) peer_ack_.reset();
        if (packet.has(kTcpAck))
            forget_input_before_syn(packet.ack);
        else
            input_.clear();
        syn_at_ = verified_;
        own_syn_ = syn_shape(packet);
    }
    const Position start = position_of(packet.seq, verified_);
    const Position end = start + packet.sequence_size();
    note_own(packet, end);
    if (comparing && packet.payload_size() != 0 && !keep(mine_, packet, frame, start + 1)) return contradiction();
    return {start, end, false, false};
}

// Our guest answers a SYN: what was mirrored before it belongs to the connection before. Another SYN that came
// meanwhile, with whatever number, says nothing.
void TcpCompare::forget_input_before_syn(std::uint32_t ack)
{
    if (client_syn_ && client_syn_->seq_start + 1 == ack) input_.forget_before(client_syn_->number);
}

// Our guest repeated a byte differently: what it said first may match, this frame may not leave by that.
StreamSpan TcpCompare::contradiction()
{
    diverged_ = true;
    return {0, 0, false, true};
}

StreamSpan TcpCompare::own_segment(const Packet& packet, const FramePtr& frame, bool queue_empty, bool comparing)
{
    if (foreign_ && queue_empty) {
        foreign_ = false;
        known_ = false;
    }
    if (packet.has(kTcpSyn)) return own_syn(packet, frame, queue_empty, comparing);
    if (foreign_) return {0, 0, false, true};
    if (!known_) {
        const auto reset = peer_reset_;  // S may have been first
        StreamWindow theirs = std::exchange(theirs_, {});
        begin(theirs.empty() ? first_position(packet.seq) : position_of(packet.seq, verified_));
        peer_reset_ = reset;
        theirs_ = std::move(theirs);
        theirs_.discard_below(verified_);
    }
    const Position start = position_of(packet.seq, verified_);
    const Position end = start + packet.sequence_size();
    note_own(packet, end);
    if (packet.has(kTcpRst)) return {start, start, true, false};
    if (comparing && end > verified_ && !keep(mine_, packet, frame, start)) return contradiction();
    return {start, end, false, false};
}

void TcpCompare::peer_segment(const Packet& packet, const FramePtr& frame)
{
    if (packet.has(kTcpSyn)) return peer_syn(packet);
    if (packet.has(kTcpRst)) {
        peer_reset_ = packet.seq;
        return;
    }
    if (packet.has(kTcpAck) && (!peer_ack_ || seq_after(packet.ack, *peer_ack_))) peer_ack_ = packet.ack;
    if (diverged_ || foreign_ || packet.sequence_size() == 0) return;
    if (!known_ && theirs_.empty()) verified_ = first_position(packet.seq);
    if (!keep(theirs_, packet, frame, position_of(packet.seq, verified_))) diverged_ = true;
}

// Its number is S's own, and data on it is compared when S repeats it. A repeated SYN must not match the next
// connection.
void TcpCompare::peer_syn(const Packet& packet)
{
    const bool ours_matched = known_ && syn_at_ && verified_ > *syn_at_;
    if (peer_syn_used_ == packet.seq || (ours_matched && static_cast<std::uint32_t>(*syn_at_) == packet.seq)) return;
    peer_syn_ = syn_shape(packet);
    peer_syn_seq_ = packet.seq;
    peer_ack_.reset();
    if (packet.has(kTcpAck)) peer_ack_ = packet.ack;
}

void TcpCompare::client_segment(const Packet& packet)
{
    if (packet.has(kTcpRst) && guest_ack_ && packet.seq == *guest_ack_) closed_ = true;  // RFC 5961
    if (packet.has(kTcpFin)) fin_received_ = true;
    if (packet.has(kTcpSyn)) closed_ = fin_received_ = false;
}

void TcpCompare::mirrored(const Packet& packet, std::uint64_t number)
{
    if (packet.sequence_size() == 0 || packet.has(kTcpRst)) return;
    if (packet.has(kTcpSyn)) client_syn_ = MirroredInput::Entry{number, packet.seq};
    input_.add(number, packet.seq);
}

Position TcpCompare::limit(Epoch pending) const
{
    if (pending == 0) return kNoLimit;
    return sealed_epoch_ == pending ? sealed_ : verified_;  // a flow born after the seal has nothing to compare yet
}

Verdict TcpCompare::compare_syn(Position limit)
{
    if (!syn_at_ || verified_ != *syn_at_ || verified_ >= limit || !peer_syn_) return Verdict::equal;
    if (*peer_syn_ != own_syn_) return Verdict::different;
    ++verified_;
    peer_syn_used_ = peer_syn_seq_;
    peer_syn_.reset();
    return Verdict::equal;
}

Verdict TcpCompare::compare(Epoch pending)
{
    if (diverged_) return Verdict::different;
    if (!known_ || foreign_) return Verdict::equal;
    const Position to = limit(pending);
    const Position before = verified_;
    Verdict verdict = compare_syn(to);
    const bool at_syn = syn_at_ && verified_ == *syn_at_;
    if (verdict == Verdict::equal && !at_syn) verdict = verify(mine_, theirs_, verified_, to);
    compared_bytes_ += static_cast<std::uint64_t>(verified_ - before);
    if (verdict == Verdict::different) {
        diverged_ = true;
        theirs_.clear();
    }
    return verdict;
}

bool TcpCompare::released(const StreamSpan& span) const
{
    return !span.foreign && !span.reset && known_ && span.end <= verified_;
}

bool TcpCompare::ack_covered(std::uint32_t ack, bool by_peer, bool by_journal) const
{
    if (by_peer && peer_ack_ && !seq_after(ack, *peer_ack_)) return true;
    return by_journal && input_.covers(ack);
}

bool TcpCompare::reset_matches(const StreamSpan& span, Epoch pending) const
{
    return pending == 0 && !span.foreign && peer_reset_ && *peer_reset_ == static_cast<std::uint32_t>(span.start);
}

void TcpCompare::own_everything()
{
    verified_ = next_;
    diverged_ = difference_reported_ = foreign_ = false;
    mine_.clear();
    theirs_.clear();
}

void TcpCompare::seal(Epoch next)
{
    if (!known_) return;
    sealed_ = next_;
    sealed_epoch_ = next;
}

void TcpCompare::staged(Epoch epoch)
{
    input_.staged(epoch);
    if (!known_ || sealed_epoch_ == 0 || sealed_epoch_ > epoch) return;
    if (sealed_ > verified_) verified_ = sealed_;
    mine_.discard_below(verified_);
    theirs_.discard_below(verified_);
}

void TcpCompare::forget_peer()
{
    diverged_ = difference_reported_ = false;
    theirs_.clear();
    peer_syn_.reset();
    peer_syn_used_.reset();
    peer_reset_.reset();
    peer_ack_.reset();
}

replication::FlowState TcpCompare::state() const
{
    replication::FlowState state;
    state.covered_seq = static_cast<std::uint32_t>(next_);
    state.acked_seq = guest_ack_.value_or(0);
    state.highest_timestamp = highest_timestamp_.value_or(0);
    state.flags = static_cast<std::uint8_t>((highest_timestamp_ ? 1 : 0) | (fin_sent_ ? 2 : 0) |
                                            (fin_received_ ? 4 : 0) | (opened_ ? kFlowOpened : 0));
    return state;
}

}  // namespace colo::proxy
