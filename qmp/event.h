// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "schema/codec.h"

#include <optional>
#include <string_view>

namespace colo::qmp {

// Takes events, on the thread of the sessions. Implemented by the server, and by tests.
class EventSink {
public:
    virtual ~EventSink() = default;
    virtual void emit_event(std::string_view name, std::optional<schema::Object> data) = 0;

    // Event is one of schema::events. One whose condition is off in this build is not sent.
    template <class Event>
    void emit(const Event& event)
    {
        if constexpr (!Event::kServed) return;
        std::optional<schema::Object> data;
        if constexpr (Event::kHasData) write_members(event, data.emplace());
        emit_event(Event::kName, std::move(data));
    }
};

// The message for the wire; `data` is left out for events without data. The time is the wall clock.
schema::Object event_message(std::string_view name, std::optional<schema::Object> data);

}  // namespace colo::qmp
