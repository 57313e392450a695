// SPDX-License-Identifier: Apache-2.0
#pragma once

// The secondary's proxy. secondary_proxy.cpp: input, epochs, time. secondary_guest.cpp: the guest's output,
// translation. secondary_takeover.cpp: what the new primary gets.
//
// Journal: mirrored frames that wait for their epoch, and the client's TCP bytes that our guest has not acknowledged,
// at most journal_bytes_max. A frame that finds no room is still given to the guest, but from there on nothing is
// reported as journalled until an epoch that contains it was applied: P's ACK then waits for our guest or for a
// checkpoint. A gap in the numbers (P could not send a frame) counts the same.

#include "proxy/address_book.h"
#include "proxy/flow_table.h"
#include "proxy/neighbours.h"
#include "proxy/proxy.h"
#include "proxy/reinjector.h"

#include <deque>
#include <optional>

namespace colo::proxy {

struct SecondaryFlow {
    FlowKey key;
    Time last_active;
    // Added to our guest's numbers they give wire numbers (R3).
    std::uint32_t wire_offset = 0, timestamp_offset = 0;
    std::optional<TakeOver::HalfOpen> learning;  // our guest's SYN of this epoch, no answer of the client yet
    bool learning_carried = false;               // from the manifest: the primary has not learnt it either
    std::optional<std::uint32_t> covered;        // manifest: wire number after what the epoch contains
    std::optional<std::uint32_t> guest_ack;      // client's numbers
    std::optional<std::uint32_t> client_ack;     // wire numbers
    std::optional<std::uint32_t> client_tsecr;   // highest: P released this TSval
    std::uint32_t guest_tsval = 0;               // last of our guest, its numbers
    Time guest_tsval_at;
    std::optional<std::uint32_t> guest_tsecr;  // last of our guest: the client's clock as it knows it
    std::uint32_t highest_timestamp = 0;  // manifest, wire numbers
    bool has_timestamp = false, closed = false, established = false;
    bool opened = false;                     // our guest is beyond the handshake
    std::optional<std::uint32_t> guest_fin;  // wire number after it
    std::optional<std::uint32_t> client_fin;
    Reinjector journal;

    bool translated() const { return wire_offset != 0 || timestamp_offset != 0 || learning; }
    // Both FINs were acknowledged. That our guest took the client's (anybody can send one) shows in its exact answer.
    bool finished() const
    {
        return guest_fin && client_ack && !seq_before(*client_ack, *guest_fin) && client_fin == guest_ack && guest_ack;
    }
    Duration idle_after() const
    {
        using std::chrono::seconds;
        if (wire_offset != 0) return closed || finished() ? seconds(60) : seconds(7440);
        if (closed) return seconds(1);
        return established ? seconds(60) : seconds(30);
    }
    // For a new flow, if there is no more room. What is learnt again, or needed no more, may go at once: numbers that
    // are the primary's, with a clock that lags like that of every flow, once its answers are older than the lag. A
    // handshake that the checkpoint contains must be over: a repeated SYN would look like that of a new connection.
    bool may_go(Time now, std::uint32_t lag_ticks) const
    {
        const Duration idle = now - last_active;
        if (!journal.empty()) return false;
        if (idle >= idle_after()) return true;
        if (idle < std::max<Duration>(std::chrono::seconds(1), std::chrono::milliseconds(lag_ticks))) return false;
        if (closed || finished()) return true;
        return opened && wire_offset == 0 && timestamp_offset == lag_ticks && !learning;
    }
};

class SecondaryProxyImpl final : public SecondaryProxy {
public:
    SecondaryProxyImpl(const ProxyOptions& options, SecondarySink& sink);

    void input(std::uint8_t nic, Epoch epoch, std::uint64_t number, const FramePtr& frame, Time now) override;
    void guest_frame(std::uint8_t nic, const FramePtr& frame, Time now) override;
    void peer_cut(Epoch epoch, Time now) override;
    void seal(Time now) override;
    void applied(Epoch epoch, const replication::ProxySection& section, Time now) override;
    void aborted(Epoch epoch, Time now) override;
    void set_paused(bool paused, Time now) override;
    TakeOver take_over(Time now) override;
    void tick(Time now) override;
    Time next_deadline() const override { return stopped() ? kNever : next_reinject_; }
    ProxyStats stats() const override;

private:
    struct Waiting {
        std::uint8_t nic;
        Epoch epoch;
        std::uint64_t number;
        FramePtr frame;
    };
    static std::size_t memory(const FramePtr& frame) { return frame->bytes.size() + 96; }

    bool stopped() const { return paused_ || sealed_; }
    bool current(Epoch epoch) const { return epoch <= running_ || epoch <= alias_; }
    SecondaryFlow* flow_of(const FlowKey& key, Time now);
    void drop_contained(Epoch epoch, const replication::ProxySection& section);
    // False: our guest has enough on its way and is given this later, from the journal.
    bool journal_input(const Waiting& input, const Packet& packet, SecondaryFlow* flow, Time now);
    void give_more(SecondaryFlow& flow);
    void note_client(SecondaryFlow& flow, const Packet& packet);
    void learn_offset(SecondaryFlow& flow, const Packet& packet);
    FramePtr to_guest_numbers(const SecondaryFlow* flow, const FramePtr& frame) const;
    void deliver(const Waiting& input, Time now);
    void deliver_waiting(Time now);
    void not_journalled(Epoch epoch);

    void note_guest(SecondaryFlow& flow, const Packet& packet, Time now);
    void note_guest_syn(SecondaryFlow& flow, const Packet& packet);
    void keep_for_replay(std::uint8_t nic, const FramePtr& frame);

    void take_state(const replication::FlowState& state, Time now);
    void update_lag(Time now);

    void take_over_flow(SecondaryFlow& flow, TakeOver& result) const;
    void raise_timestamps(SecondaryFlow& flow) const;
    bool needed(const TakeOver::Replay& replay);
    FramePtr with_present_clock(const TakeOver::Replay& replay, Time now);

    ProxyOptions options_;
    SecondarySink& sink_;
    FlowTable<SecondaryFlow> flows_;
    AddressBook addresses_;
    Neighbours neighbours_;
    ProxyStats stats_;

    Epoch running_ = 0;  // 0: our guest has no state of the primary yet
    Epoch alias_ = 0;    // highest aborted number: another name for the running epoch (R7)
    bool paused_ = false;
    bool sealed_ = false;  // until the next state is applied
    std::uint64_t last_number_ = 0;
    std::optional<Epoch> gap_;     // an input frame of this epoch is not in the journal
    std::deque<Waiting> waiting_;  // input of epochs that our guest does not run yet, or all of it while paused
    std::uint64_t journal_bytes_ = 0;
    std::deque<TakeOver::Replay> replay_;  // R2: output of the running epoch, wire numbers
    std::uint64_t replay_bytes_ = 0;
    Time next_reinject_ = kNever;
    Time guest_heard_;  // our guest's last frame

    struct CutTime {
        Epoch epoch;
        Time time;
    };
    std::deque<CutTime> cuts_;
    std::uint32_t lag_ticks_ = 0;  // our guest's clock behind P's, in milliseconds
    std::vector<TakeOver::Input> captured_;
    bool capturing_ = false;  // take_over: deliveries go to captured_
};

}  // namespace colo::proxy
