// SPDX-License-Identifier: Apache-2.0
#include "qmp/client.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

namespace colo::qmp {
namespace {

Result<void> wait_for(int fd, short events, Deadline deadline)
{
    for (;;) {
        pollfd entry{fd, events, 0};
        const int ready = ::poll(&entry, 1, poll_timeout_ms(deadline));
        if (ready > 0) return {};
        if (ready < 0 && errno != EINTR) return errno_error("wait for the daemon", errno);
        if (now() >= deadline) return make_error(Errc::timed_out, "no answer in time");
    }
}

Result<void> connect_socket(int fd, const std::string& path, Deadline deadline)
{
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) return make_error(Errc::invalid, path + ": the path is too long");
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    while (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        // A full backlog is EAGAIN on a Unix socket, and there is nothing to poll for.
        if (errno == EINTR || (errno == EAGAIN && now() < deadline)) {
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
            continue;
        }
        return errno == EAGAIN ? make_error(Errc::timed_out, path + ": no answer in time") : errno_error(path, errno);
    }
    return {};
}

}  // namespace

Client::Client(Client&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      greeting_(std::move(other.greeting_)),
      parser_(std::move(other.parser_)),
      input_(std::move(other.input_)),
      events_(std::move(other.events_)),
      error_class_(std::move(other.error_class_)),
      last_id_(other.last_id_)
{
}

Client::~Client()
{
    if (fd_ >= 0) ::close(fd_);
}

Result<Client> Client::connect(const std::string& path, Deadline deadline)
{
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return errno_error("create a socket", errno);
    Client client(fd);
    if (auto connected = connect_socket(fd, path, deadline); !connected) return connected.error();
    auto greeting = client.read(deadline);
    if (!greeting) return with_context(path, greeting.error());
    if (!greeting->contains("QMP")) return make_error(Errc::corrupt, path + ": does not speak QMP");
    client.greeting_ = std::move(*greeting);
    return client;
}

Result<void> Client::negotiate(Deadline deadline)
{
    auto answer = execute("qmp_capabilities", {}, deadline);
    if (!answer) return answer.error();
    return {};
}

Result<void> Client::write(std::string_view bytes, Deadline deadline)
{
    while (!bytes.empty()) {
        const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (sent > 0) {
            bytes.remove_prefix(static_cast<std::size_t>(sent));
        } else if (errno == EAGAIN) {
            if (auto ready = wait_for(fd_, POLLOUT, deadline); !ready) return ready.error();
        } else if (errno != EINTR) {
            return errno_error("send to the daemon", errno);
        }
    }
    return {};
}

Result<schema::Object> Client::read(Deadline deadline)
{
    for (;;) {
        std::string_view rest = input_;
        auto message = parser_.next(rest);
        input_.erase(0, input_.size() - rest.size());
        if (message) {
            const schema::Object* object = *message ? (*message)->as_object() : nullptr;
            if (object == nullptr) return make_error(Errc::corrupt, "the daemon's answer is no JSON object");
            return *object;
        }
        char buffer[65536];
        const ssize_t size = ::recv(fd_, buffer, sizeof buffer, 0);
        if (size > 0) {
            input_.append(buffer, static_cast<std::size_t>(size));
        } else if (size == 0) {
            return make_error(Errc::closed, "the daemon closed the connection");
        } else if (errno == EAGAIN) {
            if (auto ready = wait_for(fd_, POLLIN, deadline); !ready) return ready.error();
        } else if (errno != EINTR) {
            return errno_error("read from the daemon", errno);
        }
    }
}

void Client::queue_event(schema::Object message)
{
    const schema::Value* name = message.find("event");
    const std::string* text = name != nullptr ? name->as_string() : nullptr;
    if (text == nullptr) return;
    if (events_.size() >= kMaxQueuedEvents) events_.pop_front();
    events_.push_back({*text, std::move(message)});
}

Result<schema::Value> Client::execute(const std::string& command, schema::Object arguments, Deadline deadline)
{
    const std::int64_t id = ++last_id_;
    schema::Object request{{"execute", command}, {"arguments", std::move(arguments)}, {"id", id}};
    if (auto written = write(to_json(request) + "\r\n", deadline); !written) return written.error();
    return wait_answer(id, deadline);
}

Result<schema::Value> Client::wait_answer(std::int64_t id, Deadline deadline)
{
    for (;;) {
        auto message = read(deadline);
        if (!message) return message.error();
        if (message->contains("event")) {
            queue_event(std::move(*message));
            continue;
        }
        const schema::Value* echoed = message->find("id");
        if (echoed == nullptr || *echoed != schema::Value(id))
            return make_error(Errc::corrupt, "the daemon answered something else");
        if (const schema::Value* result = message->find("return")) return *result;
        const schema::Value* error = message->find("error");
        const schema::Value* text = error != nullptr ? error->find("desc") : nullptr;
        const schema::Value* which = error != nullptr ? error->find("class") : nullptr;
        if (text == nullptr || which == nullptr || text->as_string() == nullptr || which->as_string() == nullptr)
            return make_error(Errc::corrupt, "the daemon's answer is neither result nor error");
        error_class_ = *which->as_string();
        return make_error(Errc::refused, *text->as_string());
    }
}

Result<Event> Client::next_event(Deadline deadline)
{
    while (events_.empty()) {
        auto message = read(deadline);
        if (!message) return message.error();
        queue_event(std::move(*message));
    }
    Event event = std::move(events_.front());
    events_.pop_front();
    return event;
}

}  // namespace colo::qmp
