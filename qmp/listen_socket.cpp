// SPDX-License-Identifier: Apache-2.0
#include "qmp/listen_socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>
#include <vector>

namespace colo::qmp {
namespace {

constexpr int kBacklog = 256;  // as many as may come at once

Result<sockaddr_un> address_of(const std::string& path)
{
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.empty() || path.size() >= sizeof address.sun_path)
        return make_error(Errc::invalid, "control socket '" + path + "': the path must have 1 to " +
                                             std::to_string(sizeof address.sun_path - 1) + " bytes");
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    return address;
}

const sockaddr* generic(const sockaddr_un& address)
{
    return reinterpret_cast<const sockaddr*>(&address);
}

Result<void> remove_abandoned(const std::string& path, const sockaddr_un& address)
{
    struct stat status {};
    if (::lstat(path.c_str(), &status) != 0)
        return errno == ENOENT ? Result<void>() : Result<void>(errno_error("control socket " + path, errno));
    if (!S_ISSOCK(status.st_mode))
        return make_error(Errc::refused, "control socket " + path + ": a file is in the way");
    const int probe = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe < 0) return errno_error("control socket " + path, errno);
    const bool served = ::connect(probe, generic(address), sizeof address) == 0 || errno == EAGAIN;
    ::close(probe);
    if (served) return make_error(Errc::refused, "control socket " + path + ": another daemon serves it");
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) return errno_error("remove old control socket " + path, errno);
    return {};
}

Result<void> set_group(const std::string& path, const std::string& group)
{
    if (group.empty()) return {};
    std::vector<char> buffer(65536);
    struct group entry {};
    struct group* found = nullptr;
    const int status = ::getgrnam_r(group.c_str(), &entry, buffer.data(), buffer.size(), &found);
    if (status != 0) return errno_error("look up group " + group, status);
    if (found == nullptr) return make_error(Errc::invalid, "control socket " + path + ": no group '" + group + "'");
    if (::chown(path.c_str(), static_cast<uid_t>(-1), entry.gr_gid) != 0)
        return errno_error("give control socket " + path + " to group " + group, errno);
    return {};
}

Result<std::uint64_t> bind_and_listen(int fd, const std::string& path, unsigned mode, const std::string& group)
{
    const auto address = address_of(path);
    if (!address) return address.error();
    if (auto removed = remove_abandoned(path, *address); !removed) return removed.error();
    if (::bind(fd, generic(*address), sizeof *address) != 0) return errno_error("bind control socket " + path, errno);
    if (auto grouped = set_group(path, group); !grouped) return grouped.error();
    if (::chmod(path.c_str(), mode) != 0) return errno_error("set mode of control socket " + path, errno);
    struct stat status {};
    if (::lstat(path.c_str(), &status) != 0) return errno_error("control socket " + path, errno);
    if (::listen(fd, kBacklog) != 0) return errno_error("listen on control socket " + path, errno);
    return static_cast<std::uint64_t>(status.st_ino);
}

struct TcpAddress {
    sockaddr_storage storage{};
    socklen_t size = 0;
    bool loopback = false;
};

bool set_host(std::string host, std::uint16_t port, TcpAddress& out)
{
    if (host == "localhost") host = "127.0.0.1";
    auto& v4 = reinterpret_cast<sockaddr_in&>(out.storage);
    auto& v6 = reinterpret_cast<sockaddr_in6&>(out.storage);
    if (::inet_pton(AF_INET, host.c_str(), &v4.sin_addr) == 1) {
        v4.sin_family = AF_INET;
        v4.sin_port = htons(port);
        out.size = sizeof v4;
        out.loopback = (ntohl(v4.sin_addr.s_addr) >> 24) == 127;
        return true;
    }
    if (host.size() < 2 || host.front() != '[' || host.back() != ']') return false;
    host = host.substr(1, host.size() - 2);
    if (::inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr) != 1) return false;
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    out.size = sizeof v6;
    out.loopback = IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr);
    return true;
}

Result<TcpAddress> tcp_address(std::string_view uri, bool allow_remote)
{
    const std::string shown(uri);
    const auto malformed = [&] {
        return make_error(Errc::invalid, "'" + shown + "' is not tcp:HOST:PORT with a numeric host or localhost");
    };
    constexpr std::string_view kScheme = "tcp:";
    const std::size_t colon = uri.rfind(':');
    if (!uri.starts_with(kScheme) || colon < kScheme.size()) return malformed();
    std::uint16_t port = 0;
    const std::string_view digits = uri.substr(colon + 1);
    const auto [end, status] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
    if (digits.empty() || status != std::errc() || end != digits.data() + digits.size()) return malformed();
    TcpAddress address;
    if (!set_host(std::string(uri.substr(kScheme.size(), colon - kScheme.size())), port, address)) return malformed();
    if (!address.loopback && !allow_remote)
        return make_error(Errc::refused,
                          "'" + shown +
                              "' is not the loopback interface: whoever can connect there has the "
                              "guest and this host's files in his hands; say so with [qmp] remote = \"allow\"");
    return address;
}

Result<void> bind_tcp(int fd, const TcpAddress& address, const std::string& uri)
{
    const int on = 1;
    ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (address.storage.ss_family == AF_INET6) ::setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (::bind(fd, reinterpret_cast<const sockaddr*>(&address.storage), address.size) != 0)
        return errno_error("bind control address " + uri, errno);
    if (::listen(fd, kBacklog) != 0) return errno_error("listen on control address " + uri, errno);
    return {};
}

}  // namespace

Result<void> check_tcp_listen_uri(std::string_view uri, bool allow_remote)
{
    const auto address = tcp_address(uri, allow_remote);
    if (!address) return address.error();
    return {};
}

Result<ListenSocket> open_tcp_listen_socket(std::string_view uri, bool allow_remote)
{
    const auto address = tcp_address(uri, allow_remote);
    if (!address) return address.error();
    const int fd = ::socket(address->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return errno_error("create control socket", errno);
    const auto bound = bind_tcp(fd, *address, std::string(uri));
    if (bound) return ListenSocket{fd, 0};
    ::close(fd);
    return bound.error();
}

std::string bound_tcp_uri(int fd)
{
    sockaddr_storage storage{};
    socklen_t size = sizeof storage;
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &size) != 0) return {};
    char host[INET6_ADDRSTRLEN] = "";
    if (storage.ss_family == AF_INET6) {
        const auto& v6 = reinterpret_cast<const sockaddr_in6&>(storage);
        ::inet_ntop(AF_INET6, &v6.sin6_addr, host, sizeof host);
        return "tcp:[" + std::string(host) + "]:" + std::to_string(ntohs(v6.sin6_port));
    }
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(storage);
    ::inet_ntop(AF_INET, &v4.sin_addr, host, sizeof host);
    return "tcp:" + std::string(host) + ":" + std::to_string(ntohs(v4.sin_port));
}

Result<ListenSocket> open_listen_socket(const std::string& path, unsigned mode, const std::string& group)
{
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return errno_error("create control socket", errno);
    const auto inode = bind_and_listen(fd, path, mode, group);
    if (inode) return ListenSocket{fd, *inode};
    ::close(fd);
    return inode.error();
}

void remove_listen_socket(const std::string& path, std::uint64_t inode)
{
    struct stat status {};
    if (::lstat(path.c_str(), &status) == 0 && S_ISSOCK(status.st_mode) && status.st_ino == inode)
        ::unlink(path.c_str());
}

}  // namespace colo::qmp
