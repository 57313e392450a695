// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/load/flow.h"

#include <arpa/inet.h>
#include <cerrno>
#include <cstring>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdexcept>
#include <sys/socket.h>
#include <unistd.h>

namespace colo::load {

const char* to_string(FlowState state)
{
    switch (state) {
    case FlowState::connecting: return "connecting";
    case FlowState::open: return "open";
    case FlowState::finished: return "finished";
    case FlowState::lost: return "lost";
    }
    return "?";
}

double number(const Settings& settings, const std::string& name, double fallback)
{
    const auto found = settings.find(name);
    if (found == settings.end()) return fallback;
    std::size_t used = 0;
    double value = 0;
    try {
        value = std::stod(found->second, &used);
    } catch (const std::exception&) {
        used = 0;
    }
    if (used != found->second.size() || !std::isfinite(value) || value < 0)
        throw std::invalid_argument(name + "='" + found->second + "' is not a number >= 0");
    return value;
}

Flow::~Flow() { close_descriptor(); }

void Flow::close_descriptor()
{
    if (descriptor_ >= 0) ::close(descriptor_);
    descriptor_ = -1;
}

void Flow::mark()
{
    stats_.latency.clear();
    stats_.gap.mark();
}

bool Flow::open_stream(std::uint16_t port, Microseconds now) { return open_socket(SOCK_STREAM, port, now); }
bool Flow::open_datagram(std::uint16_t port, Microseconds now) { return open_socket(SOCK_DGRAM, port, now); }

bool Flow::open_socket(int type, std::uint16_t port, Microseconds now)
{
    close_descriptor();
    descriptor_ = ::socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (descriptor_ < 0) {
        lose(std::string("socket: ") + std::strerror(errno), now);
        return false;
    }
    if (type == SOCK_STREAM) {
        const int one = 1;
        ::setsockopt(descriptor_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    if (::inet_pton(AF_INET, guest_.c_str(), &address.sin_addr) != 1) {
        lose("address '" + guest_ + "' is not an IPv4 address", now);
        return false;
    }
    if (::connect(descriptor_, reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0 && errno != EINPROGRESS) {
        lose(std::string("connect: ") + std::strerror(errno), now);
        return false;
    }
    stats_.state = type == SOCK_STREAM ? FlowState::connecting : FlowState::open;
    stats_.gap.expect(now);
    return true;
}

bool Flow::established(Microseconds now)
{
    if (stats_.state == FlowState::open) return true;
    if (stats_.state != FlowState::connecting) return false;
    int error = 0;
    socklen_t length = sizeof error;
    ::getsockopt(descriptor_, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0) {
        lose(std::string("connect: ") + std::strerror(error), now);
        return false;
    }
    stats_.state = FlowState::open;
    stats_.gap.progress(now);
    return true;
}

void Flow::lose(const std::string& why, Microseconds now)
{
    if (stats_.problem.empty()) stats_.problem = why;
    stats_.state = FlowState::lost;
    stats_.lost_at = now;
    stats_.gap.idle(now);
    close_descriptor();
}

void Flow::finish(Microseconds now)
{
    stats_.state = FlowState::finished;
    stats_.gap.idle(now);
    close_descriptor();
}

void Flow::wrong(std::uint64_t bytes, const std::string& what)
{
    stats_.wrong_bytes += bytes;
    if (stats_.problem.empty()) stats_.problem = what;
}

std::unique_ptr<Flow> make_flow(const std::string& kind, const std::string& guest, const Settings& settings)
{
    if (kind == "echo") return make_echo(guest, settings);
    if (kind == "differing") return make_differing(guest, settings);
    if (kind == "connect") return make_connect(guest, settings);
    if (kind == "udp") return make_datagram(guest, settings);
    if (kind == "upload") return make_upload(guest, settings);
    if (kind == "download") return make_download(guest, settings);
    return nullptr;
}

}  // namespace colo::load
