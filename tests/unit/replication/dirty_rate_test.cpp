// SPDX-License-Identifier: Apache-2.0
// The three ways to measure the dirty rate, with a fake guest and exact numbers.
#include "replication/dirty_rate.h"
#include "fake_guest.h"
#include "replication/engine.h"

#include <gtest/gtest.h>

namespace colo::replication::test {
namespace {

constexpr Duration kSecond{1'000'000};
constexpr Time kStart{5'000'000};

class TestClock final : public Clock {
public:
    Time now() const override { return time; }
    Time time = kStart;
};

GuestDescription guest_of(std::uint64_t pages)
{
    GuestDescription guest;
    guest.kind = "fake";
    guest.regions = {{0, pages / 2}, {pages, pages - pages / 2}};  // a hole in the middle
    return guest;
}

Gfn gfn_of(const GuestDescription& guest, std::uint64_t page)
{
    return page < guest.regions[0].pages ? page : guest.regions[1].first + page - guest.regions[0].pages;
}

// Steps until the pass is over; returns when the next one is wanted.
Time run_pass(DirtyRateMeter& meter, Time& now, std::size_t steps)
{
    for (std::size_t i = 1; i <= steps; ++i) {
        const auto next = meter.step(now, false);
        EXPECT_TRUE(next) << next.error().text;
        if (!next || i == steps) return next ? *next : kNever;
        EXPECT_EQ(next->us, (now + kSamplePause).us);
        now = *next;
    }
    return kNever;
}

TEST(DirtyRate, IsRoundedToTheNearestMebibyte)
{
    EXPECT_EQ((DirtyRate{256, kSecond}).mib_per_s(), 1u);
    EXPECT_EQ((DirtyRate{383, kSecond}).mib_per_s(), 1u);
    EXPECT_EQ((DirtyRate{384, kSecond}).mib_per_s(), 2u);
    EXPECT_EQ((DirtyRate{2560, kSecond * 2}).mib_per_s(), 5u);
    EXPECT_EQ((DirtyRate{1, Duration{0}}).mib_per_s(), 0u);
    EXPECT_EQ((DirtyRate{1ull << 40, kSecond}).mib_per_s(), 1ull << 32);
}

// As many samples as pages: nothing is left to chance.
TEST(DirtyRate, SamplingOfEveryPageIsExact)
{
    FakeGuest guest(guest_of(1024), true);
    auto meter = make_page_sampling(guest, kSecond, 1u << 18, 1);
    Time now = kStart;
    EXPECT_EQ(run_pass(*meter, now, 4).us, (kStart + kSecond).us);
    for (std::uint64_t page = 0; page < 300; ++page) *guest.touch(gfn_of(guest.description(), page * 3)) ^= 1;
    now = kStart + kSecond;
    EXPECT_EQ(run_pass(*meter, now, 4), kNever);
    EXPECT_EQ(meter->total().pages, 300u);
    EXPECT_EQ(meter->total().elapsed.count(), kSecond.count());
    EXPECT_EQ(guest.dirty_log().fetches, 0);
    EXPECT_EQ(meter->step(now, false).value(), kNever);
}

TEST(DirtyRate, SamplingOfOnePageInFourFindsAPartThatWasWrittenAsAWhole)
{
    FakeGuest guest(guest_of(4096), true);
    auto meter = make_page_sampling(guest, kSecond, 1u << 16, 7);
    Time now = kStart;
    run_pass(*meter, now, 4);
    for (std::uint64_t page = 1024; page < 2048; ++page) *guest.touch(gfn_of(guest.description(), page)) ^= 1;
    now = now + kSecond * 2;  // later than asked for: the guest thread had other work
    run_pass(*meter, now, 4);
    EXPECT_EQ(meter->total().pages, 1024u);
    EXPECT_EQ(meter->total().elapsed.count(), 2 * kSecond.count() + 3 * kSamplePause.count());
}

TEST(DirtyRate, SamplingLeavesSpecialAndUnreadableFramesOut)
{
    FakeGuest guest(small_guest(), true);
    guest.memory().unreadable = {0, 1};
    auto meter = make_page_sampling(guest, kSecond, 1u << 18, 1);
    Time now = kStart;
    run_pass(*meter, now, 1);
    for (const Gfn gfn : {0, 1, 5, 71, 2, 3}) *guest.touch(gfn) ^= 1;
    guest.balloon_out(9);
    guest.memory().absent.insert(10);
    run_pass(*meter, now, 1);
    // 110 of 114 were compared, 4 of them differ (2, 3, 9, 10).
    EXPECT_EQ(meter->total().pages, 4u);
}

// Frames are hashed in slices, so that whoever waits for the guest thread waits for 1 MiB at most.
TEST(DirtyRate, AStepOfSamplingIsBounded)
{
    FakeGuest guest(guest_of(kSamplesPerStep + 1), true);
    auto meter = make_page_sampling(guest, kSecond, 1u << 18, 1);
    EXPECT_EQ(meter->step(kStart, false).value().us, (kStart + kSamplePause).us);
    EXPECT_EQ(meter->step(kStart + kSamplePause, false).value().us, (kStart + kSecond).us);
}

TEST(DirtyRate, TheLogIsStartedAndStoppedWhenNobodyUsesIt)
{
    FakeGuest guest(small_guest(), true);
    TestClock clock;
    DirtyLogTap tap(guest.dirty_log(), clock);
    auto meter = make_dirty_counting(guest.description(), tap, kSecond);
    EXPECT_EQ(meter->step(kStart, false).value().us, (kStart + kSecond).us);
    EXPECT_EQ(guest.dirty_log().starts, 1);
    for (const Gfn gfn : {2, 3, 5, 71, 72, 72}) guest.touch(gfn);  // two are special
    EXPECT_EQ(meter->step(kStart + kSecond / 2, false).value().us, (kStart + kSecond).us);
    EXPECT_EQ(meter->step(kStart + kSecond, false).value(), kNever);
    EXPECT_EQ(meter->total().pages, 3u);
    EXPECT_EQ(meter->total().elapsed.count(), kSecond.count());
    EXPECT_EQ(guest.dirty_log().stops, 1);
    meter.reset();
    EXPECT_EQ(guest.dirty_log().stops, 1);
}

TEST(DirtyRate, GivingUpStopsTheLogThatWasStarted)
{
    FakeGuest guest(small_guest(), true);
    TestClock clock;
    DirtyLogTap tap(guest.dirty_log(), clock);
    auto meter = make_dirty_counting(guest.description(), tap, kSecond);
    EXPECT_TRUE(meter->step(kStart, false));
    meter.reset();
    EXPECT_EQ(guest.dirty_log().stops, 1);
}

// A session's engine, and a measurement beside it: the engine gets every bit, the measurement only looks.
class DirtyRateInSession : public ::testing::Test {
protected:
    void cut(Epoch epoch, Epoch base)
    {
        const auto sink = [](ByteView) { return Result<void>{}; };
        ASSERT_TRUE(engine->begin_epoch(epoch, base));
        ASSERT_TRUE(engine->precapture(sink, 0));
        ASSERT_TRUE(engine->capture_residue(false));
        ASSERT_TRUE(engine->capture_residue(true));
        ASSERT_TRUE(engine->flush_residue(sink));
        engine->staged(epoch);
    }
    void at(Duration since_start) { clock.time = kStart + since_start; }
    void step(bool in_use = true)
    {
        const auto next = meter->step(clock.time, in_use);
        ASSERT_TRUE(next) << next.error().text;
        finished = *next == kNever;
    }

    // The engine sees the guest through the tap, as in the daemon.
    class Tapped;
    FakeGuest guest{small_guest(), true};
    TestClock clock;
    DirtyLogTap tap{guest.dirty_log(), clock};
    std::unique_ptr<CaptureEngine> engine;
    std::unique_ptr<DirtyRateMeter> meter = make_dirty_counting(guest.description(), tap, kSecond);
    bool finished = false;

    void SetUp() override;
    std::unique_ptr<Guest> tapped;
};

class DirtyRateInSession::Tapped final : public Guest {
public:
    Tapped(Guest& guest, DirtyLog& log) : guest_(guest), log_(log) {}
    const GuestDescription& description() const override { return guest_.description(); }
    GuestMemory& memory() override { return guest_.memory(); }
    DirtyLog& dirty_log() override { return log_; }
    Result<void> create(StartMode, Deadline) override { return {}; }
    Result<void> cut_begin(Deadline) override { return {}; }
    Result<DeviceState> cut_save(Deadline) override { return DeviceState{}; }
    Result<void> resume(Deadline) override { return {}; }
    CutTimes last_cut_times() const override { return {}; }
    Result<void> stop(Deadline) override { return {}; }
    Result<void> load(const DeviceState&, Deadline) override { return {}; }
    Result<void> verify(const DeviceState&) const override { return {}; }
    Result<void> recreate(Deadline) override { return {}; }
    void kill() noexcept override {}
    Time last_progress() const override { return {}; }
    void probe() override {}
    int device_model_pid() const override { return 0; }
    bool running() const override { return true; }
    void set_event_handler(std::function<void(GuestEvent)>) override {}
    Result<void> save_device_state(const std::string&, bool, Deadline) override { return {}; }
    Result<void> load_device_state(const std::string&, Deadline) override { return {}; }
    Result<void> set_global_dirty_log(bool, Deadline) override { return {}; }

private:
    Guest& guest_;
    DirtyLog& log_;
};

void DirtyRateInSession::SetUp()
{
    tapped = std::make_unique<Tapped>(guest, tap);
    engine = make_capture_engine(*tapped, {});
}

TEST_F(DirtyRateInSession, Inv08_TheSessionsOwnFetchesAreCountedAndNoneIsAdded)
{
    cut(1, 0);
    for (const Gfn gfn : {20, 21, 22}) guest.touch(gfn);  // before the window
    step();
    const int fetches = guest.dirty_log().fetches;
    at(Duration{100'000});
    cut(2, 1);  // opens it
    at(Duration{400'000});
    for (const Gfn gfn : {2, 3, 71}) guest.touch(gfn);
    cut(3, 2);
    at(Duration{900'000});
    step();
    for (const Gfn gfn : {3, 4}) guest.touch(gfn);
    EXPECT_EQ(engine->owned().count(), 0u);
    cut(4, 3);
    EXPECT_FALSE(finished);
    at(Duration{1'200'000});
    guest.touch(80);
    cut(5, 4);  // closes it
    step();
    EXPECT_TRUE(finished);
    EXPECT_EQ(meter->total().pages, 4u);  // 2, 3, 4, 80; each once, the special one not at all
    EXPECT_EQ(meter->total().elapsed.count(), 1'100'000);
    EXPECT_EQ(guest.dirty_log().fetches, fetches + 4 * 3);
    EXPECT_EQ(guest.dirty_log().starts, 1);
    EXPECT_EQ(guest.dirty_log().stops, 0);
}

// Every bit that the log gives reaches the engine, measured or not.
TEST_F(DirtyRateInSession, Inv08_NoBitIsLostForTheCheckpoint)
{
    cut(1, 0);
    step();
    cut(2, 1);
    guest.touch(7);
    at(kSecond);
    step();
    at(kSecond + kFinalWait);  // no checkpoint comes: the window is closed by looking
    step();
    EXPECT_TRUE(finished);
    EXPECT_EQ(meter->total().pages, 1u);
    EXPECT_TRUE(guest.dirty_log().dirty.contains(7));
    ASSERT_TRUE(engine->begin_epoch(3, 2));
    ASSERT_TRUE(engine->capture_residue(false));
    EXPECT_TRUE(engine->owned().contains(7));
}

TEST_F(DirtyRateInSession, ASessionThatBeginsInTheMiddleTakesTheLog)
{
    step(false);
    EXPECT_EQ(guest.dirty_log().starts, 1);
    guest.touch(2);
    at(Duration{500'000});
    cut(1, 0);  // starts the log for itself; everything is dirty, which opens the window anew
    step();
    guest.touch(3);
    at(Duration{1'600'000});
    cut(2, 1);
    step();
    EXPECT_TRUE(finished);
    EXPECT_EQ(meter->total().pages, 1u);
    EXPECT_EQ(meter->total().elapsed.count(), 1'100'000);
    meter.reset();
    EXPECT_EQ(guest.dirty_log().stops, 0);  // not ours to stop
}

TEST_F(DirtyRateInSession, ASessionThatEndsInTheMiddleGivesTheLogBack)
{
    cut(1, 0);
    step();
    cut(2, 1);
    tap.stop();
    at(Duration{500'000});
    step(false);
    EXPECT_EQ(guest.dirty_log().starts, 2);
    guest.touch(3);
    at(Duration{1'500'000});
    step(false);
    EXPECT_TRUE(finished);
    EXPECT_EQ(meter->total().pages, 1u);
}

TEST_F(DirtyRateInSession, AFetchThatLostBitsBeginsTheWindowAnew)
{
    cut(1, 0);
    step();
    cut(2, 1);
    guest.touch(3);
    guest.dirty_log().next_error = make_error(Errc::limit, "no memory");
    at(Duration{300'000});
    cut(3, 2);  // the failed fetch ends the window, the next one in the same cut opens it
    guest.touch(4);
    at(Duration{1'300'000});
    cut(4, 3);
    step();
    EXPECT_TRUE(finished);
    EXPECT_EQ(meter->total().pages, 1u);
    EXPECT_EQ(meter->total().elapsed.count(), kSecond.count());
}

TEST_F(DirtyRateInSession, ItDoesNotWaitForEver)
{
    step();
    at(kSecond * 3 + kCountPatience + Duration{1});
    const auto next = meter->step(clock.time, true);
    ASSERT_FALSE(next);
    EXPECT_EQ(next.error().code, Errc::timed_out);
}

TEST(DirtyRate, CountedForEachVcpuWhereTheGuestCan)
{
    FakeGuest guest(small_guest(), true);
    EXPECT_FALSE(guest.counts_vcpu_dirty_pages());
    EXPECT_FALSE(make_vcpu_counting(guest, kSecond)->step(kStart, false));
    guest.vcpu_pages = {1000, 0};
    EXPECT_TRUE(guest.counts_vcpu_dirty_pages());
    auto meter = make_vcpu_counting(guest, kSecond);
    EXPECT_EQ(meter->step(kStart, false).value().us, (kStart + kSecond).us);
    EXPECT_EQ(meter->step(kStart + kSecond / 2, false).value().us, (kStart + kSecond).us);
    guest.vcpu_pages = {1000 + 2560, 512};
    EXPECT_EQ(meter->step(kStart + kSecond, false).value(), kNever);
    ASSERT_EQ(meter->vcpus().size(), 2u);
    EXPECT_EQ(meter->vcpus()[0].mib_per_s(), 10u);
    EXPECT_EQ(meter->vcpus()[1].mib_per_s(), 2u);
    EXPECT_EQ(meter->total().mib_per_s(), 12u);
}

}  // namespace
}  // namespace colo::replication::test
