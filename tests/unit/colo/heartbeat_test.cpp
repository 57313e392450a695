// SPDX-License-Identifier: Apache-2.0
// The heartbeat core against a simulated clock. Times in milliseconds of a clock that both sides share here; clocks
// that drift apart are in heartbeat_lease_test.cpp.
#include "colo/heartbeat.h"

#include <gtest/gtest.h>

#include <functional>
#include <vector>

namespace colo {
namespace {

using replication::Beat;

constexpr SessionId kSession = 0x1234;
const replication::DomainId kDomain{1, 2, 3};

Time at_ms(std::int64_t ms)
{
    return Time{1'000'000'000 + ms * 1000};
}

// Two sides and the paths between them, in steps of one millisecond.
class Pair {
public:
    enum class Way : std::uint8_t { to_secondary, to_primary };

    explicit Pair(std::size_t paths = 1) : primary({}, paths, kDomain), secondary({}, paths, kDomain), paths_(paths) {}
    void open(Generation generation = 7)
    {
        primary.become({Role::primary, generation, kSession, false}, now());
        secondary.become({Role::secondary, generation, kSession, false}, now());
        work(primary_progress);
        work(secondary_progress);
    }
    Time now() const { return at_ms(ms); }

    void run_until(std::int64_t end)
    {
        for (; ms < end; ++ms) {
            if (ms % 10 == 0 && primary_runs) tick(primary, primary_progress, primary_works, Way::to_secondary);
            if (ms % 10 == 5 && secondary_runs) tick(secondary, secondary_progress, secondary_works, Way::to_primary);
        }
    }
    void send(Way way, std::size_t path, const Beat& beat)
    {
        if (drop && drop(way, path)) return;
        const bool runs = way == Way::to_secondary ? secondary_runs : primary_runs;
        if (!runs) {
            (way == Way::to_secondary ? queued_secondary_ : queued_primary_).push_back({path, beat});
            return;
        }
        deliver(way, path, beat);
    }
    // The frozen side wakes: first what the kernel queued, then the timer.
    void thaw(Way queue)
    {
        (queue == Way::to_secondary ? secondary_runs : primary_runs) = true;
        auto& waiting = queue == Way::to_secondary ? queued_secondary_ : queued_primary_;
        for (const auto& [path, beat] : std::exchange(waiting, {})) deliver(queue, path, beat);
    }

    HeartbeatCore primary, secondary;
    std::function<bool(Way, std::size_t)> drop;
    bool primary_runs = true, secondary_runs = true;
    std::array<bool, kProgressCounters> primary_works{true, true, true}, secondary_works{true, true, true};
    ProgressValues primary_progress{}, secondary_progress{};
    std::int64_t ms = 0;

private:
    static void work(ProgressValues& values)
    {
        for (std::uint64_t& value : values) ++value;
    }
    void tick(HeartbeatCore& core, ProgressValues& progress, const std::array<bool, kProgressCounters>& works, Way way)
    {
        for (std::size_t i = 0; i < progress.size(); ++i) progress[i] += works[i] && ms % 50 < 10 ? 1 : 0;
        core.set_progress(progress);
        if (const auto beat = core.on_timer(now()))
            for (std::size_t path = 0; path < paths_; ++path) send(way, path, *beat);
    }
    void deliver(Way way, std::size_t path, const Beat& beat)
    {
        HeartbeatCore& to = way == Way::to_secondary ? secondary : primary;
        const auto answer = to.on_beat(path, beat, now());
        if (answer) send(way == Way::to_secondary ? Way::to_primary : Way::to_secondary, path, *answer);
    }
    std::size_t paths_;
    std::vector<std::pair<std::size_t, Beat>> queued_primary_, queued_secondary_;
};

TEST(Heartbeat, HealthyPairStaysTogetherAndRenewsTheLease)
{
    Pair pair(2);
    pair.open();
    for (int end = 100; end <= 5000; end += 100) {
        pair.run_until(end);
        ASSERT_FALSE(pair.primary.take_peer_lost());
        ASSERT_FALSE(pair.secondary.take_peer_lost());
        ASSERT_GT(pair.primary.lease_until(), pair.now() + Duration{75'000});
    }
    EXPECT_EQ(pair.primary.status().local_gaps, 0u);
    EXPECT_EQ(pair.primary.status().peer_role, Role::secondary);
    EXPECT_GT(pair.primary.status().paths[1].received, 400u);
    EXPECT_GT(pair.primary.status().paths[0].sent, 400u);
    EXPECT_GT(pair.secondary.status().paths[0].sent, pair.primary.status().paths[0].sent) << "beats and answers";
}

TEST(Heartbeat, LossIsNoticedOnBothSidesAfterTheLossTime)
{
    Pair pair;
    pair.open();
    pair.run_until(1000);
    pair.drop = [](Pair::Way, std::size_t) { return true; };
    pair.run_until(1085);
    EXPECT_FALSE(pair.primary.take_peer_lost());
    EXPECT_FALSE(pair.secondary.take_peer_lost());
    pair.run_until(1120);
    const auto primary_saw = pair.primary.take_peer_lost();
    const auto secondary_saw = pair.secondary.take_peer_lost();
    ASSERT_TRUE(primary_saw && secondary_saw);
    EXPECT_EQ(primary_saw->cause, PeerLost::Cause::no_beat);
    EXPECT_NE(secondary_saw->text().find("on the only path"), std::string::npos) << secondary_saw->text();
    pair.run_until(3000);
    EXPECT_FALSE(pair.primary.take_peer_lost()) << "once per session";
}

TEST(Heartbeat, LossOfEitherDirectionIsNoticedByTheSideThatHearsNothing)
{
    for (const Pair::Way lost : {Pair::Way::to_secondary, Pair::Way::to_primary}) {
        Pair pair;
        pair.open();
        pair.run_until(500);
        pair.drop = [lost](Pair::Way way, std::size_t) { return way == lost; };
        pair.run_until(640);
        const bool secondary_deaf = lost == Pair::Way::to_secondary;
        EXPECT_EQ(pair.secondary.take_peer_lost().has_value(), secondary_deaf);
        EXPECT_EQ(pair.primary.take_peer_lost().has_value(), !secondary_deaf);
        // Whichever direction is lost, nothing is answered any more, so the lease runs out.
        EXPECT_LE(pair.primary.lease_until(), at_ms(500 + 90));
    }
}

TEST(Heartbeat, OnePathOfSeveralIsEnough)
{
    Pair pair(3);
    pair.open();
    for (std::size_t only = 0; only < 3; ++only) {
        pair.drop = [only](Pair::Way, std::size_t path) { return path != only; };
        pair.run_until(pair.ms + 1000);
        ASSERT_FALSE(pair.primary.take_peer_lost());
        ASSERT_FALSE(pair.secondary.take_peer_lost());
        EXPECT_GT(pair.primary.lease_until(), pair.now());
    }
    // Crosswise: one direction on one path, the other on another.
    pair.drop = [](Pair::Way way, std::size_t path) { return path != (way == Pair::Way::to_primary ? 2u : 1u); };
    pair.run_until(pair.ms + 1000);
    EXPECT_FALSE(pair.primary.take_peer_lost());
    EXPECT_GT(pair.primary.lease_until(), pair.now()) << "the timer's beats answer too";
    pair.drop = [](Pair::Way, std::size_t) { return true; };
    pair.run_until(pair.ms + 120);
    const auto lost = pair.secondary.take_peer_lost();
    ASSERT_TRUE(lost);
    EXPECT_NE(lost->text().find("all 3 paths"), std::string::npos) << lost->text();
}

TEST(Heartbeat, StaleProgressOfEachPartIsLossAlthoughBeatsArrive)
{
    for (std::size_t part = 0; part < kProgressCounters; ++part) {
        Pair pair;
        pair.open();
        pair.run_until(1000);
        pair.primary_works[part] = false;
        pair.run_until(1340);
        EXPECT_FALSE(pair.secondary.take_peer_lost());
        pair.run_until(1480);
        const auto lost = pair.secondary.take_peer_lost();
        ASSERT_TRUE(lost);
        EXPECT_EQ(lost->cause, PeerLost::Cause::stale_progress);
        EXPECT_EQ(static_cast<std::size_t>(lost->counter), part);
        EXPECT_NE(lost->text().find(to_string(lost->counter)), std::string::npos);
        EXPECT_FALSE(pair.primary.take_peer_lost());
    }
}

TEST(Heartbeat, PartThatDoesNotExistIsNotJudged)
{
    Pair pair;
    pair.open();
    pair.secondary_progress[2] = 0;
    pair.secondary_works[2] = false;
    pair.run_until(3000);
    EXPECT_FALSE(pair.primary.take_peer_lost());
    pair.secondary_works[2] = true;  // a guest was created
    pair.run_until(4000);
    EXPECT_FALSE(pair.primary.take_peer_lost());
    pair.secondary_works[2] = false;
    pair.run_until(4600);
    EXPECT_TRUE(pair.primary.take_peer_lost());
}

TEST(Heartbeat, FrozenSideDoesNotBlameThePeerWhenItWakes)
{
    Pair pair;
    pair.open();
    pair.run_until(500);
    // Both hosts freeze (a suspended machine below them): nobody may be lost afterwards.
    pair.primary_runs = pair.secondary_runs = false;
    pair.run_until(5000);
    pair.thaw(Pair::Way::to_primary);
    pair.thaw(Pair::Way::to_secondary);
    pair.run_until(5200);
    EXPECT_FALSE(pair.primary.take_peer_lost());
    EXPECT_FALSE(pair.secondary.take_peer_lost());
    EXPECT_EQ(pair.primary.status().local_gaps, 1u);
    EXPECT_GE(pair.secondary.status().longest_gap, Duration{4'400'000});
}

TEST(Heartbeat, AfterALocalGapAFullLossPeriodIsWaited)
{
    Pair pair;
    pair.open();
    pair.run_until(500);
    pair.drop = [](Pair::Way, std::size_t) { return true; };
    pair.secondary_runs = false;
    pair.run_until(900);
    pair.thaw(Pair::Way::to_secondary);
    pair.run_until(990);  // the first timer after the gap ran at 905
    EXPECT_FALSE(pair.secondary.take_peer_lost());
    pair.run_until(1020);
    EXPECT_TRUE(pair.secondary.take_peer_lost());
}

TEST(Heartbeat, SmallLatenessOfTheTimerIsNoGap)
{
    HeartbeatCore core({}, 1, kDomain);
    core.become({Role::primary, 1, kSession, false}, at_ms(0));
    std::int64_t ms = 0;
    for (int i = 0; i < 10; ++i) core.on_timer(at_ms(ms += 35));
    EXPECT_EQ(core.status().local_gaps, 0u);
    core.on_timer(at_ms(ms += 36));
    EXPECT_EQ(core.status().local_gaps, 1u);
}

TEST(Heartbeat, Inv18_WokenOldPrimaryHearsTheHigherGenerationAndHasNoLease)
{
    Pair pair;
    pair.open(7);
    pair.run_until(500);
    pair.primary_runs = false;
    pair.run_until(700);
    ASSERT_TRUE(pair.secondary.take_peer_lost());
    pair.secondary.close_session(pair.now());
    pair.secondary.become({Role::primary, 8, 0, false}, pair.now());
    pair.run_until(2000);
    EXPECT_LT(pair.primary.lease_until(), pair.now()) << "the lease ended while it slept";
    pair.thaw(Pair::Way::to_primary);
    EXPECT_EQ(pair.primary.take_higher_generation(), std::optional<Generation>(8)) << "before the first timer";
    EXPECT_FALSE(pair.primary.take_peer_lost());
    pair.run_until(2100);
    EXPECT_FALSE(pair.primary.take_higher_generation()) << "reported once";
    EXPECT_LT(pair.primary.lease_until(), at_ms(600));
}

TEST(Heartbeat, WinnerAnnouncesForEverAndJudgesNobody)
{
    HeartbeatCore winner({}, 1, kDomain);
    winner.become({Role::primary, 9, 0, false}, at_ms(0));
    for (std::int64_t ms = 0; ms < 60'000; ms += 10) {
        const auto beat = winner.on_timer(at_ms(ms));
        ASSERT_TRUE(beat);
        ASSERT_EQ(beat->generation, 9u);
        ASSERT_EQ(beat->session, 0u);
        ASSERT_NE(beat->flags & replication::beat_flag::kHoldsGrant, 0);
    }
    EXPECT_FALSE(winner.take_peer_lost());
    // It, too, must freeze when somebody holds a still higher one.
    Beat higher;
    higher.domain = kDomain;
    higher.generation = 10;
    winner.on_beat(0, higher, at_ms(60'000));
    EXPECT_EQ(winner.take_higher_generation(), std::optional<Generation>(10));
}

TEST(Heartbeat, StandbyWithoutASessionIsSilentAndStillHearsGenerations)
{
    HeartbeatCore standby({}, 1, kDomain);
    standby.become({Role::secondary, 3, 0, false}, at_ms(0));
    EXPECT_FALSE(standby.on_timer(at_ms(10)));
    Beat higher;
    higher.domain = kDomain;
    higher.generation = 4;
    higher.number = 1;
    EXPECT_FALSE(standby.on_beat(0, higher, at_ms(11)));
    EXPECT_EQ(standby.take_higher_generation(), std::optional<Generation>(4));
}

TEST(Heartbeat, GenerationHeardBeforeWeKnowOurOwnIsComparedAfterwards)
{
    for (const Generation own : {Generation{3}, Generation{4}, Generation{5}}) {
        HeartbeatCore core({}, 1, kDomain);
        Beat beat;
        beat.domain = kDomain;
        beat.generation = 4;
        beat.number = 1;
        core.on_beat(0, beat, at_ms(1));
        EXPECT_FALSE(core.take_higher_generation());
        core.become({Role::primary, own, 0, false}, at_ms(2));
        EXPECT_EQ(core.take_higher_generation().has_value(), own == 3);
        core.become({Role::primary, own, 0, false}, at_ms(3));
        EXPECT_FALSE(core.take_higher_generation()) << "reported once";
    }
}

TEST(Heartbeat, AnotherDomainsBeatHasNoEffect)
{
    HeartbeatCore core({}, 1, kDomain);
    core.become({Role::secondary, 3, kSession, false}, at_ms(0));
    Beat beat;
    beat.domain = {9};
    beat.generation = 99;
    beat.session = kSession;
    beat.role = replication::BeatRole::primary;
    beat.number = 1;
    EXPECT_FALSE(core.on_beat(0, beat, at_ms(1)));
    EXPECT_FALSE(core.take_higher_generation());
    EXPECT_EQ(core.status().paths[0].foreign, 1u);
    EXPECT_FALSE(core.status().paths[0].heard);
}

TEST(Heartbeat, Inv05_BeatsOfAnotherSessionGenerationOrRoleHaveNoEffect)
{
    const auto heard = [](SessionId session, Generation generation, replication::BeatRole role) {
        HeartbeatCore core({}, 1, kDomain);
        core.become({Role::primary, 3, kSession, false}, at_ms(0));
        const auto own = core.on_timer(at_ms(0));
        Beat beat;
        beat.domain = kDomain;
        beat.session = session;
        beat.generation = generation;
        beat.role = role;
        beat.number = 1;
        beat.echo_number = own->number;
        EXPECT_FALSE(core.on_beat(0, beat, at_ms(1)));
        return core.lease_until().us != 0 && core.status().paths[0].heard;
    };
    using replication::BeatRole;
    EXPECT_TRUE(heard(kSession, 3, BeatRole::secondary));
    EXPECT_FALSE(heard(kSession + 1, 3, BeatRole::secondary));
    EXPECT_FALSE(heard(kSession, 2, BeatRole::secondary));
    EXPECT_FALSE(heard(kSession, 3, BeatRole::primary));
    EXPECT_FALSE(heard(kSession, 3, BeatRole::none));
}

TEST(Heartbeat, ClosedSideAnswersNothingAndHonoursNothing)
{
    Pair pair;
    pair.open();
    pair.run_until(300);
    const Time answered = pair.secondary.close_session(pair.now());
    EXPECT_GT(answered, at_ms(280));
    EXPECT_EQ(pair.secondary.close_session(pair.now()), answered);
    const auto own = pair.primary.on_timer(pair.now());
    ASSERT_TRUE(own);
    EXPECT_FALSE(pair.secondary.on_beat(0, *own, pair.now()));
    const auto last = pair.secondary.on_timer(at_ms(305));
    ASSERT_TRUE(last);
    EXPECT_NE(last->flags & replication::beat_flag::kClosed, 0);
    EXPECT_EQ(last->echo_number, 0u);
    EXPECT_EQ(pair.secondary.last_answer(), answered);
    // The peer learns it from the closed beat, and nothing but that.
    const Time lease = pair.primary.lease_until();
    pair.primary.on_beat(0, *last, at_ms(306));
    EXPECT_EQ(pair.primary.lease_until(), lease);
    const auto lost = pair.primary.take_peer_lost();
    ASSERT_TRUE(lost);
    EXPECT_EQ(lost->cause, PeerLost::Cause::peer_closed);
    // A closed session stays closed.
    pair.secondary.become({Role::secondary, 7, kSession, false}, at_ms(307));
    EXPECT_FALSE(pair.secondary.on_beat(0, *pair.primary.on_timer(at_ms(308)), at_ms(308)));
}

TEST(Heartbeat, ClosingPrimaryLosesItsLease)
{
    Pair pair;
    pair.open();
    pair.run_until(300);
    ASSERT_GT(pair.primary.lease_until(), pair.now());
    pair.primary.close_session(pair.now());
    EXPECT_EQ(pair.primary.lease_until(), Time{0});
}

TEST(Heartbeat, DuplicatedOldBeatsAreNoSignOfLife)
{
    HeartbeatCore core({}, 1, kDomain);
    core.become({Role::secondary, 3, kSession, false}, at_ms(0));
    Beat beat;
    beat.domain = kDomain;
    beat.session = kSession;
    beat.generation = 3;
    beat.role = replication::BeatRole::primary;
    beat.number = 5;
    EXPECT_TRUE(core.on_beat(0, beat, at_ms(1)));
    for (std::int64_t ms = 2; ms < 200; ms += 2) {
        beat.number = ms % 4 == 0 ? 5 : 4;
        EXPECT_FALSE(core.on_beat(0, beat, at_ms(ms)));
        if (ms % 10 == 0) core.on_timer(at_ms(ms));
    }
    EXPECT_TRUE(core.take_peer_lost());
}

TEST(Heartbeat, LeaseCountsFromOurOwnRecordWhateverTheAnswerClaims)
{
    HeartbeatCore core({}, 1, kDomain);
    core.become({Role::primary, 3, kSession, false}, at_ms(0));
    const auto own = core.on_timer(at_ms(0));
    Beat beat;
    beat.domain = kDomain;
    beat.session = kSession;
    beat.generation = 3;
    beat.role = replication::BeatRole::secondary;
    beat.number = 1;
    beat.echo_number = own->number + 100;  // never sent
    beat.echo_sent_at_us = at_ms(50'000).us;
    core.on_beat(0, beat, at_ms(1));
    EXPECT_EQ(core.lease_until(), Time{0});
    beat.number = 2;
    beat.echo_number = own->number;
    core.on_beat(0, beat, at_ms(2));
    EXPECT_EQ(core.lease_until(), at_ms(90));
}

TEST(Heartbeat, PeerThatNeverSpeaksIsGivenTimeToEnterTheSession)
{
    HeartbeatCore core({}, 1, kDomain);
    core.become({Role::primary, 3, kSession, false}, at_ms(0));
    std::int64_t ms = 0;
    for (; ms < 1000; ms += 10) {
        core.on_timer(at_ms(ms));
        ASSERT_FALSE(core.take_peer_lost());
    }
    core.on_timer(at_ms(ms));
    EXPECT_TRUE(core.take_peer_lost());
}

TEST(Heartbeat, NewSessionStartsClean)
{
    Pair pair;
    pair.open(7);
    pair.run_until(300);
    pair.primary.close_session(pair.now());
    pair.secondary.close_session(pair.now());
    pair.primary.become({Role::primary, 7, kSession + 1, false}, pair.now());
    pair.secondary.become({Role::secondary, 7, kSession + 1, false}, pair.now());
    EXPECT_EQ(pair.primary.lease_until(), Time{0});
    EXPECT_EQ(pair.secondary.last_answer(), Time{0});
    EXPECT_EQ(pair.secondary.grant_not_before(), Time{0});
    pair.run_until(1000);
    EXPECT_FALSE(pair.primary.take_peer_lost());
    EXPECT_GT(pair.primary.lease_until(), pair.now());
}

TEST(Heartbeat, Inv16_TwoThatAnnounceOneGenerationBothHearOfIt)
{
    Pair pair;
    pair.primary.become({Role::primary, 5, 0, false}, pair.now());
    pair.secondary.become({Role::primary, 5, 0, false}, pair.now());
    pair.run_until(100);
    EXPECT_EQ(pair.primary.take_conflict(), Generation{5});
    EXPECT_EQ(pair.secondary.take_conflict(), Generation{5});
    pair.run_until(200);
    EXPECT_FALSE(pair.primary.take_conflict());   // once
    EXPECT_FALSE(pair.primary.take_higher_generation());
}

TEST(Heartbeat, NoConflictWithALowerGenerationOrInASession)
{
    Pair pair;
    pair.primary.become({Role::primary, 5, 0, false}, pair.now());
    pair.secondary.become({Role::primary, 6, 0, false}, pair.now());
    pair.run_until(100);
    EXPECT_FALSE(pair.primary.take_conflict());
    EXPECT_FALSE(pair.secondary.take_conflict());
    Pair session;
    session.open();
    session.run_until(100);
    EXPECT_FALSE(session.primary.take_conflict());
    EXPECT_FALSE(session.secondary.take_conflict());
}

TEST(Heartbeat, OurOwnBeatThatComesBackIsNoConflict)
{
    Pair pair;
    pair.primary.become({Role::primary, 5, 0, false}, pair.now());
    for (int i = 0; i < 5; ++i) {
        const auto beat = pair.primary.on_timer(pair.now());
        ASSERT_TRUE(beat);
        pair.primary.on_beat(0, *beat, pair.now());
        pair.ms += 10;
    }
    EXPECT_FALSE(pair.primary.take_conflict());
}

}  // namespace
}  // namespace colo
