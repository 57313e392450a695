// SPDX-License-Identifier: Apache-2.0
#include "engine_model.h"

#include <gtest/gtest.h>

namespace colo::replication::test {
namespace {

TEST(EngineProperty, Inv06_Inv08_Inv09_ShadowIsThePrimaryAtEveryCut)
{
    ModelCoverage coverage;
    for (std::uint64_t seed = 1; seed <= 200; ++seed) {
        const std::string failure = run_engine_model(seed, coverage);
        ASSERT_TRUE(failure.empty()) << "seed " << seed << ", " << failure;
    }
    EXPECT_GT(coverage.committed, 2000);
    EXPECT_GT(coverage.aborted, 500);
    EXPECT_GT(coverage.applied, 500);
    EXPECT_GT(coverage.corrupted, 50);
    EXPECT_GT(coverage.log_failures, 50);
    EXPECT_GT(coverage.pipelined, 250);
    EXPECT_GT(coverage.reordered, 500u);
    for (const std::uint64_t pages : {coverage.zero, coverage.unchanged, coverage.delta, coverage.full}) EXPECT_GT(pages, 2500u);
}

}  // namespace
}  // namespace colo::replication::test
