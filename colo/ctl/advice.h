// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace colo::ctl {

// What an operator can do about a refusal of the daemon, as " (do this)"; empty if its text says it all or is not
// known.
std::string advice(std::string_view refusal, const std::string& domain);

// The same for a daemon that cannot be reached.
std::string advice_unreachable(std::string_view why);

}  // namespace colo::ctl
