// SPDX-License-Identifier: Apache-2.0
#include "colo/node_mode.h"

#include <gtest/gtest.h>

namespace colo {
namespace {

using replication::Mode;
using replication::TriggerReason;

Time at(std::int64_t ms)
{
    return Time{ms * 1000};
}

NodeConfig config()
{
    NodeConfig c;
    c.mismatch_budget = 3;
    return c;
}

TEST(ModePolicy, BudgetOfDivergenceWithinTheWindowTurnsToBuffered)
{
    ModePolicy policy(config());
    policy.begin_session(at(0));
    for (int i = 0; i < 3; ++i) EXPECT_EQ(policy.choose(TriggerReason::mismatch, at(100 + i)), Mode::lock_step);
    EXPECT_EQ(policy.choose(TriggerReason::late_output, at(200)), Mode::buffered);
    EXPECT_NE(policy.reason().find("4 checkpoints"), std::string::npos);
}

TEST(ModePolicy, OldDivergenceAndPeriodsDoNotCount)
{
    ModePolicy policy(config());
    policy.begin_session(at(0));
    for (int i = 0; i < 50; ++i) {
        EXPECT_EQ(policy.choose(TriggerReason::mismatch, at(i * 400)), Mode::lock_step);
        EXPECT_EQ(policy.choose(TriggerReason::period, at(i * 400 + 1)), Mode::lock_step);
    }
}

TEST(ModePolicy, ReturnsWhenCalmAndWaitsLongerIfThatDidNotLast)
{
    ModePolicy policy(config());
    policy.begin_session(at(0));
    const auto diverge = [&](std::int64_t ms) {
        Mode mode = Mode::lock_step;
        for (int i = 0; i < 4; ++i) mode = policy.choose(TriggerReason::mismatch, at(ms + i));
        return mode;
    };
    ASSERT_EQ(diverge(0), Mode::buffered);
    EXPECT_EQ(policy.change_due(), at(5003));
    EXPECT_EQ(policy.choose(TriggerReason::buffered_output, at(5002)), Mode::buffered);
    EXPECT_EQ(policy.choose(TriggerReason::mode_change, at(5003)), Mode::lock_step);
    ASSERT_EQ(diverge(6000), Mode::buffered);                        // short-lived
    EXPECT_EQ(policy.change_due(), at(6003 + 10'000));
    EXPECT_EQ(policy.choose(TriggerReason::mode_change, at(16'003)), Mode::lock_step);
    ASSERT_EQ(diverge(60'000), Mode::buffered);                      // lasted
    EXPECT_EQ(policy.change_due(), at(60'003 + 5000));
}

TEST(ModePolicy, RespectsConfiguration)
{
    NodeConfig never = config();
    never.allow_buffered = false;
    ModePolicy lock_step(never);
    lock_step.begin_session(at(0));
    for (int i = 0; i < 20; ++i) EXPECT_EQ(lock_step.choose(TriggerReason::mismatch, at(i)), Mode::lock_step);
    NodeConfig always = config();
    always.always_buffered = true;
    ModePolicy buffered(always);
    buffered.begin_session(at(0));
    EXPECT_EQ(buffered.choose(TriggerReason::first, at(0)), Mode::buffered);
    EXPECT_EQ(buffered.change_due(), kNever);
    EXPECT_EQ(buffered.choose(TriggerReason::period, at(1'000'000)), Mode::buffered);
}

TEST(CheckpointPacer, Inv15_MinimalIntervalAndPeriod)
{
    CheckpointPacer pacer;
    pacer.begin_session(at(0));
    pacer.cut_begun(at(100));
    const Duration period{500'000}, minimum{20'000};
    EXPECT_EQ(pacer.due(period, minimum).at, at(600));
    pacer.trigger(TriggerReason::staging_full);
    EXPECT_EQ(pacer.due(period, minimum).at, at(120));
    pacer.trigger(TriggerReason::mismatch);
    EXPECT_EQ(pacer.due(period, minimum).reason, TriggerReason::mismatch);
    pacer.trigger(TriggerReason::late_output);
    EXPECT_EQ(pacer.due(period, minimum).reason, TriggerReason::mismatch);
    pacer.trigger(TriggerReason::power_event);
    EXPECT_EQ(pacer.due(period, minimum).reason, TriggerReason::power_event);
    pacer.cut_begun(at(130));
    EXPECT_EQ(pacer.due(period, minimum).at, at(630));
}

TEST(CheckpointPacer, Inv15_AbortsBackOffUpToThePeriod)
{
    CheckpointPacer pacer;
    pacer.begin_session(at(0));
    const Duration period{500'000}, minimum{20'000};
    pacer.cut_begun(at(0));
    for (const std::int64_t wait : {40, 80, 160, 320, 500, 500}) {
        pacer.cut_aborted();
        pacer.trigger(TriggerReason::mismatch);
        EXPECT_EQ(pacer.due(period, minimum).at, at(wait));
    }
    pacer.cut_succeeded();
    EXPECT_EQ(pacer.due(period, minimum).at, at(20));
}

}  // namespace
}  // namespace colo
