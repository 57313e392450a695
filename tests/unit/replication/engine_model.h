// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace colo::replication::test {

// What a run went through, so that a test can demand that the interesting things happened.
struct ModelCoverage {
    int committed = 0, aborted = 0, applied = 0, corrupted = 0, sessions = 0, log_failures = 0, pipelined = 0;
    std::uint64_t zero = 0, unchanged = 0, delta = 0, full = 0, reordered = 0;
};

// Random writes, pre-capture, cuts, aborts, lost sessions, corrupt chunks and applies, from one seed; primary and secondary
// are the real engine over fake guests. Empty if every invariant held, else what broke and in which epoch.
std::string run_engine_model(std::uint64_t seed, ModelCoverage& coverage);

}  // namespace colo::replication::test
