// SPDX-License-Identifier: Apache-2.0
#include "qmp/connection.h"

#include "core/log.h"
#include "qmp/receive.h"

#include <boost/asio/post.hpp>

#include <fcntl.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>

namespace colo::qmp {

namespace asio = boost::asio;
using boost::system::error_code;

namespace {

int make_non_blocking(int fd)
{
    const int flags = ::fcntl(fd, F_GETFL);
    if (flags >= 0) ::fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    return flags;
}

// One for all connections of the thread: nothing stays in it between two reads.
std::span<char> read_buffer()
{
    static thread_local std::array<char, 65536> buffer;
    return buffer;
}

}  // namespace

Connection::Connection(asio::io_context& io, Fd in, Fd out, std::shared_ptr<Session> session, std::uint64_t number)
    : input_(io), session_(std::move(session)), number_(number)
{
    if (out) {
        flags_in_ = make_non_blocking(in.get());
        flags_out_ = make_non_blocking(out.get());
        separate_output_.emplace(io, out.release());
    }
    input_.assign(in.release());
}

Connection::~Connection() = default;

void Connection::start()
{
    session_->on_activity = [weak = weak_from_this()] {
        if (const auto self = weak.lock()) self->schedule();
    };
    pump();
}

void Connection::drain()
{
    ended_ = true;
    refusing_ = true;
    schedule();
}

void Connection::close()
{
    if (closed_) return;
    closed_ = true;
    session_->on_activity = nullptr;
    if (flags_in_ >= 0) ::fcntl(input_.native_handle(), F_SETFL, flags_in_);
    if (flags_out_ >= 0) ::fcntl(output().native_handle(), F_SETFL, flags_out_);
    error_code ignored;
    if (separate_output_) separate_output_->close(ignored);
    input_.close(ignored);
    asio::post(input_.get_executor(), [self = shared_from_this()] { self->on_closed(); });
}

void Connection::schedule()
{
    if (scheduled_ || closed_) return;
    scheduled_ = true;
    asio::post(input_.get_executor(), [self = shared_from_this()] {
        self->scheduled_ = false;
        self->pump();
    });
}

// One request at a time and then back to the queue of the io_context: monitors take turns.
void Connection::pump()
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
    if (unsent() > kBusyOutput && on_backlog) on_backlog();
    read();
    if (ended_ && unsent() == 0 && (refusing_ || session_->idle())) close();
}

void Connection::read()
{
    if (closed_ || reading_ || ended_ || !session_->wants_input()) return;
    reading_ = true;
    input_.async_wait(Descriptor::wait_read, [self = shared_from_this()](error_code error) {
        self->reading_ = false;
        if (self->closed_) return;
        // Files and /dev/null cannot be waited for, and need not be.
        if (error && error != asio::error::operation_not_supported) return self->close();
        self->receive_some();
        self->pump();
    });
}

void Connection::receive_some()
{
    const std::span<char> buffer = read_buffer();
    Received received = receive(input_.native_handle(), !separate_output_, buffer);
    if (received.size > 0)
        session_->feed({buffer.data(), static_cast<std::size_t>(received.size)}, std::move(received.fds));
    else if (received.size == 0)
        ended_ = true;
    else if (received.error != EAGAIN && received.error != EINTR)
        close();
}

ssize_t Connection::send_some()
{
    const std::string_view rest = std::string_view(out_).substr(sent_);
    if (separate_output_) return ::write(separate_output_->native_handle(), rest.data(), rest.size());
    return ::send(input_.native_handle(), rest.data(), rest.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
}

void Connection::write()
{
    if (closed_ || writing_) return;
    if (sent_ == out_.size()) {
        out_ = session_->take_output();
        sent_ = 0;
        if (out_.empty()) return;
    }
    const ssize_t sent = send_some();
    if (sent < 0 && errno != EAGAIN && errno != EINTR) return close();
    if (sent > 0) sent_ += static_cast<std::size_t>(sent);
    if (sent_ < out_.size()) return wait_writable();
    out_ = {};
    sent_ = 0;
    // More came while this was waiting, or the session waited for its reader.
    if (session_->pending_output() > 0 || session_->runnable()) schedule();
}

void Connection::wait_writable()
{
    writing_ = true;
    output().async_wait(Descriptor::wait_write, [self = shared_from_this()](error_code error) {
        self->writing_ = false;
        if (self->closed_) return;
        if (error && error != asio::error::operation_not_supported) return self->close();
        self->pump();
    });
}

}  // namespace colo::qmp
