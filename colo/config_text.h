// SPDX-License-Identifier: Apache-2.0
#pragma once

// Internal to colo/config*.cpp: checks of single text values.

#include "colo/config_fields.h"

#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace colo::config {

// Empty if `value` is fine, otherwise what is wrong with it ("is not a MAC address: ..."). Normalises (lower case).
std::string check_text(TextKind kind, std::string& value);

std::optional<std::array<std::uint8_t, 6>> parse_mac(std::string_view text);
bool is_udp_endpoint(std::string_view text);
std::string_view describe(TextKind kind);  // for the reference: "text", "path", ...

// The candidate that `word` was probably meant to be, or empty.
std::string_view closest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace colo::config
