// SPDX-License-Identifier: Apache-2.0
#pragma once

// Capabilities and parameters of migration and COLO: storage, the checks on what would result (all or nothing), and a
// callback for whoever has to act on a change. Values persist until the daemon ends. Control thread only.

#include "core/error.h"
#include "schema/types.h"

#include <array>
#include <functional>
#include <vector>

namespace colo {

// What decides about capabilities besides the set itself.
struct CapabilityFacts {
    bool waiting = false;             // run state inmigrate
    bool several_connections = true;  // the latest incoming URI takes them
};

class MigrationSettings {
public:
    MigrationSettings();

    bool enabled(schema::MigrationCapability capability) const;
    // Every capability that this build knows, once, in schema order.
    std::vector<schema::MigrationCapabilityStatus> capabilities() const;
    // Applied in array order, the last mention wins. Nothing changes if the resulting set is refused.
    Result<void> set_capabilities(const std::vector<schema::MigrationCapabilityStatus>& wanted,
                                  const CapabilityFacts& facts);

    // Every member is present, except block_bitmap_mapping before it was set once.
    const schema::MigrationParameters& parameters() const { return parameters_; }
    // Checks the merge of old and new values; nothing changes if it is refused.
    Result<void> set_parameters(const schema::MigrateSetParameters& wanted);

    // Called after a successful change, also if the values are equal to the old ones; `changed` holds the members that
    // were given. One callback; set it before commands are served.
    std::function<void(const schema::MigrateSetParameters& changed)> on_parameters;

private:
    using Capabilities = std::array<bool, schema::kMigrationCapabilityCount>;
    Result<void> check(const Capabilities& resulting, const CapabilityFacts& facts) const;

    Capabilities capabilities_{};
    schema::MigrationParameters parameters_;
};

}  // namespace colo
