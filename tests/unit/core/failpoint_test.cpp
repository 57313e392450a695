// SPDX-License-Identifier: Apache-2.0
#include "core/failpoint.h"

#include <gtest/gtest.h>

#include <string>

namespace colo::failpoint {
namespace {

TEST(Failpoint, FiresOnceAtItsPoint)
{
    EXPECT_TRUE(pass("p-after-end"));
    ASSERT_TRUE(arm("p-after-end=error"));
    EXPECT_TRUE(pass("p-before-end"));
    const auto fired = pass("p-after-end");
    ASSERT_FALSE(fired);
    EXPECT_NE(fired.error().text.find("p-after-end"), std::string::npos);
    EXPECT_TRUE(pass("p-after-end"));
}

TEST(Failpoint, CountsPassages)
{
    ASSERT_TRUE(arm("s-mid-apply#3=error"));
    EXPECT_TRUE(pass("s-mid-apply"));
    EXPECT_TRUE(pass("s-mid-apply"));
    EXPECT_FALSE(pass("s-mid-apply"));
    EXPECT_TRUE(pass("s-mid-apply"));
}

TEST(Failpoint, EveryListedPointCanBeArmed)
{
    for (const std::string_view point : kPoints) {
        ASSERT_TRUE(arm(std::string(point) + "=error")) << point;
        EXPECT_FALSE(pass(point)) << point;
    }
}

TEST(Failpoint, DelayOnlyDelays)
{
    ASSERT_TRUE(arm("p-mid-transfer=delay:1"));
    EXPECT_TRUE(pass("p-mid-transfer"));
}

TEST(Failpoint, KillKills)
{
    EXPECT_EXIT(
        {
            (void)arm("p-before-stop=kill");
            (void)pass("p-before-stop");
        },
        testing::KilledBySignal(SIGKILL), "");
}

TEST(Failpoint, NonsenseIsRefusedAndArmsNothing)
{
    for (const char* bad : {"", "p-after-end", "nowhere=error", "p-after-end=explode", "p-after-end#0=error",
                            "p-after-end#x=error", "p-after-end#=error", "p-after-end=delay:", "p-after-end=delay:1x",
                            "p-after-end=delay:12345678"})
        EXPECT_FALSE(arm(bad)) << bad;
    EXPECT_TRUE(pass("p-after-end"));
}

}  // namespace
}  // namespace colo::failpoint
