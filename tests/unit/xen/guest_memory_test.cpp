// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/xen/fake_control.h"
#include "xen/guest_memory.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace colo::xen {
namespace {

using replication::FrameStatus;
using replication::PageWrite;
using test::FakeControl;

MemoryLayout layout()
{
    return {{{0, 0xa0}, {0x100, 3000}, {0xf000, 8}}, {0xf002}};
}

class DomainMemoryTest : public testing::Test {
protected:
    DomainMemoryTest()
    {
        control.add_ram(0, 0xa0);
        control.add_ram(0x100, 3000);
        control.add_ram(0xf000, 8);
    }
    std::vector<FrameStatus> read(const std::vector<Gfn>& gfns)
    {
        content.assign(gfns.size() * kPageSize, 0x33);
        std::vector<FrameStatus> status(gfns.size(), FrameStatus::failed);
        const auto r = memory.read(gfns, content.data(), status);
        EXPECT_TRUE(r) << r.error().text;
        return status;
    }
    Errc write_error(const std::vector<PageWrite>& pages)
    {
        const auto r = memory.write(pages);
        EXPECT_FALSE(r);
        return r ? Errc::failed : r.error().code;
    }
    FakeControl control;
    DomainMemory memory{control, layout()};
    Bytes content;
    const Bytes page = Bytes(kPageSize, 0x44);
};

TEST_F(DomainMemoryTest, ReadsFramesInTheOrderAskedFor)
{
    control.guest_write(3, 1);
    control.guest_write(0x100, 2);
    EXPECT_EQ(read({0x100, 3, 0x100}), std::vector(3, FrameStatus::ok));
    EXPECT_EQ(content[0], 2);
    EXPECT_EQ(content[kPageSize], 1);
    EXPECT_EQ(content[3 * kPageSize - 1], 2);
    EXPECT_EQ(memory.view(3), nullptr);
}

TEST_F(DomainMemoryTest, HolesSpecialFramesAndForeignOnesReadAsAbsentZero)
{
    control.guest_write(0xf002, 9);
    EXPECT_EQ(read({0xa0, 0xf002, 5, 0xfffff}), (std::vector{FrameStatus::absent, FrameStatus::absent, FrameStatus::ok, FrameStatus::absent}));
    EXPECT_EQ(content[0], 0);
    EXPECT_EQ(content[kPageSize], 0);
    EXPECT_EQ(content[3 * kPageSize], 0);
}

TEST_F(DomainMemoryTest, FrameThatCannotBeMappedIsFailedNotZero)
{
    control.unmappable = {7};
    EXPECT_EQ(read({7, 8}), (std::vector{FrameStatus::failed, FrameStatus::ok}));
    EXPECT_EQ(write_error({{8, page.data()}, {7, page.data()}}), Errc::failed);
    EXPECT_EQ(control.content(8), 0);
}

TEST_F(DomainMemoryTest, WritesAndZeroes)
{
    ASSERT_TRUE(memory.write(std::vector<PageWrite>{{1, page.data()}, {0x100, page.data()}}));
    EXPECT_EQ(control.content(1), 0x44);
    ASSERT_TRUE(memory.write(std::vector<PageWrite>{{1, nullptr}}));
    EXPECT_EQ(control.content(1), 0);
    EXPECT_EQ(control.content(0x100), 0x44);
}

TEST_F(DomainMemoryTest, SpecialAndForeignFramesAreNeverWritten)
{
    control.guest_write(0xf002, 9);
    for (const Gfn bad : {Gfn{0xf002}, Gfn{0xa0}, Gfn{1} << 40}) EXPECT_EQ(write_error({{1, page.data()}, {bad, page.data()}}), Errc::invalid);
    EXPECT_EQ(control.content(0xf002), 9);
    EXPECT_EQ(control.content(1), 0);   // nothing of the batch
}

TEST_F(DomainMemoryTest, Inv10_AbsentFramesArePopulatedOnDemand)
{
    ASSERT_TRUE(memory.refresh());
    const std::uint64_t before = memory.resident_bytes();
    EXPECT_EQ(before, (0xa0 + 3000 + 8) * kPageSize);
    control.give_up(std::vector<Gfn>{4, 5});
    ASSERT_TRUE(memory.refresh());
    EXPECT_EQ(read({4}), std::vector(1, FrameStatus::absent));
    EXPECT_EQ(memory.resident_bytes(), before - 2 * kPageSize);
    ASSERT_TRUE(memory.write(std::vector<PageWrite>{{3, page.data()}, {4, nullptr}, {5, page.data()}}));
    EXPECT_EQ(memory.resident_bytes(), before);
    EXPECT_EQ(control.content(4), 0);   // and not what somebody else left there
    EXPECT_EQ(control.content(5), 0x44);
    EXPECT_EQ(memory.stats().populated, 2u);
}

TEST_F(DomainMemoryTest, NoMemoryInTheHost)
{
    control.give_up(std::vector<Gfn>{4, 5});
    control.free_frames = 0;
    EXPECT_EQ(write_error({{4, page.data()}}), Errc::limit);
}

TEST_F(DomainMemoryTest, LargeBatches)
{
    std::vector<Gfn> gfns;
    std::vector<PageWrite> writes;
    for (Gfn gfn = 0x100; gfn < 0x100 + 3000; ++gfn) {
        gfns.push_back(gfn);
        writes.push_back({gfn, page.data()});
    }
    ASSERT_TRUE(memory.write(writes));
    EXPECT_EQ(read(gfns), std::vector(3000, FrameStatus::ok));
    EXPECT_EQ(std::count(content.begin(), content.end(), 0x44), static_cast<std::ptrdiff_t>(3000 * kPageSize));
    EXPECT_LE(memory.stats().map_calls, 8u);
}

TEST_F(DomainMemoryTest, SmallBoundIsEnoughForFramesThatLieTogether)
{
    DomainMemory small(control, layout(), {FrameMap::kRunFrames * 2});
    std::vector<Gfn> gfns;
    for (Gfn gfn = 0x100; gfn < 0x100 + 3000; ++gfn) gfns.push_back(gfn);
    content.resize(gfns.size() * kPageSize);
    std::vector<FrameStatus> status(gfns.size());
    const auto r = small.read(gfns, content.data(), status);
    ASSERT_TRUE(r) << r.error().text;
    EXPECT_GT(small.stats().evictions, 0u);
}

TEST_F(DomainMemoryTest, DomainThatIsGone)
{
    control.died = true;
    std::vector<FrameStatus> status(1);
    content.resize(kPageSize);
    const Gfn gfn = 1;
    EXPECT_EQ(memory.read({&gfn, 1}, content.data(), status).error().code, Errc::guest_died);
    EXPECT_EQ(write_error({{1, page.data()}}), Errc::guest_died);
    EXPECT_EQ(memory.refresh().error().code, Errc::guest_died);
    memory.unmap_all();
}

}  // namespace
}  // namespace colo::xen
