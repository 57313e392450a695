// SPDX-License-Identifier: Apache-2.0
// The same model over the engine with a rule deliberately broken: it must be noticed, or the model is blind.
#include "core/breakage.h"
#include "engine_model.h"

#include <gtest/gtest.h>

namespace colo::replication::test {
namespace {

class EngineBreakage : public testing::TestWithParam<Breakage> {
protected:
    void TearDown() override { g_breakage = Breakage::none; }
};

TEST_P(EngineBreakage, IsNoticed)
{
    g_breakage = GetParam();
    ModelCoverage coverage;
    for (std::uint64_t seed = 1; seed <= 100; ++seed)
        if (!run_engine_model(seed, coverage).empty()) return;
    FAIL() << to_string(GetParam()) << " went unnoticed";
}

INSTANTIATE_TEST_SUITE_P(Rules, EngineBreakage,
                         testing::Values(Breakage::single_carry_over_bitmap, Breakage::copy_before_clear,
                                         Breakage::own_dirty_not_reverted, Breakage::stale_base_accepted,
                                         Breakage::unverified_staged),
                         [](const auto& param_info) {
                             std::string name = to_string(param_info.param);
                             for (char& c : name)
                                 if (c == '-') c = '_';
                             return name;
                         });

TEST(EngineBreakageNone, NothingIsNoticedWithoutOne)
{
    ModelCoverage coverage;
    for (std::uint64_t seed = 1; seed <= 50; ++seed) EXPECT_EQ(run_engine_model(seed, coverage), "");
}

}  // namespace
}  // namespace colo::replication::test
