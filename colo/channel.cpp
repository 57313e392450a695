// SPDX-License-Identifier: Apache-2.0
#include "colo/channel.h"

#include "core/clock.h"
#include "core/inet_address.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

namespace colo {
namespace {

struct Address {
    sockaddr_storage storage{};
    socklen_t length = 0;
    const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

struct AddressListFree {
    void operator()(addrinfo* list) const { freeaddrinfo(list); }
};

Result<std::vector<Address>> look_up(const TcpUri& uri, int flags)
{
    addrinfo hints{};
    hints.ai_family = uri.family;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = flags | AI_NUMERICSERV;
    const bool any = uri.host.empty() || uri.host == "*";
    addrinfo* raw = nullptr;
    const int status = getaddrinfo(any ? nullptr : uri.host.c_str(), std::to_string(uri.port).c_str(), &hints, &raw);
    const std::string context = "address resolution failed for " + uri.host + ":" + std::to_string(uri.port) + ": ";
    if (status != 0) return make_error(Errc::failed, context + gai_strerror(status));
    const std::unique_ptr<addrinfo, AddressListFree> list(raw);
    std::vector<Address> addresses;
    for (const addrinfo* each = raw; each != nullptr && addresses.size() < 16; each = each->ai_next) {
        Address& address = addresses.emplace_back();
        address.length = each->ai_addrlen;
        std::copy_n(reinterpret_cast<const char*>(each->ai_addr), each->ai_addrlen,
                    reinterpret_cast<char*>(&address.storage));
    }
    if (addresses.empty()) return make_error(Errc::failed, context + "no address");
    return addresses;
}

// getaddrinfo knows no deadline: a name is looked up in a thread of its own that is left behind when it is late.
Result<std::vector<Address>> resolve(const TcpUri& uri, Deadline deadline)
{
    if (auto numeric = look_up(uri, AI_NUMERICHOST)) return numeric;
    struct Shared {
        std::mutex mutex;
        std::condition_variable done;
        std::unique_ptr<Result<std::vector<Address>>> result;
    };
    const auto shared = std::make_shared<Shared>();
    std::thread([shared, uri] {
        auto result = std::make_unique<Result<std::vector<Address>>>(look_up(uri, 0));
        const std::lock_guard lock(shared->mutex);
        shared->result = std::move(result);
        shared->done.notify_all();
    }).detach();
    std::unique_lock lock(shared->mutex);
    while (shared->result == nullptr) {
        const int wait_ms = poll_timeout_ms(deadline);
        if (wait_ms == 0)
            return make_error(Errc::timed_out, "address resolution failed for " + uri.host + ":" +
                                                   std::to_string(uri.port) + ": no answer of the name service in time");
        shared->done.wait_for(lock, std::chrono::milliseconds(wait_ms));
    }
    return std::move(*shared->result);
}

Result<void> wait_for(int fd, short events, Deadline deadline, const char* what)
{
    for (;;) {
        pollfd one{fd, events, 0};
        const int ready = poll(&one, 1, poll_timeout_ms(deadline));
        if (ready > 0) return {};
        if (ready < 0 && errno != EINTR) return errno_error(what, errno);
        if (ready == 0 && deadline <= now()) return make_error(Errc::timed_out, std::string(what) + ": timed out");
    }
}

Result<void> set_option(int fd, int level, int name, int value, const char* what)
{
    if (setsockopt(fd, level, name, &value, sizeof value) != 0) return errno_error(what, errno);
    return {};
}

Result<Fd> connect_one(const Address& address, Deadline deadline, const SocketOptions& options, const std::string& context)
{
    Fd fd(socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd.valid()) return errno_error("socket", errno);
    if (auto applied = apply_socket_options(fd.get(), options); !applied) return applied.error();
    if (connect(fd.get(), address.get(), address.length) != 0) {
        if (errno != EINPROGRESS) return errno_error(context, errno);
        if (auto ready = wait_for(fd.get(), POLLOUT, deadline, context.c_str()); !ready) return ready.error();
        int status = 0;
        socklen_t length = sizeof status;
        if (getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &status, &length) != 0) return errno_error(context, errno);
        if (status != 0) return errno_error(context, status);
    }
    return fd;
}

const sockaddr* generic(const sockaddr_un& address) { return reinterpret_cast<const sockaddr*>(&address); }

Result<sockaddr_un> unix_address(const std::string& path)
{
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.empty() || path.size() >= sizeof address.sun_path || path.find('\0') != std::string::npos)
        return make_error(Errc::invalid, "\"unix:" + path.substr(0, 200) + "\" has no path of 1 to " +
                                             std::to_string(sizeof address.sun_path - 1) + " bytes");
    path.copy(address.sun_path, path.size());
    return address;
}

// At once: there is no network in between. A full backlog is an error like a refusal.
Result<Fd> connect_unix(const std::string& path)
{
    const std::string context = "Failed to connect to '" + path + "'";
    const auto address = unix_address(path);
    if (!address) return with_context(context, address.error());
    Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd.valid()) return with_context(context, errno_error("socket", errno));
    if (connect(fd.get(), generic(*address), sizeof *address) != 0) return errno_error(context, errno);
    return fd;
}

std::string name_of_address(const sockaddr_storage& storage, socklen_t length)
{
    char host[NI_MAXHOST], port[NI_MAXSERV];
    if (getnameinfo(reinterpret_cast<const sockaddr*>(&storage), length, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return "tcp:?";
    std::uint16_t number = 0;
    std::from_chars(port, port + std::char_traits<char>::length(port), number);
    return to_string(TcpUri{host, number});
}

// One that is asked for leaves out the other, and one that is switched off leaves only the other.
int family_of(std::optional<bool> ipv4, std::optional<bool> ipv6)
{
    if (ipv4 == ipv6) return AF_UNSPEC;
    const bool v6 = ipv4 == std::optional(false) || (ipv6 == std::optional(true) && ipv4 != std::optional(true));
    return v6 ? AF_INET6 : AF_INET;
}

// To the first free port from `first` to `last`. Gives the error of the last attempt, 0 if it worked.
int bind_any(int fd, Address& address, std::uint16_t first, std::uint16_t last)
{
    auto* v4 = reinterpret_cast<sockaddr_in*>(&address.storage);
    auto* v6 = reinterpret_cast<sockaddr_in6*>(&address.storage);
    for (std::uint32_t port = first;; ++port) {
        (address.storage.ss_family == AF_INET6 ? v6->sin6_port : v4->sin_port) =
            htons(static_cast<std::uint16_t>(port));
        if (bind(fd, address.get(), address.length) == 0) return 0;
        if (errno != EADDRINUSE || port >= last) return errno;
    }
}

}  // namespace

void Fd::reset()
{
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
}

Result<TcpUri> parse_tcp_uri(std::string_view uri)
{
    const auto wrong = [&](const std::string& why) {
        return make_error(Errc::invalid,
                          "\"" + std::string(uri.substr(0, 200)) + "\": " + why + " (tcp:HOST:PORT or tcp:[IP6]:PORT)");
    };
    if (!uri.starts_with("tcp:")) return wrong("it does not begin with tcp:");
    const auto address = parse_inet_address(uri.substr(4));
    if (!address) return wrong(address.error().text);
    return TcpUri{address->host, address->port, address->to.value_or(0), family_of(address->ipv4, address->ipv6)};
}

std::string to_string(const TcpUri& uri)
{
    const bool brackets = uri.host.find(':') != std::string::npos;
    return "tcp:" + (brackets ? "[" + uri.host + "]" : uri.host) + ":" + std::to_string(uri.port);
}

Result<void> apply_socket_options(int fd, const SocketOptions& options)
{
    const int user_timeout_ms =
        static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(options.user_timeout).count());
    const int keepalive_s =
        std::max(1, static_cast<int>(std::chrono::duration_cast<std::chrono::seconds>(options.keepalive).count()));
    // Only with privileges: the unprivileged options are capped low and would switch the kernel's own tuning off.
    static_cast<void>(set_option(fd, SOL_SOCKET, SO_SNDBUFFORCE, options.buffer_bytes, "SO_SNDBUFFORCE"));
    static_cast<void>(set_option(fd, SOL_SOCKET, SO_RCVBUFFORCE, options.buffer_bytes, "SO_RCVBUFFORCE"));
    struct Option {
        int level, name, value;
        const char* what;
    };
    for (const Option& each : {Option{IPPROTO_TCP, TCP_NODELAY, 1, "TCP_NODELAY"},
                               Option{IPPROTO_TCP, TCP_USER_TIMEOUT, user_timeout_ms, "TCP_USER_TIMEOUT"},
                               Option{SOL_SOCKET, SO_KEEPALIVE, 1, "SO_KEEPALIVE"},
                               Option{IPPROTO_TCP, TCP_KEEPIDLE, keepalive_s, "TCP_KEEPIDLE"},
                               Option{IPPROTO_TCP, TCP_KEEPINTVL, keepalive_s, "TCP_KEEPINTVL"},
                               Option{IPPROTO_TCP, TCP_KEEPCNT, 3, "TCP_KEEPCNT"}})
        if (auto set = set_option(fd, each.level, each.name, each.value, each.what); !set) return set;
    return {};
}

Result<void> check_session_uri(std::string_view uri)
{
    if (uri.starts_with(kUnixScheme)) {
        const auto address = unix_address(std::string(uri.substr(kUnixScheme.size())));
        return address ? Result<void>{} : address.error();
    }
    const auto tcp = parse_tcp_uri(uri);
    return tcp ? Result<void>{} : tcp.error();
}

Result<Fd> connect_session(std::string_view text, Deadline deadline, const SocketOptions& options)
{
    if (text.starts_with(kUnixScheme)) return connect_unix(std::string(text.substr(kUnixScheme.size())));
    const auto uri = parse_tcp_uri(text);
    if (!uri) return uri.error();
    if (uri->host.empty() || uri->host == "*" || uri->port == 0)
        return make_error(Errc::invalid, "connect to " + std::string(text) + ": names no host and port");
    const auto addresses = resolve(*uri, deadline);
    if (!addresses) return addresses.error();
    // Clients of the control interface know this text.
    const std::string context = "Failed to connect to '" + uri->host + ":" + std::to_string(uri->port) + "'";
    Error last = make_error(Errc::failed, context + ": no address");
    for (const Address& address : *addresses) {
        auto fd = connect_one(address, deadline, options, context);
        if (fd) return fd;
        last = fd.error();
    }
    return last;
}

Listener::SocketFile::~SocketFile()
{
    static_cast<void>(unlink(path.c_str()));
}

Result<Listener> Listener::open_unix(const std::string& path, const SocketOptions& options)
{
    const std::string uri = std::string(kUnixScheme) + path, context = "listen on " + uri;
    const auto address = unix_address(path);
    if (!address) return with_context(context, address.error());
    struct stat old {};
    if (lstat(path.c_str(), &old) == 0 && S_ISSOCK(old.st_mode)) static_cast<void>(unlink(path.c_str()));
    Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd.valid()) return with_context(context, errno_error("socket", errno));
    if (bind(fd.get(), generic(*address), sizeof *address) != 0)
        return errno_error("Failed to bind socket to " + path, errno);  // clients of the control interface know it
    auto file = std::make_unique<SocketFile>(path);
    // Whoever may connect may replace the guest's memory.
    if (chmod(path.c_str(), 0600) != 0) return with_context(context, errno_error("chmod", errno));
    if (::listen(fd.get(), 32) != 0) return with_context(context, errno_error("listen", errno));
    return Listener(std::move(fd), uri, options, std::move(file));
}

Result<Listener> Listener::open(std::string_view text, const SocketOptions& options)
{
    if (text.starts_with(kUnixScheme)) return open_unix(std::string(text.substr(kUnixScheme.size())), options);
    const auto uri = parse_tcp_uri(text);
    if (!uri) return uri.error();
    const std::string context = "listen on " + std::string(text);
    TcpUri numeric = *uri;
    if (numeric.host.empty() || numeric.host == "*") numeric.host = numeric.family == AF_INET6 ? "::" : "0.0.0.0";
    const auto addresses = look_up(numeric, AI_PASSIVE);
    if (!addresses) return addresses.error();
    Address address = addresses->front();
    Fd fd(socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd.valid()) return with_context(context, errno_error("socket", errno));
    if (auto set = set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1, "SO_REUSEADDR"); !set)
        return with_context(context, set.error());
    if (auto applied = apply_socket_options(fd.get(), options); !applied) return with_context(context, applied.error());
    if (const int error = bind_any(fd.get(), address, uri->port, uri->last_port); error != 0)
        return with_context(context, errno_error("bind", error));
    if (::listen(fd.get(), 32) != 0) return with_context(context, errno_error("listen", errno));
    sockaddr_storage bound{};
    socklen_t length = sizeof bound;
    if (getsockname(fd.get(), reinterpret_cast<sockaddr*>(&bound), &length) != 0)
        return with_context(context, errno_error("getsockname", errno));
    return Listener(std::move(fd), name_of_address(bound, length), options);
}

Result<Fd> Listener::accept(Deadline deadline, std::string* peer)
{
    for (;;) {
        sockaddr_storage from{};
        socklen_t length = sizeof from;
        Fd fd(accept4(fd_.get(), reinterpret_cast<sockaddr*>(&from), &length, SOCK_NONBLOCK | SOCK_CLOEXEC));
        if (fd.valid()) {
            if (file_) {
                if (peer != nullptr) *peer = uri_;
                return fd;
            }
            if (auto applied = apply_socket_options(fd.get(), options_); !applied) return applied.error();
            if (peer != nullptr) *peer = name_of_address(from, length);
            return fd;
        }
        const int err = errno;
        if (err == EAGAIN || err == EWOULDBLOCK) {
            if (auto ready = wait_for(fd_.get(), POLLIN, deadline, "accept"); !ready) return ready.error();
        } else if (err != EINTR && err != ECONNABORTED && err != EPROTO) {
            return errno_error("accept on " + uri_, err);
        }
    }
}

Result<void> send_all(int fd, std::span<const iovec> parts, Deadline deadline)
{
    constexpr std::size_t kPartsPerCall = 64;
    std::size_t first = 0, skip = 0;  // skip: bytes of parts[first] already sent
    while (first < parts.size()) {
        iovec window[kPartsPerCall];
        const std::size_t count = std::min(kPartsPerCall, parts.size() - first);
        std::copy_n(parts.begin() + static_cast<std::ptrdiff_t>(first), count, window);
        window[0].iov_base = static_cast<char*>(window[0].iov_base) + skip;
        window[0].iov_len -= skip;
        msghdr message{};
        message.msg_iov = window;
        message.msg_iovlen = count;
        const ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EINTR) continue;
            if (errno != EAGAIN && errno != EWOULDBLOCK) return errno_error("send", errno);
            if (auto ready = wait_for(fd, POLLOUT, deadline, "send"); !ready) return ready;
            continue;
        }
        std::size_t rest = static_cast<std::size_t>(sent) + skip;
        for (skip = 0; first < parts.size() && rest >= parts[first].iov_len; ++first) rest -= parts[first].iov_len;
        skip = rest;
    }
    return {};
}

Result<void> send_all(int fd, ByteView data, Deadline deadline)
{
    // sendmsg does not write through iov_base, it only lacks the const.
    const iovec one{const_cast<std::uint8_t*>(data.data()), data.size()};
    return send_all(fd, std::span(&one, 1), deadline);
}

Result<std::size_t> recv_some(int fd, std::span<std::uint8_t> buffer, Deadline deadline)
{
    if (buffer.empty()) return std::size_t{0};
    for (;;) {
        const ssize_t got = recv(fd, buffer.data(), buffer.size(), 0);
        if (got > 0) return static_cast<std::size_t>(got);
        if (got == 0) return make_error(Errc::closed, "closed by the peer");
        if (errno == EINTR) continue;
        if (errno != EAGAIN && errno != EWOULDBLOCK) return errno_error("receive", errno);
        if (auto ready = wait_for(fd, POLLIN, deadline, "receive"); !ready) return ready.error();
    }
}

Result<void> recv_all(int fd, std::span<std::uint8_t> buffer, Deadline deadline)
{
    while (!buffer.empty()) {
        const auto got = recv_some(fd, buffer, deadline);
        if (!got) return got.error();
        buffer = buffer.subspan(*got);
    }
    return {};
}

void shutdown_socket(int fd)
{
    static_cast<void>(shutdown(fd, SHUT_RDWR));
}

}  // namespace colo
