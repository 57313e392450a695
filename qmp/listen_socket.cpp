// SPDX-License-Identifier: Apache-2.0
#include "qmp/listen_socket.h"

#include <fcntl.h>
#include <grp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

namespace colo::qmp {
namespace {

constexpr int kBacklog = 16;

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

}  // namespace

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
