// SPDX-License-Identifier: Apache-2.0
#include "replication/host_memory.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace colo::replication {
namespace {

constexpr std::uint64_t kMib = 1u << 20;

// A root directory with as much of /proc and /sys as is looked at.
class HostMemory : public testing::Test {
protected:
    HostMemory()
    {
        std::string path = testing::TempDir() + "host-memory.XXXXXX";
        if (::mkdtemp(path.data()) != nullptr) root = path;
        put("/proc/meminfo", "MemTotal:       9000000 kB\nMemFree:         500000 kB\nMemAvailable:   4194304 kB\n");
    }
    ~HostMemory() override { std::filesystem::remove_all(root); }
    void put(const std::string& file, const std::string& text)
    {
        std::filesystem::create_directories(std::filesystem::path(root + file).parent_path());
        std::ofstream(root + file) << text;
    }
    std::string root;
};

TEST_F(HostMemory, WithoutAControlGroupTheHostCounts)
{
    EXPECT_EQ(available_memory_bytes(root), 4096 * kMib);
}

TEST_F(HostMemory, ALowerLimitOfTheGroupCountsAndItsIdleCacheIsFree)
{
    put("/proc/self/cgroup", "0::/system.slice/colod\n");
    const std::string group = "/sys/fs/cgroup/system.slice/colod/";
    put(group + "memory.max", "1073741824\n");
    put(group + "memory.current", "314572800\n");
    put(group + "memory.stat", "anon 1\nactive_file 7\ninactive_file 104857600\n");
    EXPECT_EQ(available_memory_bytes(root), 824 * kMib);
}

TEST_F(HostMemory, AGroupAboveMayBeTheNarrowOne)
{
    put("/proc/self/cgroup", "0::/machine/colod\n");
    put("/sys/fs/cgroup/machine/memory.max", "1073741824\n");
    put("/sys/fs/cgroup/machine/memory.current", "1073741824\n");
    put("/sys/fs/cgroup/machine/colod/memory.max", "max\n");
    put("/sys/fs/cgroup/machine/colod/memory.current", "1000\n");
    EXPECT_EQ(available_memory_bytes(root), 0u);
}

TEST_F(HostMemory, Version1IsReadAsWell)
{
    put("/proc/self/cgroup", "7:cpu,cpuacct:/\n4:memory:/box\n0::/\n");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("/sys/fs/cgroup/memory/memory.usage_in_bytes", "99999999999\n");
    put("/sys/fs/cgroup/memory/box/memory.limit_in_bytes", "1073741824\n");
    put("/sys/fs/cgroup/memory/box/memory.usage_in_bytes", "209715200\n");
    put("/sys/fs/cgroup/memory/box/memory.stat", "inactive_file 1\ntotal_inactive_file 104857600\n");
    EXPECT_EQ(available_memory_bytes(root), 924 * kMib);
}

TEST_F(HostMemory, WhatCannotBeReadIsNotKnown)
{
    EXPECT_EQ(available_memory_bytes(root + "/nowhere"), std::nullopt);
    EXPECT_TRUE(available_memory_bytes().has_value());
}

}  // namespace
}  // namespace colo::replication
