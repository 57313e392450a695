// SPDX-License-Identifier: Apache-2.0
#pragma once

// Logging with stable fields. One line: time level message | domain=.. role=.. epoch=.. peer=..
// Levels by audience: error = the operator must act; warn = protection is weaker than configured; info = a state change
// the operator would want in the history; debug = one line per checkpoint; trace = developers. Never per packet.

#include "core/error.h"

#include <spdlog/spdlog.h>

#include <cstdint>
#include <string>

namespace colo::log {

struct Options {
    std::string level = "info";
    std::string file;  // empty: stderr
    std::string domain;
};

// Call once, before threads start. Refused: the file cannot be opened.
Result<void> init(const Options& options);

// The fields that change; thread-safe, cheap.
void set_role(const char* static_string);
void set_epoch(std::uint64_t epoch);
void set_peer(const std::string& peer);

}  // namespace colo::log
