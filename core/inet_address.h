// SPDX-License-Identifier: Apache-2.0
#pragma once

// HOST:PORT,OPTIONS as migration URIs write it after "tcp:". Nothing is looked up.

#include "core/error.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace colo {

inline constexpr std::size_t kShownMax = 1024;  // of an address in an error: it is kept and shown again

struct InetAddress {
    std::string host;  // without brackets; empty and "*": any
    std::uint16_t port = 0;
    std::optional<std::uint16_t> to;  // a listener may take any port up to this one
    std::optional<bool> ipv4, ipv6;
    std::optional<bool> keep_alive;
};

// Errors carry the text of the interface; a port or host that no look-up could find is refused here already. Of an
// option that is given twice the first one counts; one that nobody knows is left out of account. Both are what clients
// of the interface are used to.
Result<InetAddress> parse_inet_address(std::string_view text);

}  // namespace colo
