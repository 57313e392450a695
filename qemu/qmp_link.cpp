// SPDX-License-Identifier: Apache-2.0
#include "qemu/qmp_link.h"

#include "core/check.h"
#include "core/clock.h"

#include <boost/json.hpp>
#include <fmt/format.h>

#include <cerrno>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

namespace colo::qemu {
namespace {

namespace json = boost::json;

constexpr std::size_t kMaxTextInError = 300;

json::parse_options limits()
{
    json::parse_options options;
    options.max_depth = 32;
    return options;
}

std::string shorten(std::string_view text)
{
    std::string out;
    for (const char c : text.substr(0, kMaxTextInError)) out += (c >= ' ' && c < 127) ? c : '?';
    return text.size() > kMaxTextInError ? out + "..." : out;
}

std::string text_member(const json::object& object, std::string_view key)
{
    const json::value* value = object.if_contains(key);
    return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
}

std::string version_text(const json::object& greeting)
{
    const json::value* version = greeting.if_contains("version");
    if (version == nullptr || !version->is_object()) return "unknown";
    const std::string package = text_member(version->get_object(), "package");
    const json::value* qemu = version->get_object().if_contains("qemu");
    if (qemu == nullptr || !qemu->is_object()) return "unknown";
    const auto number = [&](std::string_view key) {
        const json::value* v = qemu->get_object().if_contains(key);
        return v != nullptr && v->is_int64() ? v->get_int64() : 0;
    };
    const std::string text = fmt::format("{}.{}.{}", number("major"), number("minor"), number("micro"));
    return package.empty() ? text : fmt::format("{} ({})", text, shorten(package));
}

}  // namespace

std::string json_quote(std::string_view text) { return json::serialize(json::string(text)); }

QmpLink::QmpLink(int fd, std::string name, QmpEventHandler on_event)
    : fd_(fd), name_(std::move(name)), on_event_(std::move(on_event))
{
    ::fcntl(fd_, F_SETFL, ::fcntl(fd_, F_GETFL) | O_NONBLOCK);
}

QmpLink::~QmpLink() { ::close(fd_); }

Error QmpLink::die(Errc code, std::string text)
{
    dead_ = true;
    return make_error(code, fmt::format("{}: {}", name_, text));
}

Result<std::string> QmpLink::negotiate(Deadline deadline)
{
    std::string line;
    while (!greeted_) {
        if (!take_line(line)) {
            if (buffer_.size() > kMaxLine) return die(Errc::corrupt, "a greeting of more than 1 MiB");
            if (auto r = fill("greeting", deadline, true); !r) return r.error();
            continue;
        }
        if (line.size() > kMaxLine) return die(Errc::corrupt, "a greeting of more than 1 MiB");
        json::error_code ec;
        json::monotonic_resource memory;
        const json::value value = json::parse(line, ec, &memory, limits());
        const json::value* greeting = !ec && value.is_object() ? value.get_object().if_contains("QMP") : nullptr;
        if (greeting == nullptr || !greeting->is_object())
            return die(Errc::corrupt, "not a QMP greeting: " + shorten(line));
        greeting_ = version_text(greeting->get_object());
        greeted_ = true;
    }
    if (auto r = execute("qmp_capabilities", R"({"execute":"qmp_capabilities"})", deadline); !r) return r.error();
    return greeting_;
}

Result<void> QmpLink::send(std::string_view commands, std::size_t count, Deadline deadline)
{
    if (dead_) return make_error(Errc::closed, name_ + ": the channel is dead");
    COLO_CHECK(outstanding_ + count <= kMaxOutstanding);
    outstanding_ += count;
    while (!commands.empty()) {
        const ssize_t n = ::send(fd_, commands.data(), commands.size(), MSG_NOSIGNAL);
        if (n >= 0) {
            commands.remove_prefix(static_cast<std::size_t>(n));
            continue;
        }
        if (errno == EINTR) continue;
        if (errno != EAGAIN) {
            const Error error = errno_error("write", errno);
            return die(error.code, error.text);
        }
        pollfd p{fd_, POLLOUT, 0};
        if (::poll(&p, 1, poll_timeout_ms(deadline)) == 0) return die(Errc::timed_out, "does not take commands");
    }
    return {};
}

// It travels with the first byte, the rest follows without it.
Result<void> QmpLink::send_with_fd(std::string_view command, int fd, Deadline deadline)
{
    if (dead_) return make_error(Errc::closed, name_ + ": the channel is dead");
    COLO_CHECK(command.size() > 1);
    char first = command.front();
    iovec part{&first, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* const head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof fd);
    std::memcpy(CMSG_DATA(head), &fd, sizeof fd);
    while (::sendmsg(fd_, &message, MSG_NOSIGNAL) < 0) {
        if (errno == EINTR) continue;
        if (errno != EAGAIN) {
            const Error error = errno_error("write a descriptor", errno);
            return die(error.code, error.text);
        }
        pollfd p{fd_, POLLOUT, 0};
        if (::poll(&p, 1, poll_timeout_ms(deadline)) == 0) return die(Errc::timed_out, "does not take commands");
    }
    return send(command.substr(1), 1, deadline);
}

Result<void> QmpLink::fill(std::string_view what, Deadline deadline, bool wait)
{
    if (dead_) return make_error(Errc::closed, name_ + ": the channel is dead");
    // A peer that floods us with events must not outlive the deadline either.
    const Time begin = now();
    if (wait && begin > deadline) return die(Errc::timed_out, fmt::format("{}: no answer within the deadline", what));
    char chunk[16384];
    for (;;) {
        const ssize_t n = ::recv(fd_, chunk, sizeof chunk, 0);
        if (n > 0) {
            buffer_.append(chunk, static_cast<std::size_t>(n));
            return {};
        }
        if (n == 0) return die(Errc::closed, fmt::format("{}: closed by the device model", what));
        if (errno == EINTR) continue;
        if (errno != EAGAIN) {
            const Error error = errno_error(what, errno);
            return die(error.code, error.text);
        }
        if (!wait) return {};
        if (spin_ != Duration{} && now() - begin < spin_) {
            ::sched_yield();
            continue;
        }
        pollfd p{fd_, POLLIN, 0};
        const int timeout_ms = poll_timeout_ms(deadline);
        if (::poll(&p, 1, timeout_ms) == 0 && poll_timeout_ms(deadline) == 0)
            return die(Errc::timed_out, fmt::format("{}: no answer within the deadline", what));
    }
}

bool QmpLink::take_line(std::string& line)
{
    const std::size_t end = buffer_.find('\n', scanned_);
    if (end == std::string::npos) {
        scanned_ = buffer_.size();
        return false;
    }
    line.assign(buffer_, 0, end);
    buffer_.erase(0, end + 1);
    scanned_ = 0;
    return true;
}

Result<QmpLink::Message> QmpLink::dispatch(std::string_view line)
{
    if (line.size() > kMaxLine) return die(Errc::corrupt, "a line of more than 1 MiB");
    json::error_code ec;
    unsigned char room[4096];
    json::monotonic_resource memory(room, sizeof room);
    const json::value value = json::parse(json::string_view(line.data(), line.size()), ec, &memory, limits());
    if (ec || !value.is_object()) return die(Errc::corrupt, "not a QMP message: " + shorten(line));
    const json::object& object = value.get_object();
    if (const json::value* event = object.if_contains("event"); event != nullptr && event->is_string()) {
        static const json::object kEmpty;
        const json::value* data = object.if_contains("data");
        const auto name = event->get_string();
        if (on_event_)
            on_event_({name.data(), name.size()}, data != nullptr && data->is_object() ? data->get_object() : kEmpty);
        return Message::event;
    }
    const json::value* returned = object.if_contains("return");
    const json::value* error = object.if_contains("error");
    if ((returned == nullptr) == (error == nullptr) || (error != nullptr && !error->is_object()))
        return die(Errc::corrupt, "neither event nor answer: " + shorten(line));
    if (outstanding_ == 0) return die(Errc::corrupt, "an answer without a question: " + shorten(line));
    --outstanding_;
    answer_ok_ = returned != nullptr;
    answer_ = answer_ok_ ? json::serialize(*returned)
                         : fmt::format("{}: {}", text_member(error->get_object(), "class"),
                                       shorten(text_member(error->get_object(), "desc")));
    return Message::answer;
}

Result<std::string> QmpLink::receive(std::string_view what, Deadline deadline)
{
    COLO_CHECK(dead_ || outstanding_ > 0);
    std::string line;
    for (;;) {
        while (!dead_ && take_line(line)) {
            const Result<Message> message = dispatch(line);
            if (!message) return message.error();
            if (*message == Message::event) continue;
            if (!answer_ok_) return make_error(Errc::refused, fmt::format("{}: {}", what, answer_));
            return std::move(answer_);
        }
        if (buffer_.size() > kMaxLine) return die(Errc::corrupt, "a line of more than 1 MiB");
        if (auto r = fill(what, deadline, true); !r) return r.error();
    }
}

Result<std::string> QmpLink::execute(std::string_view what, std::string_view command, Deadline deadline)
{
    COLO_CHECK(dead_ || outstanding_ == 0);
    if (auto r = send(command, 1, deadline); !r) return with_context(what, r.error());
    return receive(what, deadline);
}

Result<void> QmpLink::wait_event(std::string_view what, const std::function<bool()>& done, Deadline deadline)
{
    std::string line;
    while (!done()) {
        if (take_line(line)) {
            const Result<Message> message = dispatch(line);
            if (!message) return message.error();
            COLO_CHECK(*message == Message::event);
            continue;
        }
        if (buffer_.size() > kMaxLine) return die(Errc::corrupt, "a line of more than 1 MiB");
        if (auto r = fill(what, deadline, true); !r) return r.error();
    }
    return {};
}

Result<void> QmpLink::drain()
{
    std::string line;
    for (int reads = 0; reads < 64; ++reads) {
        const std::size_t before = buffer_.size();
        if (auto r = fill("drain", Deadline{}, false); !r) return r.error();
        const bool more = buffer_.size() != before;
        while (take_line(line)) {
            const Result<Message> message = dispatch(line);
            if (!message) return message.error();
        }
        if (buffer_.size() > kMaxLine) return die(Errc::corrupt, "a line of more than 1 MiB");
        if (!more) break;
    }
    return {};
}

}  // namespace colo::qemu
