// SPDX-License-Identifier: Apache-2.0
#pragma once

// QMP on a Unix socket. Everything runs on the io_context's one thread: create, start, emit, stop and destroy there.

#include "core/error.h"
#include "core/types.h"
#include "qmp/event.h"
#include "qmp/registry.h"

#include <functional>
#include <memory>
#include <string>

namespace boost::asio {
class io_context;
}

namespace colo::qmp {

struct ServerOptions {
    std::string path;   // an abandoned socket file is replaced, a served one is an error
    std::string group;  // owner group of the socket; empty: ours
    unsigned mode = 0660;
    std::size_t max_clients = 64;  // further ones are turned away with a log line
    schema::VersionInfo version;
};

class Server : public EventSink {
public:
    // `registry` must outlive the server.
    Server(boost::asio::io_context& io, const Registry& registry, ServerOptions options);
    ~Server() override;
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

    Result<void> start();
    // No new clients or requests; what was answered is still sent, for at most `linger`. `done` (may be empty) is
    // called when the last connection is closed.
    void stop(Duration linger, std::function<void()> done);

    void emit_event(std::string_view name, std::optional<schema::Object> data) override;
    std::size_t clients() const;

private:
    class State;
    std::shared_ptr<State> state_;
};

}  // namespace colo::qmp
