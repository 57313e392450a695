// SPDX-License-Identifier: Apache-2.0
#pragma once

// The primary's proxy. primary_proxy.cpp: session, epochs, lease, time. primary_frames.cpp: frames in, translation.
// primary_hold.cpp: what is held, compared and released.
//
// Memory: at most hold_bytes_max of held output. At 80 % a checkpoint is asked for; beyond 100 % the *newest* frame is
// dropped, as a network may (the guest's TCP repeats it). At most compare_bytes_max of S's output; beyond it S's newest
// is dropped, which makes P's late and costs a checkpoint. At most journal_bytes_max of input that our guest has not
// acknowledged, and a share of it for one flow; what finds no room is not mirrored at the next cut, and the flow's ACKs
// beyond it then wait for S's guest or for the checkpoint after that.
// Nothing unmatched is ever released to make room.

#include "proxy/address_book.h"
#include "proxy/hold_deadline.h"
#include "proxy/primary_flow.h"

namespace colo::proxy {

class PrimaryProxyImpl final : public PrimaryProxy {
public:
    PrimaryProxyImpl(const ProxyOptions& options, PrimarySink& sink);
    PrimaryProxyImpl(const ProxyOptions& options, PrimarySink& sink, const TakeOver& from, Time now);

    void wire_frame(std::uint8_t nic, const FramePtr& frame, Time now) override;
    void guest_frame(std::uint8_t nic, const FramePtr& frame, Time now) override;
    void peer_output(std::uint8_t nic, Epoch epoch, const FramePtr& frame, Time now) override;
    void peer_journalled(Epoch epoch, std::uint64_t number, Time now) override;
    void begin_session(SessionId session, Time now) override;
    void end_session(Time now) override;
    void set_output(Output output, Generation generation, Time now) override;
    void set_mode(replication::Mode mode, Time now) override;
    replication::ProxySection seal(Epoch next, const std::vector<UnreadInput>& unread, Time now) override;
    void staged(Epoch epoch, Time now) override;
    void applied(Epoch epoch, Time now) override;
    void aborted(Epoch epoch, Time now) override;
    void set_lease(Time until, Time now) override;
    void tick(Time now) override;
    Time next_deadline() const override;
    ProxyStats stats() const override;
    replication::ProxySection section() const override;
    std::vector<FramePtr> announcements(std::uint8_t nic) const override { return addresses_.announcements(nic); }

private:
    struct PeerFrame {
        std::uint8_t nic;
        Epoch epoch;
        FramePtr frame;
    };
    // A trigger that nobody followed is repeated.
    static constexpr Duration kTriggerAgain{1'000'000};
    struct SealedInput {
        Epoch epoch;
        std::uint64_t last;
    };

    // primary_frames.cpp
    bool accept_from_wire(std::uint8_t nic, const Packet& packet, Time now);
    void learn_offset(PrimaryFlow& flow, const Packet& packet);
    FramePtr to_guest_numbers(PrimaryFlow& flow, const Packet& packet, const FramePtr& frame);
    FramePtr to_wire_numbers(PrimaryFlow& flow, const Packet& packet, const FramePtr& frame);
    void mirror_input(std::uint8_t nic, PrimaryFlow* flow, const Packet& packet, const FramePtr& frame, Time given);
    void mirror_again(std::uint8_t nic, const FramePtr& guest_numbers, Time now);
    void mirror_taken_over(PrimaryFlow& flow, const Reinjector::Entry& entry, Time now);
    void mirror_unconsumed(PrimaryFlow& flow, Time now);
    void keep_unconsumed(PrimaryFlow& flow, const Packet& packet, const FramePtr& frame, Time given);
    static bool believed(const PrimaryFlow& flow, const Packet& client_reset);
    void consumed(PrimaryFlow& flow, const Packet& from_guest);
    void forget_unconsumed(PrimaryFlow& flow);
    PrimaryFlow* flow_of(const FlowKey& key, Time now);
    void flowing(PrimaryFlow* flow, std::uint8_t nic, const Packet& packet, const FramePtr& frame);
    void handle_peer(std::uint8_t nic, const FramePtr& frame, Time now);

    // primary_hold.cpp
    void protect(PrimaryFlow& flow, const Packet& packet, const FramePtr& frame, Time now);
    void protect_tcp(PrimaryFlow& flow, const Packet& packet, Held held, bool room, Time now);
    static void overtake(const PrimaryFlow& flow, const Packet& packet, Held& held);
    void hold(PrimaryFlow& flow, Held held, bool room, Time now);
    std::optional<ReleaseReason> reason_for(PrimaryFlow& flow, const Held& held);
    bool may_release(Time now) const;
    void emit(PrimaryFlow& flow, const Held& held, const ReleaseReason& reason, Time now);
    void pump(PrimaryFlow& flow, Time now);
    void pump_all(Time now);
    void compare_tcp(PrimaryFlow& flow, Time now);
    void match_datagrams(PrimaryFlow& flow);
    bool match_new_datagram(PrimaryFlow& flow, const Packet& peer);
    void drop_held(PrimaryFlow& flow);
    void release_everything(Time now);
    void note_holding(PrimaryFlow& flow);
    bool comparing() const { return session_ != 0 && mode_ == replication::Mode::lock_step; }
    bool comparable(Epoch tag) const { return pending_ == 0 || tag < pending_; }
    bool trigger_allowed() const { return session_ != 0 && output_ == Output::protect && pending_ == 0 && !triggered_; }
    void trigger(replication::TriggerReason reason, const std::string& detail, Time now);
    void trigger_if_waiting(Time now);
    bool needs_cut(PrimaryFlow& flow, Time now);
    void check_late(Time now);
    Time due_of(const PrimaryFlow& flow) const;
    Time earliest_due() const;
    bool warming(Time since) const { return since - open_since_ < HoldDeadline::kWarmUp; }
    void note_matched(Time held_since, Time now);

    void forget_peer();
    replication::ProxySection build_section() const;
    void reinject_due(Time now);

    ProxyOptions options_;
    PrimarySink& sink_;
    FlowTable<PrimaryFlow> flows_;
    std::deque<PrimaryFlow> opaque_;     // by nic; also what found no room in the table
    std::vector<PrimaryFlow*> holding_;  // flows that hold something
    AddressBook addresses_;
    HoldDeadline deadline_;
    ProxyStats stats_;

    Output output_ = Output::hold;
    replication::Mode mode_ = replication::Mode::lock_step;
    Generation generation_ = 0;
    SessionId session_ = 0;
    Epoch tag_ = 0;      // of our guest's output now
    Epoch pending_ = 0;  // sealed, neither applied nor aborted
    Epoch staged_ = 0, applied_ = 0;
    std::uint64_t number_ = 0, journalled_ = 0;
    std::uint64_t untracked_number_ = 0;  // the last mirrored frame with TCP bytes that belong to no flow we know
    std::deque<SealedInput> sealed_inputs_;
    Time lease_ = kNever;
    bool lease_blocked_ = false;
    bool triggered_ = false;  // one trigger per epoch (Inv14)
    Time triggered_at_;
    Time open_since_;   // when the comparer opened for the running epoch
    Time guest_heard_;  // our guest's last frame
    Time next_late_ = kNever, next_reinject_ = kNever;
    Time own_mac_reported_{std::numeric_limits<std::int64_t>::min() / 2};
    std::uint64_t held_bytes_ = 0, compare_bytes_ = 0, held_frames_ = 0, unconsumed_bytes_ = 0;
    std::deque<PeerFrame> future_;  // S's output of an epoch whose APPLIED we have not been told yet
    std::vector<TakeOver::Replay> replay_;
};

std::string describe(const FlowKey& key);

}  // namespace colo::proxy
