// SPDX-License-Identifier: Apache-2.0
#pragma once

// TCP between two daemons, for dedicated threads: non-blocking sockets underneath, poll(2) with a deadline on top.
// No call waits beyond its deadline. A socket whose call timed out half-way through a frame is out of step: close it.
//
// Threads: one reader and one writer thread per socket at a time. shutdown_socket() from any thread wakes both.

#include "core/error.h"
#include "core/types.h"

#include <sys/uio.h>

#include <cstdint>
#include <span>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace colo {

// Owns a file descriptor.
class Fd {
public:
    Fd() = default;
    explicit Fd(int fd) : fd_(fd) {}
    Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Fd& operator=(Fd&& other) noexcept
    {
        if (this != &other) {
            reset();
            fd_ = std::exchange(other.fd_, -1);
        }
        return *this;
    }
    ~Fd() { reset(); }
    int get() const { return fd_; }
    bool valid() const { return fd_ >= 0; }
    int release() { return std::exchange(fd_, -1); }
    void reset();

private:
    int fd_ = -1;
};

struct TcpUri {
    std::string host;  // name or address, without brackets; "" and "*" mean any (listen only)
    std::uint16_t port = 0;
    std::uint16_t last_port = 0;  // listen only: any free one up to this
    int family = 0;               // AF_INET, AF_INET6, or AF_UNSPEC
    bool operator==(const TcpUri&) const = default;
};
// "tcp:HOST:PORT", "tcp:[V6]:PORT", with options as in core/inet_address.h. keep-alive changes nothing: a session's
// sockets always have it.
Result<TcpUri> parse_tcp_uri(std::string_view uri);
std::string to_string(const TcpUri& uri);  // without options

inline constexpr std::string_view kUnixScheme = "unix:";

struct SocketOptions {
    int buffer_bytes = 4 << 20;        // send and receive, where privileges allow; else the kernel tunes
    // TCP_USER_TIMEOUT: data that is not acknowledged, or that the peer leaves unread in a full window, although it lives.
    Duration user_timeout{5'000'000};
    Duration keepalive{1'000'000};     // idle before the first probe, and between probes
};

// Where a session is dialled or awaited: "tcp:HOST:PORT" or "unix:PATH" (two daemons on one host, or a tunnel).
Result<void> check_session_uri(std::string_view uri);

// By either kind of address. Name look-up included in the deadline. The socket is non-blocking, close-on-exec, TCP_NODELAY.
Result<Fd> connect_session(std::string_view uri, Deadline deadline, const SocketOptions& options = {});
Result<void> apply_socket_options(int fd, const SocketOptions& options);

class Listener {
public:
    // Port 0 picks one; uri() has the real one. A socket file that is there already is replaced, and goes with the
    // listener.
    static Result<Listener> open(std::string_view uri, const SocketOptions& options = {});
    // Errc::timed_out at the deadline.
    Result<Fd> accept(Deadline deadline, std::string* peer = nullptr);
    int fd() const { return fd_.get(); }
    const std::string& uri() const { return uri_; }

private:
    struct SocketFile {
        explicit SocketFile(std::string p) : path(std::move(p)) {}
        SocketFile(const SocketFile&) = delete;
        SocketFile& operator=(const SocketFile&) = delete;
        ~SocketFile();
        std::string path;
    };
    Listener(Fd fd, std::string uri, const SocketOptions& options, std::unique_ptr<SocketFile> file = nullptr)
        : fd_(std::move(fd)), file_(std::move(file)), uri_(std::move(uri)), options_(options)
    {
    }
    static Result<Listener> open_unix(const std::string& path, const SocketOptions& options);
    Fd fd_;
    std::unique_ptr<SocketFile> file_;
    std::string uri_;
    SocketOptions options_;
};

// Everything or an error. Errc::closed: the peer is gone.
Result<void> send_all(int fd, std::span<const iovec> parts, Deadline deadline);
Result<void> send_all(int fd, ByteView data, Deadline deadline);
// At least one byte. Errc::closed with text "closed by the peer" at a clean end.
Result<std::size_t> recv_some(int fd, std::span<std::uint8_t> buffer, Deadline deadline);
// Fills the buffer.
Result<void> recv_all(int fd, std::span<std::uint8_t> buffer, Deadline deadline);
// Wakes whoever waits on the socket, with Errc::closed. Any thread; the descriptor stays open.
void shutdown_socket(int fd);

}  // namespace colo
