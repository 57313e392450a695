// SPDX-License-Identifier: Apache-2.0
#pragma once

// How much memory this process can still get.

#include <cstdint>
#include <optional>
#include <string>

namespace colo::replication {

// What MemAvailable of /proc/meminfo leaves, or the control group if it (or one above it) leaves less; version 1 and 2.
// Nothing if it cannot be read. `root` stands for / in tests.
std::optional<std::uint64_t> available_memory_bytes(const std::string& root = "");

}  // namespace colo::replication
