// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace colo::ctl {

// Columns two blanks apart, each as wide as its widest cell; the first row is the header. No blanks at line ends.
std::string text_table(const std::vector<std::vector<std::string>>& rows);

}  // namespace colo::ctl
