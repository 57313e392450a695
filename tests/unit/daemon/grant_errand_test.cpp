// SPDX-License-Identifier: Apache-2.0
#include "colo/grant_errand.h"
#include "core/clock.h"

#include <gtest/gtest.h>

#include <future>

namespace colo {
namespace {

struct CountingArbiter final : Arbiter {
    ArbiterKind kind() const override { return ArbiterKind::command; }
    Result<std::string> settings_digest(Deadline) override { return std::string("test"); }
    GrantResult request(const GrantRequest& request, Deadline) override
    {
        ++requests;
        last = request;
        if (during) during();
        return {GrantOutcome::granted, ""};
    }
    Observation observe(Generation, Deadline) override { return {}; }
    void cancel() override { ++cancels; }
    std::function<void()> during;
    GrantRequest last;
    std::atomic<int> requests{0}, cancels{0};
};

struct Errand : ::testing::Test {
    // Everything posted before has been done.
    void settle()
    {
        std::promise<void> done;
        worker.post([&] { done.set_value(); });
        done.get_future().wait();
    }
    CountingArbiter arbiter;
    Worker worker{"arbiter"};
    GrantErrand errand{worker, arbiter};
    std::atomic<int> answers{0};
    GrantErrand::Answer count = [this](const GrantResult&) { ++answers; };
};

TEST_F(Errand, WhatIsWantedIsAskedAndAnswered)
{
    errand.want(5);
    errand.ask({5, Role::secondary, "peer"}, Duration{1'000'000}, count);
    settle();
    EXPECT_EQ(arbiter.requests, 1);
    EXPECT_EQ(answers, 1);
}

TEST_F(Errand, ADecisionThatFallsBeforeTheJobBeginsNeverReachesTheArbiter)
{
    std::promise<void> gate;
    worker.post([&] { gate.get_future().wait(); });
    errand.want(5);
    errand.ask({5, Role::secondary, "peer"}, Duration{1'000'000}, count);
    errand.cancel();
    gate.set_value();
    settle();
    EXPECT_EQ(arbiter.requests, 0);
    EXPECT_EQ(answers, 0);
    EXPECT_EQ(arbiter.cancels, 1);
    errand.cancel();
    EXPECT_EQ(arbiter.cancels, 1);
}

TEST_F(Errand, ADecisionThatFallsMeanwhileIsVisibleToTheArbiterAndItsAnswerIsDropped)
{
    bool before = false, after = true;
    arbiter.during = [&] {
        before = arbiter.last.wanted();
        errand.cancel();
        after = arbiter.last.wanted();
    };
    errand.want(5);
    errand.ask({5, Role::secondary, "peer"}, Duration{1'000'000}, count);
    settle();
    EXPECT_TRUE(before);
    EXPECT_FALSE(after);
    EXPECT_EQ(answers, 0);
}

}  // namespace
}  // namespace colo
