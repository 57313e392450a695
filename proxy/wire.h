// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "proxy/port.h"

namespace colo::proxy {

using MacList = std::vector<std::array<std::uint8_t, 6>>;

// The two kinds of wire that make_wire (port.h) chooses from.
Result<std::unique_ptr<WirePort>> make_packet_wire(const std::string& interface, const MacList& macs);
Result<std::unique_ptr<WirePort>> make_tap_wire(const std::string& name, const std::string& bridge);

}  // namespace colo::proxy
