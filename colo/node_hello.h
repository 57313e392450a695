// SPDX-License-Identifier: Apache-2.0
#pragma once

// What both sides of a session must have alike, checked before anything is touched (Inv32). Pure functions.

#include "colo/node.h"
#include "core/error.h"
#include "replication/message.h"

namespace colo {

replication::Hello make_hello(const NodeConfig& config, const PersistentState& state, SessionId session,
                              const replication::GuestDescription& guest, const CopyMemory& memory);

// The version to speak, or Errc::refused with the first difference: both values in words, and what to do.
Result<std::uint16_t> check_hello(const NodeConfig& config, const replication::GuestDescription& own,
                                  const CopyMemory& memory, const replication::Hello& hello);
Result<void> check_hello_ack(SessionId session, const replication::HelloAck& ack);

// The first difference between two guests, empty if they are alike.
std::string first_difference(const replication::GuestDescription& primary, const replication::GuestDescription& own);

}  // namespace colo
