// SPDX-License-Identifier: Apache-2.0
#include "colo/control_interface.h"

#include <gtest/gtest.h>

namespace colo {
namespace {

TEST(ControlInterface, ADowntimeLimitThatNoCutCanKeepStillLeavesTime)
{
    EXPECT_EQ(pause_bound_of(0), Duration{5'000});
    EXPECT_EQ(pause_bound_of(4), Duration{5'000});
    EXPECT_EQ(pause_bound_of(6), Duration{6'000});
    EXPECT_EQ(pause_bound_of(2'000'000), Duration{2'000'000'000});
}

}  // namespace
}  // namespace colo
