// SPDX-License-Identifier: Apache-2.0
#pragma once

// The one list of what this service refuses although the interface has it: because an engine comes later, or because
// the guest or this build lacks what it needs. Handlers take their texts from here, a test makes every request of the
// list, and docs/refusals.md is printed from it. Refusals that are rules of the interface (a state, a range, a
// conflict) are not here.

#include "core/error.h"
#include "schema/types.h"

#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace colo {

enum class Refused : std::uint8_t {
    capability,  // one row for each
    postcopy_destination,
    plain_deltas,
    pause_in_colo,
    scheme_exec,
    scheme_fd,
    scheme_vsock,
    scheme_rdma,
    incoming_scheme,
    block_option,
    tls,
    tls_incoming,
    postcopy_link,
    spice,
    disks,
    standby,  // a copy that follows, or waits to
    following,
    migrated_away,
    session_state,
};

// How a client learns of it.
enum class Shown : std::uint8_t {
    answer,             // error of the command; nothing changed
    answer_and_status,  // error of the command, and query-migrate says failed with the same text
    status,             // the command succeeds, then query-migrate says failed
    job,                // the command succeeds, then the job fails
};

// What has to be so before the request of a row.
enum class Situation : std::uint8_t {
    running,       // guest runs, nothing was set
    running_colo,  // x-colo is on
    running_colo_pausing,
    running_xbzrle,
    waiting,       // for a primary
    waiting_colo,
    postcopy_active,  // reported by an engine that can
    postcopy_paused,
    standby,    // a secondary, which waits or follows
    following,  // the secondary of a protected domain
    stopped,    // a protected domain that was stopped
    postmigrate,
};

struct Refusal {
    Refused what;
    const char* item;  // for people
    const char* text;  // what the client is told; % stands for a name that the client gave
    const char* reason;
    Shown shown;
    // A request that meets it; the name in it is `name`.
    Situation situation;
    const char* command;
    const char* arguments;
    const char* name = "";
    std::optional<schema::MigrationCapability> capability = {};
};

std::span<const Refusal> refusals();

// The first row of a kind.
const Refusal& refusal(Refused what);
// Null for a capability that can be switched on.
const Refusal* refusal(schema::MigrationCapability capability);

std::string refusal_text(const Refusal& row, std::string_view name = {});
Error refusal_error(Refused what, std::string_view name = {});
// A rule of the interface says no; not a row of the list.
inline Error refused(std::string text)
{
    return make_error(Errc::refused, std::move(text));
}

// What a client may make the daemon keep or remember, and what it is told beyond that.
inline constexpr std::size_t kSnapshotTextMax = 255, kSnapshotDevicesMax = 256;

struct Limit {
    const char* item;
    std::size_t bound;
    const char* text;  // % stands for the bound
};
std::span<const Limit> limits();
std::string limit_text(const Limit& limit);

// docs/refusals.md.
std::string refusals_page();

}  // namespace colo
