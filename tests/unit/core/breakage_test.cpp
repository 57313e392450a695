// SPDX-License-Identifier: Apache-2.0
#include "core/breakage.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace colo {
namespace {

// The product cannot be broken on purpose: the question is answered at compile time.
static_assert(!broken(Breakage::release_before_staged));

TEST(Breakage, EveryOneHasItsOwnName)
{
    std::set<std::string> names;
    for (int b = 0; b <= static_cast<int>(Breakage::migration_judged_early); ++b) names.insert(to_string(static_cast<Breakage>(b)));
    EXPECT_EQ(names.size(), static_cast<std::size_t>(Breakage::migration_judged_early) + 1);
    EXPECT_EQ(names.count("unknown"), 0u);
}

}  // namespace
}  // namespace colo
