// SPDX-License-Identifier: Apache-2.0
#include "qmp/receive.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace colo::qmp {
namespace {

// Everything that arrived is owned at once, also what nobody will want.
void collect(const msghdr& message, std::vector<Fd>& out)
{
    auto* head = const_cast<msghdr*>(&message);
    for (cmsghdr* part = CMSG_FIRSTHDR(head); part != nullptr; part = CMSG_NXTHDR(head, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
        const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (std::size_t i = 0; i < count; ++i) {
            int fd = -1;
            std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof fd);
            out.emplace_back(fd);
        }
    }
}

Received receive_message(int fd, std::span<char> buffer)
{
    Received result;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxFdsPerRead)];
    iovec data{buffer.data(), buffer.size()};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    result.size = ::recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (result.size < 0)
        result.error = errno;
    else
        collect(message, result.fds);
    return result;
}

}  // namespace

Received receive(int fd, bool socket, std::span<char> buffer)
{
    if (socket) return receive_message(fd, buffer);
    Received result;
    result.size = ::read(fd, buffer.data(), buffer.size());
    if (result.size < 0) result.error = errno;
    return result;
}

}  // namespace colo::qmp
