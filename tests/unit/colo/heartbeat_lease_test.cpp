// SPDX-License-Identifier: Apache-2.0
// Inv16 for the lease: whatever the network does and however the clocks run (within 1 % of true time each, so 2 %
// apart), P has stopped releasing before S may ask for a grant.
#include "colo/heartbeat.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace colo {
namespace {

using replication::Beat;
const replication::DomainId kDomain{7};

struct Side {
    HeartbeatCore core;
    double rate;
    std::int64_t offset;
    std::int64_t frozen_until = 0;  // true time
    std::int64_t next_timer = 0;    // true time
    Time local(std::int64_t true_us) const
    {
        return Time{offset + static_cast<std::int64_t>(static_cast<double>(true_us) * rate)};
    }
};

struct Flight {
    std::int64_t arrives;  // true time
    bool to_primary;
    std::size_t path;
    Beat beat;
};

struct Outcome {
    std::int64_t overlap_us = 0;  // P's lease was valid this long after S might ask
    bool lease_was_used = false;
};

class World {
public:
    explicit World(unsigned seed)
        : random_(seed),
          paths_(1 + random_() % 3),
          p_{HeartbeatCore({}, paths_, kDomain), rate(),
             1'000'000'000 + static_cast<std::int64_t>(random_() % 1'000'000'000)},
          s_{HeartbeatCore({}, paths_, kDomain), rate(),
             1'000'000'000 + static_cast<std::int64_t>(random_() % 1'000'000'000)}
    {
        p_.core.become({Role::primary, 1, 42, false}, p_.local(0));
        s_.core.become({Role::secondary, 1, 42, false}, s_.local(0));
        delay_max_ = 100 + static_cast<std::int64_t>(random_() % 200'000);  // up to twice the loss time
        loss_percent_ = random_() % 60;
    }

    // `margin_percent`: how much of the lease S waits after its last answer.
    Outcome run(std::int64_t margin_percent)
    {
        Outcome result;
        const std::int64_t closes_at = 200'000 + static_cast<std::int64_t>(random_() % 800'000);
        bool closed = false;
        for (std::int64_t now = 0; now < 2'000'000; now += 500) {
            freeze_at_random(now);
            deliver(now);
            tick(p_, now, true);
            tick(s_, now, false);
            if (!closed && now >= closes_at && now >= s_.frozen_until) {
                s_.core.close_session(s_.local(now));
                closed = true;
            }
            const bool lease = p_.local(now) < p_.core.lease_until();
            result.lease_was_used |= lease;
            const Time may_ask =
                s_.core.last_answer() + Duration{HeartbeatTimes{}.lease.count() * margin_percent / 100 + 1};
            if (margin_percent == kLeaseMarginPercent && s_.core.last_answer().us != 0) {
                EXPECT_EQ(s_.core.grant_not_before(), may_ask);
            }
            if (closed && lease && s_.local(now) >= may_ask) result.overlap_us += 500;
        }
        return result;
    }

private:
    double rate() { return 0.99 + 0.02 * static_cast<double>(random_() % 1001) / 1000.0; }

    void freeze_at_random(std::int64_t now)
    {
        for (Side* side : {&p_, &s_})
            if (random_() % 2000 == 0)
                side->frozen_until = std::max(side->frozen_until, now + static_cast<std::int64_t>(random_() % 300'000));
    }
    void send(std::int64_t now, bool to_primary, std::size_t path, const Beat& beat)
    {
        if (random_() % 100 < loss_percent_) return;
        const int copies = random_() % 20 == 0 ? 2 : 1;
        for (int i = 0; i < copies; ++i)
            flights_.push_back({now + static_cast<std::int64_t>(random_() % static_cast<std::uint64_t>(delay_max_)),
                                to_primary, path, beat});
    }
    void deliver(std::int64_t now)
    {
        std::vector<Flight> ready;
        std::erase_if(flights_, [&](const Flight& flight) {
            if (flight.arrives > now || now < (flight.to_primary ? p_ : s_).frozen_until) return false;
            ready.push_back(flight);
            return true;
        });
        std::stable_sort(ready.begin(), ready.end(),
                         [](const Flight& a, const Flight& b) { return a.arrives < b.arrives; });
        for (const Flight& flight : ready) {
            Side& to = flight.to_primary ? p_ : s_;
            if (const auto answer = to.core.on_beat(flight.path, flight.beat, to.local(now)))
                send(now, !flight.to_primary, flight.path, *answer);
        }
    }
    void tick(Side& side, std::int64_t now, bool primary)
    {
        if (now < side.frozen_until || now < side.next_timer) return;
        side.next_timer = now + 10'000;
        if (const auto beat = side.core.on_timer(side.local(now)))
            for (std::size_t path = 0; path < paths_; ++path) send(now, !primary, path, *beat);
    }

    std::mt19937_64 random_;
    std::size_t paths_;
    Side p_, s_;
    std::int64_t delay_max_ = 0;
    std::uint64_t loss_percent_ = 0;
    std::vector<Flight> flights_;
};

constexpr unsigned kSeeds = 400;

TEST(HeartbeatLease, Inv16_PrimarysLeaseEndsBeforeTheSecondaryMayAsk)
{
    unsigned used = 0;
    for (unsigned seed = 1; seed <= kSeeds; ++seed) {
        const Outcome run = World(seed).run(kLeaseMarginPercent);
        ASSERT_EQ(run.overlap_us, 0) << "seed " << seed;
        used += run.lease_was_used ? 1 : 0;
    }
    EXPECT_GT(used, kSeeds * 9 / 10) << "a run without a lease proves nothing";
}

TEST(HeartbeatLease, TheTestWouldSeeAMarginThatIsTooSmall)
{
    std::int64_t overlap = 0;
    for (unsigned seed = 1; seed <= kSeeds; ++seed) overlap += World(seed).run(90).overlap_us;
    EXPECT_GT(overlap, 0);
}

// The arithmetic itself, at the extremes: no delay at all, P's clock 1 % slow, S's 1 % fast.
TEST(HeartbeatLease, Inv16_MarginCoversTwoClocksOnePercentOffInOppositeDirections)
{
    const double lease_ends = static_cast<double>(HeartbeatTimes{}.lease.count()) / 0.99;
    const double may_ask = static_cast<double>(HeartbeatTimes{}.lease.count() * kLeaseMarginPercent / 100 + 1) / 1.01;
    EXPECT_GT(may_ask, lease_ends);
}

}  // namespace
}  // namespace colo
