// SPDX-License-Identifier: Apache-2.0
#include "proxy/packet.h"
#include "proxy/tap_device.h"
#include "proxy/wire.h"

#include <linux/if_tun.h>
#include <sys/ioctl.h>

#include <cerrno>

namespace colo::proxy {
namespace {

class TapWire final : public WirePort {
public:
    TapWire(std::string name, std::string bridge, FileDescriptor fd)
        : name_(std::move(name)), bridge_(std::move(bridge)), fd_(std::move(fd)), buffer_(kMaxFrameSize + 64)
    {
    }

    int poll_fd() const override { return fd_.get(); }
    Result<std::size_t> receive(std::size_t max, const std::function<void(FramePtr)>& take) override;
    Result<SendResult> send(ByteView frame) override;
    PortStats stats() const override { return stats_; }
    std::string name() const override { return "tap:" + name_ + (bridge_.empty() ? "" : "@" + bridge_); }
    Result<void> set_up(bool up) override;
    bool carrier() const override { return up_; }
    std::string host_interface() const override { return bridge_; }

private:
    std::string name_, bridge_;
    FileDescriptor fd_;
    Bytes buffer_;
    PortStats stats_;
    bool up_ = false;
};

Result<std::size_t> TapWire::receive(std::size_t max, const std::function<void(FramePtr)>& take)
{
    std::size_t n = 0;
    while (up_ && n < max) {
        const ssize_t size = ::read(fd_.get(), buffer_.data(), buffer_.size());
        if (size < 0) {
            if (errno == EAGAIN || errno == EINTR || errno == EIO) return n;  // EIO: the interface is down
            return errno_error("read " + name_, errno);
        }
        ++n;
        if (static_cast<std::size_t>(size) < kVnetHeaderSize + kEthernetHeaderSize ||
            static_cast<std::size_t>(size) > kMaxFrameSize) {
            ++stats_.dropped_invalid;
            continue;
        }
        ++stats_.received;
        take(make_frame(Bytes(buffer_.begin(), buffer_.begin() + size)));
    }
    return n;
}

Result<SendResult> TapWire::send(ByteView frame)
{
    if (!up_ || frame.size() < kVnetHeaderSize + kEthernetHeaderSize) {
        ++stats_.dropped_invalid;
        return SendResult::dropped;
    }
    if (::write(fd_.get(), frame.data(), frame.size()) >= 0) {
        ++stats_.sent;
        return SendResult::sent;
    }
    if (errno == EAGAIN || errno == ENOBUFS || errno == EINTR) return SendResult::full;
    if (errno == ENOMEM || errno == EIO) {
        ++stats_.dropped_full;
        return SendResult::dropped;
    }
    if (errno == EINVAL || errno == EMSGSIZE) {
        ++stats_.dropped_invalid;
        return SendResult::dropped;
    }
    return errno_error("write " + name_, errno);
}

Result<void> TapWire::set_up(bool up)
{
    if (up == up_) return {};
    if (auto r = set_interface_up(name_, up, false); !r) return r.error();
    if (!up) {
        up_ = false;
        while (::read(fd_.get(), buffer_.data(), buffer_.size()) > 0) continue;
        return {};
    }
    if (!bridge_.empty())
        if (auto r = join_bridge(name_, bridge_); !r) return r.error();
    up_ = true;
    return {};
}

}  // namespace

Result<std::unique_ptr<WirePort>> make_tap_wire(const std::string& name, const std::string& bridge)
{
    auto fd = open_tap(name);
    if (!fd) return fd.error();
    // The host may leave checksums and segmentation to us; they go to the guest, or to the next wire, as they are.
    const unsigned offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
    if (::ioctl(fd->get(), TUNSETOFFLOAD, offloads) != 0) return errno_error("offloads of " + name, errno);
    (void)write_setting("/proc/sys/net/ipv6/conf/" + name + "/disable_ipv6", "1");
    return std::unique_ptr<WirePort>(std::make_unique<TapWire>(name, bridge, std::move(*fd)));
}

}  // namespace colo::proxy
