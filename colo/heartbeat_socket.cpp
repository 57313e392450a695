// SPDX-License-Identifier: Apache-2.0
#include "colo/heartbeat_socket.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <cerrno>
#include <charconv>
#include <cstring>

namespace colo {
namespace {

// "IP:PORT" or "[IP6]:PORT", numeric: a heartbeat must not wait for a name service.
Result<socklen_t> parse_endpoint(const std::string& text, sockaddr_storage& out)
{
    const auto wrong = [&] {
        return make_error(Errc::invalid, "\"" + text.substr(0, 100) + "\" is not IP:PORT or [IP6]:PORT");
    };
    const std::size_t colon = text.rfind(':');
    if (colon == std::string::npos || colon == 0) return wrong();
    std::uint16_t port = 0;
    const char* const end = text.data() + text.size();
    const auto [stopped, status] = std::from_chars(text.data() + colon + 1, end, port);
    if (status != std::errc{} || stopped != end) return wrong();
    std::string host = text.substr(0, colon);
    if (host.front() == '[' && host.back() == ']') {
        auto& v6 = reinterpret_cast<sockaddr_in6&>(out);
        v6.sin6_family = AF_INET6;
        v6.sin6_port = htons(port);
        if (inet_pton(AF_INET6, host.substr(1, host.size() - 2).c_str(), &v6.sin6_addr) != 1) return wrong();
        return static_cast<socklen_t>(sizeof v6);
    }
    auto& v4 = reinterpret_cast<sockaddr_in&>(out);
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    if (inet_pton(AF_INET, host.c_str(), &v4.sin_addr) != 1) return wrong();
    return static_cast<socklen_t>(sizeof v4);
}

}  // namespace

Result<HeartbeatSocket> HeartbeatSocket::open(const std::string& local, const std::string& peer)
{
    sockaddr_storage local_address{}, peer_address{};
    const auto local_length = parse_endpoint(local, local_address);
    if (!local_length) return local_length.error();
    const auto peer_length = parse_endpoint(peer, peer_address);
    if (!peer_length) return peer_length.error();
    const std::string context = "heartbeat path " + local + " to " + peer;
    if (local_address.ss_family != peer_address.ss_family)
        return make_error(Errc::invalid, context + ": both ends must be IPv4 or both IPv6");

    Fd fd(socket(local_address.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd.valid()) return with_context(context, errno_error("socket", errno));
    const int on = 1;
    const bool v6 = local_address.ss_family == AF_INET6;
    // A path whose interface comes up later than we do is still a path.
    if (setsockopt(fd.get(), v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_FREEBIND : IP_FREEBIND, &on, sizeof on) != 0)
        return with_context(context, errno_error("FREEBIND", errno));
    // Ahead of bulk traffic where the network or the queueing discipline looks at it; not having it is no failure.
    const int class_selector_6 = 0xc0;
    static_cast<void>(setsockopt(fd.get(), v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_TCLASS : IP_TOS, &class_selector_6,
                                 sizeof class_selector_6));
    if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&local_address), *local_length) != 0)
        return with_context(context, errno_error("bind", errno));
    return HeartbeatSocket(std::move(fd), peer_address, *peer_length);
}

void HeartbeatSocket::send(ByteView datagram) noexcept
{
    // A datagram that cannot leave is a lost beat, which is exactly what the peer will see.
    static_cast<void>(sendto(fd_.get(), datagram.data(), datagram.size(), MSG_DONTWAIT | MSG_NOSIGNAL,
                             reinterpret_cast<const sockaddr*>(&peer_), peer_length_));
}

bool HeartbeatSocket::from_peer(const sockaddr_storage& from) const noexcept
{
    if (from.ss_family != peer_.ss_family) return false;
    if (from.ss_family == AF_INET6) {
        const auto& a = reinterpret_cast<const sockaddr_in6&>(from);
        const auto& b = reinterpret_cast<const sockaddr_in6&>(peer_);
        return a.sin6_port == b.sin6_port && std::memcmp(&a.sin6_addr, &b.sin6_addr, sizeof a.sin6_addr) == 0;
    }
    const auto& a = reinterpret_cast<const sockaddr_in&>(from);
    const auto& b = reinterpret_cast<const sockaddr_in&>(peer_);
    return a.sin_port == b.sin_port && a.sin_addr.s_addr == b.sin_addr.s_addr;
}

HeartbeatSocket::Received HeartbeatSocket::receive(std::span<std::uint8_t> buffer, std::size_t& size) noexcept
{
    for (int tries = 0; tries < 8; ++tries) {
        sockaddr_storage from{};
        socklen_t length = sizeof from;
        const ssize_t got = recvfrom(fd_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT | MSG_TRUNC,
                                     reinterpret_cast<sockaddr*>(&from), &length);
        if (got >= 0) {
            size = static_cast<std::size_t>(got);
            return from_peer(from) ? Received::datagram : Received::foreign;
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK) return Received::nothing;
        // Anything else is an error of an earlier datagram that the kernel hands over here; the queue is still there.
    }
    return Received::nothing;
}

}  // namespace colo
