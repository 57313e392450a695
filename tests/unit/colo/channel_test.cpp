// SPDX-License-Identifier: Apache-2.0
#include "colo/channel.h"

#include "core/clock.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

namespace colo {
namespace {

using testing::HasSubstr;

Deadline soon()
{
    return now() + Duration{20'000'000};
}
Deadline at_once()
{
    return now() + Duration{20'000};
}

struct Connection {
    Fd client, server;
};

Connection make_connection(const std::string& uri = "tcp:127.0.0.1:0")
{
    auto listener = Listener::open(uri);
    EXPECT_TRUE(listener) << listener.error().text;
    Connection c;
    std::thread connecting([&] {
        auto fd = connect_session(listener->uri(), soon());
        EXPECT_TRUE(fd) << fd.error().text;
        if (fd) c.client = std::move(*fd);
    });
    std::string peer;
    auto fd = listener->accept(soon(), &peer);
    connecting.join();
    EXPECT_TRUE(fd) << fd.error().text;
    EXPECT_THAT(peer, testing::StartsWith("tcp:"));
    if (fd) c.server = std::move(*fd);
    return c;
}

TEST(ChannelUri, ValidOnesAreParsedAndPrintedBack)
{
    for (const char* text :
         {"tcp:192.0.2.1:9100", "tcp:[2001:db8::1]:9100", "tcp:host.example:1", "tcp::9100", "tcp:*:65535"}) {
        const auto uri = parse_tcp_uri(text);
        ASSERT_TRUE(uri) << text << ": " << uri.error().text;
        EXPECT_EQ(to_string(*uri), text);
    }
    EXPECT_EQ(parse_tcp_uri("tcp:[::1]:7")->host, "::1");
}

TEST(ChannelUri, InvalidOnesAreRefusedWithTheForm)
{
    for (const char* text :
         {"", "tcp:", "tcp:host", "udp:host:1", "host:1", "tcp:host:", "tcp:host:65536", "tcp:host:-1", "tcp:host:1x",
          "tcp:::1:7", "tcp:[::1:7", "tcp:a b:7", "tcp:host,to=3:7", "tcp:[[x]]:1"}) {
        const auto uri = parse_tcp_uri(text);
        ASSERT_FALSE(uri) << text;
        EXPECT_EQ(uri.error().code, Errc::invalid);
        EXPECT_THAT(uri.error().text, HasSubstr("tcp:HOST:PORT"));
    }
}

TEST(ChannelUri, OptionsOfMigrationUrisAreKept)
{
    EXPECT_EQ(parse_tcp_uri("tcp:h:1")->family, AF_UNSPEC);
    EXPECT_EQ(parse_tcp_uri("tcp:h:1,ipv4=on,ipv6=on")->family, AF_UNSPEC);
    for (const char* v4 : {"ipv4", "ipv4=on", "ipv6=off", "ipv4=on,ipv6=off"})
        EXPECT_EQ(parse_tcp_uri(std::string("tcp:h:1,") + v4)->family, AF_INET) << v4;
    for (const char* v6 : {"ipv6", "ipv6=on", "ipv4=off", "ipv4=off,ipv6=on"})
        EXPECT_EQ(parse_tcp_uri(std::string("tcp:h:1,") + v6)->family, AF_INET6) << v6;
    const auto range = parse_tcp_uri("tcp:h:1,to=9,keep-alive");
    EXPECT_EQ(range->last_port, 9);
    EXPECT_EQ(to_string(*range), "tcp:h:1");
}

TEST(Channel, AListenerTakesTheNextFreePortOfItsRange)
{
    const auto first = Listener::open("tcp:127.0.0.1:0");
    ASSERT_TRUE(first);
    const auto taken = parse_tcp_uri(first->uri());
    EXPECT_FALSE(Listener::open(first->uri()));
    const std::string range = ",to=" + std::to_string(std::min(taken->port + 200, 65535));
    const auto next = Listener::open(first->uri() + range);
    ASSERT_TRUE(next) << next.error().text;
    EXPECT_GT(parse_tcp_uri(next->uri())->port, taken->port);
    EXPECT_FALSE(Listener::open("tcp:127.0.0.1:0,ipv6=on"));
    EXPECT_EQ(parse_tcp_uri(Listener::open("tcp::0,ipv6=on")->uri())->host, "::");
}

TEST(Channel, ConnectedSocketHasItsOptions)
{
    for (const char* uri : {"tcp:127.0.0.1:0", "tcp:[::1]:0"}) {
        const Connection c = make_connection(uri);
        for (const int fd : {c.client.get(), c.server.get()}) {
            int value = 0;
            socklen_t length = sizeof value;
            ASSERT_EQ(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &length), 0);
            EXPECT_NE(value, 0);
            ASSERT_EQ(getsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &value, &length), 0);
            EXPECT_EQ(value, 5000);
            ASSERT_EQ(getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &value, &length), 0);
            EXPECT_NE(value, 0);
        }
    }
}

TEST(Channel, NameIsLookedUp)
{
    auto listener = Listener::open("tcp:127.0.0.1:0");
    ASSERT_TRUE(listener);
    const std::string port = listener->uri().substr(listener->uri().rfind(':'));
    const auto fd = connect_session("tcp:localhost" + port, soon());
    EXPECT_TRUE(fd) << fd.error().text;
}

TEST(Channel, RefusedAndUnknownHostsAreErrorsThatNameTheHost)
{
    std::string uri;
    {
        auto listener = Listener::open("tcp:127.0.0.1:0");
        ASSERT_TRUE(listener);
        uri = listener->uri();
        const auto second = Listener::open(uri);
        ASSERT_FALSE(second) << "the port is taken";
        EXPECT_THAT(second.error().text, HasSubstr(uri));
    }
    const auto fd = connect_session(uri, soon());
    ASSERT_FALSE(fd);
    EXPECT_EQ(fd.error().code, Errc::refused);
    EXPECT_EQ(fd.error().text, "Failed to connect to '" + uri.substr(4) + "': Connection refused");
    const auto unknown = connect_session("tcp:host.invalid:1", soon());
    ASSERT_FALSE(unknown);
    EXPECT_THAT(unknown.error().text, testing::StartsWith("address resolution failed for host.invalid:1: "));
    EXPECT_FALSE(connect_session("tcp:127.0.0.1:0", soon()));
}

TEST(Channel, UnixSocketsCarrySessionsToo)
{
    const std::string path = testing::TempDir() + "colo-channel-" + std::to_string(getpid()) + ".sock", uri = "unix:" + path;
    EXPECT_TRUE(check_session_uri(uri));
    EXPECT_FALSE(check_session_uri("unix:"));
    EXPECT_FALSE(check_session_uri("unix:/" + std::string(200, 'x')));
    const auto nobody = connect_session(uri, soon());
    ASSERT_FALSE(nobody);
    EXPECT_EQ(nobody.error().text, "Failed to connect to '" + path + "': No such file or directory");
    {
        auto listener = Listener::open(uri);
        ASSERT_TRUE(listener) << listener.error().text;
        EXPECT_EQ(listener->uri(), uri);
        const auto near = connect_session(uri, soon());
        ASSERT_TRUE(near) << near.error().text;
        std::string peer;
        const auto far = listener->accept(soon(), &peer);
        ASSERT_TRUE(far);
        EXPECT_EQ(peer, uri);
        const std::uint8_t word[] = {1, 2, 3};
        ASSERT_TRUE(send_all(near->get(), ByteView(word), soon()));
        std::array<std::uint8_t, 3> got{};
        ASSERT_TRUE(recv_all(far->get(), got, soon()));
        EXPECT_EQ(got[2], 3);
    }
    EXPECT_NE(access(path.c_str(), F_OK), 0) << "the socket file goes with its listener";
    {
        // What a daemon that was killed left behind is replaced; another kind of file is not.
        auto left = Listener::open(uri);
        ASSERT_TRUE(left);
        auto second = Listener::open(uri);
        EXPECT_TRUE(second) << second.error().text;
    }
    ASSERT_GE(Fd(open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600)).get(), 0);
    EXPECT_FALSE(Listener::open(uri));
    EXPECT_EQ(unlink(path.c_str()), 0);
}

TEST(Channel, ManyPartsArriveInOrderThroughASmallSocket)
{
    const Connection c = make_connection();
    std::mt19937 random(7);
    std::vector<Bytes> pieces;
    Bytes all;
    for (int i = 0; i < 500; ++i) {
        Bytes piece(random() % 20'000);  // empty ones too
        for (std::uint8_t& byte : piece) byte = static_cast<std::uint8_t>(random());
        if (i % 50 == 0) piece.clear();
        all.insert(all.end(), piece.begin(), piece.end());
        pieces.push_back(std::move(piece));
    }
    std::vector<iovec> parts;
    for (Bytes& piece : pieces) parts.push_back({piece.data(), piece.size()});
    std::thread sender([&] {
        const auto sent = send_all(c.client.get(), parts, soon());
        EXPECT_TRUE(sent) << sent.error().text;
    });
    Bytes received(all.size());
    const auto got = recv_all(c.server.get(), received, soon());
    sender.join();
    ASSERT_TRUE(got) << got.error().text;
    EXPECT_EQ(received, all);
}

TEST(Channel, ReceiveEndsAtItsDeadline)
{
    const Connection c = make_connection();
    Bytes buffer(10);
    const auto nothing = recv_some(c.server.get(), buffer, at_once());
    ASSERT_FALSE(nothing);
    EXPECT_EQ(nothing.error().code, Errc::timed_out);
    const Bytes half(5, 1);
    ASSERT_TRUE(send_all(c.client.get(), ByteView(half), soon()));
    const auto partly = recv_all(c.server.get(), buffer, at_once());
    ASSERT_FALSE(partly);
    EXPECT_EQ(partly.error().code, Errc::timed_out);
}

TEST(Channel, SendEndsAtItsDeadlineWhenNobodyReads)
{
    const Connection c = make_connection();
    const Bytes much(64u << 20, 1);
    const auto sent = send_all(c.client.get(), ByteView(much), now() + Duration{200'000});
    ASSERT_FALSE(sent);
    EXPECT_EQ(sent.error().code, Errc::timed_out);
}

TEST(Channel, PeerThatLeavesIsClosed)
{
    Connection c = make_connection();
    c.client.reset();
    Bytes buffer(10);
    const auto got = recv_some(c.server.get(), buffer, soon());
    ASSERT_FALSE(got);
    EXPECT_EQ(got.error().code, Errc::closed);
    const Bytes much(1u << 20, 1);
    Result<void> sent;
    for (int i = 0; i < 100 && sent; ++i) sent = send_all(c.server.get(), ByteView(much), soon());
    ASSERT_FALSE(sent) << "and no SIGPIPE";
    EXPECT_EQ(sent.error().code, Errc::closed);
}

TEST(Channel, ShutdownWakesReaderAndWriter)
{
    const Connection c = make_connection();
    const Bytes much(256u << 20, 1);
    Errc reader = Errc::failed, writer = Errc::failed;
    std::thread reading([&] {
        Bytes buffer(10);
        const auto got = recv_some(c.server.get(), buffer, kNever);
        reader = got ? Errc::failed : got.error().code;
    });
    std::thread writing([&] {
        const auto sent = send_all(c.server.get(), ByteView(much), kNever);
        writer = sent ? Errc::failed : sent.error().code;
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    shutdown_socket(c.server.get());
    reading.join();
    writing.join();
    EXPECT_EQ(reader, Errc::closed);
    EXPECT_EQ(writer, Errc::closed);
}

TEST(Channel, AcceptEndsAtItsDeadline)
{
    auto listener = Listener::open("tcp::0");
    ASSERT_TRUE(listener) << listener.error().text;
    const auto fd = listener->accept(at_once());
    ASSERT_FALSE(fd);
    EXPECT_EQ(fd.error().code, Errc::timed_out);
}

}  // namespace
}  // namespace colo
