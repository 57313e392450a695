// SPDX-License-Identifier: Apache-2.0
#include "core/clock.h"
#include "proxy/file_descriptor.h"
#include "proxy/packet.h"
#include "proxy/port.h"
#include "proxy/segment.h"

#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <deque>

namespace colo::proxy {
namespace {

constexpr std::size_t kLengthSize = 4;
constexpr std::size_t kLargestFrame = kMaxFrameSize - kVnetHeaderSize;
constexpr std::size_t kReadBytes = 1u << 18;
constexpr std::size_t kMaxUnread = 4096;

// QEMU listens (`server=on`) and accepts the next client after the last one left, so both sides may restart.
class StreamPort final : public FramePort {
public:
    StreamPort(std::string path, std::uint8_t nic) : path_(std::move(path)), nic_(nic) {}

    int poll_fd() const override { return fd_.get(); }
    Result<std::size_t> receive(std::size_t max, const std::function<void(FramePtr)>& take) override;
    Result<SendResult> send(ByteView frame) override;
    PortStats stats() const override { return stats_; }
    std::string name() const override { return "stream:" + path_; }
    int guest_fd() const override { return -1; }
    std::string netdev_argument(int) const override
    {
        return "stream,id=net" + std::to_string(nic_) + ",server=on,addr.type=unix,addr.path=" + path_;
    }
    Result<void> attach(Time deadline) override;
    Result<bool> flush() override;
    Result<std::vector<FramePtr>> take_unread() override;

private:
    Result<bool> fill();
    Result<void> put(Bytes frame);
    bool next_frame(FramePtr& frame);
    bool drained() const;

    std::string path_;
    std::uint8_t nic_;
    FileDescriptor fd_;
    Bytes in_;
    std::size_t in_begin_ = 0, in_end_ = 0;
    Bytes out_;                    // the rest of a frame, or of its segments, of which a part was written
    std::deque<FramePtr> unread_;  // sent since the socket was last seen empty
    PortStats stats_;
};

Result<void> StreamPort::attach(Time deadline)
{
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path_.size() >= sizeof address.sun_path)
        return make_error(Errc::invalid, "socket path " + path_ + " is too long");
    std::copy(path_.begin(), path_.end(), address.sun_path);
    in_.assign(kReadBytes, 0);
    in_begin_ = in_end_ = 0;
    out_.clear();
    unread_.clear();
    for (;;) {
        FileDescriptor fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
        if (!fd.valid()) return errno_error("socket", errno);
        const int buffer = 4 << 20;
        (void)::setsockopt(fd.get(), SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof buffer);
        if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
            fd_ = std::move(fd);
            return {};
        }
        const int error = errno;
        if (now() >= deadline) return with_context("connect to the device model", errno_error(path_, error));
        ::poll(nullptr, 0, 5);  // it is starting
    }
}

bool StreamPort::drained() const
{
    int queued = 0;
    return out_.empty() && ::ioctl(fd_.get(), SIOCOUTQ, &queued) == 0 && queued == 0;
}

Result<bool> StreamPort::flush()
{
    if (out_.empty() || !fd_.valid()) return true;
    const ssize_t n = ::send(fd_.get(), out_.data(), out_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return false;
    if (n < 0) return errno_error("send to " + path_, errno);
    out_.erase(out_.begin(), out_.begin() + n);
    return out_.empty();
}

// One frame that fits on the cable; behind what was not written yet.
Result<void> StreamPort::put(Bytes frame)
{
    finish_checksum(frame);
    std::array<std::uint8_t, kLengthSize> length{};
    const ByteView ethernet = ByteView(frame).subspan(kVnetHeaderSize);
    store_be32(length.data(), static_cast<std::uint32_t>(ethernet.size()));
    std::size_t written = 0;
    if (out_.empty()) {
        std::array<iovec, 2> parts{{{length.data(), length.size()}, {frame.data() + kVnetHeaderSize, ethernet.size()}}};
        msghdr message{};
        message.msg_iov = parts.data();
        message.msg_iovlen = parts.size();
        const ssize_t n = ::sendmsg(fd_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR) return errno_error("send to " + path_, errno);
        written = static_cast<std::size_t>(std::max<ssize_t>(n, 0));
    }
    if (written < kLengthSize) {
        out_.insert(out_.end(), length.begin() + static_cast<std::ptrdiff_t>(written), length.end());
        written = kLengthSize;
    }
    out_.insert(out_.end(), ethernet.begin() + static_cast<std::ptrdiff_t>(written - kLengthSize), ethernet.end());
    unread_.push_back(make_frame(std::move(frame)));
    ++stats_.sent;
    return {};
}

Result<SendResult> StreamPort::send(ByteView frame)
{
    if (!fd_.valid()) {
        ++stats_.dropped_full;
        return SendResult::dropped;
    }
    const bool large = frame.size() > kVnetHeaderSize && frame[1] != kVnetGsoNone;
    if (!large && (frame.size() < kVnetHeaderSize + kEthernetHeaderSize || frame.size() > kMaxFrameSize)) {
        ++stats_.dropped_invalid;
        return SendResult::dropped;
    }
    if (drained()) unread_.clear();
    const auto flushed = flush();
    if (!flushed) return flushed.error();
    if (!*flushed || unread_.size() >= kMaxUnread) return SendResult::full;
    if (!large) {
        if (auto r = put(Bytes(frame.begin(), frame.end())); !r) return r.error();
        return SendResult::sent;
    }
    // No offload on this cable: what a network card would do is done here.
    auto segments = segment_tcp4(frame);
    if (segments.empty()) {
        ++stats_.dropped_invalid;
        return SendResult::dropped;
    }
    for (Bytes& segment : segments)
        if (auto r = put(std::move(segment)); !r) return r.error();
    return SendResult::sent;
}

Result<bool> StreamPort::fill()
{
    if (in_begin_ > 0) {
        std::copy(in_.begin() + static_cast<std::ptrdiff_t>(in_begin_),
                  in_.begin() + static_cast<std::ptrdiff_t>(in_end_), in_.begin());
        in_end_ -= in_begin_;
        in_begin_ = 0;
    }
    const ssize_t n = ::recv(fd_.get(), in_.data() + in_end_, in_.size() - in_end_, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return false;
    if (n < 0) return errno_error("receive from " + path_, errno);
    if (n == 0) return make_error(Errc::closed, path_ + ": closed by the device model");
    in_end_ += static_cast<std::size_t>(n);
    return true;
}

bool StreamPort::next_frame(FramePtr& frame)
{
    if (in_end_ - in_begin_ < kLengthSize) return false;
    const std::size_t size = load_be32(in_.data() + in_begin_);
    if (in_end_ - in_begin_ - kLengthSize < size) return false;
    Bytes bytes(kVnetHeaderSize, 0);
    const auto at = in_.begin() + static_cast<std::ptrdiff_t>(in_begin_ + kLengthSize);
    bytes.insert(bytes.end(), at, at + static_cast<std::ptrdiff_t>(size));
    in_begin_ += kLengthSize + size;
    frame = make_frame(std::move(bytes));
    return true;
}

Result<std::size_t> StreamPort::receive(std::size_t max, const std::function<void(FramePtr)>& take)
{
    if (!fd_.valid()) return std::size_t{0};
    if (const auto flushed = flush(); !flushed) return flushed.error();
    std::size_t n = 0;
    while (n < max) {
        FramePtr frame;
        if (next_frame(frame)) {
            ++n;
            ++stats_.received;
            take(std::move(frame));
            continue;
        }
        if (in_end_ - in_begin_ >= kLengthSize && load_be32(in_.data() + in_begin_) > kLargestFrame)
            return make_error(Errc::corrupt, path_ + ": the device model sent a frame of impossible length");
        const auto more = fill();
        if (!more) {
            fd_.reset();
            return more.error();
        }
        if (!*more) break;
    }
    return n;
}

// The socket cannot be emptied from here: the device model will still read these frames, the guest gets them twice.
Result<std::vector<FramePtr>> StreamPort::take_unread()
{
    if (!fd_.valid() || drained()) unread_.clear();
    std::vector<FramePtr> frames(unread_.begin(), unread_.end());
    unread_.clear();
    return frames;
}

}  // namespace

Result<std::unique_ptr<FramePort>> make_stream_port(const std::string& socket_path, std::uint8_t nic)
{
    return std::unique_ptr<FramePort>(std::make_unique<StreamPort>(socket_path, nic));
}

}  // namespace colo::proxy
