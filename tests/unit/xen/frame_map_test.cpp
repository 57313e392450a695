// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/xen/fake_control.h"
#include "xen/frame_map.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace colo::xen {
namespace {

using replication::FrameStatus;
using test::FakeControl;

constexpr Gfn kRun = FrameMap::kRunFrames;

struct Found {
    Result<void> result;
    std::vector<std::uint8_t*> pages;
    std::vector<FrameStatus> status;
};

Found find(FrameMap& map, const std::vector<Gfn>& gfns, Access access = Access::read)
{
    Found out;
    out.pages.resize(gfns.size());
    out.status.resize(gfns.size());
    out.result = map.find(gfns, access, out.pages, out.status);
    return out;
}

class FrameMapTest : public testing::Test {
protected:
    FrameMapTest()
    {
        control.add_ram(0, 0xa0);
        control.add_ram(0x100, 4 * kRun - 0x100);
        for (const Gfn gfn : {Gfn{0}, Gfn{1}, kRun, 2 * kRun}) control.guest_write(gfn, static_cast<std::uint8_t>(gfn / kRun + 1));
    }
    FakeControl control;
    FrameMap map{control, {4 * kRun}};
};

TEST_F(FrameMapTest, FramesOfARunCostOneMappingForEver)
{
    for (int i = 0; i < 3; ++i) {
        const auto found = find(map, {0, kRun, 1, 2 * kRun, 0});
        ASSERT_TRUE(found.result);
        EXPECT_EQ(found.pages[0][0], 1);
        EXPECT_EQ(found.pages[1][0], 2);
        EXPECT_EQ(found.pages[2][0], 1);
        EXPECT_EQ(found.pages[3][0], 3);
        EXPECT_EQ(found.pages[4], found.pages[0]);
    }
    EXPECT_EQ(control.maps, 3);
    EXPECT_EQ(control.unmaps, 0);
    control.guest_write(1, 77);   // no copy: what the guest writes is what we see
    EXPECT_EQ(find(map, {1}).pages[0][0], 77);
}

TEST_F(FrameMapTest, HolesAreAbsentAndLookedForOnceACall)
{
    const auto found = find(map, {0xa0, 0, 0xff, 10 * kRun, 10 * kRun + 1});
    ASSERT_TRUE(found.result);
    EXPECT_EQ(found.status, (std::vector{FrameStatus::absent, FrameStatus::ok, FrameStatus::absent, FrameStatus::absent, FrameStatus::absent}));
    EXPECT_EQ(found.pages[0], nullptr);
    EXPECT_EQ(control.maps, 2);
    control.add_ram(0xa0, 1);   // the guest got it back
    const auto again = find(map, {0, 0xa0, 0xff, 0});
    EXPECT_EQ(again.status[1], FrameStatus::ok);
    EXPECT_EQ(control.maps, 3);
    // Handed out before the run was mapped anew, and still right.
    EXPECT_EQ(again.pages[0], again.pages[3]);
    EXPECT_EQ(again.pages[0][0], 1);
}

TEST_F(FrameMapTest, BoundIsKeptByDroppingWhatWasNotUsedForLongest)
{
    FrameMap small(control, {2 * kRun});
    find(small, {0});
    find(small, {kRun});
    find(small, {0});
    find(small, {2 * kRun});   // run 1 goes
    EXPECT_EQ(small.mapped_frames(), 2 * kRun);
    EXPECT_EQ(small.stats().evictions, 1u);
    const int before = control.maps;
    find(small, {0});
    EXPECT_EQ(control.maps, before);
    find(small, {kRun});
    EXPECT_EQ(control.maps, before + 1);
    EXPECT_EQ(control.mappings(), 2);
}

TEST_F(FrameMapTest, OneCallDoesNotUnmapItsOwnFrames)
{
    FrameMap small(control, {2 * kRun});
    const auto found = find(small, {0, kRun, 2 * kRun});
    ASSERT_FALSE(found.result);
    EXPECT_EQ(found.result.error().code, Errc::limit);
    EXPECT_TRUE(find(small, {0, kRun}).result);
}

TEST_F(FrameMapTest, ReadersMapReadOnlyAndWritersGetTheRunMappedAnew)
{
    find(map, {0});
    const auto found = find(map, {0, 1}, Access::read_write);
    ASSERT_TRUE(found.result);
    found.pages[0][0] = 9;
    EXPECT_EQ(control.content(0), 9);
    EXPECT_EQ(control.maps, 2);
    EXPECT_EQ(control.unmaps, 1);
    find(map, {0});
    EXPECT_EQ(control.maps, 2);
}

TEST_F(FrameMapTest, FrameThatIsThereAndCannotBeMappedIsNoHole)
{
    control.unmappable = {5};
    const auto found = find(map, {4, 5});
    ASSERT_TRUE(found.result);
    EXPECT_EQ(found.status, (std::vector{FrameStatus::ok, FrameStatus::failed}));
}

TEST_F(FrameMapTest, FailureOfTheCallLeavesNothingBehind)
{
    control.fail["map"] = {ENOMEM, 0, ESRCH};
    EXPECT_EQ(find(map, {0}).result.error().code, Errc::limit);
    EXPECT_EQ(map.mapped_frames(), 0u);
    EXPECT_TRUE(find(map, {0}).result);
    EXPECT_EQ(find(map, {0}, Access::read_write).result.error().code, Errc::guest_died);
    EXPECT_EQ(control.mappings(), 0);
    EXPECT_TRUE(find(map, {0}).result);
}

TEST_F(FrameMapTest, PopulateMakesWhatIsAbsentAndKeepsWhatIsThere)
{
    ASSERT_TRUE(map.populate(std::vector<Gfn>{0, 0xa0, 0xa1, 0xa0}));
    EXPECT_EQ(map.stats().populated, 2u);
    EXPECT_EQ(control.content(0), 1);
    EXPECT_EQ(find(map, {0xa0}).status[0], FrameStatus::ok);
    ASSERT_TRUE(map.populate(std::vector<Gfn>{0xa0}));
    EXPECT_EQ(map.stats().populated, 2u);
}

TEST_F(FrameMapTest, PopulateWithoutMemorySaysWhichFrame)
{
    control.free_frames = 1;
    const auto r = map.populate(std::vector<Gfn>{0xa0, 0xa1, 0xa2});
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, Errc::limit);
    EXPECT_NE(r.error().text.find("0xa1"), std::string::npos) << r.error().text;
    EXPECT_EQ(find(map, {0xa0}).status[0], FrameStatus::ok);
    control.fail["populate"] = {EPERM};
    EXPECT_EQ(map.populate(std::vector<Gfn>{0xa1}).error().code, Errc::refused);
}

TEST_F(FrameMapTest, Inv10_PopulateInMoreThanOneBatch)
{
    std::vector<Gfn> many;
    for (Gfn gfn = 0x100; gfn < 0x100 + 1300; ++gfn) many.push_back(gfn);
    control.give_up(many);
    ASSERT_TRUE(map.populate(many));
    EXPECT_EQ(map.stats().populated, 1300u);
}

TEST_F(FrameMapTest, ChangedNumbersOfTheDomainDropAllMappings)
{
    EXPECT_FALSE(*map.notice_changes());
    find(map, {0, kRun});
    EXPECT_FALSE(*map.notice_changes());
    control.add_ram(0xa0, 1);
    EXPECT_TRUE(*map.notice_changes());
    EXPECT_EQ(control.mappings(), 0);
    find(map, {0});
    control.add_ram(100 * kRun, 1);
    control.give_up(std::vector<Gfn>{0xa0});   // as many as before, but further up
    EXPECT_TRUE(*map.notice_changes());
    // What we did ourselves is no change.
    ASSERT_TRUE(map.populate(std::vector<Gfn>{0xa5}));
    find(map, {0});
    EXPECT_FALSE(*map.notice_changes());
    control.died = true;
    EXPECT_EQ(map.notice_changes().error().code, Errc::guest_died);
}

TEST_F(FrameMapTest, AFrameExchangedOneForOneIsWhatTheNumbersDoNotShow)
{
    ASSERT_TRUE(map.notice_changes());
    find(map, {0});
    control.exchange(0, 9);
    EXPECT_FALSE(*map.notice_changes());
    EXPECT_EQ(find(map, {0}).pages[0][0], 1);   // why guests with PV drivers are refused
    map.drop_all();
    EXPECT_EQ(find(map, {0}).pages[0][0], 9);
}

}  // namespace
}  // namespace colo::xen
