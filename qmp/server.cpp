// SPDX-License-Identifier: Apache-2.0
#include "qmp/server.h"

#include "core/log.h"
#include "qmp/connection.h"
#include "qmp/json.h"
#include "qmp/listen_socket.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <list>

namespace colo::qmp {

namespace asio = boost::asio;
using boost::system::error_code;

namespace {

constexpr auto kAcceptPause = std::chrono::milliseconds(100);

// A listening socket, and what to say about it.
struct Listener {
    Listener(asio::io_context& io, std::string shown, ListenSocket socket)
        : name(std::move(shown)), inode(socket.inode), descriptor(io, socket.fd), pause(io)
    {
    }
    std::string name;
    std::uint64_t inode;  // of the socket file; 0: TCP
    asio::posix::stream_descriptor descriptor;
    asio::steady_timer pause;
};

// Requests and answers are small, and nobody may wait for a peer that is gone for ever.
void tune_tcp(int fd)
{
    const int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}

}  // namespace

class Server::State : public std::enable_shared_from_this<Server::State> {
public:
    State(asio::io_context& io, const Registry& registry, ServerOptions options)
        : io_(io), linger_(io), registry_(registry), options_(std::move(options))
    {
    }

    Result<void> start()
    {
        const auto file = open_listen_socket(options_.path, options_.mode, options_.group);
        if (!file) return file.error();
        listeners_.emplace_back(io_, options_.path, *file);
        for (const std::string& uri : options_.listen) {
            const auto socket = open_tcp_listen_socket(uri, options_.allow_remote);
            if (!socket) {
                stop_listening();
                return socket.error();
            }
            listeners_.emplace_back(io_, bound_tcp_uri(socket->fd), *socket);
        }
        for (auto listener = listeners_.begin(); listener != listeners_.end(); ++listener) accept(listener);
        return {};
    }

    void stop(Duration linger, std::function<void()> done)
    {
        done_ = std::move(done);
        stop_listening();
        for (const auto& connection : connections_) connection->drain();
        linger_.expires_after(linger);
        linger_.async_wait([weak = weak_from_this()](error_code) {
            if (const auto self = weak.lock()) self->close_all();
        });
        report_if_empty();
    }

    void stop_listening()
    {
        for (const Listener& listener : listeners_)
            if (listener.inode != 0) remove_listen_socket(listener.name, listener.inode);
        listeners_.clear();
        ++listening_;
    }

    void close_all()
    {
        for (const auto& connection : connections_) connection->close();
    }

    void emit(std::string_view name, std::optional<schema::Object> data)
    {
        if (connections_.empty()) return;
        const std::string line = to_json(event_message(name, std::move(data))) + "\r\n";
        for (const auto& connection : connections_) connection->send_event(line);
        drop_slowest();
    }

    std::size_t clients() const { return connections_.size(); }

    std::vector<std::string> addresses() const
    {
        std::vector<std::string> result;
        for (const Listener& listener : listeners_)
            if (listener.inode == 0) result.push_back(listener.name);
        return result;
    }

    void serve(Fd in, Fd out)
    {
        const std::uint64_t number = ++accepted_;
        if (connections_.size() >= options_.max_clients)
            return spdlog::warn("control client {} turned away: {} are connected", number, connections_.size());
        const auto connection = std::make_shared<Connection>(io_, std::move(in), std::move(out),
                                                             Session::make(registry_, options_.version), number);
        const auto place = connections_.insert(connections_.end(), connection);
        connection->on_closed = [weak = weak_from_this(), place] {
            if (const auto self = weak.lock()) self->forget(place);
        };
        connection->on_backlog = [weak = weak_from_this()] {
            if (const auto self = weak.lock()) self->drop_slowest();
        };
        connection->start();
    }

private:
    using Place = std::list<Listener>::iterator;

    // The listeners go away together: what was in flight for an earlier set of them does nothing.
    template <class Next>
    auto while_listening(Next next)
    {
        return [weak = weak_from_this(), listening = listening_, next](error_code error) {
            const auto self = weak.lock();
            if (self && !error && self->listening_ == listening) next(*self);
        };
    }

    void accept(Place listener)
    {
        listener->descriptor.async_wait(asio::posix::descriptor_base::wait_read,
                                        while_listening([listener](State& self) { self.accept_one(listener); }));
    }

    void accept_one(Place listener)
    {
        Fd fd(::accept4(listener->descriptor.native_handle(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
        if (!fd) {
            if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) return accept(listener);
            return pause(listener, errno);
        }
        if (listener->inode == 0) tune_tcp(fd.get());
        serve(std::move(fd), Fd());
        accept(listener);
    }

    // Out of descriptors, most likely: pause instead of spinning.
    void pause(Place listener, int error)
    {
        spdlog::warn("control socket {}: accept: {}", listener->name, std::strerror(error));
        listener->pause.expires_after(kAcceptPause);
        listener->pause.async_wait(while_listening([listener](State& self) { self.accept(listener); }));
    }

    // Many clients that do not read must not fill the memory together either.
    void drop_slowest()
    {
        std::size_t total = 0;
        for (const auto& connection : connections_) total += connection->unsent();
        if (total <= kMaxUnsent) return;
        const auto slowest =
            std::ranges::max_element(connections_, {}, [](const auto& connection) { return connection->unsent(); });
        spdlog::warn("control clients do not read {} bytes altogether; client {} has most of them and is disconnected",
                     total, (*slowest)->number());
        (*slowest)->close();
    }

    void forget(std::list<std::shared_ptr<Connection>>::iterator place)
    {
        connections_.erase(place);
        report_if_empty();
    }

    void report_if_empty()
    {
        if (!connections_.empty() || !done_) return;
        linger_.cancel();
        asio::post(io_, std::exchange(done_, nullptr));
    }

    asio::io_context& io_;
    std::list<Listener> listeners_;
    std::uint64_t listening_ = 0;
    asio::steady_timer linger_;
    const Registry& registry_;
    ServerOptions options_;
    std::uint64_t accepted_ = 0;
    std::list<std::shared_ptr<Connection>> connections_;
    std::function<void()> done_;
};

Server::Server(asio::io_context& io, const Registry& registry, ServerOptions options)
    : state_(std::make_shared<State>(io, registry, std::move(options)))
{
}

Server::~Server()
{
    state_->stop_listening();
    state_->close_all();
}

Result<void> Server::start()
{
    return state_->start();
}
void Server::serve(Fd in, Fd out)
{
    state_->serve(std::move(in), std::move(out));
}
void Server::stop(Duration linger, std::function<void()> done)
{
    state_->stop(linger, std::move(done));
}
void Server::emit_event(std::string_view name, std::optional<schema::Object> data)
{
    state_->emit(name, std::move(data));
}
std::size_t Server::clients() const
{
    return state_->clients();
}
std::vector<std::string> Server::addresses() const
{
    return state_->addresses();
}

}  // namespace colo::qmp
