// SPDX-License-Identifier: Apache-2.0
#include "colo/worker.h"
#include "core/clock.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <future>

namespace colo {
namespace {

TEST(Worker, JobsRunInOrder)
{
    std::vector<int> order;
    std::promise<void> done;
    Worker worker("order");
    for (int i = 0; i < 100; ++i) worker.post([&, i] { order.push_back(i); });
    worker.post([&] { done.set_value(); });
    done.get_future().wait();
    ASSERT_EQ(order.size(), 100u);
    for (int i = 0; i < 100; ++i) EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
}

TEST(Worker, IdleRunsBetweenJobsAndIsAskedAgainAtItsTime)
{
    std::atomic<int> calls{0};
    std::promise<void> third;
    Worker worker("idle");
    worker.set_idle([&]() -> Time {
        if (++calls == 3) third.set_value();
        return calls < 3 ? now() + Duration{1000} : kNever;
    });
    third.get_future().wait();
    EXPECT_EQ(calls, 3);
}

TEST(Worker, AHangingJobDoesNotHangTheEnd)
{
    auto release = std::make_shared<std::promise<void>>();
    auto gate = release->get_future().share();
    auto entered = std::make_shared<std::promise<void>>();
    // Abandoned by stop(): the worker must outlive its thread.
    auto* worker = new Worker("hang");
    worker->post([gate, entered] {
        entered->set_value();
        gate.wait();
    });
    entered->get_future().wait();
    EXPECT_FALSE(worker->stop(now() + Duration{20'000}));
    release->set_value();
    while (!worker->stop(now() + Duration{1'000'000})) {}
    delete worker;
}

TEST(Worker, NothingIsAcceptedAfterStop)
{
    Worker worker("ended");
    EXPECT_TRUE(worker.stop(kNever));
    std::atomic<bool> ran{false};
    worker.post([&] { ran = true; });
    EXPECT_FALSE(ran);
}

TEST(WorkerDeathTest, AHangingWorkerIsNamedAndDoesNotKeepTheProcess)
{
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    const auto end = [] {
        std::promise<void> never, entered;
        Worker good("good");
        Worker bad("storage");
        bad.post([&] {
            entered.set_value();
            never.get_future().wait();
        });
        entered.get_future().wait();
        stop_or_exit({&good, nullptr, &bad}, now() + Duration{50'000});
    };
    EXPECT_EXIT(end(), testing::ExitedWithCode(EXIT_FAILURE), "");
    Worker a("a"), b("b");
    stop_or_exit({&a, &b}, now() + Duration{20'000'000});   // returns
}

}  // namespace
}  // namespace colo
