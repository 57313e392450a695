// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/xen/fake_control.h"
#include "xen/dirty_log.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace colo::xen {
namespace {

using replication::PageSet;
using test::FakeControl;

class LogDirtyTest : public testing::Test {
protected:
    LogDirtyTest()
    {
        control.add_ram(0, 100);
        control.add_ram(1000, 10);
    }
    static MemoryLayout layout() { return {{{0, 100}, {1000, 10}}, {1009}}; }
    static PageSet ram() { return layout().ram(); }
    std::vector<Gfn> fetch(bool final = false)
    {
        PageSet set;
        const auto r = log.fetch_and_clear(set, final);
        EXPECT_TRUE(r) << r.error().text;
        return set.to_vector();
    }
    Errc fetch_error()
    {
        PageSet set;
        const auto r = log.fetch_and_clear(set, false);
        EXPECT_FALSE(r);
        return r ? Errc::failed : r.error().code;
    }
    void start()
    {
        ASSERT_TRUE(log.start());
        fetch();
    }
    FakeControl control;
    LogDirty log{control, layout()};
};

TEST_F(LogDirtyTest, FirstFetchReportsAllRamAndOnlyTheFirst)
{
    ASSERT_TRUE(log.start());
    EXPECT_FALSE(log.taken_over());
    EXPECT_EQ(fetch(), ram().to_vector());
    EXPECT_TRUE(fetch().empty());
}

TEST_F(LogDirtyTest, Inv08_FetchIsDestructiveAndCompleteForOneEpoch)
{
    start();
    control.guest_write(3, 1);
    control.guest_write(1008, 1);
    EXPECT_EQ(fetch(), (std::vector<Gfn>{3, 1008}));
    EXPECT_EQ(log.last_dirty(), 3u);   // with the marker
    EXPECT_EQ(log.last_limit(), 1010u);
    EXPECT_TRUE(fetch().empty());
}

TEST_F(LogDirtyTest, FinalReportsWhatTheHypervisorHoldsWritable)
{
    start();
    control.hypervisor_write(5, 1);
    EXPECT_TRUE(fetch().empty());
    ASSERT_TRUE(control.pause());
    EXPECT_EQ(fetch(true), (std::vector<Gfn>{5}));
    ASSERT_TRUE(control.unpause());
}

TEST_F(LogDirtyTest, PeekTakesNothingAway)
{
    ASSERT_TRUE(log.start());
    PageSet seen;
    ASSERT_TRUE(log.peek(seen));
    EXPECT_EQ(seen, ram());   // nothing was fetched yet
    fetch();
    control.guest_write(3, 1);
    for (int i = 0; i < 2; ++i) {
        PageSet set;
        ASSERT_TRUE(log.peek(set));
        EXPECT_EQ(set.to_vector(), (std::vector<Gfn>{3}));
    }
    EXPECT_EQ(fetch(), (std::vector<Gfn>{3}));
}

TEST_F(LogDirtyTest, Inv10_GrowthOfTheGfnSpaceIsSeenAtTheNextFetch)
{
    start();
    control.add_ram(5000, 3);
    control.guest_write(5002, 1);
    EXPECT_EQ(fetch(), (std::vector<Gfn>{5002}));
    EXPECT_EQ(log.last_limit(), 5003u);
}

TEST_F(LogDirtyTest, BitsBeyondTheLastFrameMeanNothing)
{
    start();   // 1010 frames: the last word of the bitmap is garbage from bit 50 on
    EXPECT_TRUE(fetch().empty());
}

TEST_F(LogDirtyTest, ModeThatSomebodyLeftOnIsTakenOver)
{
    control.log_by_another = true;
    ASSERT_TRUE(log.start());
    EXPECT_TRUE(log.taken_over());
    EXPECT_EQ(control.enables, 2);
    EXPECT_EQ(fetch(), ram().to_vector());
}

TEST_F(LogDirtyTest, ModeThatDoesNotComeOnIsRefusedWithTheReason)
{
    control.log_by_another = control.another_insists = true;
    const auto r = log.start();
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, Errc::invalid);
    EXPECT_NE(r.error().text.find("passthrough"), std::string::npos) << r.error().text;
    EXPECT_EQ(fetch_error(), Errc::invalid);   // not started
}

TEST_F(LogDirtyTest, DomainWithoutHardwareAssistedPagingIsUnsupportedAndNotTriedTwice)
{
    control.fail["enable"] = {EOPNOTSUPP};
    const auto r = log.start();
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, Errc::unsupported);
    EXPECT_EQ(control.enables, 1);
}

TEST_F(LogDirtyTest, BusyIsTriedAgainAndLosesNothing)
{
    start();
    control.guest_write(3, 1);
    control.fail["read-log"] = {EBUSY, EBUSY, EBUSY};
    EXPECT_EQ(fetch(), (std::vector<Gfn>{3}));
}

TEST_F(LogDirtyTest, Inv08_BusyForGoodIsAnErrorThatLosesNothing)
{
    start();
    control.guest_write(3, 1);
    control.fail["read-log"] = std::deque<int>(20, EBUSY);
    EXPECT_EQ(fetch_error(), Errc::refused);
    EXPECT_EQ(control.reads, 1 + 20);   // bounded
    EXPECT_EQ(fetch(), (std::vector<Gfn>{3}));
}

TEST_F(LogDirtyTest, Inv08_OutOfMemoryMeansEverythingAndStartsTheLogAnew)
{
    start();
    control.guest_write(3, 1);
    control.failed_allocations = true;
    EXPECT_EQ(fetch_error(), Errc::limit);   // the caller takes every frame as dirty
    EXPECT_TRUE(control.log_is_on());
    control.guest_write(4, 1);
    EXPECT_EQ(fetch(), (std::vector<Gfn>{4}));
}

TEST_F(LogDirtyTest, LogThatCannotBeStartedAnewIsAnErrorNotALimit)
{
    start();
    control.failed_allocations = true;
    control.fail["enable"] = {EINVAL, EINVAL};
    EXPECT_EQ(fetch_error(), Errc::failed);
    EXPECT_EQ(fetch_error(), Errc::invalid);   // it is off, and says so
}

TEST_F(LogDirtyTest, Inv08_WrongCountMeansEverything)
{
    start();
    control.guest_write(3, 1);
    control.answer_short = 1;
    PageSet set;
    const auto r = log.fetch_and_clear(set, false);
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, Errc::limit);
    EXPECT_TRUE(set.empty());   // what cannot be trusted is not handed out
    control.guest_write(9, 1);
    EXPECT_EQ(fetch(), (std::vector<Gfn>{9}));
    control.answer_short = 5;
    EXPECT_EQ(log.peek(set).error().code, Errc::limit);
}

TEST_F(LogDirtyTest, Inv08_WhatAFailedReadingMayHaveClearedIsOwed)
{
    start();
    control.fail["read-log"] = {EFAULT};
    EXPECT_EQ(fetch_error(), Errc::failed);
    EXPECT_EQ(fetch(), ram().to_vector());
    EXPECT_TRUE(fetch().empty());
}

TEST_F(LogDirtyTest, Inv08_SwitchedOffBehindOurBackIsNoticed)
{
    start();
    ASSERT_TRUE(control.disable_log());
    control.guest_write(3, 1);
    EXPECT_EQ(fetch_error(), Errc::limit);
    EXPECT_TRUE(control.log_is_on());
    control.guest_write(4, 1);
    EXPECT_EQ(fetch(), (std::vector<Gfn>{4}));
}

TEST_F(LogDirtyTest, Inv08_OffAndOnAgainBehindOurBackIsNoticed)
{
    start();
    control.guest_write(3, 1);
    ASSERT_TRUE(control.disable_log());   // what xl save does when the mode is on already
    ASSERT_TRUE(control.enable_log());
    EXPECT_EQ(fetch_error(), Errc::limit);
    EXPECT_TRUE(fetch().empty());
}

TEST_F(LogDirtyTest, Inv08_BitsThatAnotherToolTookAreNoticed)
{
    start();
    control.guest_write(3, 1);
    control.another_clears_the_log();
    EXPECT_EQ(fetch_error(), Errc::limit);
    EXPECT_TRUE(fetch().empty());
}

TEST_F(LogDirtyTest, Inv08_WithoutAMarkerTheNextReadingReportsEverything)
{
    start();
    control.fail["mark"] = {EPERM};
    EXPECT_TRUE(fetch().empty());
    EXPECT_EQ(fetch(), ram().to_vector());
    EXPECT_TRUE(fetch().empty());
    LogDirty other(control, layout());
    control.fail["mark"] = {EPERM};
    EXPECT_FALSE(other.start());
}

TEST_F(LogDirtyTest, MarkerIsNoFrameOfTheCaller)
{
    start();
    PageSet set;
    set.add(1009);   // the caller's own business
    ASSERT_TRUE(log.fetch_and_clear(set, false));
    EXPECT_EQ(set.to_vector(), (std::vector<Gfn>{1009}));
    set = PageSet();
    ASSERT_TRUE(log.peek(set));
    EXPECT_TRUE(set.empty());
}

TEST_F(LogDirtyTest, LayoutWithoutSpecialFramesHasNoMarker)
{
    LogDirty plain(control, {{{0, 100}}, {}});
    ASSERT_TRUE(plain.start());
    PageSet set;
    ASSERT_TRUE(plain.fetch_and_clear(set, false));
    set = PageSet();
    ASSERT_TRUE(plain.fetch_and_clear(set, false));
    EXPECT_TRUE(set.empty());
}

TEST_F(LogDirtyTest, DomainThatIsGone)
{
    start();
    control.died = true;
    EXPECT_EQ(fetch_error(), Errc::guest_died);
    PageSet set;
    EXPECT_EQ(log.peek(set).error().code, Errc::guest_died);
    log.stop();
}

TEST_F(LogDirtyTest, ModeDoesNotStayOn)
{
    {
        LogDirty other(control, layout());
        ASSERT_TRUE(other.start());
        EXPECT_TRUE(control.log_is_on());
    }
    EXPECT_FALSE(control.log_is_on());
    start();
    log.stop();
    log.stop();
    EXPECT_FALSE(control.log_is_on());
    EXPECT_EQ(fetch_error(), Errc::invalid);
}

}  // namespace
}  // namespace colo::xen
