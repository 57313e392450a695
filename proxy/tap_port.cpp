// SPDX-License-Identifier: Apache-2.0
#include "proxy/packet.h"
#include "proxy/packet_socket.h"
#include "proxy/tap_device.h"

#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <optional>
#include <thread>

namespace colo::proxy {
namespace {

// Frames that the guest has not read yet; more wait in front of the port.
constexpr int kGuestQueueFrames = 512;
constexpr int kLargestMtu = 65521;

class TapPort final : public FramePort {
public:
    TapPort(std::string name, std::uint8_t nic, FileDescriptor tap, PacketSocket socket)
        : name_(std::move(name)),
          nic_(nic),
          tap_(std::move(tap)),
          socket_(std::move(socket)),
          buffer_(kMaxFrameSize + 64)
    {
    }

    int poll_fd() const override { return socket_.fd(); }
    Result<std::size_t> receive(std::size_t max, const std::function<void(FramePtr)>& take) override
    {
        return socket_.receive(max, take);
    }
    Result<SendResult> send(ByteView frame) override;
    PortStats stats() const override
    {
        PortStats stats = socket_.stats();
        stats.dropped_invalid += refused_;
        return stats;
    }
    std::string name() const override { return "tap:" + name_; }
    int guest_fd() const override { return tap_.get(); }
    std::string netdev_argument(int fd_in_guest) const override
    {
        return "tap,id=net" + std::to_string(nic_) + ",fd=" + std::to_string(fd_in_guest) + ",vhost=off";
    }
    Result<void> attach(Time) override { return {}; }  // the device model inherits the descriptor
    Result<std::vector<FramePtr>> take_unread() override;

private:
    std::string name_;
    std::uint8_t nic_;
    FileDescriptor tap_;   // shared with the device model
    PacketSocket socket_;  // the other end of the cable
    Bytes buffer_;
    std::uint64_t refused_ = 0;
};

// Refused although the guest has read everything: it is not the room that is missing. The guest's device does not take
// such a frame (a large segment, without the offload).
Result<SendResult> TapPort::send(ByteView frame)
{
    const auto sent = socket_.send(frame);
    if (!sent || *sent != SendResult::full) return sent;
    pollfd unread{tap_.get(), POLLIN, 0};
    if (::poll(&unread, 1, 0) != 0) return SendResult::full;
    ++refused_;
    return SendResult::dropped;
}

// Reads what the device model would have read. It may have set a longer vnet header (12 bytes with merged receive
// buffers); the first ten bytes are the same.
Result<std::vector<FramePtr>> TapPort::take_unread()
{
    int header = kVnetHeaderSize;
    if (::ioctl(tap_.get(), TUNGETVNETHDRSZ, &header) != 0) return errno_error("vnet header size of " + name_, errno);
    if (header < static_cast<int>(kVnetHeaderSize) || header > 32)
        return make_error(Errc::invalid, "vnet header size of " + name_ + " is " + std::to_string(header));
    const auto skip = static_cast<std::size_t>(header);
    std::vector<FramePtr> frames;
    for (int n = 0; n < 4 * kGuestQueueFrames; ++n) {
        const ssize_t size = ::read(tap_.get(), buffer_.data(), buffer_.size());
        if (size < 0) {
            if (errno == EINTR) continue;
            if (errno == EAGAIN) return frames;
            return errno_error("read " + name_, errno);
        }
        if (static_cast<std::size_t>(size) < skip + kEthernetHeaderSize) continue;
        Bytes bytes(buffer_.begin(), buffer_.begin() + kVnetHeaderSize);
        bytes.insert(bytes.end(), buffer_.begin() + header, buffer_.begin() + size);
        frames.push_back(make_frame(std::move(bytes)));
    }
    return make_error(Errc::limit, name_ + " does not run empty: is the guest really stopped?");
}

Result<std::unique_ptr<FramePort>> make_in_new_namespace(const std::string& name, std::uint8_t nic)
{
    if (::unshare(CLONE_NEWNET) != 0) return errno_error("private network namespace (CAP_SYS_ADMIN needed)", errno);
    // The kernel must not say a word of its own on this cable.
    (void)write_setting("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
    (void)write_setting("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    auto tap = open_tap(name);
    if (!tap) return tap.error();
    if (auto r = set_interface_mtu(name, kLargestMtu); !r) return r.error();
    if (auto r = set_transmit_queue(name, kGuestQueueFrames); !r) return r.error();
    if (auto r = set_interface_up(name, true, true); !r) return r.error();
    auto socket = PacketSocket::open(name, PacketSocket::Transmit::direct);
    if (!socket) return socket.error();
    if (auto r = socket->listen(true); !r) return r.error();
    return std::unique_ptr<FramePort>(std::make_unique<TapPort>(name, nic, std::move(*tap), std::move(*socket)));
}

}  // namespace

// A thread of its own enters the namespace; the socket and the tap keep the namespace alive after it ended.
Result<std::unique_ptr<FramePort>> make_tap_port(const std::string& name, std::uint8_t nic)
{
    std::optional<Result<std::unique_ptr<FramePort>>> result;
    std::thread([&] { result.emplace(make_in_new_namespace(name, nic)); }).join();
    if (!*result) return with_context("frame port " + name, result->error());
    return std::move(*result);
}

}  // namespace colo::proxy
