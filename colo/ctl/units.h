// SPDX-License-Identifier: Apache-2.0
#pragma once

// Values of migration parameters as people write and read them: "10MiB", "300ms", "on".

#include "core/error.h"
#include "schema/tables.h"
#include "schema/value.h"

#include <string>
#include <string_view>

namespace colo::ctl {

// A parameter as it goes to the daemon. Sizes take KiB MiB GiB TiB (K M G T are the same) and kB MB GB TB, with or
// without
// "/s"; times take us, ms, s and min; percentages a "%". A number alone is in the parameter's own unit.
Result<schema::Value> parse_parameter(const schema::ArgumentEntry& entry, std::string_view text);

// For a table: "64 MiB", "300 ms", "on". Numbers without a unit, and what is no scalar, as they are.
std::string show_parameter(const schema::ArgumentEntry& entry, const schema::Value& value);

// "0 to 2000000 ms", the values of an enum, or empty.
std::string show_range(const schema::ArgumentEntry& entry);

}  // namespace colo::ctl
