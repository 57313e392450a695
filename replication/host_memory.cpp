// SPDX-License-Identifier: Apache-2.0
#include "replication/host_memory.h"

#include <algorithm>
#include <fstream>
#include <sstream>

namespace colo::replication {
namespace {

// Version 1 writes the largest page-aligned number instead of "max".
constexpr std::uint64_t kNoLimit = std::uint64_t{1} << 60;

std::optional<std::uint64_t> number_in(const std::string& file)
{
    std::uint64_t value = 0;
    if (!(std::ifstream(file) >> value)) return std::nullopt;  // "max" among others
    return value;
}

// "NAME VALUE" lines, as memory.stat and /proc/meminfo have them.
std::optional<std::uint64_t> field_in(const std::string& file, const std::string& wanted)
{
    std::ifstream in(file);
    std::string line;
    while (std::getline(in, line)) {
        std::istringstream words(line);
        std::string name;
        std::uint64_t value = 0;
        if (words >> name >> value && name == wanted) return value;
    }
    return std::nullopt;
}

struct GroupFiles {
    std::string mount;  // of the hierarchy
    const char *limit, *usage, *cache;
};

// What the group and all above it leave. Page cache that nobody uses is given up before anything else.
std::optional<std::uint64_t> left_in_group(const GroupFiles& files, std::string group)
{
    std::optional<std::uint64_t> left;
    for (;;) {
        const std::string directory = files.mount + group + "/";
        const auto limit = number_in(directory + files.limit);
        const auto usage = number_in(directory + files.usage);
        if (limit && usage && *limit < kNoLimit) {
            const std::uint64_t cache = std::min(field_in(directory + "memory.stat", files.cache).value_or(0), *usage);
            const std::uint64_t used = *usage - cache;
            const std::uint64_t here = used < *limit ? *limit - used : 0;
            left = std::min(left.value_or(here), here);
        }
        if (group.empty()) return left;
        group.erase(group.rfind('/'));
    }
}

}  // namespace

std::optional<std::uint64_t> available_memory_bytes(const std::string& root)
{
    std::optional<std::uint64_t> available = field_in(root + "/proc/meminfo", "MemAvailable:");
    if (available) *available <<= 10;
    const std::string mount = root + "/sys/fs/cgroup";
    std::ifstream in(root + "/proc/self/cgroup");  // "NUMBER:CONTROLLERS:/PATH"
    std::string line;
    while (std::getline(in, line)) {
        const std::size_t first = line.find(':');
        const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
        if (second == std::string::npos || second + 1 >= line.size() || line[second + 1] != '/') continue;
        const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
        std::string group = line.substr(second + 1);
        if (group == "/") group.clear();
        std::optional<std::uint64_t> left;
        if (controllers == ",,")
            left = left_in_group({mount, "memory.max", "memory.current", "inactive_file"}, group);
        else if (controllers.find(",memory,") != std::string::npos)
            left = left_in_group(
                {mount + "/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"}, group);
        if (left) available = std::min(available.value_or(*left), *left);
    }
    return available;
}

}  // namespace colo::replication
