// SPDX-License-Identifier: Apache-2.0
#include "colo/copy_memory.h"

#include <gtest/gtest.h>

namespace colo {
namespace {

constexpr std::uint64_t kMib = 1u << 20;

replication::GuestDescription guest_of(std::uint64_t mib)
{
    replication::GuestDescription guest;
    guest.regions = {{0, mib << 8}};
    return guest;
}

TEST(CopyMemory, RamShadowAndStagingCount)
{
    EXPECT_EQ(copy_memory(guest_of(256), {}, 0, 0).needed, 768 * kMib);
    EXPECT_EQ(copy_memory(guest_of(256), {64 * kMib}, 0, 0).needed, 576 * kMib);
}

// What the standby's RAM takes is part of what the copy needs, and missing from what is available.
TEST(CopyMemory, WhatTheGuestHasAlreadyIsNotCountedTwice)
{
    const CopyMemory fresh = copy_memory(guest_of(256), {}, 700 * kMib, 0);
    const CopyMemory filled = copy_memory(guest_of(256), {}, 500 * kMib, 200 * kMib);
    EXPECT_EQ(fresh.free, filled.free);
    EXPECT_EQ(fresh.needed, filled.needed);
}

TEST(CopyMemory, NothingFreeIsNotTakenForNotKnown)
{
    EXPECT_NE(copy_memory(guest_of(256), {}, 0, 0).free, 0u);
    EXPECT_EQ(copy_memory(guest_of(256), {}, std::nullopt, 200 * kMib).free, 0u);
}

}  // namespace
}  // namespace colo
