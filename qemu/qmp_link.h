// SPDX-License-Identifier: Apache-2.0
#pragma once

// A blocking QMP client on one connected stream socket, made for latency: the calling thread writes and polls itself.
// Several commands may go out in one write; a device model answers in order, so answers are matched by order. Everything
// that arrives is hostile input: a line of more than kMaxLine bytes, something that is not a QMP message, or an answer
// that nobody asked for is Errc::corrupt, and the link is dead. So is a link on which a deadline passed: answers could no
// longer be matched. Not thread-safe.

#include "core/error.h"
#include "core/types.h"

#include <boost/json/fwd.hpp>

#include <functional>
#include <string>
#include <string_view>

namespace colo::qemu {

// Called from inside receive(), wait_event() or drain(), in order. `data` is empty where the event has none.
using QmpEventHandler = std::function<void(std::string_view name, const boost::json::object& data)>;

class QmpLink {
public:
    static constexpr std::size_t kMaxLine = 1u << 20;
    static constexpr std::size_t kMaxOutstanding = 64;

    // Takes the socket over (and makes it non-blocking). `name` appears in errors: "QEMU control channel".
    QmpLink(int fd, std::string name, QmpEventHandler on_event);
    ~QmpLink();
    QmpLink(const QmpLink&) = delete;
    QmpLink& operator=(const QmpLink&) = delete;

    // Reads the greeting and leaves negotiation mode. Returns "7.2.22 (Debian ...)".
    Result<std::string> negotiate(Deadline deadline);

    // Writes `count` complete commands; each will have one answer.
    Result<void> send(std::string_view commands, std::size_t count, Deadline deadline);
    // The same for one command that needs a descriptor (getfd, add-fd); the other side gets a duplicate.
    Result<void> send_with_fd(std::string_view command, int fd, Deadline deadline);
    // The next answer in order: the JSON text of its `return` member, or Errc::refused "what: class: description".
    Result<std::string> receive(std::string_view what, Deadline deadline);
    // send + receive of one command; `what` names it in errors.
    Result<std::string> execute(std::string_view what, std::string_view command, Deadline deadline);
    // Reads until `done()` is true; it is asked after each event. No answer may be outstanding.
    Result<void> wait_event(std::string_view what, const std::function<bool()>& done, Deadline deadline);
    // Reads whatever is there without waiting (bounded); events go to the handler, answers are forgotten.
    Result<void> drain();

    // Before sleeping in a wait, look this long without sleeping: an answer that comes within a few hundred microseconds
    // then costs no wake-up. Only for callers with real-time priority on a machine with a second processor.
    void set_spin(Duration spin) { spin_ = spin; }

    int fd() const { return fd_; }
    bool dead() const { return dead_; }
    std::size_t outstanding() const { return outstanding_; }

private:
    enum class Message { event, answer };
    Result<void> fill(std::string_view what, Deadline deadline, bool wait);
    bool take_line(std::string& line);
    Result<Message> dispatch(std::string_view line);
    Error die(Errc code, std::string text);

    int fd_;
    std::string name_;
    QmpEventHandler on_event_;
    std::string buffer_;
    std::size_t scanned_ = 0;   // buffer_[0, scanned_) has no line end
    std::size_t outstanding_ = 0;
    bool dead_ = false;
    Duration spin_{};
    bool greeted_ = false;
    std::string greeting_;
    // The answer that dispatch() saw last.
    bool answer_ok_ = false;
    std::string answer_;
};

// JSON string literal with quotes, for command texts.
std::string json_quote(std::string_view text);

}  // namespace colo::qemu
