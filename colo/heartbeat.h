// SPDX-License-Identifier: Apache-2.0
#pragma once

// Heartbeats of one domain, sans-I/O: loss of the peer, stale progress, the lease, overtaking by a higher generation.
// heartbeat_thread.* gives it sockets and a timer; the simulator gives it neither.
//
// What our beats say is set by become(); three situations follow from it:
//   session != 0, !closed   in session: beats go out on every path; the secondary also answers each beat at once; loss
//   and
//                           progress of the peer are judged; the primary's lease is renewed by answers.
//   closed                  beats say "closed" and answer nothing; nothing of the session is honoured any more.
//   session == 0            primary: announces its generation for ever (a returning old primary must hear it);
//                           otherwise silent. Nobody is judged. The peer announcing the same generation is a conflict:
//                           both sides serve.
// In all of them, from the first become() on, a beat with a higher generation is reported (also one that came before):
// the caller freezes first and thinks afterwards.
//
// Lease (on top of the arbiter, never instead). P may release until `send time of its newest beat that S answered +
// lease`. S may ask for a grant only kLeaseMargin x lease after it last answered *for the first time* a new beat. Every
// answer is given after the beat was sent, so S's wait starts later and, with clocks that run within 1 % of true time,
// ends later.
//
// Local gap: a side that was not running itself (SIGSTOP, suspend, overload) has not seen the peer fail. When on_timer
// comes late by more than `gap_tolerance`, judging starts anew with a full loss period. Drain the sockets before
// on_timer.
//
// Not thread-safe; no allocation after construction; nothing blocks.

#include "colo/node.h"
#include "core/types.h"
#include "replication/beat.h"

#include <array>
#include <cstdint>
#include <optional>
#include <string>

namespace colo {

inline constexpr std::size_t kMaxHeartbeatPaths = 4;
inline constexpr std::int64_t kLeaseMarginPercent = 103;  // S waits this share of the lease: 1.01 / 0.99 and rounding

struct HeartbeatTimes {
    Duration interval{10'000};
    Duration loss{100'000};
    Duration lease{90'000};
    Duration progress_timeout{400'000};
    Duration gap_tolerance{25'000};         // on_timer may come this much later than `interval` and still count
    Duration first_beat_within{1'000'000};  // of a session: the two sides enter it at different moments
};

struct HeartbeatIdentity {
    Role role = Role::none;
    Generation generation = 0;
    SessionId session = 0;
    bool closed = false;
};

enum class ProgressCounter : std::uint8_t { control = 0, proxy, guest };
inline constexpr std::size_t kProgressCounters = 3;
const char* to_string(ProgressCounter counter);

// A counter of value 0 is not judged (nothing to report yet, or no such part).
using ProgressValues = std::array<std::uint64_t, kProgressCounters>;

struct PeerLost {
    enum class Cause : std::uint8_t { no_beat, stale_progress, peer_closed };
    Cause cause = Cause::no_beat;
    ProgressCounter counter = ProgressCounter::control;  // of stale_progress
    Duration silence{0};
    std::uint8_t paths = 0;
    std::string text() const;  // "no beat for 104 ms on all 2 paths"
};

struct HeartbeatPathStatus {
    bool heard = false;                       // a valid beat of the peer since become()
    Time last_beat{};                         // local arrival
    std::uint32_t rtt_us = 0;                 // 0: not measured
    std::uint64_t sent = 0, received = 0, foreign = 0;  // foreign: another session, an older generation, or malformed
};

struct HeartbeatStatus {
    HeartbeatIdentity identity;
    std::array<HeartbeatPathStatus, kMaxHeartbeatPaths> paths{};
    std::size_t path_count = 0;
    Time lease_until{};
    Time last_answer{};
    Epoch peer_epoch = 0;
    Role peer_role = Role::none;
    std::uint64_t local_gaps = 0;
    Duration longest_gap{0};
    Generation highest_generation_seen = 0;
};

class HeartbeatCore {
public:
    // 1 <= path_count <= kMaxHeartbeatPaths. Beats of another domain have no effect.
    HeartbeatCore(const HeartbeatTimes& times, std::size_t path_count, const replication::DomainId& domain);

    void become(const HeartbeatIdentity& identity, Time now);
    // = become(same, closed). Returns when we last answered a beat of the session (Node::session_closed). Idempotent.
    Time close_session(Time now);

    void set_progress(const ProgressValues& values) { own_progress_ = values; }
    void set_epoch(Epoch epoch) { own_epoch_ = epoch; }

    // Call every `interval`, after on_beat of everything that is queued. The beat to send on all paths, if any.
    std::optional<replication::Beat> on_timer(Time now);
    // The answer to send at once on the same path, if any.
    std::optional<replication::Beat> on_beat(std::size_t path, const replication::Beat& beat, Time now);
    void on_malformed(std::size_t path);

    // Each is reported once; peer_lost once per session, higher_generation and conflict once per generation.
    std::optional<PeerLost> take_peer_lost();
    std::optional<Generation> take_higher_generation();
    std::optional<Generation> take_conflict();

    // P: Time{0} before the first answer and after closing.
    Time lease_until() const { return lease_until_; }
    // S: when it last gave a new answer; Time{0} if never in this session.
    Time last_answer() const { return last_answer_; }
    // S: before this it must not ask for a grant.
    Time grant_not_before() const;
    HeartbeatStatus status() const;

private:
    struct Sent {
        std::uint64_t number = 0;
        Time at{};
    };
    struct Progress {
        std::uint64_t value = 0;
        Time moved{};
    };
    static constexpr std::size_t kSentRing = 512;

    bool in_session() const { return identity_.session != 0 && !identity_.closed; }
    bool announces() const { return identity_.session == 0 && identity_.role == Role::primary; }
    replication::Beat make_beat(bool answer, Time now);
    void start_session(Time now);
    void restart_judging(Time now);
    void judge(Time now);
    bool of_this_session(const replication::Beat& beat) const;
    void note_generation(Generation generation);
    void note_conflict(const replication::Beat& beat);
    void note_progress(const replication::Beat& beat, Time now);
    void renew_lease(std::size_t path, const replication::Beat& beat, Time now);
    std::optional<Time> sent_at(std::uint64_t number) const;

    HeartbeatTimes times_;
    std::size_t path_count_;
    replication::DomainId domain_;
    HeartbeatIdentity identity_;
    bool knows_itself_ = false;  // become() was called
    ProgressValues own_progress_{};
    Epoch own_epoch_ = 0;

    std::uint64_t next_number_ = 1;
    std::array<Sent, kSentRing> sent_{};
    Time last_timer_{};
    bool timer_ran_ = false;

    // Of the peer, in this session
    std::array<HeartbeatPathStatus, kMaxHeartbeatPaths> paths_{};
    std::array<std::uint64_t, kMaxHeartbeatPaths> newest_on_path_{};
    std::uint64_t newest_number_ = 0;     // over all paths
    std::int64_t newest_sent_at_us_ = 0;  // the peer's clock; only echoed
    Time last_heard_{};
    bool heard_ = false;
    std::array<Progress, kProgressCounters> peer_progress_{};
    Epoch peer_epoch_ = 0;
    Role peer_role_ = Role::none;

    Time lease_until_{};
    Time last_answer_{};
    std::uint64_t newest_answered_ = 0;  // newest peer number that a beat of ours has answered

    SessionId closed_session_ = 0;  // the last one that was closed: never opened again
    bool lost_reported_ = false;
    std::optional<PeerLost> lost_;
    std::optional<Generation> higher_;
    Generation highest_reported_ = 0;
    std::optional<Generation> conflict_;
    Generation conflict_reported_ = 0;
    Generation highest_seen_ = 0;
    std::uint64_t local_gaps_ = 0;
    Duration longest_gap_{0};
};

}  // namespace colo
