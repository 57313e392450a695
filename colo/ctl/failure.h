// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "colo/ctl/options.h"
#include "core/error.h"

#include <string>
#include <string_view>

namespace colo::ctl {

// "coloctl: what: why" on standard error; returns the exit status that fits: the daemon's refusals are kError, anything
// that kept us from an answer is kUnreachable.
int report_failure(std::string_view what, const Error& error);
// The same, with what the operator of that domain can do about it, where that is known.
int report_failure(std::string_view what, const Error& error, const std::string& domain);
int report_unreachable(std::string_view what, const Error& error);

}  // namespace colo::ctl
