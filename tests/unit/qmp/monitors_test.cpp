// SPDX-License-Identifier: Apache-2.0

// Monitors of every kind and in numbers: TCP, standard input and output, two hundred at once, clients that do not read,
// descriptors over a real socket.

#include "live_server.h"
#include "qmp/listen_socket.h"
#include "qmp/session.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cstring>
#include <memory>

namespace colo::qmp::test {
namespace {

using schema::Object;
using schema::Value;

class MonitorsTest : public ::testing::Test {
protected:
    MonitorsTest()
    {
        registry_.add_raw("echo", [](const Object& arguments, Reply reply) { reply.succeed(arguments); });
        registry_.add_raw("take", [this](const Object&, Reply reply) {
            Fd fd = reply.take_fd();
            if (!fd) return reply.fail("none");
            auto named = registry_.fds()->name(reply.monitor(), "x", std::move(fd));
            named ? reply.succeed() : reply.fail(named.error());
        });
        options_.path = directory_.file("d.qmp");
    }

    Client client()
    {
        auto connected = Client::connect(options_.path, soon());
        EXPECT_TRUE(connected) << connected.error().text;
        EXPECT_TRUE(connected->negotiate(soon()));
        return std::move(*connected);
    }

    TemporaryDirectory directory_;
    ServerOptions options_;
    Registry registry_;
};

std::string read_line(int fd)
{
    std::string line;
    for (char byte = 0; byte != '\n' && ::read(fd, &byte, 1) == 1;) line += byte;
    return line;
}

// A blocking connection to tcp:127.0.0.1:PORT.
Fd connect_tcp(const std::string& uri)
{
    Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(std::stoi(uri.substr(uri.rfind(':') + 1))));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    return fd;
}

TEST_F(MonitorsTest, TcpServesTheSame)
{
    options_.listen = {"tcp:127.0.0.1:0", "tcp:localhost:0"};
    LiveServer live(registry_, options_);
    ASSERT_TRUE(live.started()) << live.started().error().text;
    const auto addresses = live.run([&] { return live.server().addresses(); });
    ASSERT_EQ(addresses.size(), 2u);
    for (const std::string& address : addresses) {
        const Fd fd = connect_tcp(address);
        EXPECT_NE(read_line(fd.get()).find("\"QMP\""), std::string::npos);
        const std::string requests = R"({"execute":"qmp_capabilities"}{"execute":"take"})";
        ASSERT_EQ(::write(fd.get(), requests.data(), requests.size()), static_cast<ssize_t>(requests.size()));
        EXPECT_EQ(read_line(fd.get()), "{\"return\": {}}\r\n");
        EXPECT_EQ(read_line(fd.get()), "{\"error\": {\"class\": \"GenericError\", \"desc\": \"none\"}}\r\n");
    }
    EXPECT_TRUE(client().execute("echo", {}, soon()));
}

TEST(ListenUri, LoopbackUnlessAllowed)
{
    for (const char* good : {"tcp:127.0.0.1:1", "tcp:127.9.9.9:65535", "tcp:localhost:0", "tcp:[::1]:4444"})
        EXPECT_TRUE(check_tcp_listen_uri(good, false)) << good;
    for (const char* remote : {"tcp:0.0.0.0:1", "tcp:192.0.2.1:1", "tcp:[::]:1", "tcp:[2001:db8::1]:1"}) {
        EXPECT_EQ(check_tcp_listen_uri(remote, false).error().code, Errc::refused) << remote;
        EXPECT_TRUE(check_tcp_listen_uri(remote, true)) << remote;
    }
    for (const char* bad :
         {"", "tcp:", "tcp:1", "tcp::1", "tcp:host:1", "tcp:127.0.0.1", "tcp:127.0.0.1:", "tcp:127.0.0.1:65536",
          "tcp:127.0.0.1:1x", "tcp:::1:1", "tcp:[::1:1", "unix:/x", "127.0.0.1:1"})
        EXPECT_EQ(check_tcp_listen_uri(bad, true).error().code, Errc::invalid) << bad;
}

TEST_F(MonitorsTest, SaysWhyATcpAddressIsRefused)
{
    options_.listen = {"tcp:0.0.0.0:0"};
    LiveServer remote(registry_, options_);
    ASSERT_FALSE(remote.started());
    EXPECT_NE(remote.started().error().text.find("remote = \"allow\""), std::string::npos);
    EXPECT_FALSE(std::filesystem::exists(options_.path));
    options_.listen = {"tcp:127.0.0.1:0"};
    LiveServer first(registry_, options_);
    options_.listen = first.run([&] { return first.server().addresses(); });
    options_.path = directory_.file("other.qmp");
    LiveServer second(registry_, options_);
    ASSERT_FALSE(second.started());
    EXPECT_NE(second.started().error().text.find("in use"), std::string::npos);
}

TEST_F(MonitorsTest, PairOfDescriptors)
{
    LiveServer live(registry_, options_);
    std::array<int, 2> to_server{}, from_server{};
    ASSERT_EQ(::pipe2(to_server.data(), O_CLOEXEC), 0);
    ASSERT_EQ(::pipe2(from_server.data(), O_CLOEXEC), 0);
    const Fd in(from_server[0]);
    Fd out(to_server[1]);
    live.run([&] { live.server().serve(Fd(to_server[0]), Fd(from_server[1])); });
    EXPECT_NE(read_line(in.get()).find("\"QMP\""), std::string::npos);
    const std::string requests = R"({"execute":"qmp_capabilities"}{"execute":"echo","arguments":{"a":1}})";
    ASSERT_EQ(::write(out.get(), requests.data(), requests.size()), static_cast<ssize_t>(requests.size()));
    EXPECT_EQ(read_line(in.get()), "{\"return\": {}}\r\n");
    EXPECT_EQ(read_line(in.get()), "{\"return\": {\"a\": 1}}\r\n");
    out.reset();
    EXPECT_EQ(read_line(in.get()), "");
    EXPECT_TRUE(live.wait_clients(0));
    // Nothing to read from, ever: the client is gone at once, the server goes on.
    live.run([&] { live.server().serve(Fd(::open("/dev/null", O_RDONLY)), Fd(::open("/dev/null", O_WRONLY))); });
    EXPECT_TRUE(live.wait_clients(0));
}

TEST_F(MonitorsTest, TwoHundredAtOnce)
{
    LiveServer live(registry_, options_);
    std::vector<Client> all;
    for (int i = 0; i < 200; ++i) all.push_back(client());
    ASSERT_EQ(live.clients(), 200u);
    for (int i = 0; i < 200; ++i)
        ASSERT_TRUE(
            all[static_cast<std::size_t>(i)].write(R"({"execute":"echo","id":)" + std::to_string(i) + "}", soon()));
    live.emit(schema::events::Stop{});
    for (int i = 0; i < 200; ++i) {
        bool answered = false, told = false;
        while (!answered || !told) {
            const auto message = all[static_cast<std::size_t>(i)].read(soon());
            ASSERT_TRUE(message) << message.error().text;
            if (message->contains("event")) {
                told = true;
            } else {
                answered = true;
                ASSERT_EQ(*message->find("id"), Value(i));
            }
        }
    }
}

// A hundred requests of one monitor do not delay the one request of another by a hundred.
TEST_F(MonitorsTest, MonitorsTakeTurns)
{
    int greedy_served = 0, before = -1;
    registry_.add_raw("greedy", [&](const Object&, Reply reply) {
        ++greedy_served;
        reply.succeed();
    });
    registry_.add_raw("modest", [&](const Object&, Reply reply) {
        before = greedy_served;
        reply.succeed();
    });
    LiveServer live(registry_, options_);
    Client greedy = client();
    Client modest = client();
    std::string many;
    for (int i = 0; i < 2000; ++i) many += R"({"execute":"greedy"})";
    // Both lie there before the server looks again.
    live.run([&] {
        EXPECT_TRUE(greedy.write(many, soon()));
        EXPECT_TRUE(modest.write(R"({"execute":"modest"})", soon()));
    });
    ASSERT_TRUE(modest.read(soon()));
    const int seen = live.run([&] { return before; });
    EXPECT_LT(seen, 100);
    for (int i = 0; i < 2000; ++i) ASSERT_TRUE(greedy.read(soon()));
}

TEST_F(MonitorsTest, ManyDeafClientsDoNotFillTheMemory)
{
    LiveServer live(registry_, options_);
    std::vector<Client> deaf;
    for (int i = 0; i < 20; ++i) deaf.push_back(client());
    Client good = client();
    schema::events::XColoStateChange event;
    event.reason = std::string(256 << 10, 'x');
    // Each stays below its own bound; together they do not.
    for (int i = 0; i < 40; ++i) {
        live.emit(event);
        ASSERT_TRUE(good.next_event(soon()));
    }
    EXPECT_LT(live.clients(), 21u);
    EXPECT_TRUE(good.execute("echo", {}, soon()));
}

// Sends `bytes` with the descriptors.
void send_fds(int socket, std::string_view bytes, const std::vector<int>& fds)
{
    std::vector<char> control(CMSG_SPACE(sizeof(int) * fds.size()));
    iovec data{const_cast<char*>(bytes.data()), bytes.size()};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
    std::memcpy(CMSG_DATA(part), fds.data(), sizeof(int) * fds.size());
    ASSERT_EQ(::sendmsg(socket, &message, MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
}

// Whether the other end of the pipe is closed everywhere; waits for it.
bool all_closed(int reader)
{
    for (const Deadline deadline = soon(); now() < deadline;
         std::this_thread::sleep_for(std::chrono::milliseconds(2))) {
        char byte = 0;
        if (::read(reader, &byte, 1) == 0) return true;
    }
    return false;
}

TEST_F(MonitorsTest, DescriptorsOverASocket)
{
    LiveServer live(registry_, options_);
    const auto send_one = [&](Client& from, std::string_view request, std::size_t copies) {
        std::array<int, 2> ends{};
        EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK), 0);
        send_fds(from.fd(), request, std::vector<int>(copies, ends[1]));
        ::close(ends[1]);
        return Fd(ends[0]);
    };
    const std::string take = R"({"execute":"take"})";
    std::optional<Client> one(client());
    const Fd kept = send_one(*one, take, 1);
    EXPECT_TRUE(one->read(soon())->contains("return"));
    EXPECT_EQ(live.run([&] { return registry_.fds()->held(); }), 1u);
    // Not taken; too many; broken: everything is closed.
    const Fd unwanted = send_one(*one, R"({"execute":"echo"})", 3);
    EXPECT_TRUE(all_closed(unwanted.get()));
    const Fd many = send_one(*one, R"({"execute":"echo"})", 100);
    EXPECT_TRUE(all_closed(many.get()));
    const Fd broken = send_one(*one, "]", 2);
    EXPECT_TRUE(all_closed(broken.get()));
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(one->read(soon()));
    // What is named ends with its monitor.
    char byte = 0;
    EXPECT_EQ(::read(kept.get(), &byte, 1), -1);
    one.reset();
    EXPECT_TRUE(all_closed(kept.get()));
}

}  // namespace
}  // namespace colo::qmp::test
