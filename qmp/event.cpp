// SPDX-License-Identifier: Apache-2.0
#include "qmp/event.h"

#include <ctime>

namespace colo::qmp {

schema::Object event_message(std::string_view name, std::optional<schema::Object> data)
{
    timespec time{};
    const bool known = ::clock_gettime(CLOCK_REALTIME, &time) == 0;
    schema::Object message{{"event", name}};
    if (data) message.append("data", std::move(*data));
    message.append("timestamp",
                   schema::Object{{"seconds", known ? std::int64_t{time.tv_sec} : std::int64_t{-1}},
                                  {"microseconds", known ? std::int64_t{time.tv_nsec / 1000} : std::int64_t{-1}}});
    return message;
}

}  // namespace colo::qmp
