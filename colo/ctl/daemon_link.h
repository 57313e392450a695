// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "colo/ctl/options.h"
#include "core/clock.h"
#include "core/error.h"
#include "qmp/client.h"
#include "schema/codec.h"

#include <optional>
#include <string>
#include <vector>

namespace colo::ctl {

// One daemon that could be asked.
struct Target {
    std::string domain;  // from the command line or the name of the socket; may be empty
    std::string socket;
};

// The domains that the options mean. Errc::invalid: none.
Result<std::vector<Target>> find_targets(const Options& options);

inline Deadline deadline_of(double seconds)
{
    return now() + Duration{static_cast<std::int64_t>(seconds * 1e6)};
}

// What errors are about: the domain, or "daemon" if only its socket was named.
std::string name_of(const Options& options);

// The link to the one daemon that is meant; without one, why not has been said, and the exit status is kUnreachable.
std::optional<qmp::Client> connect_or_report(const Options& options);

// {"schema-version": 1, NAME: value} on standard output.
void print_json(const char* name, schema::Value value);

// Connected and negotiated. Any error means: unreachable.
Result<qmp::Client> open_link(const Target& target, double timeout_s);

Result<schema::ProtectionReport> query_report(qmp::Client& client, double timeout_s);

}  // namespace colo::ctl
