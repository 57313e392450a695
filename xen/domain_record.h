// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a daemon writes down of its domain, for the daemon that comes after it: which one it is, or which one it was just
// about to make. A number alone is given to others later, a UUID is not.

#include "core/error.h"

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace colo::xen {

using Uuid = std::array<std::uint8_t, 16>;

std::string uuid_text(const Uuid& uuid);   // "2b0e6a1e-8a39-..."
// With hyphens anywhere, as xl takes it.
std::optional<Uuid> parse_uuid(std::string_view text);
// One that nobody else has.
Result<Uuid> new_uuid();

struct DomainRecord {
    enum class State : std::uint8_t {
        making,   // the toolstack was asked for it; there may be none, one, or half of one
        copy,     // it follows another one
        live,     // it is the one
    };
    State state = State::making;
    std::uint32_t domain = 0;   // not known of one that is being made
    Uuid uuid{};
    std::string name;           // of one that is being made: the UUID may be the operator's, who may use it elsewhere
    std::string boot;           // of dom0 (host_boot()): no domain outlives it, while numbers and an operator's UUID come again
    bool operator==(const DomainRecord&) const = default;
};

// Changes whenever the host is started. Errc::failed or unsupported: it cannot be read.
Result<std::string> host_boot();

std::string record_text(const DomainRecord& record);
std::optional<DomainRecord> parse_record(std::string_view text);

}  // namespace colo::xen
