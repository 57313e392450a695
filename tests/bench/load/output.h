// SPDX-License-Identifier: Apache-2.0
#pragma once

// JSON lines on standard output.

#include "tests/bench/load/flow.h"

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace colo::load {

using Flows = std::map<int, std::unique_ptr<Flow>>;   // by id

std::string json_string(const std::string& text);
// type: "progress", "reply" or "summary". `each`: with one object per flow.
std::string report_line(const std::string& type, const Flows& flows, Microseconds began, bool each);
std::string lost_line(int id, const Flow& flow);
void emit(const std::string& line);

}  // namespace colo::load
