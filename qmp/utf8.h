// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace colo::qmp {

// Reads one code point at `position` and moves behind it. -1 if the bytes are malformed, overlong, a surrogate, beyond
// 10FFFF or a noncharacter; `position` then moves behind what belongs together: a first byte and as many continuation
// bytes as it announces and are there. C0 80 is U+0000 (strings with a zero byte in them).
std::int32_t read_code_point(std::string_view text, std::size_t& position);

// A code point that a string may contain.
bool is_character(std::int32_t code_point);

void append_code_point(std::string& out, std::int32_t code_point);

}  // namespace colo::qmp
