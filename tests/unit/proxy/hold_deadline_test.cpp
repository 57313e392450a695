// SPDX-License-Identifier: Apache-2.0
#include "proxy/hold_deadline.h"

#include <gtest/gtest.h>

namespace colo::proxy {
namespace {

constexpr Duration kMin{20'000}, kMax{200'000};

TEST(HoldDeadline, LateWarmingFramesAreTriedLongerAndThenGivenUpForAWhile)
{
    HoldDeadline deadline(kMin, kMax);
    EXPECT_EQ(deadline.warming(), kMin);
    deadline.late_warming();
    EXPECT_EQ(deadline.warming(), kMin * 2);
    deadline.late_warming();
    EXPECT_EQ(deadline.warming(), kMin * 4);
    deadline.late_warming();
    EXPECT_EQ(deadline.warming(), kMin) << "waiting did not help: S has nothing to say";
    for (int epoch = 0; epoch < 63; ++epoch) {
        deadline.late_warming();
        EXPECT_EQ(deadline.warming(), kMin) << "epoch " << epoch;
        deadline.opened();
    }
    deadline.opened();
    deadline.late_warming();
    EXPECT_EQ(deadline.warming(), kMin * 2) << "it is tried again";
}

TEST(HoldDeadline, AMatchedWarmingFrameKeepsTheLongerDeadline)
{
    HoldDeadline deadline(kMin, kMax);
    deadline.late_warming();
    for (int epoch = 0; epoch < 100; ++epoch) {
        deadline.matched_warming(Duration{40'000});
        deadline.opened();
        EXPECT_GE(deadline.warming(), Duration{40'000}) << "epoch " << epoch;
        EXPECT_LE(deadline.warming(), Duration{60'000}) << "epoch " << epoch;
    }
    EXPECT_EQ(deadline.current(), kMin) << "frames after the warm-up keep their own";
    for (int epoch = 0; epoch < 100; ++epoch) {
        deadline.matched_warming(Duration{1000});
        deadline.opened();
    }
    EXPECT_EQ(deadline.warming(), kMin) << "and it falls when S is quick again";
}

TEST(HoldDeadline, TheLongestIsTheMaximum)
{
    HoldDeadline deadline(kMin, kMax);
    deadline.matched_warming(Duration{10'000'000});
    deadline.opened();
    EXPECT_EQ(deadline.warming(), kMax);
}

}  // namespace
}  // namespace colo::proxy
