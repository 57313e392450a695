// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "qmp/fd.h"

#include <sys/types.h>
#include <span>
#include <vector>

namespace colo::qmp {

inline constexpr std::size_t kMaxFdsPerRead = 16;  // more in one message are closed by the kernel

// What one non-blocking read gave: bytes, and the descriptors that came with them (SCM_RIGHTS).
struct Received {
    ssize_t size = 0;  // 0: the end, -1: `error`
    int error = 0;
    std::vector<Fd> fds;
};
Received receive(int fd, bool socket, std::span<char> buffer);

}  // namespace colo::qmp
