// SPDX-License-Identifier: Apache-2.0
#include "colo/handlers/migration_settings.h"

#include "colo/handlers/bitmap_mapping.h"
#include "colo/handlers/refusals.h"
#include "schema/codec.h"

namespace colo {
namespace {

using schema::MigrationCapability;

// background-snapshot excludes these; the first hit is named.
constexpr MigrationCapability kNotWithSnapshot[] = {
    MigrationCapability::postcopy_ram,
    MigrationCapability::dirty_bitmaps,
    MigrationCapability::postcopy_blocktime,
    MigrationCapability::late_block_activate,
    MigrationCapability::return_path,
    MigrationCapability::multifd,
    MigrationCapability::pause_before_switchover,
    MigrationCapability::auto_converge,
    MigrationCapability::release_ram,
    MigrationCapability::rdma_pin_all,
    MigrationCapability::compress,
    MigrationCapability::xbzrle,
    MigrationCapability::x_colo,
    MigrationCapability::validate_uuid,
};

std::size_t index_of(MigrationCapability capability)
{
    return static_cast<std::size_t>(capability);
}

}  // namespace

MigrationSettings::MigrationSettings()
{
    set_defaults(parameters_);
}

bool MigrationSettings::enabled(MigrationCapability capability) const
{
    return capabilities_[index_of(capability)];
}

std::vector<schema::MigrationCapabilityStatus> MigrationSettings::capabilities() const
{
    std::vector<schema::MigrationCapabilityStatus> result;
    for (std::size_t i = 0; i < capabilities_.size(); ++i)
        if (const auto capability = static_cast<MigrationCapability>(i); capability != MigrationCapability::block)
            result.push_back({capability, capabilities_[i]});  // block is for builds with block migration
    return result;
}

// In the order of the interface; what no engine stands behind comes last, so that a conflict is named first.
Result<void> MigrationSettings::check(const Capabilities& resulting, const CapabilityFacts& facts) const
{
    const auto on = [&](MigrationCapability capability) { return resulting[index_of(capability)]; };
    if (on(MigrationCapability::block)) return refused(refusal(MigrationCapability::block)->text);
    if (on(MigrationCapability::postcopy_ram)) {
        if (facts.waiting && !enabled(MigrationCapability::postcopy_ram))
            return refusal_error(Refused::postcopy_destination);
        if (on(MigrationCapability::x_ignore_shared)) return refused("Postcopy is not compatible with ignore-shared");
    }
    if (on(MigrationCapability::background_snapshot))
        for (const MigrationCapability other : kNotWithSnapshot)
            if (on(other))
                return refused("Background-snapshot is not compatible with " + std::string(to_string(other)));
    if (on(MigrationCapability::multifd) && facts.waiting && !facts.several_connections)
        return refused("multifd is not supported by current protocol");
    for (const Refusal& row : refusals())
        if (row.capability && on(*row.capability)) return make_error(Errc::unsupported, row.text);
    return {};
}

Result<void> MigrationSettings::set_capabilities(const std::vector<schema::MigrationCapabilityStatus>& wanted,
                                                 const CapabilityFacts& facts)
{
    Capabilities resulting = capabilities_;
    for (const auto& entry : wanted) resulting[index_of(entry.capability)] = entry.state;
    if (auto checked = check(resulting, facts); !checked) return checked;
    capabilities_ = resulting;
    return {};
}

Result<void> MigrationSettings::set_parameters(const schema::MigrateSetParameters& wanted)
{
    schema::MigrationParameters resulting = parameters_;
    merge(wanted, resulting);
    if (std::string text = range_error(resulting); !text.empty()) return make_error(Errc::invalid, std::move(text));
    if (*resulting.max_cpu_throttle < *resulting.cpu_throttle_initial)
        return make_error(Errc::invalid,
                          "Parameter 'max_cpu_throttle' expects an integer in the range of cpu_throttle_initial to 99");
    if (resulting.block_bitmap_mapping)
        if (auto checked = check_bitmap_mapping(*resulting.block_bitmap_mapping); !checked) return checked;
    parameters_ = std::move(resulting);
    if (on_parameters) on_parameters(wanted);
    return {};
}

}  // namespace colo
