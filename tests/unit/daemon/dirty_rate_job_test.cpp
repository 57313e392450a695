// SPDX-License-Identifier: Apache-2.0
// A measurement on a real guest thread: what query-dirty-rate shows before, during and after it.
#include "colo/dirty_rate_job.h"
#include "core/clock.h"
#include "fake_guest.h"

#include <gtest/gtest.h>

namespace colo {
namespace {

using schema::DirtyRateMeasureMode;
using schema::DirtyRateStatus;

class DirtyRateJobTest : public ::testing::Test {
protected:
    // Until nothing is measured any more; 20 s are more than any of these takes.
    void wait()
    {
        const Deadline deadline = now() + Duration{20'000'000};
        while (job.measuring() && now() < deadline) io.run_for(std::chrono::milliseconds(5)), io.restart();
    }
    ~DirtyRateJobTest() override { worker.stop(kNever); }

    boost::asio::io_context io;
    test::Trace trace;
    test::FakeClock clock;
    test::FakeGuest guest{trace, clock, 1024};
    replication::DirtyLogTap tap{guest.dirty_log(), system_clock()};
    Worker worker{"guest"};
    bool in_use = false;
    DirtyRateJob job{io, worker, guest, tap, [this] { return in_use; }};
};

TEST_F(DirtyRateJobTest, FromUnstartedToMeasuredAndAgain)
{
    EXPECT_EQ(job.info(), schema::DirtyRateInfo{});
    EXPECT_EQ(job.info().status, DirtyRateStatus::unstarted);
    const std::int64_t before = now().us / 1'000'000;
    job.start({DirtyRateMeasureMode::page_sampling, 1, 16384});
    EXPECT_TRUE(job.measuring());
    EXPECT_GE(job.info().start_time, before);
    EXPECT_EQ(job.info().calc_time, 1);
    EXPECT_EQ(job.info().sample_pages, 16384u);
    EXPECT_FALSE(job.info().dirty_rate);
    wait();
    EXPECT_EQ(job.info().status, DirtyRateStatus::measured);
    EXPECT_EQ(job.info().dirty_rate, 0);
    EXPECT_EQ(job.info().sample_pages, 16384u);
    EXPECT_FALSE(job.info().vcpu_dirty_rate);

    job.start({DirtyRateMeasureMode::dirty_bitmap, 1, 512});
    EXPECT_TRUE(job.measuring());
    EXPECT_FALSE(job.info().dirty_rate);
    wait();
    EXPECT_EQ(job.info().status, DirtyRateStatus::measured);
    EXPECT_EQ(job.info().mode, DirtyRateMeasureMode::dirty_bitmap);
    EXPECT_EQ(job.info().sample_pages, 0u);
    EXPECT_EQ(trace.front(), "log-start");
    EXPECT_EQ(trace.back(), "log-stop");
}

TEST_F(DirtyRateJobTest, WithoutAGuestThereIsNoResult)
{
    job.start({DirtyRateMeasureMode::dirty_bitmap, 60, 512});
    job.abandon("the device model died");
    EXPECT_EQ(job.info().status, DirtyRateStatus::unstarted);
    EXPECT_EQ(job.info().calc_time, 60);
    EXPECT_FALSE(job.info().dirty_rate);
    job.abandon("again");
    job.start({DirtyRateMeasureMode::dirty_ring, 1, 512});  // this guest cannot count
    wait();
    EXPECT_EQ(job.info().status, DirtyRateStatus::unstarted);
    worker.stop(kNever);
    EXPECT_EQ(trace.front(), "log-start");
    EXPECT_EQ(trace.back(), "log-stop");
}

}  // namespace
}  // namespace colo
