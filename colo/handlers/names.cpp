// SPDX-License-Identifier: Apache-2.0
#include "colo/handlers/names.h"

#include <algorithm>

namespace colo {
namespace {

bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

}  // namespace

bool well_formed(std::string_view name)
{
    if (name.empty() || !is_letter(name.front())) return false;
    return std::ranges::all_of(
        name, [](char c) { return is_letter(c) || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_'; });
}

}  // namespace colo
