// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/error.h"

#include <cstdint>
#include <string>
#include <string_view>

namespace colo::qmp {

// A listening, non-blocking Unix stream socket. Mode and group are set before anybody can connect. A socket file that
// nobody serves is replaced; anything else at that path is an error. `inode` identifies our file for later removal.
struct ListenSocket {
    int fd = -1;
    std::uint64_t inode = 0;
};
Result<ListenSocket> open_listen_socket(const std::string& path, unsigned mode, const std::string& group);

// The same on `tcp:HOST:PORT`, where HOST is a number, [IPv6] in brackets, or localhost: no name is looked up. Who may
// connect to a host can connect to it, so anything but the loopback interface is refused unless `allow_remote`.
Result<ListenSocket> open_tcp_listen_socket(std::string_view uri, bool allow_remote);
// The checks of it that need no socket.
Result<void> check_tcp_listen_uri(std::string_view uri, bool allow_remote);
// `tcp:HOST:PORT` as it is bound; for port 0 the one that was chosen.
std::string bound_tcp_uri(int fd);

// Removes the file if it is still ours.
void remove_listen_socket(const std::string& path, std::uint64_t inode);

}  // namespace colo::qmp
