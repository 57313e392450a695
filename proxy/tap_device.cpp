// SPDX-License-Identifier: Apache-2.0
#include "proxy/tap_device.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace colo::proxy {
namespace {

Result<ifreq> request_for(const std::string& name)
{
    ifreq request{};
    if (name.empty() || name.size() >= IFNAMSIZ)
        return make_error(Errc::invalid, "interface name '" + name + "' is empty or longer than 15 characters");
    std::memcpy(request.ifr_name, name.data(), name.size());
    return request;
}

Result<void> interface_call(const std::string& name, unsigned long call, ifreq& request, const char* what)
{
    const FileDescriptor socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!socket.valid()) return errno_error("socket", errno);
    if (::ioctl(socket.get(), call, &request) != 0) return errno_error(std::string(what) + " of " + name, errno);
    return {};
}

}  // namespace

Result<FileDescriptor> open_tap(const std::string& name)
{
    auto request = request_for(name);
    if (!request) return request.error();
    FileDescriptor fd(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
    if (!fd.valid()) return errno_error("open /dev/net/tun", errno);
    request->ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    if (::ioctl(fd.get(), TUNSETIFF, &*request) != 0)
        return errno_error("create tap " + name + " (CAP_NET_ADMIN needed)", errno);
    return fd;
}

Result<void> set_interface_up(const std::string& name, bool up, bool no_arp)
{
    auto request = request_for(name);
    if (!request) return request.error();
    if (auto r = interface_call(name, SIOCGIFFLAGS, *request, "read flags"); !r) return r.error();
    int flags = request->ifr_flags;
    flags = up ? flags | IFF_UP : flags & ~IFF_UP;
    if (no_arp) flags |= IFF_NOARP;
    request->ifr_flags = static_cast<short>(flags);
    return interface_call(name, SIOCSIFFLAGS, *request, "set flags");
}

Result<void> set_interface_mtu(const std::string& name, int mtu)
{
    auto request = request_for(name);
    if (!request) return request.error();
    request->ifr_mtu = mtu;
    return interface_call(name, SIOCSIFMTU, *request, "set MTU");
}

Result<void> set_transmit_queue(const std::string& name, int frames)
{
    auto request = request_for(name);
    if (!request) return request.error();
    request->ifr_qlen = frames;
    return interface_call(name, SIOCSIFTXQLEN, *request, "set queue length");
}

Result<void> join_bridge(const std::string& name, const std::string& bridge)
{
    auto request = request_for(bridge);
    if (!request) return request.error();
    request->ifr_ifindex = static_cast<int>(::if_nametoindex(name.c_str()));
    const auto joined = interface_call(bridge, SIOCBRADDIF, *request, ("join " + name + " to bridge").c_str());
    if (!joined && errno == EBUSY) return {};  // it is in one already; ours from an earlier run
    return joined;
}

Result<void> write_setting(const std::string& path, const std::string& value)
{
    const FileDescriptor fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    if (!fd.valid()) return errno_error("open " + path, errno);
    if (::write(fd.get(), value.data(), value.size()) < 0) return errno_error("write " + path, errno);
    return {};
}

}  // namespace colo::proxy
