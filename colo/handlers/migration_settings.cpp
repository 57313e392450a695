// SPDX-License-Identifier: Apache-2.0
#include "colo/handlers/migration_settings.h"

#include "colo/handlers/bitmap_mapping.h"
#include "schema/codec.h"

namespace colo {
namespace {

using schema::MigrationCapability;

struct Missing {
    MigrationCapability capability;
    const char* what;
};

// Capabilities without an engine behind them: switching one on would be a promise that nobody keeps.
constexpr Missing kMissing[] = {
    {MigrationCapability::rdma_pin_all, "there is no RDMA transport"},
    {MigrationCapability::auto_converge, "nothing here can slow the guest's CPUs down"},
    {MigrationCapability::zero_blocks, "there is no block migration"},
    {MigrationCapability::compress, "there are no compression threads of the old kind, use multifd-compression"},
    {MigrationCapability::postcopy_ram, "there is no postcopy phase"},
    {MigrationCapability::release_ram, "there is no postcopy phase that could free sent pages"},
    {MigrationCapability::block, "there is no block migration"},
    {MigrationCapability::pause_before_switchover, "there is no plain migration that could wait"},
    {MigrationCapability::dirty_bitmaps, "guests have no block devices with dirty bitmaps"},
    {MigrationCapability::postcopy_blocktime, "there is no postcopy phase to measure"},
    {MigrationCapability::late_block_activate, "guests have no block devices"},
    {MigrationCapability::x_ignore_shared, "all memory of the guest is shared memory and has to be copied"},
    {MigrationCapability::background_snapshot, "there are no snapshots"},
};

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
        result.push_back({static_cast<MigrationCapability>(i), capabilities_[i]});
    return result;
}

Result<void> MigrationSettings::check(const Capabilities& resulting)
{
    const auto on = [&](MigrationCapability capability) { return resulting[index_of(capability)]; };
    if (on(MigrationCapability::postcopy_ram) && on(MigrationCapability::x_ignore_shared))
        return make_error(Errc::invalid, "Postcopy is not compatible with ignore-shared");
    if (on(MigrationCapability::background_snapshot))
        for (const MigrationCapability other : kNotWithSnapshot)
            if (on(other))
                return make_error(Errc::invalid,
                                  "Background-snapshot is not compatible with " + std::string(to_string(other)));
    for (const Missing& missing : kMissing)
        if (on(missing.capability))
            return make_error(Errc::unsupported, "Capability '" + std::string(to_string(missing.capability)) +
                                                     "' is not available: " + missing.what);
    return {};
}

Result<void> MigrationSettings::set_capabilities(const std::vector<schema::MigrationCapabilityStatus>& wanted)
{
    Capabilities resulting = capabilities_;
    for (const auto& entry : wanted) resulting[index_of(entry.capability)] = entry.state;
    if (auto checked = check(resulting); !checked) return checked;
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
    // Parameters that only act together with a capability are kept whether or not it can be switched on. These two
    // would act alone.
    if (!resulting.tls_creds->empty())
        return make_error(
            Errc::unsupported,
            "Parameter 'tls-creds' is not available: there is no TLS between daemons, it must stay empty");
    if (*resulting.block_incremental)
        return make_error(Errc::unsupported,
                          "Parameter 'block-incremental' is not available: there is no block migration");
    parameters_ = std::move(resulting);
    if (on_parameters) on_parameters(wanted);
    return {};
}

}  // namespace colo
