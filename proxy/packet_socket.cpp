// SPDX-License-Identifier: Apache-2.0
#include "proxy/packet_socket.h"

#include "proxy/packet.h"

#include <linux/filter.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace colo::proxy {
namespace {

constexpr std::uint16_t kAllProtocols = 0x0003;  // ETH_P_ALL
constexpr int kBufferBytes = 32 << 20;

Result<void> set_option(int fd, int level, int option, const char* what, int value)
{
    if (::setsockopt(fd, level, option, &value, sizeof value) != 0) return errno_error(what, errno);
    return {};
}

}  // namespace

PacketSocket::PacketSocket(FileDescriptor fd, int index, std::string interface)
    : fd_(std::move(fd)), index_(index), interface_(std::move(interface)), buffers_(kBatch, Bytes(kMaxFrameSize + 4))
{
}

Result<PacketSocket> PacketSocket::open(const std::string& interface, Transmit transmit)
{
    const unsigned index = ::if_nametoindex(interface.c_str());
    if (index == 0) return errno_error("interface " + interface, errno);
    FileDescriptor fd(::socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));  // protocol 0: deaf
    if (!fd.valid()) return errno_error("AF_PACKET socket (CAP_NET_RAW needed)", errno);
    if (auto r = set_option(fd.get(), SOL_PACKET, PACKET_VNET_HDR, "PACKET_VNET_HDR", 1); !r) return r.error();
    if (auto r = set_option(fd.get(), SOL_PACKET, PACKET_IGNORE_OUTGOING, "PACKET_IGNORE_OUTGOING", 1); !r)
        return r.error();
    if (auto r = set_option(fd.get(), SOL_PACKET, PACKET_AUXDATA, "PACKET_AUXDATA", 1); !r) return r.error();
    // Best effort: a smaller buffer loses frames earlier, as a network may.
    if (!set_option(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, "SO_RCVBUFFORCE", kBufferBytes))
        (void)set_option(fd.get(), SOL_SOCKET, SO_RCVBUF, "SO_RCVBUF", kBufferBytes);
    if (!set_option(fd.get(), SOL_SOCKET, SO_SNDBUFFORCE, "SO_SNDBUFFORCE", kBufferBytes))
        (void)set_option(fd.get(), SOL_SOCKET, SO_SNDBUF, "SO_SNDBUF", kBufferBytes);
    if (transmit == Transmit::direct)
        (void)set_option(fd.get(), SOL_PACKET, PACKET_QDISC_BYPASS, "PACKET_QDISC_BYPASS", 1);
    PacketSocket socket(std::move(fd), static_cast<int>(index), interface);
    if (auto r = socket.listen(false); !r) return r.error();
    return socket;
}

Result<void> PacketSocket::listen(bool on)
{
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_ifindex = index_;
    address.sll_protocol = on ? htons(kAllProtocols) : 0;
    if (::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        return errno_error("bind to " + interface_, errno);
    if (!on)  // what came before belongs to the time when it was on
        while (::recv(fd_.get(), buffers_[0].data(), buffers_[0].size(), MSG_DONTWAIT) > 0) continue;
    return {};
}

Result<void> PacketSocket::set_promiscuous()
{
    packet_mreq request{};
    request.mr_ifindex = index_;
    request.mr_type = PACKET_MR_PROMISC;
    if (::setsockopt(fd_.get(), SOL_PACKET, PACKET_ADD_MEMBERSHIP, &request, sizeof request) != 0)
        return errno_error("promiscuous mode of " + interface_, errno);
    return {};
}

Result<void> PacketSocket::filter(const std::vector<std::array<std::uint8_t, 6>>& macs)
{
    if (macs.empty() || macs.size() > 32) return {};
    std::vector<sock_filter> program;
    // First octet's lowest bit: a group address.
    program.push_back(BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0));
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 1, 0, 1));
    program.push_back(BPF_STMT(BPF_RET | BPF_K, 0xffffffff));
    for (const auto& mac : macs) {
        program.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0));
        program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, load_be32(mac.data()), 0, 3));
        program.push_back(BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 4));
        program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, load_be16(mac.data() + 4), 0, 1));
        program.push_back(BPF_STMT(BPF_RET | BPF_K, 0xffffffff));
    }
    program.push_back(BPF_STMT(BPF_RET | BPF_K, 0));
    const sock_fprog code{static_cast<unsigned short>(program.size()), program.data()};
    if (::setsockopt(fd_.get(), SOL_SOCKET, SO_ATTACH_FILTER, &code, sizeof code) != 0)
        return errno_error("filter of " + interface_, errno);
    return {};
}

// The kernel takes a VLAN tag out of the frame and hands it over beside it; here it goes back in, because the guest's
// network is none of our business.
FramePtr PacketSocket::frame_from(std::size_t slot, std::size_t size, bool truncated, const void* auxiliary)
{
    if (truncated || size < kVnetHeaderSize + kEthernetHeaderSize) {
        ++stats_.dropped_invalid;
        return nullptr;
    }
    const std::uint8_t* raw = buffers_[slot].data();
    tpacket_auxdata aux{};
    if (auxiliary != nullptr) std::memcpy(&aux, auxiliary, sizeof aux);
    ++stats_.received;
    if ((aux.tp_status & TP_STATUS_VLAN_VALID) == 0) return make_frame(Bytes(raw, raw + size));
    constexpr std::size_t kMacs = kVnetHeaderSize + 12;
    Bytes bytes;
    bytes.reserve(size + 4);
    bytes.assign(raw, raw + kMacs);
    bytes.resize(kMacs + 4);
    store_be16(bytes.data() + kMacs,
               (aux.tp_status & TP_STATUS_VLAN_TPID_VALID) != 0 ? aux.tp_vlan_tpid : kEtherTypeVlan);
    store_be16(bytes.data() + kMacs + 2, aux.tp_vlan_tci);
    bytes.insert(bytes.end(), raw + kMacs, raw + size);
    const auto shift = [&bytes](std::size_t at) {  // little-endian header fields that count from the frame's start
        const auto value = static_cast<std::uint16_t>((bytes[at] | bytes[at + 1] << 8) + 4);
        bytes[at] = static_cast<std::uint8_t>(value);
        bytes[at + 1] = static_cast<std::uint8_t>(value >> 8);
    };
    if (bytes[1] != kVnetGsoNone) shift(2);
    if ((bytes[0] & kVnetNeedsChecksum) != 0) shift(6);
    return make_frame(std::move(bytes));
}

Result<std::size_t> PacketSocket::receive(std::size_t max, const std::function<void(FramePtr)>& take)
{
    std::size_t total = 0;
    while (total < max) {
        const std::size_t batch = std::min(kBatch, max - total);
        std::array<mmsghdr, kBatch> messages{};
        std::array<iovec, kBatch> parts{};
        alignas(cmsghdr) std::array<std::array<char, 64>, kBatch> control;
        for (std::size_t i = 0; i < batch; ++i) {
            parts[i] = {buffers_[i].data(), kMaxFrameSize};
            messages[i].msg_hdr.msg_iov = &parts[i];
            messages[i].msg_hdr.msg_iovlen = 1;
            messages[i].msg_hdr.msg_control = control[i].data();
            messages[i].msg_hdr.msg_controllen = control[i].size();
        }
        const int n = ::recvmmsg(fd_.get(), messages.data(), static_cast<unsigned>(batch), MSG_DONTWAIT, nullptr);
        if (n < 0) {
            if (errno == EAGAIN || errno == EINTR || errno == ENETDOWN || errno == ENOBUFS) return total;
            return errno_error("receive on " + interface_, errno);
        }
        for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
            const void* auxiliary = nullptr;
            for (cmsghdr* c = CMSG_FIRSTHDR(&messages[i].msg_hdr); c != nullptr;
                 c = CMSG_NXTHDR(&messages[i].msg_hdr, c))
                if (c->cmsg_level == SOL_PACKET && c->cmsg_type == PACKET_AUXDATA) auxiliary = CMSG_DATA(c);
            const bool truncated = (messages[i].msg_hdr.msg_flags & MSG_TRUNC) != 0;
            if (FramePtr frame = frame_from(i, messages[i].msg_len, truncated, auxiliary)) take(std::move(frame));
        }
        total += static_cast<std::size_t>(n);
        if (static_cast<std::size_t>(n) < batch) return total;
    }
    return total;
}

Result<SendResult> PacketSocket::send(ByteView frame)
{
    if (frame.size() < kVnetHeaderSize + kEthernetHeaderSize) {
        ++stats_.dropped_invalid;
        return SendResult::dropped;
    }
    if (::send(fd_.get(), frame.data(), frame.size(), MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) {
        ++stats_.sent;
        return SendResult::sent;
    }
    switch (errno) {
    case EAGAIN:
    case ENOBUFS:
    case EINTR: return SendResult::full;
    case ENOMEM:  // also what the kernel says of a large segment that it cannot split
    case ENETDOWN: ++stats_.dropped_full; return SendResult::dropped;
    case EINVAL:
    case EMSGSIZE:
    case EPROTO: ++stats_.dropped_invalid; return SendResult::dropped;
    default: return errno_error("send on " + interface_, errno);
    }
}

bool PacketSocket::carrier() const
{
    ifreq request{};
    std::strncpy(request.ifr_name, interface_.c_str(), IFNAMSIZ - 1);
    if (::ioctl(fd_.get(), SIOCGIFFLAGS, &request) != 0) return false;
    return (request.ifr_flags & IFF_UP) != 0 && (request.ifr_flags & IFF_RUNNING) != 0;
}

}  // namespace colo::proxy
