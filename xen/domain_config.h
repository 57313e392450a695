// SPDX-License-Identifier: Apache-2.0
#pragma once

// The configuration with which one side's domain is made: the operator's file for xl, and behind it what the service needs.
// xl takes the last assignment of a key.

#include "core/error.h"
#include "core/types.h"
#include "xen/domain_record.h"

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace colo::xen {

struct HvmNic {
    std::string id;                         // "net0"
    std::array<std::uint8_t, 6> mac{};
    int fd = -1;                            // our end's other end: the tap that the device model gets (connect_cable); -1: none
};

struct DomainConfigOptions {
    std::string name;
    std::string control_socket, probe_socket;   // where the device model is to serve us
    std::string uuid;                           // empty: that of the operator, or one that xl chooses
    std::vector<HvmNic> nics;
};

// Number of the hub of the first interface; the next ones follow.
inline constexpr std::size_t kFirstHub = 0;
// Largest configuration that is read.
inline constexpr std::size_t kMaxDomainConfig = 64u << 10;

// Errc::invalid: the file has interfaces of its own (vif), which would bypass the proxy, disks, which both copies would write to,
// or something else that no checkpoint has (nested guests, USB devices of the host, a graphics card, options of the device model
// that amount to one of these); or it uses both keys for arguments of the device model, so that none is left for us; or a value
// that cannot stand in such a file.
Result<std::string> domain_config(std::string_view operators, const DomainConfigOptions& options);

// The UUID that the operator's file gives the domain. Errc::invalid: it is none.
Result<std::optional<Uuid>> config_uuid(std::string_view operators);

// What of the operator's file the other side must have alike: everything but comments, blanks and its name.
std::string comparable_config(std::string_view operators);

}  // namespace colo::xen
