// SPDX-License-Identifier: Apache-2.0
#include "colo/own_health.h"

#include <gmock/gmock.h>

namespace colo {
namespace {

constexpr Duration kMs{1000}, kEvery = kMs * 50;

struct Judged : testing::Test {
    std::optional<OwnHealth::Verdict> run(Duration time, bool guest_moves, bool proxy_moves = true)
    {
        std::optional<OwnHealth::Verdict> last;
        for (Duration passed{0}; passed < time; passed += kEvery) {
            now = now + kEvery;
            if (guest_moves) health.moved(ProgressCounter::guest, now);
            if (proxy_moves) health.moved(ProgressCounter::proxy, now);
            if (auto verdict = health.judge(now)) last = verdict;
        }
        return last;
    }
    OwnHealth health{kMs * 1000, kEvery};
    Time now{1'000'000};
};

TEST_F(Judged, AStandstillIsSeenWellBeforeThePeerSeesItAndOnlyOnce)
{
    EXPECT_FALSE(run(kMs * 5000, true));
    EXPECT_FALSE(run(kMs * 500, false));   // a saturated host
    EXPECT_FALSE(run(kMs * 100, true));
    const auto verdict = run(kMs * 700, false);
    ASSERT_TRUE(verdict);
    EXPECT_FALSE(verdict->ok);
    EXPECT_THAT(verdict->why, testing::HasSubstr("guest"));
    EXPECT_FALSE(run(kMs * 2000, false));
    const auto again = run(kMs * 100, true);
    ASSERT_TRUE(again);
    EXPECT_TRUE(again->ok);
}

TEST_F(Judged, TheProxyIsJudgedToo)
{
    run(kMs * 1000, true);
    const auto verdict = run(kMs * 700, true, false);
    ASSERT_TRUE(verdict);
    EXPECT_THAT(verdict->why, testing::HasSubstr("proxy"));
}

TEST_F(Judged, WhatNeverMovedOrIsNotThereIsNotJudged)
{
    EXPECT_FALSE(run(kMs * 5000, false));
    run(kMs * 100, true);
    health.not_judged(ProgressCounter::guest);
    EXPECT_FALSE(run(kMs * 5000, false));
}

TEST_F(Judged, AJudgeThatWasLateItselfStartsAnew)
{
    run(kMs * 1000, true);
    now = now + kMs * 3000;   // the whole process stood still
    EXPECT_FALSE(health.judge(now));
    EXPECT_FALSE(run(kMs * 500, false));
    EXPECT_TRUE(run(kMs * 200, false));
}

}  // namespace
}  // namespace colo
