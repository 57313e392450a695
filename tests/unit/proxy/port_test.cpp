// SPDX-License-Identifier: Apache-2.0
// Real taps, packet sockets and Unix sockets, in a network namespace of this process. Needs root; says so and skips
// otherwise.
#include "frames.h"

#include "core/clock.h"
#include "proxy/packet_socket.h"
#include "proxy/port.h"
#include "proxy/tap_device.h"

#include <gtest/gtest.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cstdlib>

namespace colo::proxy::test {
namespace {

class PortTest : public ::testing::Test {
protected:
    void SetUp() override
    {
        if (::geteuid() != 0) GTEST_SKIP() << "needs root: taps and network namespaces";
        static const bool moved = ::unshare(CLONE_NEWNET) == 0;
        if (!moved) GTEST_SKIP() << "needs CAP_SYS_ADMIN: a network namespace of its own";
    }
    static void command(const std::string& text)
    {
        ASSERT_EQ(std::system((text + " >/dev/null 2>&1").c_str()), 0) << text;
    }
    static std::vector<FramePtr> collect(Port& port, std::size_t wanted)
    {
        std::vector<FramePtr> frames;
        const Time deadline = now() + std::chrono::seconds(5);
        while (frames.size() < wanted && now() < deadline) {
            pollfd p{port.poll_fd(), POLLIN, 0};
            ::poll(&p, 1, 50);
            const auto n = port.receive(64, [&](FramePtr frame) { frames.push_back(std::move(frame)); });
            if (!n) {
                ADD_FAILURE() << n.error().text;
                break;
            }
        }
        return frames;
    }
    static Bytes read_tap(int fd)
    {
        Bytes bytes(70000);
        pollfd p{fd, POLLIN, 0};
        ::poll(&p, 1, 5000);
        const ssize_t n = ::read(fd, bytes.data(), bytes.size());
        bytes.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
        return bytes;
    }
    static FramePtr large_segment(bool from_guest)
    {
        Bytes bytes =
            with_partial_checksum(tcp({.from_guest = from_guest, .seq = 1, .data = std::string(60000, 'g')}))->bytes;
        bytes[1] = kVnetGsoTcp4;
        bytes[2] = 14 + 20 + 20;  // header length
        bytes[4] = 1448 & 255;
        bytes[5] = 1448 >> 8;
        return make_frame(bytes);
    }
};

TEST_F(PortTest, TapCarriesFramesBothWays)
{
    auto made = make_tap_port("pxtap0", 3);
    ASSERT_TRUE(made) << made.error().text;
    FramePort& port = **made;
    EXPECT_EQ(port.netdev_argument(9), "tap,id=net3,fd=9,vhost=off");
    const auto in = tcp({.from_guest = false, .seq = 5, .data = "to the guest"});
    ASSERT_EQ(*port.send(in->view()), SendResult::sent);
    EXPECT_EQ(read_tap(port.guest_fd()), in->bytes);
    const auto out = tcp({.seq = 6, .data = "from the guest"});
    ASSERT_EQ(::write(port.guest_fd(), out->bytes.data(), out->bytes.size()), static_cast<ssize_t>(out->bytes.size()));
    const auto frames = collect(port, 1);
    ASSERT_EQ(frames.size(), 1u);
    EXPECT_EQ(frames[0]->ethernet().size(), out->ethernet().size());
    EXPECT_TRUE(std::equal(out->ethernet().begin(), out->ethernet().end(), frames[0]->ethernet().begin()));
}

TEST_F(PortTest, Inv28_TapPassesLargeSegmentsWhole)
{
    auto made = make_tap_port("pxtap1", 0);
    ASSERT_TRUE(made) << made.error().text;
    FramePort& port = **made;
    const unsigned offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
    ASSERT_EQ(::ioctl(port.guest_fd(), TUNSETOFFLOAD, offloads), 0);
    ASSERT_EQ(*port.send(large_segment(false)->view()), SendResult::sent);
    const Bytes got = read_tap(port.guest_fd());
    EXPECT_EQ(got.size(), large_segment(false)->bytes.size());
    EXPECT_EQ(got[1], kVnetGsoTcp4);
    const auto out = large_segment(true);
    ASSERT_GT(::write(port.guest_fd(), out->bytes.data(), out->bytes.size()), 0);
    const auto frames = collect(port, 1);
    ASSERT_EQ(frames.size(), 1u);
    EXPECT_EQ(frames[0]->bytes.size(), out->bytes.size());
    EXPECT_EQ(frames[0]->bytes[1], kVnetGsoTcp4);
    EXPECT_NE(frames[0]->bytes[0] & kVnetNeedsChecksum, 0);
}

TEST_F(PortTest, R5_UnreadInputComesBackInOrderAndThePortIsEmpty)
{
    auto made = make_tap_port("pxtap2", 0);
    ASSERT_TRUE(made) << made.error().text;
    FramePort& port = **made;
    int header = 12;  // as QEMU sets it for merged receive buffers
    ASSERT_EQ(::ioctl(port.guest_fd(), TUNSETVNETHDRSZ, &header), 0);
    std::vector<FramePtr> sent;
    for (std::uint32_t i = 0; i < 100; ++i) {
        sent.push_back(tcp({.from_guest = false, .seq = i, .data = std::string(i + 1, 'x')}));
        ASSERT_EQ(*port.send(sent.back()->view()), SendResult::sent);
    }
    EXPECT_EQ(read_tap(port.guest_fd()).size(), sent[0]->bytes.size() + 2);  // the guest took one
    const auto unread = port.take_unread();
    ASSERT_TRUE(unread) << unread.error().text;
    ASSERT_EQ(unread->size(), 99u);
    for (std::size_t i = 0; i < 99; ++i) EXPECT_EQ((*unread)[i]->bytes, sent[i + 1]->bytes);
    EXPECT_TRUE(port.take_unread()->empty());
}

TEST_F(PortTest, AFullTapSaysSoAndTakesTheFrameLater)
{
    auto made = make_tap_port("pxtap4", 0);
    ASSERT_TRUE(made) << made.error().text;
    FramePort& port = **made;
    const auto frame = tcp({.from_guest = false, .seq = 1, .data = "x"});
    std::size_t taken = 0;
    while (taken < 100'000 && *port.send(frame->view()) == SendResult::sent) ++taken;
    ASSERT_LT(taken, 100'000u);
    EXPECT_EQ(*port.send(frame->view()), SendResult::full);
    EXPECT_EQ(port.stats().sent, taken);
    constexpr std::size_t kRead = 64;  // the ring gives places back some at a time
    for (std::size_t i = 0; i < kRead; ++i) read_tap(port.guest_fd());
    EXPECT_EQ(*port.send(frame->view()), SendResult::sent);
    EXPECT_EQ(port.take_unread()->size(), taken - kRead + 1) << "what counts as sent is there";
}

TEST_F(PortTest, ASegmentThatTheGuestsDeviceDoesNotTakeIsNoReasonToWait)
{
    auto made = make_tap_port("pxtap5", 0);  // no offloads
    ASSERT_TRUE(made) << made.error().text;
    EXPECT_EQ(*(*made)->send(large_segment(false)->view()), SendResult::dropped);
    EXPECT_EQ((*made)->stats().dropped_invalid, 1u);
    EXPECT_EQ(*(*made)->send(tcp({.from_guest = false, .seq = 1})->view()), SendResult::sent);
}

TEST_F(PortTest, Inv30_TheKernelIsSilentOnTheTap)
{
    auto made = make_tap_port("pxtap3", 0);
    ASSERT_TRUE(made) << made.error().text;
    // A question to every host must not be answered by the namespace itself.
    ASSERT_GT(::write((*made)->guest_fd(), arp(true, false, kGuestIp, kClientIp)->bytes.data(), 52), 0);
    collect(**made, 1);
    pollfd p{(*made)->guest_fd(), POLLIN, 0};
    EXPECT_EQ(::poll(&p, 1, 300), 0);
}

TEST_F(PortTest, PacketWireIsDeafAndMuteUntilItIsOn)
{
    command(
        "ip link add pxw0 type veth peer name pxw1 && ip link set pxw0 up && ip link set pxw1 up && "
        "sysctl -qw net.ipv6.conf.pxw0.disable_ipv6=1 net.ipv6.conf.pxw1.disable_ipv6=1");
    auto made = make_wire("packet:pxw0", {kGuestMac});
    ASSERT_TRUE(made) << made.error().text;
    WirePort& wire = **made;
    auto client = PacketSocket::open("pxw1", PacketSocket::Transmit::direct);
    ASSERT_TRUE(client) << client.error().text;
    ASSERT_TRUE(client->listen(true));
    const auto to_guest = tcp({.from_guest = false, .seq = 1, .data = "question"});
    ASSERT_EQ(*client->send(to_guest->view()), SendResult::sent);
    EXPECT_EQ(*wire.send(tcp({.seq = 1})->view()), SendResult::dropped);
    EXPECT_TRUE(collect(wire, 0).empty());
    ASSERT_TRUE(wire.set_up(true));
    ASSERT_EQ(*client->send(to_guest->view()), SendResult::sent);
    auto frames = collect(wire, 1);
    ASSERT_EQ(frames.size(), 1u) << "what came while it was off is gone";
    EXPECT_TRUE(std::equal(to_guest->ethernet().begin(), to_guest->ethernet().end(), frames[0]->ethernet().begin()));
    ASSERT_EQ(*wire.send(tcp({.seq = 1, .data = "answer"})->view()), SendResult::sent);
    pollfd p{wire.poll_fd(), POLLIN, 0};
    EXPECT_EQ(::poll(&p, 1, 100), 0) << "our own frames do not come back";
    // Another host's unicast is dropped by the kernel; groups pass.
    Bytes other = to_guest->bytes;
    other[kVnetHeaderSize + 5] = 0x77;
    ASSERT_EQ(*client->send(other), SendResult::sent);
    Bytes group = to_guest->bytes;
    group[kVnetHeaderSize] = 0xff;
    ASSERT_EQ(*client->send(group), SendResult::sent);
    frames = collect(wire, 1);
    ASSERT_EQ(frames.size(), 1u);
    EXPECT_EQ(frames[0]->bytes[kVnetHeaderSize], 0xff);
    EXPECT_TRUE(wire.carrier());
    command("ip link set pxw1 down");
    // The kernel tells of a lost carrier in its own time.
    for (int i = 0; i < 500 && wire.carrier(); ++i) ::usleep(10'000);
    EXPECT_FALSE(wire.carrier());
    EXPECT_NE(*wire.send(tcp({.seq = 1})->view()), SendResult::full)
        << "a dead link loses frames, it does not break the wire";
    command("ip link set pxw1 up");
    ASSERT_TRUE(wire.set_up(false));
    command("ip link del pxw0");
}

TEST_F(PortTest, Inv28_PacketWireKeepsVlanTagsAndLargeSegments)
{
    command(
        "ip link add pxv0 type veth peer name pxv1 && ip link set pxv0 up && ip link set pxv1 up && "
        "sysctl -qw net.ipv6.conf.pxv0.disable_ipv6=1 net.ipv6.conf.pxv1.disable_ipv6=1");
    auto made = make_wire("packet:pxv0", {});
    ASSERT_TRUE(made) << made.error().text;
    ASSERT_TRUE((*made)->set_up(true));
    auto client = PacketSocket::open("pxv1", PacketSocket::Transmit::direct);
    ASSERT_TRUE(client) << client.error().text;
    Bytes payload(60, 0x11);
    store_be16(payload.data(), 5);  // VLAN 5, then an IPv4 type
    store_be16(payload.data() + 2, kEtherTypeIpv4);
    const auto tagged = raw_ethernet(false, 0x8100, payload);
    ASSERT_EQ(*client->send(tagged->view()), SendResult::sent);
    auto frames = collect(**made, 1);
    ASSERT_EQ(frames.size(), 1u);
    EXPECT_EQ(frames[0]->bytes, tagged->bytes);
    const auto large = large_segment(false);
    ASSERT_EQ(*client->send(large->view()), SendResult::sent);
    frames = collect(**made, 1);
    ASSERT_GE(frames.size(), 1u);
    EXPECT_EQ(frames[0]->bytes.size(), large->bytes.size());
    ASSERT_TRUE(client->listen(true));
    std::size_t size = 0;
    const Time deadline = now() + std::chrono::seconds(5);
    while (size == 0 && now() < deadline) {  // the queue of a link that just came up swallows frames for a moment
        ASSERT_EQ(*(*made)->send(large_segment(true)->view()), SendResult::sent);
        ::poll(nullptr, 0, 20);
        ASSERT_TRUE(client->receive(1, [&](FramePtr f) { size = f->bytes.size(); }));
    }
    EXPECT_EQ(size, large->bytes.size());
    command("ip link del pxv0");
}

TEST_F(PortTest, AFullQueueOfTheWireSaysSoAndTakesTheFrameLater)
{
    command("ip link add pxq0 type veth peer name pxq1 && ip link set pxq0 up && ip link set pxq1 up");
    if (std::system("tc qdisc add dev pxq0 root tbf rate 1mbit burst 2000 limit 20000 >/dev/null 2>&1") != 0)
        GTEST_SKIP() << "no traffic control (tc, sch_tbf) to make a slow wire with";
    auto made = make_wire("packet:pxq0", {});
    ASSERT_TRUE(made) << made.error().text;
    ASSERT_TRUE((*made)->set_up(true));
    const auto frame = tcp({.seq = 1, .data = std::string(1000, 'x')});
    int taken = 0;
    while (taken < 1000 && *(*made)->send(frame->view()) == SendResult::sent) ++taken;
    ASSERT_LT(taken, 1000);
    const Time deadline = now() + std::chrono::seconds(5);
    bool again = false;
    while (!again && now() < deadline) {
        ::poll(nullptr, 0, 5);
        again = *(*made)->send(frame->view()) == SendResult::sent;
    }
    EXPECT_TRUE(again);
    EXPECT_EQ((*made)->stats().dropped_full, 0u);
    command("ip link del pxq0");
}

TEST_F(PortTest, TapWireJoinsTheBridge)
{
    command(
        "ip link add pxbr type bridge && ip link set pxbr up && ip link add pxb0 type veth peer name pxb1 && "
        "ip link set pxb0 master pxbr && ip link set pxb0 up && ip link set pxb1 up");
    auto made = make_wire("tap:pxwt@pxbr");
    ASSERT_TRUE(made) << made.error().text;
    ASSERT_TRUE((*made)->set_up(true)) << "join";
    auto client = PacketSocket::open("pxb1", PacketSocket::Transmit::direct);
    ASSERT_TRUE(client);
    ASSERT_TRUE(client->listen(true));
    const auto out = tcp({.seq = 1, .data = "through the bridge"});
    bool seen = false;
    const Time deadline = now() + std::chrono::seconds(10);
    while (!seen && now() < deadline) {
        (void)(*made)->send(out->view());
        ::poll(nullptr, 0, 20);
        ASSERT_TRUE(client->receive(64, [&](FramePtr f) {
            seen = seen || (f->bytes.size() == out->bytes.size() && parse_packet(f->view()).kind == PacketKind::tcp);
        }));
    }
    EXPECT_TRUE(seen);
    command("ip link del pxb0 && ip link del pxbr");
}

TEST_F(PortTest, WrongWiresAreRefusedWithAReason)
{
    EXPECT_NE(make_wire("packet:nosuchif0").error().text.find("nosuchif0"), std::string::npos);
    EXPECT_EQ(make_wire("eth0").error().code, Errc::invalid);
    EXPECT_EQ(make_tap_port("a-name-that-is-too-long", 0).error().code, Errc::invalid);
}

class StreamPortTest : public ::testing::Test {
protected:
    StreamPortTest() : path_("/tmp/proxy-port-test-" + std::to_string(::getpid()) + ".sock")
    {
        ::unlink(path_.c_str());
        listener_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::copy(path_.begin(), path_.end(), address.sun_path);
        EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
        EXPECT_EQ(::listen(listener_.get(), 1), 0);
    }
    ~StreamPortTest() override { ::unlink(path_.c_str()); }
    void accept() { guest_.reset(::accept(listener_.get(), nullptr, nullptr)); }
    void guest_sends(const Bytes& bytes)
    {
        ASSERT_EQ(::send(guest_.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
    }
    Bytes guest_reads(std::size_t n)
    {
        Bytes bytes(n);
        EXPECT_EQ(::recv(guest_.get(), bytes.data(), n, MSG_WAITALL), static_cast<ssize_t>(n));
        return bytes;
    }
    static Bytes framed(const FramePtr& frame)
    {
        const ByteView ethernet = frame->ethernet();
        Bytes bytes(4 + ethernet.size());
        store_be32(bytes.data(), static_cast<std::uint32_t>(ethernet.size()));
        std::copy(ethernet.begin(), ethernet.end(), bytes.begin() + 4);
        return bytes;
    }
    std::string path_;
    FileDescriptor listener_, guest_;
};

TEST_F(StreamPortTest, CarriesFramesInPiecesAndKeepsWhatWasNotRead)
{
    auto made = make_stream_port(path_, 0);
    ASSERT_TRUE(made);
    FramePort& port = **made;
    EXPECT_EQ(port.guest_fd(), -1);
    EXPECT_EQ(*port.send(tcp({.seq = 1})->view()), SendResult::dropped) << "not attached";
    ASSERT_TRUE(port.attach(now() + std::chrono::seconds(2)));
    accept();
    const auto frame = tcp({.seq = 1, .data = "hello"});
    const Bytes wire = framed(frame);
    guest_sends(Bytes(wire.begin(), wire.begin() + 7));
    std::vector<FramePtr> got;
    ASSERT_TRUE(port.receive(8, [&](FramePtr f) { got.push_back(f); }));
    EXPECT_TRUE(got.empty());
    guest_sends(Bytes(wire.begin() + 7, wire.end()));
    ASSERT_TRUE(port.receive(8, [&](FramePtr f) { got.push_back(f); }));
    ASSERT_EQ(got.size(), 1u);
    EXPECT_EQ(got[0]->bytes, frame->bytes);

    const auto first = tcp({.from_guest = false, .seq = 1, .data = "a"}),
               second = with_partial_checksum(tcp({.from_guest = false, .seq = 2, .data = "b"}));
    ASSERT_EQ(*port.send(first->view()), SendResult::sent);
    EXPECT_EQ(guest_reads(framed(first).size()), framed(first));
    ASSERT_EQ(*port.send(second->view()), SendResult::sent);
    const auto unread = port.take_unread();
    ASSERT_TRUE(unread);
    ASSERT_EQ(unread->size(), 1u) << "the first was read before the second was sent";
    EXPECT_TRUE(checksum_valid((*unread)[0])) << "no offload on this cable";

    guest_.reset();
    const auto closed = port.receive(8, [](FramePtr) {});
    ASSERT_FALSE(closed);
    EXPECT_EQ(closed.error().code, Errc::closed);
    ASSERT_TRUE(port.attach(now() + std::chrono::seconds(2))) << "the device model is back";
}

TEST_F(StreamPortTest, ImpossibleLengthIsCorrupt)
{
    auto made = make_stream_port(path_, 0);
    ASSERT_TRUE((*made)->attach(now() + std::chrono::seconds(2)));
    accept();
    guest_sends({0xff, 0xff, 0xff, 0xff, 1, 2, 3});
    const auto result = (*made)->receive(8, [](FramePtr) {});
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, Errc::corrupt);
}

TEST_F(StreamPortTest, AGuestThatDoesNotReadFillsThePortAndBlocksNobody)
{
    auto made = make_stream_port(path_, 0);
    ASSERT_TRUE((*made)->attach(now() + std::chrono::seconds(2)));
    accept();
    const auto frame = tcp({.from_guest = false, .seq = 1, .data = std::string(60000, 'x')});
    bool full = false;
    for (int i = 0; i < 10000 && !full; ++i) full = *(*made)->send(frame->view()) == SendResult::full;
    EXPECT_TRUE(full);
    const Bytes whole = framed(frame);
    EXPECT_EQ(guest_reads(whole.size()), whole);
}

TEST_F(StreamPortTest, ALargeSegmentIsAcceptedWholeAndItsRestFollows)
{
    auto made = make_stream_port(path_, 0);
    ASSERT_TRUE((*made)->attach(now() + std::chrono::seconds(2)));
    accept();
    const auto small = tcp({.from_guest = false, .seq = 1, .data = std::string(1000, 'x')});
    Bytes bytes = with_partial_checksum(tcp({.from_guest = false, .seq = 1, .data = std::string(60000, 'g')}))->bytes;
    bytes[1] = kVnetGsoTcp4;
    bytes[4] = 1448 & 255;
    bytes[5] = 1448 >> 8;
    std::size_t larges = 0;
    while (larges < 10'000 && *(*made)->send(bytes) == SendResult::sent) ++larges;
    ASSERT_LT(larges, 10'000u);
    // Everything that counts as sent arrives, and whole.
    constexpr std::size_t kSegments = (60'000 + 1447) / 1448;
    std::size_t segments = 0, payload = 0;
    while (segments < larges * kSegments) {
        ASSERT_TRUE((*made)->flush());
        const std::size_t size = load_be32(guest_reads(4).data());
        ASSERT_LE(size, 1600u);
        Bytes frame(kVnetHeaderSize);
        const Bytes ethernet = guest_reads(size);
        frame.insert(frame.end(), ethernet.begin(), ethernet.end());
        payload += parse_packet(frame).payload_size();
        ++segments;
    }
    EXPECT_EQ(payload, larges * 60'000);
    EXPECT_TRUE(*(*made)->flush());
    EXPECT_EQ(*(*made)->send(small->view()), SendResult::sent);
}

}  // namespace
}  // namespace colo::proxy::test
