// SPDX-License-Identifier: Apache-2.0
#pragma once

// A small synchronous QMP client over a Unix socket, for coloctl and tests. Not thread-safe. Every call has a deadline;
// after Errc::timed_out, closed or corrupt the client is of no further use.

#include "core/clock.h"
#include "core/error.h"
#include "qmp/json.h"
#include "schema/value.h"

#include <deque>
#include <optional>
#include <string>

namespace colo::qmp {

struct Event {
    std::string name;
    schema::Object message;  // the whole of it, timestamp included
};

class Client {
public:
    static constexpr std::size_t kMaxQueuedEvents = 4096;  // older ones are dropped

    // Connects and reads the greeting. Errc::closed, refused or failed: nobody serves the socket.
    static Result<Client> connect(const std::string& path, Deadline deadline);
    Client(Client&& other) noexcept;
    Client& operator=(Client&&) = delete;
    ~Client();

    const schema::Object& greeting() const { return greeting_; }

    // Leaves negotiation mode.
    Result<void> negotiate(Deadline deadline);

    // Result of the command. An error answer is Errc::refused with its description; error_class() then has the class.
    Result<schema::Value> execute(const std::string& command, schema::Object arguments, Deadline deadline);
    const std::string& error_class() const { return error_class_; }

    // Next event, those that arrived during execute() first. Errc::timed_out leaves the client usable.
    Result<Event> next_event(Deadline deadline);

    // Raw access for tests.
    Result<void> write(std::string_view bytes, Deadline deadline);
    Result<schema::Object> read(Deadline deadline);
    int fd() const { return fd_; }

private:
    explicit Client(int fd) : fd_(fd) {}
    void queue_event(schema::Object message);
    Result<schema::Value> wait_answer(std::int64_t id, Deadline deadline);

    int fd_;
    schema::Object greeting_;
    MessageParser parser_;
    std::string input_;
    std::deque<Event> events_;
    std::string error_class_;
    std::int64_t last_id_ = 0;
};

}  // namespace colo::qmp
