// SPDX-License-Identifier: Apache-2.0
#pragma once

// The network proxy, sans-I/O: what is mirrored, held, compared, translated and released. One instance serves all NICs
// of the domain. PrimaryProxy sits between wire and guest on the primary (also while unprotected); SecondaryProxy sits
// around the secondary's guest, which never touches the wire. Both are driven from the proxy thread (or the simulator),
// never from two threads at once, and never block.
//
// Numbers: *guest* numbers are what this host's guest uses, *wire* numbers what clients see. The primary translates
// guest -> wire with FlowState::wire_offset (R3) and compares in wire numbers; the secondary translates its guest's
// output to wire numbers with its total offset before it sends it to the primary, and mirrored input the other way.
//
// Epochs: output of P's guest carries the tag of the epoch that P runs in. A frame tagged t is released by STAGED(n) if
// t < n. It can be compared while t < n for the pending cut n, against output of S with tag >= the last APPLIED epoch
// (R7: an aborted number is another name for the epoch before it).

#include "core/error.h"
#include "core/types.h"
#include "proxy/frame.h"
#include "replication/message.h"

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace colo::proxy {

using Mac = std::array<std::uint8_t, 6>;

// R8: the only way to the wire. There is no default constructor; each named maker says who took part.
class ReleaseReason {
public:
    enum class Kind : std::uint8_t { matched, staged, unprotected, announcement, replay };
    static ReleaseReason matched(SessionId session, Epoch epoch) { return {Kind::matched, session, epoch}; }
    static ReleaseReason staged(SessionId session, Epoch epoch) { return {Kind::staged, session, epoch}; }
    // No session in which a peer could be eligible: never protected, RESIGN received, or grant held.
    static ReleaseReason unprotected(Generation generation) { return {Kind::unprotected, 0, generation}; }
    static ReleaseReason announcement(Generation generation) { return {Kind::announcement, 0, generation}; }
    static ReleaseReason replay(Generation generation) { return {Kind::replay, 0, generation}; }
    Kind kind() const { return kind_; }
    SessionId session() const { return session_; }
    std::uint64_t epoch() const { return epoch_; }

private:
    ReleaseReason(Kind kind, SessionId session, std::uint64_t epoch) : kind_(kind), session_(session), epoch_(epoch) {}
    Kind kind_;
    SessionId session_;
    std::uint64_t epoch_;
};

// Where a proxy's decisions go. Calls come from inside the proxy's own methods; the implementation must not call back.
class PrimarySink {
public:
    virtual ~PrimarySink() = default;
    virtual void to_guest(std::uint8_t nic, const FramePtr& frame) = 0;
    virtual void to_wire(std::uint8_t nic, const FramePtr& frame, const ReleaseReason& reason) = 0;
    // Input for S, tagged with the epoch P runs in; `number` rises by one per frame of a session.
    virtual void mirror(std::uint8_t nic, Epoch epoch, std::uint64_t number, const FramePtr& frame) = 0;
    virtual void trigger(replication::TriggerReason reason, const std::string& detail) = 0;
    // A frame from outside carries our guest's MAC as source (old primary still talks); rate-limited by the proxy.
    virtual void own_mac_seen(std::uint8_t nic) = 0;
};

class SecondarySink {
public:
    virtual ~SecondarySink() = default;
    virtual void to_guest(std::uint8_t nic, const FramePtr& frame) = 0;
    // S's guest output in wire numbers, tagged with the epoch S runs in.
    virtual void output(std::uint8_t nic, Epoch epoch, const FramePtr& frame) = 0;
    // Every mirrored frame up to `number` is in the journal (R4); the driver may batch these.
    virtual void journalled(Epoch epoch, std::uint64_t number) = 0;
};

struct ProxyOptions {
    std::vector<Mac> nics;
    std::uint64_t hold_bytes_max = 64u << 20;        // held output of P; at 80 % a staging_full trigger, beyond: see .cpp
    std::uint64_t compare_bytes_max = 64u << 20;     // S's output waiting for P's
    std::uint64_t journal_bytes_max = 64u << 20;
    std::uint64_t replay_bytes_max = 8u << 20;
    std::size_t flows_max = 16384;                   // the oldest agreed flow goes for a new one (invariant 29)
    Duration hold_deadline_min{20'000};              // adaptive between these two (R8, section 3 step 1)
    Duration hold_deadline_max{200'000};
    Duration reinject_interval{40'000};              // R4: first re-injection; doubles
    std::uint64_t hash_seed = 0x9e3779b97f4a7c15u;   // of the flow tables; random in the daemon (clients choose ports)
};

struct ProxyStats {
    std::uint64_t wire_frames = 0, wire_bytes = 0;              // from clients
    std::uint64_t guest_frames = 0, guest_bytes = 0;            // from our guest
    std::uint64_t released_matched = 0, released_staged = 0, released_unprotected = 0;
    std::uint64_t compared_bytes = 0, mismatches = 0, late = 0, no_comparison = 0, dropped_overflow = 0;
    std::uint64_t held_frames = 0, held_bytes = 0, flows = 0;
    std::uint64_t reinjected = 0, journal_frames = 0, journal_bytes = 0;
    std::uint32_t hold_p50_us = 0, hold_p99_us = 0;
};

// Addresses that the guest was seen to use, by NIC; bounded.
using Ip6 = std::array<std::uint8_t, 16>;
struct GuestAddresses {
    struct Nic {
        std::vector<std::uint32_t> ip4;   // host order
        std::vector<Ip6> ip6;
    };
    std::vector<Nic> nics;
};

// What a secondary knows at go-live and a new primary starts from (R2, R3, R4).
struct TakeOver {
    replication::ProxySection section;
    struct Replay { std::uint8_t nic; FramePtr frame; };
    std::vector<Replay> replay;        // own output of the running epoch, wire numbers, in order; empty if R2 says so
    struct Input { std::uint8_t nic; FramePtr frame; };
    std::vector<Input> reinject;       // journal that the guest has not acknowledged, guest numbers, in order
    // Connections whose handshake S's guest has begun in this epoch and whose client has not answered yet: the client may
    // know P's first number, so the offset is learnt from its next ACK (R3). `guest_isn` as our guest sent it.
    struct HalfOpen {
        std::uint8_t nic = 0;
        std::uint32_t guest_ip = 0, peer_ip = 0;
        std::uint16_t guest_port = 0, peer_port = 0;
        std::uint32_t guest_isn = 0, guest_tsval = 0;
        bool has_timestamp = false;
    };
    std::vector<HalfOpen> half_open;
    GuestAddresses addresses;          // what announcements must carry
};

class PrimaryProxy {
public:
    enum class Output : std::uint8_t {
        flow,        // released at once (unprotected; also until END of a session's first epoch)
        protect,     // R8
        hold,        // closing, waiting for a grant: nothing leaves, everything is kept within hold_bytes_max
        frozen,      // outdated or abdicated: nothing leaves, everything is dropped
    };
    virtual ~PrimaryProxy() = default;

    virtual void wire_frame(std::uint8_t nic, const FramePtr& frame, Time now) = 0;
    virtual void guest_frame(std::uint8_t nic, const FramePtr& frame, Time now) = 0;
    virtual void peer_output(std::uint8_t nic, Epoch epoch, const FramePtr& frame, Time now) = 0;
    virtual void peer_journalled(Epoch epoch, std::uint64_t number, Time now) = 0;

    // Session edges. begin_session: from now on input is mirrored; output flows until set_output says otherwise.
    virtual void begin_session(SessionId session, Time now) = 0;
    virtual void end_session(Time now) = 0;    // mirroring stops, comparison state is dropped; held frames stay held
    // `flow` releases everything held with ReleaseReason::unprotected(generation).
    virtual void set_output(Output output, Generation generation, Time now) = 0;
    virtual void set_mode(replication::Mode mode, Time now) = 0;   // buffered: no comparison, every hold is a trigger

    // R5, inside the pause. The driver stops feeding input, drains the frame port into guest_frame() under the old tag,
    // then calls seal: every later guest frame is tagged `next`. Returns the proxy section of the manifest. `unread` is
    // input that the guest never took out of the port: it is mirrored again, tagged `next`, and offered to the guest
    // again.
    struct UnreadInput { std::uint8_t nic; FramePtr frame; };
    virtual replication::ProxySection seal(Epoch next, const std::vector<UnreadInput>& unread, Time now) = 0;
    virtual void staged(Epoch epoch, Time now) = 0;     // releases tags < epoch
    virtual void applied(Epoch epoch, Time now) = 0;    // the comparer opens for `epoch`
    virtual void aborted(Epoch epoch, Time now) = 0;    // R7

    // Lease (section 4): in `protect`, nothing is released at or after `until`. kNever while there is no lease.
    virtual void set_lease(Time until, Time now) = 0;

    virtual void tick(Time now) = 0;             // late output, hold deadlines, eviction
    virtual Time next_deadline() const = 0;
    virtual ProxyStats stats() const = 0;
    virtual replication::ProxySection section() const = 0;

    // Announcement frames for one NIC: RARP, gratuitous ARP and unsolicited NA for every address that the guest was
    // seen to use.
    virtual std::vector<FramePtr> announcements(std::uint8_t nic) const = 0;
};
std::unique_ptr<PrimaryProxy> make_primary_proxy(const ProxyOptions& options, PrimarySink& sink);
// Both start with Output::hold: nothing leaves before set_output.
// A secondary that went live: translation state comes from the take-over; the guest keeps its numbers. The take-over's
// input is given to the guest at once, and again by timer until the guest acknowledges it; its replay leaves with the first
// set_output(flow), before anything else.
std::unique_ptr<PrimaryProxy> make_primary_proxy(const ProxyOptions& options, PrimarySink& sink, const TakeOver& from, Time now);

class SecondaryProxy {
public:
    virtual ~SecondaryProxy() = default;

    virtual void input(std::uint8_t nic, Epoch epoch, std::uint64_t number, const FramePtr& frame, Time now) = 0;
    virtual void guest_frame(std::uint8_t nic, const FramePtr& frame, Time now) = 0;

    // P has cut `epoch` (message Cut): the moment for measuring how far S's clocks will lag (timestamps, R3).
    virtual void peer_cut(Epoch epoch, Time now) = 0;
    // R5 on S: after stop. The driver drains the port into guest_frame() first and discards unread input.
    virtual void seal(Time now) = 0;
    // S's guest has been given the state of `epoch` and is about to run: journal entries of older epochs fall, offsets
    // := the manifest's (R3), replay buffer of older epochs falls (R2), input journalled for `epoch` is delivered.
    virtual void applied(Epoch epoch, const replication::ProxySection& section, Time now) = 0;
    virtual void aborted(Epoch epoch, Time now) = 0;   // R7: input tagged `epoch` belongs to the running epoch
    // Buffered mode: the guest is paused, input of the current epoch is journalled but not delivered.
    virtual void set_paused(bool paused, Time now) = 0;

    virtual TakeOver take_over(Time now) = 0;    // once, at go-live
    virtual void tick(Time now) = 0;             // re-injection
    virtual Time next_deadline() const = 0;
    virtual ProxyStats stats() const = 0;
};
std::unique_ptr<SecondaryProxy> make_secondary_proxy(const ProxyOptions& options, SecondarySink& sink);

}  // namespace colo::proxy
