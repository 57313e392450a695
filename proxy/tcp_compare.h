// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the primary knows of one TCP connection: the guest's stream to the client as far as S owns it (the *verified
// prefix*: matched bytes and bytes contained in a STAGED epoch), both sides' bytes beyond it, and which of the client's
// bytes S is sure to have (R4). All numbers are wire numbers.

#include "core/types.h"
#include "proxy/packet.h"
#include "proxy/stream_window.h"
#include "replication/message.h"

#include <deque>
#include <limits>
#include <optional>

namespace colo::proxy {

// What of a SYN or SYN-ACK must be equal on both sides: everything that shapes the connection. ISN and clock are not.
struct SynShape {
    std::uint8_t flags = 0;
    std::uint16_t mss = 0;
    std::uint8_t window_scale = 0xff;
    bool sack_permitted = false, timestamps = false;
    bool operator==(const SynShape&) const = default;
};
SynShape syn_shape(const Packet& packet);

// The client's bytes that S's journal has not confirmed, by mirror number. An ACK is covered if no unconfirmed frame
// starts before it.
class MirroredInput {
public:
    void add(std::uint64_t number, std::uint32_t seq_start);
    void confirmed(std::uint64_t number);  // everything up to it is in the journal or a checkpoint
    void forget_before(std::uint64_t number) { confirmed(number == 0 ? 0 : number - 1); }
    bool covers(std::uint32_t ack) const;
    bool empty() const { return entries_.empty(); }
    bool settled() const { return entries_.empty() && !missing_; }  // nothing that an ACK would have to wait for
    void clear()
    {
        entries_.clear();
        missing_.reset();
    }
    // Bytes from `seq_start` on that our guest may still consume in `epoch` will not be mirrored in it: the first
    // checkpoint after that epoch has them, nothing before.
    void missing(Epoch epoch, std::uint32_t seq_start);
    void staged(Epoch epoch);

    struct Entry {
        std::uint64_t number;
        std::uint32_t seq_start;
    };

private:
    static constexpr std::size_t kMax = 4096;
    struct Missing {
        Epoch epoch;
        std::uint32_t seq_start;
    };
    std::deque<Entry> entries_;
    std::optional<Missing> missing_;
};

// Where one frame of ours lies in the stream.
struct StreamSpan {
    Position start = 0, end = 0;
    bool reset = false;    // RST: an event at `start`
    bool foreign = false;  // belongs to another incarnation of the connection than the windows: only STAGED frees it
};

class TcpCompare {
public:
    static constexpr Position kNoLimit = std::numeric_limits<Position>::max();

    // Our guest's segment, already in wire numbers. `queue_empty`: nothing of this flow is held. `comparing`: keep its
    // bytes for comparison (not while output flows).
    StreamSpan own_segment(const Packet& packet, const FramePtr& frame, bool queue_empty, bool comparing);
    // S's segment. A byte that contradicts what S said before counts as a difference.
    void peer_segment(const Packet& packet, const FramePtr& frame);
    // The client's segment: numbers only. Anybody can send one with these addresses: `closed` is a hint for eviction.
    void client_segment(const Packet& packet);
    // Client bytes were mirrored as `number`.
    void mirrored(const Packet& packet, std::uint64_t number);

    // Compares as far as both sides are known. `pending`: a cut is sealed and neither applied nor aborted, its number
    // or 0.
    Verdict compare(Epoch pending);
    bool released(const StreamSpan& span) const;  // S owns all of it
    // `by_peer`: S's guest runs the epoch that this ACK belongs to, so its own ACKs count. Otherwise only the journal
    // does: what S's guest had before a cut is gone when the cut is applied. `by_journal`: all of the connection's
    // bytes were seen as such when they were mirrored.
    bool ack_covered(std::uint32_t ack, bool by_peer, bool by_journal) const;
    bool reset_matches(const StreamSpan& span, Epoch pending) const;

    // Everything our guest has sent is S's from now on (output flows, or a frame was released by STAGED).
    void own_everything();
    void seal(Epoch next);                 // remembers where epoch `next` begins
    void staged(Epoch epoch);              // the prefix moves to the seal of `epoch`
    void forget_peer();                    // S's bytes of the epoch before (applied, session edges)
    replication::FlowState state() const;  // without key and offsets

    MirroredInput& input() { return input_; }
    const MirroredInput& input() const { return input_; }
    std::size_t peer_memory() const { return theirs_.memory(); }
    bool known() const { return known_; }
    const std::optional<std::uint32_t>& guest_ack() const { return guest_ack_; }
    bool closed() const { return closed_; }
    bool established() const { return established_; }
    bool finished() const { return fin_sent_ && fin_received_; }
    // Our guest is beyond the handshake: it has sent bytes, or has acknowledged the client's.
    bool opened() const { return opened_; }
    // S owns everything that our guest has said, and what S has said was needed: who forgets this flow learns the same
    // from its next segment.
    bool agreed() const
    {
        const bool awaited = peer_syn_ || (peer_reset_ && !closed_) || !theirs_.empty() || !mine_.empty();
        // Our guest's own SYN, repeated, would look like the first: what was mirrored before it would be forgotten.
        const bool asking = syn_at_ && !established_ && (own_syn_.flags & kTcpAck) == 0;
        return !awaited && !asking && !diverged_ && !foreign_ && (!known_ || verified_ == next_) && input_.settled();
    }
    bool difference_reported() const { return difference_reported_; }  // once per difference, for the statistics
    void report_difference() { difference_reported_ = true; }
    std::uint64_t compared_bytes() const { return compared_bytes_; }

private:
    void begin(Position at);
    void note_own(const Packet& packet, Position end);
    StreamSpan own_syn(const Packet& packet, const FramePtr& frame, bool queue_empty, bool comparing);
    Position limit(Epoch pending) const;
    bool keep(StreamWindow& window, const Packet& packet, const FramePtr& frame, Position start);
    Verdict compare_syn(Position limit);
    StreamSpan contradiction();
    void forget_input_before_syn(std::uint32_t ack);
    void peer_syn(const Packet& packet);

    bool known_ = false;     // the prefix has a place
    bool diverged_ = false;  // different bytes: nothing is compared until S has our state
    bool difference_reported_ = false;
    bool foreign_ = false;  // a new incarnation began while frames of the old one are held
    bool closed_ = false, established_ = false, opened_ = false;
    bool fin_sent_ = false, fin_received_ = false;
    Position verified_ = 0, next_ = 0, sealed_ = 0;
    Epoch sealed_epoch_ = 0;
    std::optional<Position> syn_at_;
    SynShape own_syn_;
    std::optional<SynShape> peer_syn_;
    std::uint32_t peer_syn_seq_ = 0;
    std::optional<std::uint32_t> peer_syn_used_;  // S's own number of the SYN that has been matched
    std::optional<std::uint32_t> peer_reset_;
    std::optional<std::uint32_t> peer_ack_;
    std::optional<std::uint32_t> guest_ack_;
    std::optional<std::uint32_t> highest_timestamp_;
    std::optional<MirroredInput::Entry> client_syn_;
    std::uint64_t compared_bytes_ = 0;
    StreamWindow mine_, theirs_;
    MirroredInput input_;
};

}  // namespace colo::proxy
