// SPDX-License-Identifier: Apache-2.0
#include "qemu/guest_ram.h"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cerrno>
#include <cstring>
#include <string>

namespace colo::qemu {
namespace {

constexpr std::uint64_t kPages = 1024;
constexpr off_t kBytes = kPages * kPageSize;

TEST(GuestRam, NobodyWhoHasTheDescriptorChangesItsSize)
{
    const auto ram = GuestRam::create("unit-ram", kPages);
    ASSERT_TRUE(ram) << ram.error().text;
    // As QEMU opens it.
    const Fd theirs(::open(("/proc/self/fd/" + std::to_string((*ram)->fd())).c_str(), O_RDWR | O_CLOEXEC));
    ASSERT_TRUE(theirs);
    EXPECT_EQ(::ftruncate(theirs.get(), kBytes / 2), -1);
    EXPECT_EQ(errno, EPERM);
    EXPECT_EQ(::ftruncate(theirs.get(), kBytes * 2), -1);
    EXPECT_EQ(::ftruncate(theirs.get(), kBytes), 0);
    EXPECT_EQ(::fcntl(theirs.get(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE), -1);
    void* const at = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, theirs.get(), 0);
    ASSERT_NE(at, MAP_FAILED);
    std::memset(at, 7, kPageSize);
    EXPECT_EQ((*ram)->view(0)[5], 7);
    ::munmap(at, kBytes);
}

TEST(GuestRam, TellsWhatItTakes)
{
    const auto ram = GuestRam::create("unit-ram", kPages);
    ASSERT_TRUE(ram);
    EXPECT_EQ((*ram)->resident_bytes(), 0u);
    std::memset((*ram)->data(), 1, 10 * kPageSize);
    EXPECT_GE((*ram)->resident_bytes(), 10 * kPageSize);
    ASSERT_TRUE((*ram)->zero());
    EXPECT_EQ((*ram)->resident_bytes(), 0u);
    EXPECT_EQ((*ram)->data()[3], 0);
}

}  // namespace
}  // namespace colo::qemu
