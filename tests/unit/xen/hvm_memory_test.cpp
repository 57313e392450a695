// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/xen/fake_control.h"
#include "tests/unit/xen/fake_model.h"
#include "tests/unit/xen/hvm_guest_fixture.h"
#include "xen/hvm_memory.h"

#include <gtest/gtest.h>

namespace colo::xen {
namespace {

using replication::PageSet;

class HvmDirtyLogTest : public testing::Test {
protected:
    HvmDirtyLogTest() { control.add_ram(0, 10); }
    HvmDirtyLog& start(Duration second_look = std::chrono::hours(1))
    {
        const MemoryLayout layout{{{0, 10}}, {9}};
        HvmLogOptions options;
        options.seizures = [this] { return seizures; };
        options.second_look = second_look;
        log = std::make_unique<HvmDirtyLog>(std::make_unique<LogDirty>(control, layout), model, std::move(options));
        EXPECT_TRUE(log->start());
        EXPECT_TRUE(model.log_on);
        EXPECT_TRUE(fetch());
        return *log;
    }
    Result<void> fetch()
    {
        PageSet set;
        return log->fetch_and_clear(set, false);
    }
    bool incomplete()
    {
        const auto r = fetch();
        return !r && r.error().code == Errc::limit;
    }

    test::FakeControl control;
    test::Trace trace;
    test::FakeModel model{trace};
    std::uint32_t seizures = 0;
    std::unique_ptr<HvmDirtyLog> log;
};

// What xl save does in the end: both halves are off. Seen is the one of the hypervisor; the pages that the device model writes
// would be missing in every checkpoint from then on.
TEST_F(HvmDirtyLogTest, Inv08_BothHalvesAreOnAgainAfterAnotherToolWasAtOne)
{
    start();
    ASSERT_TRUE(control.disable_log());
    model.log_on = false;
    EXPECT_TRUE(incomplete());
    EXPECT_TRUE(model.log_on);
    EXPECT_TRUE(control.log_is_on());
    EXPECT_TRUE(fetch());
}

// The hypervisor's half may have been started anew in the middle of it, and the device model's goes off behind that.
TEST_F(HvmDirtyLogTest, Inv08_ADomainThatWasLetGoByAnotherToolIsLoggedAnew)
{
    start();
    for (int i = 0; i < 2; ++i) {   // taken, let go
        ++seizures;
        model.log_on = false;
        EXPECT_TRUE(incomplete());
        EXPECT_TRUE(model.log_on);
        EXPECT_TRUE(fetch());
    }
}

// A migration that fails is seen by the log alone, and by then the device model may not have been told yet.
TEST_F(HvmDirtyLogTest, Inv08_ItIsToldOnceMoreALittleLater)
{
    start(std::chrono::milliseconds(20));
    ASSERT_TRUE(control.disable_log());
    EXPECT_TRUE(incomplete());
    model.log_on = false;
    EXPECT_TRUE(test::eventually([this] { return incomplete(); }));
    EXPECT_TRUE(model.log_on);
    model.log_on = false;
    EXPECT_TRUE(fetch());   // once: who does that without a trace is nobody that we know
    EXPECT_TRUE(fetch());
}

// A tool that gave up before it took the domain: between the two looks nobody knows what the device model told.
TEST_F(HvmDirtyLogTest, Inv08_IsDoubtfulUntilTheSecondLook)
{
    start(std::chrono::milliseconds(20));
    EXPECT_FALSE(log->doubtful());
    ASSERT_TRUE(control.disable_log());
    EXPECT_TRUE(incomplete());
    EXPECT_TRUE(log->doubtful());
    log->stop();
    ASSERT_TRUE(log->start());
    EXPECT_TRUE(log->doubtful());
    model.log_on = false;
    EXPECT_TRUE(test::eventually([this] { return incomplete(); }));
    EXPECT_FALSE(log->doubtful());
    EXPECT_TRUE(model.log_on);
    // One that took it had done with both before it let go.
    ASSERT_TRUE(control.disable_log());
    ++seizures;
    EXPECT_TRUE(incomplete());
    EXPECT_FALSE(log->doubtful());
}

TEST_F(HvmDirtyLogTest, NothingIsCompleteUntilItCouldBeTold)
{
    start();
    model.saving = true;
    model.log_on = false;
    ++seizures;
    EXPECT_TRUE(incomplete());
    EXPECT_TRUE(incomplete());
    model.saving = false;
    EXPECT_TRUE(incomplete());
    EXPECT_TRUE(model.log_on);
    EXPECT_TRUE(fetch());
    model.fail_at = "model-log";
    ++seizures;
    EXPECT_EQ(fetch().error().code, Errc::closed);
    model.fail_at.clear();
    EXPECT_TRUE(incomplete()) << "also if it was not told at first";
}

TEST_F(HvmDirtyLogTest, OneThatStartsHasForgottenWhatWas)
{
    start();
    ++seizures;
    log->stop();
    ASSERT_TRUE(log->start());
    EXPECT_TRUE(fetch());
    EXPECT_TRUE(fetch());
}

}  // namespace
}  // namespace colo::xen
