// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/run_directory.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace colo::ctl {

inline constexpr int kOk = 0;
inline constexpr int kError = 1;
inline constexpr int kUsage = 2;
inline constexpr int kUnreachable = 3;
inline constexpr int kDegraded = 4;
inline constexpr int kInterrupted = 130;  // as shells have it for SIGINT

enum class Command : std::uint8_t {
    status,
    watch,
    precheck,
    protect,
    failover,
    unprotect,
    migrate,
    capabilities,
    parameters,
    jobs,
    dirty_rate,
    qmp,
    events
};

struct Options {
    Command command = Command::status;
    std::string run_directory{kRunDirectory};
    std::string socket;  // empty: run_directory/DOMAIN/qmp.sock
    bool json = false;
    double timeout_s = 5;               // of one exchange with a daemon
    std::string domain;                 // empty where a command allows it
    std::string to;                     // protect
    bool accept_data_loss = false;      // failover
    double wait_s = 300;                // protect, failover, unprotect: for the outcome; 0: do not wait
    std::string uri;                    // migrate; empty: follow the one that there is
    std::optional<double> follow_s;     // migrate: so long at most; 0: do not follow
    bool resume = false;                // migrate
    bool cancel = false;                // migrate
    bool cancel_on_interrupt = false;   // migrate
    std::vector<std::string> settings;  // capabilities, parameters: NAME=VALUE
    std::string job_verb;               // jobs; empty: list
    std::string job_id;
    std::int64_t seconds = 1;           // dirty-rate: measured
    std::string mode;                   // dirty-rate; empty: page-sampling
    std::int64_t sample_pages = 0;      // dirty-rate: per GiB; 0: default
    std::string qmp_command;
    std::string qmp_arguments;  // JSON text or empty
    double interval_s = 1;      // watch
    long count = 0;             // watch, events: end after so many; 0: never
};

// Parses the command line. A value is an exit status: usage was wrong (and said so), or help was asked for.
std::optional<int> parse_options(int argc, char** argv, Options& options);

}  // namespace colo::ctl
