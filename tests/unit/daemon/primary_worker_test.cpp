// SPDX-License-Identifier: Apache-2.0
// The rounds of a migration: a guest that dirties pages in every one of them may stop when the limit allows it, not before.
#include "colo/primary_worker.h"

#include "fake_guest.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>

namespace colo::test {
namespace {

constexpr std::uint64_t kPages = 2048;
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
        callbacks.round_begun = [this, dirtied] {
            for (Gfn gfn = 0; gfn < dirtied; ++gfn) guest_.log().dirty.add(gfn);
            ++rounds_;
        };
        primary_ = std::make_unique<PrimaryWorker>(worker_, guest_, seal_, std::move(callbacks));
        primary_->set_downtime_limit(limit);
        sender_ = std::make_shared<PageSender>(std::vector<int>{ends_[0]}, 7, 1u << 20, kStall);
        primary_->open({}, sender_);
        primary_->start_epoch({1, 0, kNever, true});
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
    std::atomic<bool> converged_{false}, failed_{false};
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

}  // namespace
}  // namespace colo::test
