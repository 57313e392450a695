// SPDX-License-Identifier: Apache-2.0
#include "qmp/server.h"

#include "core/log.h"
#include "qmp/json.h"
#include "qmp/listen_socket.h"
#include "qmp/session.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>

#include <array>
#include <list>

namespace colo::qmp {

namespace asio = boost::asio;
using boost::system::error_code;
using Protocol = asio::local::stream_protocol;

namespace {

// One client. Keeps itself alive by the operations it has in flight; `closed` is called once, from the io_context.
class Connection : public std::enable_shared_from_this<Connection> {
public:
    Connection(Protocol::socket socket, std::shared_ptr<Session> session, std::uint64_t number)
        : socket_(std::move(socket)), session_(std::move(session)), number_(number)
    {
    }

    std::function<void()> on_closed;

    void start()
    {
        session_->on_activity = [weak = weak_from_this()] {
            if (const auto self = weak.lock()) self->schedule();
        };
        pump();
    }

    void send_event(std::string_view line) { session_->send_event(line); }

    // Answers what runs, sends what is there, then closes.
    void drain()
    {
        ended_ = true;
        refusing_ = true;
        schedule();
    }

    void close()
    {
        if (closed_) return;
        closed_ = true;
        session_->on_activity = nullptr;
        error_code ignored;
        socket_.close(ignored);
        asio::post(socket_.get_executor(), [self = shared_from_this()] { self->on_closed(); });
    }

private:
    void schedule()
    {
        if (scheduled_ || closed_) return;
        scheduled_ = true;
        asio::post(socket_.get_executor(), [self = shared_from_this()] {
            self->scheduled_ = false;
            self->pump();
        });
    }

    // One request at a time and then back to the queue of the io_context: monitors take turns.
    void pump()
    {
        if (closed_) return;
        if (session_->overflowed()) {
            spdlog::warn("control client {} does not read its events; disconnected", number_);
            return close();
        }
        if (!refusing_ && session_->runnable()) {
            session_->run_one();
            schedule();
        }
        write();
        read();
        if (ended_ && !writing_ && session_->pending_output() == 0 && (refusing_ || session_->idle())) close();
    }

    void read()
    {
        if (closed_ || reading_ || ended_ || !session_->wants_input()) return;
        reading_ = true;
        socket_.async_read_some(asio::buffer(buffer_), [self = shared_from_this()](error_code error, std::size_t size) {
            self->reading_ = false;
            if (self->closed_) return;
            if (error) {
                self->ended_ = true;
                if (error != asio::error::eof) return self->close();
            } else {
                self->session_->feed({self->buffer_.data(), size});
            }
            self->pump();
        });
    }

    void write()
    {
        if (closed_ || writing_ || session_->pending_output() == 0) return;
        writing_ = true;
        out_ = session_->take_output();
        asio::async_write(socket_, asio::buffer(out_), [self = shared_from_this()](error_code error, std::size_t) {
            self->writing_ = false;
            self->out_ = {};
            if (error)
                self->close();
            else
                self->pump();
        });
    }

    Protocol::socket socket_;
    std::shared_ptr<Session> session_;
    std::uint64_t number_;
    std::array<char, 65536> buffer_;
    std::string out_;
    bool reading_ = false;
    bool writing_ = false;
    bool scheduled_ = false;
    bool ended_ = false;     // the client will send no more, or must not
    bool refusing_ = false;  // the server ends
    bool closed_ = false;
};

}  // namespace

class Server::State : public std::enable_shared_from_this<Server::State> {
public:
    State(asio::io_context& io, const Registry& registry, ServerOptions options)
        : acceptor_(io), linger_(io), registry_(registry), options_(std::move(options))
    {
    }

    Result<void> start()
    {
        const auto socket = open_listen_socket(options_.path, options_.mode, options_.group);
        if (!socket) return socket.error();
        inode_ = socket->inode;
        error_code error;
        acceptor_.assign(Protocol(), socket->fd, error);
        if (error) return make_error(Errc::failed, "control socket " + options_.path + ": " + error.message());
        accept();
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
        if (!acceptor_.is_open()) return;
        remove_listen_socket(options_.path, inode_);
        error_code ignored;
        acceptor_.close(ignored);
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
    }

    std::size_t clients() const { return connections_.size(); }

private:
    void accept()
    {
        acceptor_.async_accept([weak = weak_from_this()](error_code error, Protocol::socket socket) {
            const auto self = weak.lock();
            if (!self || error == asio::error::operation_aborted) return;
            if (error)
                self->retry(error);
            else
                self->admit(std::move(socket));
        });
    }

    // Out of descriptors, most likely: pause instead of spinning.
    void retry(error_code error)
    {
        spdlog::warn("control socket {}: accept: {}", options_.path, error.message());
        linger_.expires_after(std::chrono::milliseconds(100));
        linger_.async_wait([weak = weak_from_this()](error_code cancelled) {
            const auto self = weak.lock();
            if (self && !cancelled && self->acceptor_.is_open()) self->accept();
        });
    }

    void admit(Protocol::socket socket)
    {
        const std::uint64_t number = ++accepted_;
        if (connections_.size() >= options_.max_clients) {
            spdlog::warn("control client {} turned away: {} are connected", number, connections_.size());
        } else {
            const auto connection =
                std::make_shared<Connection>(std::move(socket), Session::make(registry_, options_.version), number);
            const auto place = connections_.insert(connections_.end(), connection);
            connection->on_closed = [weak = weak_from_this(), place] {
                if (const auto self = weak.lock()) self->forget(place);
            };
            connection->start();
        }
        accept();
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
        asio::post(acceptor_.get_executor(), std::exchange(done_, nullptr));
    }

    Protocol::acceptor acceptor_;
    asio::steady_timer linger_;
    const Registry& registry_;
    ServerOptions options_;
    std::uint64_t inode_ = 0;
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

}  // namespace colo::qmp
