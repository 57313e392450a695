// SPDX-License-Identifier: Apache-2.0
#include "replication/message.h"

#include <type_traits>

namespace colo::replication {

const char* to_string(Mode mode)
{
    switch (mode) {
    case Mode::lock_step: return "lock-step";
    case Mode::buffered: return "buffered";
    case Mode::migration: return "migration";
    }
    return "unknown";
}

const char* to_string(TriggerReason reason)
{
    switch (reason) {
    case TriggerReason::first: return "first";
    case TriggerReason::period: return "period";
    case TriggerReason::mismatch: return "mismatch";
    case TriggerReason::late_output: return "late-output";
    case TriggerReason::no_comparison: return "no-comparison";
    case TriggerReason::staging_full: return "staging-full";
    case TriggerReason::operator_request: return "operator-request";
    case TriggerReason::power_event: return "power-event";
    case TriggerReason::buffered_output: return "buffered-output";
    case TriggerReason::mode_change: return "mode-change";
    }
    return "unknown";
}

Epoch epoch_of(const Message& message)
{
    return std::visit(
        [](const auto& m) -> Epoch {
            if constexpr (requires { m.epoch; })
                return m.epoch;
            else
                return 0;
        },
        message);
}

const char* name_of(const Message& message)
{
    static constexpr const char* kNames[] = {"hello",    "hello-ack", "refuse", "begin",          "cut",
                                             "end",      "abort",     "abort-ok", "staged",       "applied",
                                             "resign",   "resign-request", "handover", "abdicate", "close",
                                             "trigger-request"};
    static_assert(std::size(kNames) == std::variant_size_v<Message>);
    return kNames[message.index()];
}

}  // namespace colo::replication
