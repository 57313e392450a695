// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a side answers that does not decide about the guest. Said by node and daemon, listed in docs/refusals.md.

namespace colo {

inline constexpr const char* kAskThePrimary =
    "This side is the secondary and its guest follows the primary's; ask the primary";
inline constexpr const char* kStoppedThere = "This side follows the primary: the domain is stopped and resumed there";
inline constexpr const char* kMigratedAway =
    "The guest was migrated away and is the destination's: two copies of it must never run. Migrate it back from there, or "
    "restart this side as a secondary; if that copy is known to be lost, `coloctl failover DOMAIN --accept-data-loss`";
inline constexpr const char* kStateOfSession = "The domain is protected; its device state belongs to the session";

}  // namespace colo
