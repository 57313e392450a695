// SPDX-License-Identifier: Apache-2.0
// The rounds of a migration: a guest that dirties pages in every one of them may stop when the limit allows it, not before.
#include "colo/primary_worker.h"

#include "fake_guest.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

namespace colo::test {
namespace {

constexpr std::uint64_t kPages = 16384;
constexpr Duration kStall{20'000'000};

class NoSeal final : public PrimarySeal {
public:
    void start_seal(Epoch, bool) override {}
    Result<replication::ProxySection> finish_seal(Deadline) override { return replication::ProxySection{}; }
};

class MigrationRounds : public ::testing::Test {
protected:
    MigrationRounds()
    {
        EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends_), 0);
        reader_ = std::thread([fd = ends_[1]] {
            char buffer[1 << 16];
            while (::read(fd, buffer, sizeof buffer) > 0) {}
        });
    }
    ~MigrationRounds() override
    {
        primary_->close();
        sender_->shut_down();
        worker_.stop(now() + kStall);
        reader_.join();
        ::close(ends_[1]);
    }
    // The guest dirties `dirtied` pages before each round.
    void begin(std::uint64_t dirtied, Duration limit)
    {
        PrimaryWorker::Callbacks callbacks;
        callbacks.progress = [](const CopyProgress&) {};
        callbacks.failed = [this](const Error&) { failed_ = true; };
        callbacks.initial_copy_converged = [this](Epoch) { converged_ = true; };
        callbacks.cut_progress = [](Epoch) {};
        callbacks.cut_begun = [](Epoch) {};
        callbacks.cut_done = [this](Epoch, const Result<void>& result) {
            cut_failed_ = !result;
            cut_ = true;
        };
        callbacks.round_begun = [this, dirtied] {
            if (!guest_.is_running) return static_cast<void>(++rounds_);   // of the cut
            for (Gfn gfn = 0; gfn < dirtied; ++gfn) guest_.log().dirty.add(gfn);
            ++rounds_;
        };
        primary_ = std::make_unique<PrimaryWorker>(worker_, guest_, seal_, std::move(callbacks));
        primary_->set_downtime_limit(limit);
        sender_ = std::make_shared<PageSender>(std::vector<int>{ends_[0]}, 7, 1u << 20, kStall);
        primary_->open({}, sender_);
        primary_->start_epoch({1, 0, kNever, true});
    }
    void cut() { primary_->start_cut({1, 0, replication::TriggerReason::first, replication::Mode::migration, kStall, kStall, replication::PowerState::paused}); }
    // The guest dirties these now; on its own thread.
    void dirty(std::uint64_t pages, bool again)
    {
        worker_.post([this, pages, again] {
            for (Gfn gfn = 0; gfn < pages; ++gfn) (again ? guest_.log().again : guest_.log().dirty).add(gfn);
        });
    }
    template <class Condition>
    bool wait(Condition condition)
    {
        const Time until = now() + kStall;
        while (!condition() && now() < until) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        return condition();
    }

    Trace trace_;
    FakeClock clock_;
    FakeGuest guest_{trace_, clock_, kPages};
    NoSeal seal_;
    int ends_[2] = {-1, -1};
    std::thread reader_;
    std::atomic<bool> converged_{false}, failed_{false}, cut_{false}, cut_failed_{false};
    std::atomic<int> rounds_{0};
    Worker worker_{"rounds"};
    std::unique_ptr<PrimaryWorker> primary_;
    std::shared_ptr<PageSender> sender_;
};

TEST_F(MigrationRounds, GoOnUntilTheLimitAllowsTheRest)
{
    begin(400, Duration{0});
    EXPECT_TRUE(wait([&] { return rounds_ >= 6; }));
    EXPECT_FALSE(converged_);
    primary_->set_downtime_limit(kStall);   // in the middle of it
    EXPECT_TRUE(wait([&] { return converged_.load(); }));
    EXPECT_FALSE(failed_);
}

TEST_F(MigrationRounds, AQuietGuestNeedsNoLimit)
{
    begin(3, Duration{0});
    EXPECT_TRUE(wait([&] { return converged_.load(); }));
    EXPECT_EQ(rounds_, 1);   // behind the copy of everything
}

// What is left then may be sent as fast as the link takes it: the guest is about to stand still for it.
TEST_F(MigrationRounds, TheSwitchOverIsNotPaced)
{
    constexpr std::uint64_t kLeft = 4096;
    for (std::size_t i = 0; i < kLeft * kPageSize; i += 8) guest_.ram()[i] = static_cast<std::uint8_t>(i / kPageSize + 1) | 1;
    begin(3, kStall);
    ASSERT_TRUE(wait([&] { return converged_.load(); }));
    sender_->set_bandwidth(530'000);   // half a minute for what is left, longer than is waited here
    dirty(kLeft, false);
    cut();
    EXPECT_TRUE(wait([&] { return cut_.load(); }));
    EXPECT_FALSE(cut_failed_);
}

TEST_F(MigrationRounds, WhatAGenerousLimitLeavesIsSentBeforeTheCutOfAStoppedGuest)
{
    begin(9000, kStall);
    ASSERT_TRUE(wait([&] { return converged_.load(); }));
    dirty(9000, true);
    cut();
    ASSERT_TRUE(wait([&] { return cut_.load(); }));
    EXPECT_FALSE(cut_failed_);
    EXPECT_EQ(rounds_, 2);   // behind the copy of everything, and the cut
    const auto stopped = std::find(trace_.begin(), trace_.end(), "stop");
    const auto begun = std::find(trace_.begin(), trace_.end(), "cut-begin");
    ASSERT_NE(begun, trace_.end());
    ASSERT_LT(stopped, begun);
    EXPECT_GT(std::count(stopped, begun, "fetch"), 0);
}

}  // namespace
}  // namespace colo::test
