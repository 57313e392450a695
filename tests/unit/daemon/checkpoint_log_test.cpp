// SPDX-License-Identifier: Apache-2.0
#include "colo/checkpoint_log.h"

#include <gtest/gtest.h>

namespace colo {
namespace {

CheckpointRecord record(Epoch epoch, std::int64_t pause_us, replication::TriggerReason reason = replication::TriggerReason::period)
{
    CheckpointRecord r;
    r.epoch = epoch;
    r.reason = reason;
    r.cut.pause = Duration{pause_us};
    r.cut_begun = Time{1000};
    r.capture.full = 10;
    r.capture.zero = 5;
    r.capture.delta = 2;
    r.capture.raw_bytes = 100;
    r.capture.sent_bytes = 50;
    return r;
}

TEST(CheckpointLog, Inv33_TotalsAreTheSumOfTheRecords)
{
    CheckpointLog log;
    for (Epoch e = 1; e <= 2000; ++e) log.captured(record(e, 10));
    EXPECT_EQ(log.count(), 2000u);
    EXPECT_EQ(log.pages(), 34000u);
    EXPECT_EQ(log.delta_pages(), 4000u);
    EXPECT_EQ(log.full_pages(), 20000u);
    EXPECT_EQ(log.sent_bytes(), 100000u);
    EXPECT_EQ(log.records().size(), CheckpointLog::kKept);
    EXPECT_EQ(log.by_trigger()[static_cast<std::size_t>(replication::TriggerReason::period)], 2000u);
}

TEST(CheckpointLog, PercentilesLeaveTheFirstCopyOut)
{
    CheckpointLog log;
    log.captured(record(1, 1'000'000, replication::TriggerReason::first));
    for (Epoch e = 2; e <= 101; ++e) log.captured(record(e, static_cast<std::int64_t>(e) - 1));
    EXPECT_EQ(log.pause().p50_us, 51u);
    EXPECT_EQ(log.pause().p99_us, 100u);
}

TEST(CheckpointLog, LatenciesBelongToTheirEpoch)
{
    CheckpointLog log;
    log.captured(record(1, 5));
    log.captured(record(2, 5));
    log.staged(2, Time{3000});
    log.applied(1, Time{9000});
    EXPECT_EQ(log.staged_latency().p50_us, 2000u);
    EXPECT_EQ(log.applied_latency().p50_us, 8000u);
    EXPECT_EQ(log.find(1)->applied, Time{9000});
    EXPECT_EQ(log.find(2)->staged, Time{3000});
    EXPECT_EQ(log.find(3), nullptr);
    EXPECT_EQ(log.find(0), nullptr);
    log.staged(77, Time{1});
    EXPECT_EQ(log.count(), 2u);
}

}  // namespace
}  // namespace colo
