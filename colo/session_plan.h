// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace colo {

// What a session is for. A migration ends with a planned hand-over at its only cut; nobody is protected by it.
enum class SessionKind : std::uint8_t { protection, migration };
struct SessionPlan {
    SessionKind kind = SessionKind::protection;
    bool pause_before_switchover = false;   // migration: the guest is stopped, then somebody has to say that it goes on
};

}  // namespace colo
