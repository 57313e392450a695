// SPDX-License-Identifier: Apache-2.0
// The order of steps inside a cut and an apply is where the rules live.
#include "colo/jobs.h"
#include "core/failpoint.h"
#include "tests/unit/daemon/fake_guest.h"

#include <gtest/gtest.h>

namespace colo::test {
namespace {

class FakePrimarySeal final : public PrimarySeal {
public:
    explicit FakePrimarySeal(Trace& trace) : trace_(trace) {}
    void prepare() override { trace_.push_back("hold-input"); }
    void cancel() override { trace_.push_back("input-flows"); }
    void start_seal(Epoch next, bool protect) override
    {
        trace_.push_back(protect ? "seal-protect" : "seal");
        sealed = next;
    }
    Result<replication::ProxySection> finish_seal(Deadline) override
    {
        trace_.push_back("sealed");
        if (fail) return make_error(Errc::timed_out, "proxy hangs");
        return replication::ProxySection{{}, 42};
    }
    Epoch sealed = 0;
    bool fail = false;

private:
    Trace& trace_;
};

class FakeSecondarySeal final : public SecondarySeal {
public:
    explicit FakeSecondarySeal(Trace& trace) : trace_(trace) {}
    Result<void> seal(Deadline) override
    {
        trace_.push_back("seal");
        return {};
    }
    Result<void> applied(Epoch, const replication::ProxySection&, bool paused, Deadline) override
    {
        trace_.push_back(paused ? "offsets-paused" : "offsets");
        return {};
    }

private:
    Trace& trace_;
};

std::size_t position(const Trace& trace, const std::string& what)
{
    const auto found = std::find(trace.begin(), trace.end(), what);
    EXPECT_NE(found, trace.end()) << what << " never happened";
    return static_cast<std::size_t>(found - trace.begin());
}

class CutTest : public ::testing::Test {
protected:
    // Each on an epoch of its own: a failed one can only be aborted.
    Result<CutOutput> cut(Duration bound = Duration{1'000'000}, bool first = false,
                          replication::PowerState power = replication::PowerState::running)
    {
        engine->aborted(epoch);
        ++epoch;
        const auto begun = engine->begin_epoch(epoch, 0);
        EXPECT_TRUE(begun) << begun.error().text;
        guest.log().dirty.add(2);
        trace.clear();
        return run_cut(guest, *engine, seal, epoch, first, {bound, answer}, clock, power);
    }
    void SetUp() override { engine = replication::make_capture_engine(guest, {}); }
    Epoch epoch = 6;
    Duration answer{2'000'000};
    Trace trace;
    FakeClock clock;
    FakeGuest guest{trace, clock};
    FakePrimarySeal seal{trace};
    std::unique_ptr<replication::CaptureEngine> engine;
};

TEST_F(CutTest, ContWaitsForTheSealAndTheRescanFollowsTheSave)
{
    const auto out = cut();
    ASSERT_TRUE(out) << out.error().text;
    EXPECT_EQ(seal.sealed, 7u);
    EXPECT_EQ(out->proxy.last_input, 42u);
    EXPECT_EQ(out->state.devices.size(), 3u);
    EXPECT_LT(position(trace, "hold-input"), position(trace, "cut-begin"));
    EXPECT_LT(position(trace, "cut-begin"), position(trace, "seal"));
    EXPECT_LT(position(trace, "sealed"), position(trace, "resume"));
    EXPECT_LT(position(trace, "cut-save"), position(trace, "resume"));
    EXPECT_EQ(std::count(trace.begin(), trace.end(), "fetch"), 2) << "one scan, one rescan after the save";
    EXPECT_TRUE(guest.is_running);
}

TEST_F(CutTest, FirstCutProtectsTheOutputFromThereOn)
{
    ASSERT_TRUE(cut(Duration{1'000'000}, true));
    position(trace, "seal-protect");
}

TEST_F(CutTest, Inv12_LongPauseIsAbortedAndTheGuestRuns)
{
    guest.cost = Duration{400'000};
    const auto out = cut(Duration{300'000});
    ASSERT_FALSE(out);
    EXPECT_EQ(out.error().code, Errc::timed_out);
    EXPECT_TRUE(guest.is_running);
}

// `cont` cannot overtake a late `stop`: giving up at the pause bound would lose a guest that is only slow.
TEST_F(CutTest, Inv12_R7_AGuestThatAnswersLateIsAbortedNotLost)
{
    for (const int ms : {310, 900, 1900}) {
        guest.cost = Duration{ms * 1000};
        const auto out = cut(Duration{300'000});
        ASSERT_FALSE(out);
        EXPECT_EQ(out.error().code, Errc::timed_out) << ms << " ms";
        EXPECT_TRUE(guest.is_running) << ms << " ms";
        EXPECT_EQ(std::count(trace.begin(), trace.end(), "cut-save"), 0) << "the pause is too long already";
    }
}

TEST_F(CutTest, ThePauseEndsWithTheAnswerToCont)
{
    guest.cost = Duration{1'000};
    const auto plain = cut(Duration{300'000});
    ASSERT_TRUE(plain) << plain.error().text;
    guest.after_cont = Duration{400'000};  // our thread waits for a processor, the guest does not
    const auto out = cut(Duration{300'000});
    ASSERT_TRUE(out) << out.error().text;
    EXPECT_EQ(out->pause, plain->pause);
    EXPECT_EQ(out->resume, plain->resume);
}

TEST_F(CutTest, AGuestThatDoesNotAnswerAtAllIsDead)
{
    guest.cost = Duration{2'100'000};
    const auto out = cut(Duration{300'000});
    ASSERT_FALSE(out);
    EXPECT_EQ(out.error().code, Errc::guest_died);
}

TEST_F(CutTest, Inv12_EveryFailedStepLeavesARunningGuest)
{
    for (const std::string step : {"cut-begin", "cut-save"}) {
        guest.fail_at = step;
        guest.is_running = false;
        const auto out = cut();
        ASSERT_FALSE(out) << step;
        EXPECT_NE(out.error().code, Errc::guest_died) << step;
        EXPECT_TRUE(guest.is_running) << step;
    }
    guest.fail_at.clear();
    seal.fail = true;
    ASSERT_FALSE(cut());
    EXPECT_TRUE(guest.is_running);
    position(trace, "input-flows");
}

TEST_F(CutTest, AGuestThatDoesNotContinueIsDead)
{
    guest.fail_at = "resume";
    const auto out = cut();
    ASSERT_FALSE(out);
    EXPECT_EQ(out.error().code, Errc::guest_died);
}

TEST_F(CutTest, R9_AGuestThatIsOffStaysOff)
{
    guest.is_running = false;
    const auto out = cut(Duration{1'000'000}, false, replication::PowerState::powered_off);
    ASSERT_TRUE(out) << out.error().text;
    EXPECT_EQ(std::count(trace.begin(), trace.end(), "resume"), 0);
    EXPECT_EQ(trace.back(), "stop") << "the device model is told that the cut is over";
    seal.fail = true;
    ASSERT_FALSE(cut(Duration{1'000'000}, false, replication::PowerState::powered_off));
    EXPECT_EQ(trace.back(), "stop");
}

TEST_F(CutTest, InjectedFaultsLeaveARunningGuest)
{
    for (const std::string point : {"p-after-stop", "p-after-save", "p-after-seal", "p-before-cont"}) {
        ASSERT_TRUE(failpoint::arm(point + "=error"));
        const auto out = cut();
        ASSERT_FALSE(out) << point;
        EXPECT_TRUE(guest.is_running) << point;
    }
}

class ApplyTest : public ::testing::Test {
protected:
    void SetUp() override
    {
        auto made = replication::make_stager(guest.description(), {});
        ASSERT_TRUE(made);
        stager = std::move(*made);
        ASSERT_TRUE(stager->begin(1, 0, 1));
        ASSERT_TRUE(stager->verify(1, manifest));
        stager->commit(1);
        request.epoch = 1;
        request.manifest = &manifest;
        trace.clear();
    }
    Trace trace;
    FakeClock clock;
    FakeGuest guest{trace, clock};
    FakeSecondarySeal seal{trace};
    replication::Manifest manifest = [] {
        replication::Manifest m;
        m.chunks_per_channel = {0};
        return m;
    }();
    std::unique_ptr<replication::Stager> stager;
    ApplyRequest request;
};

TEST_F(ApplyTest, Inv09_OwnPagesAreRevertedBeforeTheLoadAndWhatTheLoadTouchedAfterIt)
{
    guest.log().dirty.add(5);
    guest.ram()[5 * kPageSize] = 0xee;
    guest.ram()[3 * kPageSize] = 0xdd;   // touched by the load (see FakeGuest::load)
    const auto out = run_apply(guest, *stager, seal, request, clock);
    ASSERT_TRUE(out) << out.error().text;
    EXPECT_EQ(out->own_dirty, 1u);
    EXPECT_EQ(out->touched, 1u);
    EXPECT_EQ(guest.ram()[5 * kPageSize], 0);
    EXPECT_EQ(guest.ram()[3 * kPageSize], 0);
    EXPECT_LT(position(trace, "stop"), position(trace, "seal"));
    EXPECT_LT(position(trace, "seal"), position(trace, "fetch"));
    EXPECT_LT(position(trace, "load"), position(trace, "offsets"));
    EXPECT_LT(position(trace, "offsets"), position(trace, "resume"));
}

TEST_F(ApplyTest, BufferedModeStopsAndLoadsNothing)
{
    request.load = request.resume = false;
    ASSERT_TRUE(run_apply(guest, *stager, seal, request, clock));
    EXPECT_EQ(std::count(trace.begin(), trace.end(), "load"), 0);
    EXPECT_FALSE(guest.is_running);
    position(trace, "offsets-paused");
}

TEST_F(ApplyTest, Inv07_AFailedLoadNeverRuns)
{
    guest.fail_at = "load";
    ASSERT_FALSE(run_apply(guest, *stager, seal, request, clock));
    EXPECT_FALSE(guest.is_running);
    EXPECT_EQ(std::count(trace.begin(), trace.end(), "resume"), 0);
}

// A QEMU whose own guest powered off answers every load with success and never runs again: only a new one does.
TEST_F(ApplyTest, Inv20_AGuestThatDoesNotRunAfterTheLoadIsNotApplied)
{
    guest.stays_off = true;
    const auto out = run_apply(guest, *stager, seal, request, clock);
    ASSERT_FALSE(out);
    EXPECT_EQ(out.error().code, Errc::guest_died);
    EXPECT_TRUE(run_roll_forward(guest, *stager, seal, request, clock)) << "off there is off in the primary's state";
}

TEST_F(ApplyTest, AGuestThatAnOperatorHoldsIsApplied)
{
    guest.stays_off = guest.is_held = true;
    EXPECT_TRUE(run_apply(guest, *stager, seal, request, clock));
}

TEST_F(ApplyTest, Inv20_RollForwardUsesAFreshDeviceModelAndEveryPage)
{
    guest.is_running = false;
    const auto out = run_roll_forward(guest, *stager, seal, request, clock);
    ASSERT_TRUE(out) << out.error().text;
    EXPECT_EQ(out->pages, 16u);
    EXPECT_LT(position(trace, "kill"), position(trace, "recreate"));
    EXPECT_LT(position(trace, "recreate"), position(trace, "log-start"));
    EXPECT_LT(position(trace, "load"), position(trace, "resume"));
}

TEST_F(ApplyTest, R9_APoweredOffStateIsNotResumed)
{
    manifest.power = replication::PowerState::powered_off;
    ASSERT_TRUE(run_apply(guest, *stager, seal, request, clock));
    EXPECT_EQ(std::count(trace.begin(), trace.end(), "resume"), 0);
}

}  // namespace
}  // namespace colo::test
