// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace colo {

// Job ids and aliases of block nodes: a letter, then letters, digits, - . _
bool well_formed(std::string_view name);

}  // namespace colo
