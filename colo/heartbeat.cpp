// SPDX-License-Identifier: Apache-2.0
#include "colo/heartbeat.h"

#include "core/check.h"

#include <algorithm>

namespace colo {
namespace {

using replication::Beat;
using replication::BeatRole;
namespace flag = replication::beat_flag;

BeatRole to_beat_role(Role role)
{
    switch (role) {
    case Role::primary: return BeatRole::primary;
    case Role::secondary: return BeatRole::secondary;
    case Role::none: break;
    }
    return BeatRole::none;
}

Role from_beat_role(BeatRole role)
{
    switch (role) {
    case BeatRole::primary: return Role::primary;
    case BeatRole::secondary: return Role::secondary;
    case BeatRole::none: break;
    }
    return Role::none;
}

std::string milliseconds(Duration d)
{
    return std::to_string(d.count() / 1000) + " ms";
}

}  // namespace

const char* to_string(ProgressCounter counter)
{
    switch (counter) {
    case ProgressCounter::control: return "control loop";
    case ProgressCounter::proxy: return "proxy";
    case ProgressCounter::guest: return "guest";
    }
    return "?";
}

std::string PeerLost::text() const
{
    switch (cause) {
    case Cause::no_beat:
        return "no beat for " + milliseconds(silence) +
               (paths == 1 ? std::string(" on the only path") : " on all " + std::to_string(paths) + " paths");
    case Cause::stale_progress:
        return std::string("the peer's ") + to_string(counter) + " has not moved for " + milliseconds(silence);
    case Cause::peer_closed: return "the peer closed the session";
    }
    return "?";
}

HeartbeatCore::HeartbeatCore(const HeartbeatTimes& times, std::size_t path_count, const replication::DomainId& domain)
    : times_(times), path_count_(path_count), domain_(domain)
{
    COLO_CHECK(path_count >= 1 && path_count <= kMaxHeartbeatPaths);
    COLO_CHECK(times.interval.count() > 0 && times.lease < times.loss);
}

void HeartbeatCore::become(const HeartbeatIdentity& identity, Time now)
{
    const bool opens = identity.session != 0 && !identity.closed && identity.session != identity_.session;
    if (in_session() && (identity.closed || identity.session != identity_.session)) closed_session_ = identity_.session;
    identity_ = identity;
    if (identity_.session != 0 && identity_.session == closed_session_) identity_.closed = true;
    if (higher_ && *higher_ <= identity_.generation) higher_.reset();
    knows_itself_ = true;
    note_generation(highest_seen_);
    if (!in_session()) {
        lease_until_ = Time{0};
        lost_.reset();
    } else if (opens) {
        start_session(now);
    }
}

void HeartbeatCore::start_session(Time now)
{
    newest_on_path_.fill(0);
    newest_number_ = 0;
    newest_sent_at_us_ = 0;
    newest_answered_ = 0;
    last_answer_ = Time{0};
    lease_until_ = Time{0};
    heard_ = false;
    for (HeartbeatPathStatus& path : paths_) path.heard = false;
    peer_progress_.fill({});
    peer_epoch_ = 0;
    peer_role_ = Role::none;
    lost_reported_ = false;
    lost_.reset();
    // An answer to a beat of an earlier session must not renew the lease of this one.
    sent_.fill({});
    restart_judging(now);
}

Time HeartbeatCore::close_session(Time now)
{
    if (in_session()) {
        HeartbeatIdentity closed = identity_;
        closed.closed = true;
        become(closed, now);
    }
    return last_answer_;
}

void HeartbeatCore::restart_judging(Time now)
{
    last_heard_ = now;
    for (Progress& each : peer_progress_) each.moved = now;
}

Beat HeartbeatCore::make_beat(bool answer, Time now)
{
    Beat beat;
    beat.domain = domain_;
    beat.session = identity_.session;
    beat.generation = identity_.generation;
    beat.role = to_beat_role(identity_.role);
    beat.epoch = own_epoch_;
    beat.number = next_number_++;
    beat.sent_at_us = now.us;
    beat.progress = own_progress_;
    if (answer) beat.flags |= flag::kAnswer;
    if (identity_.closed) beat.flags |= flag::kClosed;
    if (announces()) beat.flags |= flag::kHoldsGrant;
    sent_[beat.number % kSentRing] = {beat.number, now};
    if (in_session()) {
        beat.echo_number = newest_number_;
        beat.echo_sent_at_us = newest_sent_at_us_;
        // Only the first answer to a beat counts: P's lease runs from the time that beat was sent, however often and
        // late the same answer is repeated.
        if (newest_number_ > newest_answered_) {
            newest_answered_ = newest_number_;
            last_answer_ = now;
        }
    }
    return beat;
}

std::optional<Beat> HeartbeatCore::on_timer(Time now)
{
    const Duration since = now - last_timer_;
    if (timer_ran_ && since > times_.interval + times_.gap_tolerance) {
        ++local_gaps_;
        longest_gap_ = std::max(longest_gap_, since);
        restart_judging(now);
    }
    timer_ran_ = true;
    last_timer_ = now;
    judge(now);
    if (!in_session() && !identity_.closed && !announces()) return std::nullopt;
    for (std::size_t path = 0; path < path_count_; ++path) ++paths_[path].sent;
    return make_beat(false, now);
}

void HeartbeatCore::judge(Time now)
{
    if (!in_session() || lost_reported_) return;
    PeerLost lost;
    lost.paths = static_cast<std::uint8_t>(path_count_);
    const Duration silence = now - last_heard_;
    bool is_lost = silence >= (heard_ ? times_.loss : std::max(times_.loss, times_.first_beat_within));
    if (is_lost) {
        lost.silence = silence;
    } else {
        for (std::size_t i = 0; i < kProgressCounters && !is_lost; ++i) {
            const Progress& progress = peer_progress_[i];
            if (progress.value == 0 || now - progress.moved < times_.progress_timeout) continue;
            is_lost = true;
            lost.cause = PeerLost::Cause::stale_progress;
            lost.counter = static_cast<ProgressCounter>(i);
            lost.silence = now - progress.moved;
        }
    }
    if (!is_lost) return;
    lost_reported_ = true;
    lost_ = lost;
}

void HeartbeatCore::note_generation(Generation generation)
{
    highest_seen_ = std::max(highest_seen_, generation);
    // Who has not been told its own generation yet cannot compare; become() makes up for it.
    if (!knows_itself_ || highest_seen_ <= identity_.generation || highest_seen_ <= highest_reported_) return;
    highest_reported_ = highest_seen_;
    higher_ = highest_seen_;
}

// Two sides announce one generation: somebody was given the word twice. Our own beat may come back to us, though, over a
// path whose two ends were configured the same.
void HeartbeatCore::note_conflict(const Beat& beat)
{
    if (!announces() || (beat.flags & flag::kHoldsGrant) == 0 || beat.generation != identity_.generation) return;
    const std::optional<Time> ours = sent_at(beat.number);
    if (ours && ours->us == beat.sent_at_us) return;
    if (beat.generation <= conflict_reported_) return;
    conflict_reported_ = beat.generation;
    conflict_ = beat.generation;
}

bool HeartbeatCore::of_this_session(const Beat& beat) const
{
    const Role peer = from_beat_role(beat.role);
    return in_session() && beat.session == identity_.session && beat.generation == identity_.generation &&
           peer != Role::none && peer != identity_.role;
}

std::optional<Beat> HeartbeatCore::on_beat(std::size_t path, const Beat& beat, Time now)
{
    COLO_CHECK(path < path_count_);
    HeartbeatPathStatus& status = paths_[path];
    if (beat.domain == domain_) {
        note_generation(beat.generation);
        note_conflict(beat);
    }
    if (beat.domain != domain_ || !of_this_session(beat)) {
        ++status.foreign;
        return std::nullopt;
    }
    ++status.received;
    if ((beat.flags & flag::kClosed) != 0) {
        if (!lost_reported_) {
            lost_reported_ = true;
            lost_ = PeerLost{PeerLost::Cause::peer_closed, {}, {}, static_cast<std::uint8_t>(path_count_)};
        }
        return std::nullopt;
    }
    if (beat.number <= newest_on_path_[path]) return std::nullopt;  // duplicated or overtaken on its way
    newest_on_path_[path] = beat.number;
    status.heard = heard_ = true;
    status.last_beat = last_heard_ = now;
    note_progress(beat, now);
    renew_lease(path, beat, now);
    // The secondary answers at once, so that the lease is as fresh as the network allows. Answers are not answered.
    if (identity_.role != Role::secondary || (beat.flags & flag::kAnswer) != 0) return std::nullopt;
    ++status.sent;
    return make_beat(true, now);
}

void HeartbeatCore::on_malformed(std::size_t path)
{
    COLO_CHECK(path < path_count_);
    ++paths_[path].foreign;
}

void HeartbeatCore::note_progress(const Beat& beat, Time now)
{
    if (beat.number <= newest_number_) return;  // another path was faster
    newest_number_ = beat.number;
    newest_sent_at_us_ = beat.sent_at_us;
    peer_epoch_ = beat.epoch;
    peer_role_ = from_beat_role(beat.role);
    for (std::size_t i = 0; i < kProgressCounters; ++i) {
        if (beat.progress[i] == peer_progress_[i].value) continue;
        peer_progress_[i] = {beat.progress[i], now};
    }
}

void HeartbeatCore::renew_lease(std::size_t path, const Beat& beat, Time now)
{
    // Our own record of when the beat was sent counts, not what the answer says about it.
    const std::optional<Time> sent = sent_at(beat.echo_number);
    if (!sent) return;
    if ((beat.flags & flag::kAnswer) != 0)
        paths_[path].rtt_us =
            static_cast<std::uint32_t>(std::clamp<std::int64_t>((now - *sent).count(), 1, 60'000'000));
    if (identity_.role == Role::primary) lease_until_ = std::max(lease_until_, *sent + times_.lease);
}

std::optional<Time> HeartbeatCore::sent_at(std::uint64_t number) const
{
    const Sent& sent = sent_[number % kSentRing];
    if (number == 0 || sent.number != number) return std::nullopt;
    return sent.at;
}

std::optional<PeerLost> HeartbeatCore::take_peer_lost()
{
    return std::exchange(lost_, std::nullopt);
}
std::optional<Generation> HeartbeatCore::take_higher_generation()
{
    return std::exchange(higher_, std::nullopt);
}

std::optional<Generation> HeartbeatCore::take_conflict()
{
    return std::exchange(conflict_, std::nullopt);
}

Time HeartbeatCore::grant_not_before() const
{
    if (last_answer_.us == 0) return Time{0};
    return last_answer_ + Duration{times_.lease.count() * kLeaseMarginPercent / 100 + 1};
}

HeartbeatStatus HeartbeatCore::status() const
{
    HeartbeatStatus status;
    status.identity = identity_;
    status.paths = paths_;
    status.path_count = path_count_;
    status.lease_until = lease_until_;
    status.last_answer = last_answer_;
    status.peer_epoch = peer_epoch_;
    status.peer_role = peer_role_;
    status.local_gaps = local_gaps_;
    status.longest_gap = longest_gap_;
    status.highest_generation_seen = highest_seen_;
    return status;
}

}  // namespace colo
