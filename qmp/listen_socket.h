// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/error.h"

#include <string>

namespace colo::qmp {

// A listening, non-blocking Unix stream socket. Mode and group are set before anybody can connect. A socket file that
// nobody serves is replaced; anything else at that path is an error. `inode` identifies our file for later removal.
struct ListenSocket {
    int fd = -1;
    std::uint64_t inode = 0;
};
Result<ListenSocket> open_listen_socket(const std::string& path, unsigned mode, const std::string& group);

// Removes the file if it is still ours.
void remove_listen_socket(const std::string& path, std::uint64_t inode);

}  // namespace colo::qmp
