// SPDX-License-Identifier: Apache-2.0
#include "core/clock.h"
#include "tests/unit/xen/fake_control.h"
#include "tests/unit/xen/fake_model.h"
#include "xen/domain_cut.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <sched.h>
#include <unistd.h>

namespace colo::xen {
namespace {

using replication::DeviceState;
using test::add_record;
using test::cpu_context;
using test::FakeControl;
using test::FakeModel;
using test::model_state;
using test::Trace;

Deadline soon() { return now() + std::chrono::seconds(5); }

class DomainCutTest : public testing::Test {
protected:
    DomainCutTest()
    {
        control.trace = &trace;
        control.cpu_context = cpu_context();
    }
    // Without questions about its state.
    Trace taken()
    {
        Trace out = std::exchange(trace, {});
        std::erase(out, "info");
        return out;
    }

    Trace trace;
    FakeControl control;
    FakeModel model{trace};
    DomainCut cut{control, model};
};

TEST_F(DomainCutTest, StopsVcpusFirstAndLetsThemGoLast)
{
    ASSERT_TRUE(cut.begin(soon()));
    EXPECT_EQ(taken(), (Trace{"pause", "in-flight", "model-stop-and-save"}));
    EXPECT_FALSE(cut.running());
    const auto state = cut.save(soon());
    ASSERT_TRUE(state);
    EXPECT_EQ(state->devices, model_state());
    EXPECT_EQ(state->cpu_context, cpu_context());
    EXPECT_EQ(taken(), (Trace{"context", "model-saved"}));
    ASSERT_TRUE(cut.resume(soon()));
    EXPECT_EQ(taken(), (Trace{"model-cont", "unpause"}));
    EXPECT_TRUE(cut.running());
    EXPECT_LE(cut.times().stop_sent, cut.times().stopped);
    EXPECT_LE(cut.times().saved, cut.times().cont_done);
}

TEST_F(DomainCutTest, AccessInFlightIsLetGoBeforeTheCut)
{
    // One that waits for the device model, then one whose answer the vCPU has not taken, then none.
    control.accesses = {{1, 0}, {1, 0}, {0, 1}, {0, 0}};
    ASSERT_TRUE(cut.begin(soon()));
    EXPECT_EQ(taken(), (Trace{"pause", "in-flight", "in-flight", "in-flight", "unpause", "pause", "in-flight", "model-stop-and-save"}));
    EXPECT_EQ(cut.pauses_repeated(), 1);
    EXPECT_EQ(control.pauses(), 1);
}

TEST_F(DomainCutTest, AccessesWithoutEndAreAnErrorAndTheDomainRuns)
{
    control.accesses.assign(kMaxPauses, {0, 1});
    const auto r = cut.begin(soon());
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, Errc::timed_out);
    EXPECT_EQ(control.pauses(), 0);
    control.accesses.assign(1000, {1, 0});
    EXPECT_EQ(cut.begin(now()).error().code, Errc::timed_out);
    EXPECT_EQ(control.pauses(), 0);
    control.fail["in-flight"] = {EPERM};
    EXPECT_EQ(cut.begin(soon()).error().code, Errc::refused);
    EXPECT_EQ(control.pauses(), 0);
    EXPECT_TRUE(cut.running());
}

TEST_F(DomainCutTest, SaveThatWasGivenUpIsFinishedBeforeAnythingElse)
{
    ASSERT_TRUE(cut.begin(soon()));
    taken();
    ASSERT_TRUE(cut.resume(soon()));
    EXPECT_EQ(taken(), (Trace{"model-saved", "model-cont", "unpause"}));
    ASSERT_TRUE(cut.begin(soon()));
    taken();
    ASSERT_TRUE(cut.stop(soon()));   // ends a cut whose guest stays stopped
    EXPECT_EQ(taken(), Trace{"model-saved"});
    EXPECT_FALSE(cut.save(soon()));
    EXPECT_EQ(control.pauses(), 1);
}

// Of this thread.
int policy() { return ::sched_getscheduler(0) & ~SCHED_RESET_ON_FORK; }

TEST_F(DomainCutTest, PriorityLastsAsLongAsTheCut)
{
    qemu::CutPriority permitted;
    const int wanted = permitted.raise() ? SCHED_FIFO : SCHED_OTHER;   // without the right to it nothing changes
    permitted.restore();
    ASSERT_TRUE(cut.begin(soon()));
    EXPECT_EQ(policy(), SCHED_OTHER);   // not asked for
    ASSERT_TRUE(cut.resume(soon()));
    cut.hurry_model(::getpid());
    ASSERT_TRUE(cut.begin(soon()));
    EXPECT_EQ(policy(), wanted);
    ASSERT_TRUE(cut.save(soon()));
    EXPECT_EQ(policy(), wanted);
    ASSERT_TRUE(cut.resume(soon()));
    EXPECT_EQ(policy(), SCHED_OTHER);
    ASSERT_TRUE(cut.begin(soon()));
    ASSERT_TRUE(cut.stop(soon()));   // ends a cut whose guest stays stopped
    EXPECT_EQ(policy(), SCHED_OTHER);
    model.fail_at = "model-cont";
    ASSERT_TRUE(cut.begin(soon()));
    ASSERT_FALSE(cut.resume(soon()));
    EXPECT_EQ(policy(), SCHED_OTHER);
    model.fail_at = "model-stop-and-save";   // a guest that is off is neither let go nor stopped after this
    ASSERT_FALSE(cut.begin(soon()));
    EXPECT_EQ(policy(), SCHED_OTHER);
}

// A daemon died in the middle of a cut; its device model lives.
TEST_F(DomainCutTest, PriorityThatWasLeftIsTakenBack)
{
    sched_param left{};
    left.sched_priority = 1;
    const bool permitted = ::sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &left) == 0;
    qemu::lower_what_was_left(::getpid());
    EXPECT_EQ(::sched_getscheduler(0), SCHED_OTHER);
    if (!permitted) GTEST_SKIP() << "real-time priority is not permitted here";
    // An operator's is another one.
    left.sched_priority = 7;
    ASSERT_EQ(::sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &left), 0);
    qemu::lower_what_was_left(::getpid());
    EXPECT_EQ(::sched_getscheduler(0), SCHED_FIFO | SCHED_RESET_ON_FORK);
    left.sched_priority = 0;
    ::sched_setscheduler(0, SCHED_OTHER, &left);
}

TEST_F(DomainCutTest, StopIsIdempotent)
{
    ASSERT_TRUE(cut.stop(soon()));
    ASSERT_TRUE(cut.stop(soon()));
    EXPECT_EQ(taken(), (Trace{"pause", "in-flight", "model-stop"}));
    ASSERT_TRUE(cut.resume(soon()));
    EXPECT_EQ(control.pauses(), 0);
}

TEST_F(DomainCutTest, ContextThatCannotBeHadLeavesTheChannelInOrder)
{
    ASSERT_TRUE(cut.begin(soon()));
    control.fail["context"] = {EPERM};
    taken();
    EXPECT_EQ(cut.save(soon()).error().code, Errc::refused);
    EXPECT_EQ(taken(), (Trace{"context", "model-saved"}));
    ASSERT_TRUE(cut.resume(soon()));
    EXPECT_EQ(taken(), (Trace{"model-cont", "unpause"}));
}

TEST_F(DomainCutTest, LoadSetsCpusThenDevices)
{
    const DeviceState state{model_state(), cpu_context(9)};
    EXPECT_EQ(cut.load(state, soon()).error().code, Errc::invalid);   // it runs
    ASSERT_TRUE(cut.stop(soon()));
    taken();
    ASSERT_TRUE(cut.load(state, soon()));
    EXPECT_EQ(taken(), (Trace{"set-context", "model-load"}));
    EXPECT_EQ(control.cpu_context, cpu_context(9));
    EXPECT_EQ(model.loaded, model_state());
}

TEST_F(DomainCutTest, Inv07_RefusedStateChangesNothing)
{
    ASSERT_TRUE(cut.stop(soon()));
    taken();
    DeviceState state{model_state(), cpu_context(9)};
    state.devices[0] = 'X';
    EXPECT_EQ(cut.load(state, soon()).error().code, Errc::corrupt);
    state = {model_state(), Bytes(40, 1)};
    EXPECT_EQ(cut.load(state, soon()).error().code, Errc::corrupt);
    EXPECT_EQ(taken(), Trace());
    control.fail["set-context"] = {EINVAL};   // what the hypervisor finds
    EXPECT_EQ(cut.load({model_state(), cpu_context(9)}, soon()).error().code, Errc::invalid);
    EXPECT_EQ(taken(), Trace{"set-context"});
    EXPECT_TRUE(model.loaded.empty());
    EXPECT_EQ(control.cpu_context, cpu_context());
}

TEST_F(DomainCutTest, DeadDeviceModelIsAnErrorOfEachStep)
{
    model.fail_at = "model-stop-and-save";
    EXPECT_EQ(cut.begin(soon()).error().code, Errc::closed);
    EXPECT_EQ(control.pauses(), 1);   // nobody would answer the vCPUs
    DomainCut other(control, model);
    ASSERT_TRUE(control.unpause());
    model.fail_at = "model-saved";
    ASSERT_TRUE(other.begin(soon()));
    EXPECT_EQ(other.save(soon()).error().code, Errc::closed);
    model.fail_at = "model-cont";
    EXPECT_EQ(other.resume(soon()).error().code, Errc::closed);
    EXPECT_EQ(control.pauses(), 1);
}

// It may stop after all once nobody waits for its answer: whoever resumes must see to it that it goes on.
TEST_F(DomainCutTest, ResumeAfterAStopThatFailedLetsTheDeviceModelGo)
{
    model.fail_at = "model-stop-and-save";
    ASSERT_FALSE(cut.begin(soon()));
    taken();
    model.fail_at = "model-cont";
    EXPECT_EQ(cut.resume(soon()).error().code, Errc::closed);
    EXPECT_EQ(control.pauses(), 1);
    model.fail_at = "";
    ASSERT_TRUE(cut.resume(soon()));
    EXPECT_EQ(taken(), (Trace{"model-saved", "model-cont", "model-cont", "unpause"}));

    model.fail_at = "model-stop";
    ASSERT_FALSE(cut.stop(soon()));
    model.fail_at = "";
    taken();
    ASSERT_TRUE(cut.resume(soon()));
    EXPECT_EQ(taken(), (Trace{"model-cont", "unpause"}));
}

// A device model does not go on with a guest that went off, which was not its end.
TEST_F(DomainCutTest, OneThatWentOffJustBeforeIsNotResumedAndNotLost)
{
    ASSERT_TRUE(cut.begin(soon()));
    ASSERT_TRUE(cut.save(soon()));
    model.fail_at = "model-cont";
    EXPECT_EQ(cut.resume(soon()).error().code, Errc::closed);
    control.described.shut_down = true;
    control.described.shutdown_reason = 0;
    EXPECT_TRUE(cut.resume(soon()));
    EXPECT_FALSE(cut.running());
    EXPECT_EQ(control.pauses(), 1);
    EXPECT_TRUE(cut.stop(soon()));   // as the next checkpoint of it ends
}

// An operator's `xl pause`: checkpoints go on, and it is paused afterwards as it was before.
TEST_F(DomainCutTest, PausesOfOthersStayAsManyAsTheyAre)
{
    ASSERT_TRUE(control.pause());
    ASSERT_TRUE(control.pause());
    for (int round = 0; round < 3; ++round) {
        // Paused by the others in the middle of an access: only without their pauses the vCPU takes its answer.
        control.accesses = {{0, 1}, {0, 1}, {0, 0}};
        ASSERT_TRUE(cut.begin(soon()));
        EXPECT_EQ(control.pauses(), 3);
        ASSERT_TRUE(cut.save(soon()));
        ASSERT_TRUE(cut.resume(soon()));
        EXPECT_EQ(control.pauses(), 2);
    }
    ASSERT_TRUE(cut.stop(soon()));
    ASSERT_TRUE(cut.load({model_state(), cpu_context(9)}, soon()));
    ASSERT_TRUE(cut.resume(soon()));
    EXPECT_EQ(control.pauses(), 2);
}

TEST_F(DomainCutTest, PausesOfOthersThatWereLiftedAreGivenBackAlsoWhenLiftingFails)
{
    ASSERT_TRUE(control.pause());
    ASSERT_TRUE(control.pause());
    control.accesses = {{0, 1}};
    control.fail["unpause"] = {0, 0, EPERM};   // ours, one of theirs, the other one
    EXPECT_EQ(cut.begin(soon()).error().code, Errc::refused);
    EXPECT_EQ(control.pauses(), 2);
}

TEST_F(DomainCutTest, AccessInFlightIsLetGoAlthoughOthersPaused)
{
    ASSERT_TRUE(control.pause());
    taken();
    control.accesses = {{0, 1}, {0, 0}};
    ASSERT_TRUE(cut.begin(soon()));
    EXPECT_EQ(taken(), (Trace{"pause", "in-flight", "unpause", "unpause", "pause", "pause", "in-flight", "model-stop-and-save"}));
}

// An operator's `xl unpause` of one that is to stand still.
TEST_F(DomainCutTest, CopyThatWasLetGoIsNotLoaded)
{
    const DeviceState state{model_state(), cpu_context(9)};
    ASSERT_TRUE(cut.stop(soon()));
    ASSERT_TRUE(control.unpause());
    EXPECT_EQ(cut.load(state, soon()).error().code, Errc::failed);
    ASSERT_TRUE(cut.stop(soon()));   // stands still again, and yet what it wrote meanwhile is not known
    EXPECT_EQ(control.pauses(), 1);
    EXPECT_EQ(cut.load(state, soon()).error().code, Errc::failed);
    EXPECT_TRUE(model.loaded.empty());
}

TEST_F(DomainCutTest, CheckpointOfOneThatWasLetGoIsNone)
{
    ASSERT_TRUE(cut.begin(soon()));
    ASSERT_TRUE(control.unpause());
    EXPECT_EQ(cut.save(soon()).error().code, Errc::failed);
    ASSERT_TRUE(cut.resume(soon()));   // it runs, as it should
    EXPECT_EQ(control.pauses(), 0);
    ASSERT_TRUE(cut.begin(soon()));
    EXPECT_TRUE(cut.save(soon()));
}

// xl save, before the cut or in the middle of it. What is saved then need not load, and S would hold nothing else.
TEST_F(DomainCutTest, Inv07_NoCheckpointIsMadeOfOneThatAToolstackSuspended)
{
    control.described.shut_down = true;
    control.described.shutdown_reason = 2;
    EXPECT_NE(cut.begin(soon()).error().text.find("xl save"), std::string::npos);
    EXPECT_EQ(taken(), Trace{}) << "and its device model is left alone";
    EXPECT_TRUE(cut.running());
    control.described.shut_down = false;
    ASSERT_TRUE(cut.begin(soon()));
    control.described.shut_down = true;
    EXPECT_NE(cut.save(soon()).error().text.find("xl save"), std::string::npos);
    taken();
    ASSERT_TRUE(cut.resume(soon()));
    EXPECT_EQ(taken(), Trace{"unpause"}) << "xl lets the device model go on when it lets the domain go on";
    EXPECT_TRUE(cut.running());
    control.described.shut_down = false;
    ASSERT_TRUE(cut.begin(soon()));
    EXPECT_EQ(taken().front(), "model-cont") << "should xl have been faster than our stop";
    ASSERT_TRUE(cut.save(soon()));
    ASSERT_TRUE(cut.resume(soon()));
    EXPECT_EQ(control.pauses(), 0);
}

}  // namespace
}  // namespace colo::xen
