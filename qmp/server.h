// SPDX-License-Identifier: Apache-2.0
#pragma once

// QMP on a Unix socket, on TCP addresses and on descriptors that are there already. Everything runs on the io_context's
// one thread: create, start, emit, stop and destroy there.

#include "core/error.h"
#include "core/types.h"
#include "qmp/event.h"
#include "qmp/fd.h"
#include "qmp/registry.h"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace boost::asio {
class io_context;
}

namespace colo::qmp {

struct ServerOptions {
    std::string path;   // an abandoned socket file is replaced, a served one is an error
    std::string group;  // owner group of the socket; empty: ours
    unsigned mode = 0660;
    std::vector<std::string> listen;  // further addresses, tcp:HOST:PORT
    bool allow_remote = false;        // also others than the loopback interface
    std::size_t max_clients = 256;    // further ones are turned away with a log line
    schema::VersionInfo version;
};

// What all clients together have not read yet; beyond it the one with most of it is dropped.
inline constexpr std::size_t kMaxUnsent = 64u << 20;

class Server : public EventSink {
public:
    // `registry` must outlive the server.
    Server(boost::asio::io_context& io, const Registry& registry, ServerOptions options);
    ~Server() override;
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

    Result<void> start();
    // One more client, on a pair of descriptors such as standard input and output.
    void serve(Fd in, Fd out);
    // No new clients or requests; what was answered is still sent, for at most `linger`. `done` (may be empty) is
    // called when the last connection is closed.
    void stop(Duration linger, std::function<void()> done);

    void emit_event(std::string_view name, std::optional<schema::Object> data) override;
    std::size_t clients() const;
    std::vector<std::string> addresses() const;  // of options.listen, with the ports as they are bound

private:
    class State;
    std::shared_ptr<State> state_;
};

}  // namespace colo::qmp
