// SPDX-License-Identifier: Apache-2.0
#pragma once

// One client of the server: a socket, or a pair of descriptors such as standard input and output. Control thread only.

#include "qmp/fd.h"
#include "qmp/session.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>

#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace colo::qmp {

// Keeps itself alive by the operations that it has in flight; on_closed is called once, from the io_context.
class Connection : public std::enable_shared_from_this<Connection> {
public:
    // `out` may be empty: `in` is a socket and serves both directions.
    Connection(boost::asio::io_context& io, Fd in, Fd out, std::shared_ptr<Session> session, std::uint64_t number);
    ~Connection();
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;

    // Much is not read yet; may close this connection or another.
    std::function<void()> on_backlog;
    std::function<void()> on_closed;

    void start();
    void send_event(std::string_view line) { session_->send_event(line); }
    // Answers what runs, sends what is there, then closes.
    void drain();
    void close();

    std::uint64_t number() const { return number_; }
    std::size_t unsent() const { return out_.size() - sent_ + session_->pending_output(); }

private:
    using Descriptor = boost::asio::posix::stream_descriptor;
    Descriptor& output() { return separate_output_ ? *separate_output_ : input_; }
    void schedule();
    void pump();
    void read();
    void receive_some();
    void write();
    void wait_writable();
    ssize_t send_some();

    Descriptor input_;
    std::optional<Descriptor> separate_output_;
    std::shared_ptr<Session> session_;
    std::uint64_t number_;
    std::string out_;       // taken from the session
    std::size_t sent_ = 0;  // of out_
    int flags_in_ = -1;     // of a pair, to be put back: it may be shared with other processes
    int flags_out_ = -1;
    bool reading_ = false;
    bool writing_ = false;
    bool scheduled_ = false;
    bool ended_ = false;     // the client will send no more, or must not
    bool refusing_ = false;  // the server ends
    bool closed_ = false;
};

}  // namespace colo::qmp
