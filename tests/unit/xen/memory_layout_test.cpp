// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/xen/fake_control.h"
#include "xen/memory_layout.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace colo::xen {
namespace {

using replication::MemoryRegion;
using test::FakeControl;

TEST(MemoryLayout, FindsRegionsAcrossBatchesAndHoles)
{
    for (const bool whole : {true, false}) {
        FakeControl control;
        control.absent_run_fails_as_a_whole = whole;
        control.add_ram(0, 0xa0);
        control.add_ram(0x100, 2000);   // crosses a batch
        control.add_ram(0xfeff8, 8);
        control.params[Param::store_pfn] = 0xfeffc;
        control.params[Param::console_pfn] = 0xfefff;
        control.params[Param::ioreq_pfn] = 0xfeffd;
        control.params[Param::bufioreq_pfn] = 0xfeffb;
        const auto layout = probe_layout(control);
        ASSERT_TRUE(layout) << layout.error().text;
        EXPECT_EQ(layout->regions, (std::vector<MemoryRegion>{{0, 0xa0}, {0x100, 2000}, {0xfeff8, 8}}));
        EXPECT_EQ(layout->special_frames, (std::vector<Gfn>{0xfeffb, 0xfeffc, 0xfeffd, 0xfefff}));
        EXPECT_EQ(layout->ram().count(), 0xa0u + 2000 + 4);
        EXPECT_FALSE(layout->ram().contains(0xfeffc));
        EXPECT_EQ(control.mappings(), 0);
    }
}

TEST(MemoryLayout, TheHoleInTheMiddleIsNotWalkedThrough)
{
    FakeControl control;
    control.add_ram(0, 3 * kMaxBatch);
    control.add_ram(1000 * kMaxBatch, 3);
    const auto layout = probe_layout(control);
    ASSERT_TRUE(layout);
    EXPECT_EQ(layout->regions, (std::vector<MemoryRegion>{{0, 3 * kMaxBatch}, {1000 * kMaxBatch, 3}}));
    EXPECT_LE(control.maps, 6);
}

TEST(MemoryLayout, FramesInTheMiddleOfTheHoleAreFound)
{
    FakeControl control;
    control.add_ram(0, 10);
    control.add_ram(5 * kMaxBatch + 7, 1);
    control.add_ram(9 * kMaxBatch, 10);
    EXPECT_EQ(probe_layout(control)->regions, (std::vector<MemoryRegion>{{0, 10}, {5 * kMaxBatch + 7, 1}, {9 * kMaxBatch, 10}}));
    // More than can be found: a frame shared with another domain counts there and cannot be mapped.
    control.unmappable = {3};
    EXPECT_EQ(probe_layout(control)->regions.size(), 4u);
}

TEST(MemoryLayout, ServersReserveIsSpecialAndBounded)
{
    FakeControl control;
    control.add_ram(0, 1);
    control.params[Param::ioreq_server_pfn] = 0x50;
    control.params[Param::ioreq_server_pages] = 3;
    EXPECT_EQ(*special_frames(control), (std::vector<Gfn>{0x50, 0x51, 0x52}));
    control.params[Param::ioreq_server_pages] = std::uint64_t{1} << 40;
    EXPECT_EQ(special_frames(control).error().code, Errc::corrupt);
}

TEST(MemoryLayout, HostileOrDeadDomains)
{
    FakeControl control;
    for (Gfn gfn = 0; gfn < 2 * (kMaxRegions + 2); gfn += 2) control.add_ram(gfn, 1);
    EXPECT_EQ(probe_layout(control).error().code, Errc::unsupported);
    control.fail["map"] = {ENOMEM};
    EXPECT_EQ(probe_layout(control).error().code, Errc::limit);
    control.add_ram(kMaxGfnLimit, 1);
    EXPECT_EQ(probe_layout(control).error().code, Errc::limit);
    control.died = true;
    EXPECT_EQ(probe_layout(control).error().code, Errc::guest_died);
}

}  // namespace
}  // namespace colo::xen
