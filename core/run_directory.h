// SPDX-License-Identifier: Apache-2.0
#pragma once

// Where a daemon's control socket is unless its configuration says otherwise. Daemon and coloctl both ask here: a
// domain is found by its name only as long as the two agree.

#include <string>
#include <string_view>

namespace colo {

inline constexpr std::string_view kRunDirectory = "/run/colo";
inline constexpr std::string_view kControlSocketName = "qmp.sock";

// DIRECTORY/DOMAIN/qmp.sock
inline std::string control_socket(std::string_view directory, std::string_view domain)
{
    return std::string(directory) + "/" + std::string(domain) + "/" + std::string(kControlSocketName);
}

}  // namespace colo
