// SPDX-License-Identifier: Apache-2.0
// The QMP client against peers that behave, misbehave and say nothing.
#include "qemu/qmp_link.h"

#include "core/clock.h"

#include <boost/json.hpp>
#include <gtest/gtest.h>

#include <cstring>
#include <fcntl.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

namespace colo::qemu {
namespace {

constexpr std::string_view kGreeting =
    R"({"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian 1:7.2"}, "capabilities": ["oob"]}})"
    "\r\n";

Deadline soon(int ms = 2000) { return now() + std::chrono::milliseconds(ms); }

class QmpLinkTest : public ::testing::Test {
protected:
    QmpLinkTest()
    {
        int fds[2];
        EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        peer_ = fds[1];
        link_ = std::make_unique<QmpLink>(fds[0], "test", [this](std::string_view name, const boost::json::object& data) {
            events_.push_back(std::string(name) + " " + boost::json::serialize(data));
        });
    }
    ~QmpLinkTest() override { hang_up(); }

    void say(std::string_view text) { EXPECT_EQ(::write(peer_, text.data(), text.size()), static_cast<ssize_t>(text.size())); }
    void hang_up()
    {
        if (peer_ >= 0) ::close(peer_);
        peer_ = -1;
    }
    std::string heard()
    {
        char buffer[65536];
        const ssize_t n = ::recv(peer_, buffer, sizeof buffer, MSG_DONTWAIT);
        return n > 0 ? std::string(buffer, static_cast<std::size_t>(n)) : std::string();
    }
    // 4 MiB without an end of line.
    void flood()
    {
        const std::string chunk(65536, 'x');
        for (int i = 0; i < 64; ++i)
            if (::send(peer_, chunk.data(), chunk.size(), MSG_NOSIGNAL) < 0) return;
        ::shutdown(peer_, SHUT_WR);
    }
    void expect_dead(const Error& error, Errc code)
    {
        EXPECT_EQ(error.code, code) << error.text;
        EXPECT_TRUE(link_->dead());
        const auto again = link_->execute("stop", R"({"execute":"stop"})", soon());
        ASSERT_FALSE(again);
        EXPECT_EQ(again.error().code, Errc::closed);
    }

    int peer_ = -1;
    std::unique_ptr<QmpLink> link_;
    std::vector<std::string> events_;
};

TEST_F(QmpLinkTest, NegotiatesAndTellsTheVersion)
{
    say(kGreeting);
    say("{\"return\": {}}\r\n");
    const auto version = link_->negotiate(soon());
    ASSERT_TRUE(version) << version.error().text;
    EXPECT_EQ(*version, "7.2.22 (Debian 1:7.2)");
    EXPECT_EQ(heard(), R"({"execute":"qmp_capabilities"})");
}

TEST_F(QmpLinkTest, AGreetingThatIsNoneIsCorrupt)
{
    say("SSH-2.0-OpenSSH_9.2\r\n");
    const auto version = link_->negotiate(soon());
    ASSERT_FALSE(version);
    expect_dead(version.error(), Errc::corrupt);
}

TEST_F(QmpLinkTest, AnswersAreMatchedInOrderWithEventsInBetween)
{
    ASSERT_TRUE(link_->send("{\"execute\":\"a\"}{\"execute\":\"b\"}", 2, soon()));
    say("{\"timestamp\": {\"seconds\": 1}, \"event\": \"STOP\"}\r\n{\"return\": 1}\r\n{\"event\": \"X\", \"data\": {\"k\": [1]}}\r\n");
    say("{\"return\": {\"two\": 2}}\r\n{\"event\": \"RESUME\"}\r\n");
    EXPECT_EQ(*link_->receive("a", soon()), "1");
    EXPECT_EQ(*link_->receive("b", soon()), "{\"two\":2}");
    ASSERT_TRUE(link_->drain());
    EXPECT_EQ(events_, (std::vector<std::string>{"STOP {}", "X {\"k\":[1]}", "RESUME {}"}));
}

TEST_F(QmpLinkTest, Inv31_AnErrorAnswerKeepsTheLinkAlive)
{
    say("{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\\u0007pe\"}}\r\n");
    const auto answer = link_->execute("cont", R"({"execute":"cont"})", soon());
    ASSERT_FALSE(answer);
    EXPECT_EQ(answer.error().code, Errc::refused);
    EXPECT_EQ(answer.error().text, "cont: GenericError: no?pe");   // control characters do not reach a terminal
    say("{\"return\": {}}\r\n");
    EXPECT_TRUE(link_->execute("cont", R"({"execute":"cont"})", soon()));
}

TEST_F(QmpLinkTest, HalfLinesAreKeptUntilTheyAreWhole)
{
    ASSERT_TRUE(link_->send("{\"execute\":\"a\"}", 1, soon()));
    std::thread peer([this] {
        for (const char c : std::string("{\"return\": {\"x\": \"y\"}}\r\n")) {
            say(std::string(1, c));
            ::usleep(500);
        }
    });
    const auto answer = link_->receive("a", soon(10000));
    peer.join();
    ASSERT_TRUE(answer);
    EXPECT_EQ(*answer, "{\"x\":\"y\"}");
}

TEST_F(QmpLinkTest, Inv13_SilenceEndsAtTheDeadline)
{
    const auto answer = link_->execute("stop", R"({"execute":"stop"})", soon(30));
    ASSERT_FALSE(answer);
    expect_dead(answer.error(), Errc::timed_out);
}

TEST_F(QmpLinkTest, Inv13_HalfALineAndSilenceEndAtTheDeadline)
{
    say("{\"return\": ");
    const auto answer = link_->execute("stop", R"({"execute":"stop"})", soon(30));
    ASSERT_FALSE(answer);
    expect_dead(answer.error(), Errc::timed_out);
}

TEST_F(QmpLinkTest, Inv13_AFloodOfEventsEndsAtTheDeadline)
{
    std::atomic<bool> done = false;
    std::thread peer([&] {
        const std::string event = "{\"event\": \"NOISE\"}\r\n";
        while (!done)
            if (::send(peer_, event.data(), event.size(), MSG_DONTWAIT | MSG_NOSIGNAL) < 0) ::usleep(100);
    });
    const auto answer = link_->execute("stop", R"({"execute":"stop"})", soon(50));
    done = true;
    peer.join();
    ASSERT_FALSE(answer);
    EXPECT_EQ(answer.error().code, Errc::timed_out);
}

TEST_F(QmpLinkTest, APeerThatDoesNotReadEndsAtTheDeadline)
{
    const std::string huge(8u << 20, ' ');
    const auto sent = link_->send(huge, 1, soon(30));
    ASSERT_FALSE(sent);
    expect_dead(sent.error(), Errc::timed_out);
}

TEST_F(QmpLinkTest, EndOfFileIsClosed)
{
    say("{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": false}}\r\n{\"retu");
    ::shutdown(peer_, SHUT_WR);
    const auto answer = link_->execute("stop", R"({"execute":"stop"})", soon());
    ASSERT_FALSE(answer);
    expect_dead(answer.error(), Errc::closed);
    EXPECT_EQ(events_.size(), 1u);   // what came before is not lost
}

TEST_F(QmpLinkTest, AnAnswerWithoutAQuestionIsCorrupt)
{
    say("{\"return\": {}}\r\n");
    const auto drained = link_->drain();
    ASSERT_FALSE(drained);
    expect_dead(drained.error(), Errc::corrupt);
}

TEST_F(QmpLinkTest, AnEndlessLineIsCorruptAndBounded)
{
    std::thread peer([this] { flood(); });
    const auto answer = link_->execute("stop", R"({"execute":"stop"})", soon(20000));
    ASSERT_FALSE(answer);
    expect_dead(answer.error(), Errc::corrupt);
    link_.reset();   // lets the peer's send fail
    peer.join();
}

TEST_F(QmpLinkTest, AnEndlessGreetingIsCorruptAndBounded)
{
    std::thread peer([this] { flood(); });
    const auto version = link_->negotiate(soon(20000));
    ASSERT_FALSE(version);
    expect_dead(version.error(), Errc::corrupt);
    link_.reset();
    peer.join();
}

struct Garbage {
    const char* name;
    std::string line;
};
class QmpGarbageTest : public QmpLinkTest, public ::testing::WithParamInterface<Garbage> {};

TEST_P(QmpGarbageTest, Inv31_IsCorruptAndTheLinkIsDead)
{
    say(GetParam().line);
    say("\r\n");
    const auto answer = link_->execute("stop", R"({"execute":"stop"})", soon());
    ASSERT_FALSE(answer);
    expect_dead(answer.error(), Errc::corrupt);
    for (const char c : answer.error().text) EXPECT_TRUE(c >= ' ' && c < 127);
}

INSTANTIATE_TEST_SUITE_P(
    Lines, QmpGarbageTest,
    ::testing::Values(Garbage{"NotJson", "segmentation fault"}, Garbage{"Binary", std::string("\x00\xff\xfe\x1b[2J", 7)},
                      Garbage{"Array", "[1, 2]"}, Garbage{"Number", "7"}, Garbage{"Empty", ""}, Garbage{"NeitherNor", "{\"id\": 1}"},
                      Garbage{"Both", "{\"return\": {}, \"error\": {}}"}, Garbage{"ErrorIsText", "{\"error\": \"x\"}"},
                      Garbage{"EventIsNumber", "{\"event\": 1}"}, Garbage{"TwoObjects", "{\"return\": {}} {\"return\": {}}"},
                      Garbage{"Deep", std::string(5000, '[') + std::string(5000, ']')}, Garbage{"Truncated", "{\"return\": {"}),
    [](const auto& test) { return std::string(test.param.name); });

TEST_F(QmpLinkTest, WaitEventReadsUntilTheConditionHolds)
{
    say("{\"event\": \"A\"}\r\n{\"event\": \"B\"}\r\n{\"event\": \"C\"}\r\n");
    ASSERT_TRUE(link_->wait_event("B", [this] { return !events_.empty() && events_.back() == "B {}"; }, soon()));
    EXPECT_EQ(events_.size(), 2u);
    const auto never = link_->wait_event("D", [this] { return events_.back() == "D {}"; }, soon(30));
    ASSERT_FALSE(never);
    EXPECT_EQ(never.error().code, Errc::timed_out);
}

TEST(JsonQuote, QuotesWhatAPathMayHold) { EXPECT_EQ(json_quote("/a \"b\"\\\n"), R"("/a \"b\"\\\n")"); }

// What came with the next byte: the descriptor, or -1.
int take_descriptor(int socket, char& byte)
{
    iovec part{&byte, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    if (::recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != 1) return -1;
    const cmsghdr* const head = CMSG_FIRSTHDR(&message);
    if (head == nullptr || head->cmsg_type != SCM_RIGHTS) return -1;
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(head), sizeof fd);
    return fd;
}

TEST_F(QmpLinkTest, DescriptorGoesWithItsCommand)
{
    int pipe[2];
    ASSERT_EQ(::pipe2(pipe, O_CLOEXEC), 0);
    const std::string command = R"({"execute":"getfd","arguments":{"fdname":"x"}})";
    ASSERT_TRUE(link_->send_with_fd(command, pipe[1], soon()));
    EXPECT_EQ(link_->outstanding(), 1u);
    char first = 0;
    const int fd = take_descriptor(peer_, first);
    ASSERT_GE(fd, 0);
    EXPECT_EQ(first + heard(), command);
    ::close(pipe[1]);   // ours; theirs is a duplicate
    EXPECT_EQ(::write(fd, "y", 1), 1);
    char byte = 0;
    EXPECT_EQ(::read(pipe[0], &byte, 1), 1);
    EXPECT_EQ(byte, 'y');
    ::close(fd);
    ::close(pipe[0]);
    say("{\"return\": {}}\r\n");
    EXPECT_TRUE(link_->receive("getfd", soon()));
    ASSERT_TRUE(link_->send("{\"execute\":\"a\"}", 1, soon()));
    EXPECT_EQ(take_descriptor(peer_, first), -1);   // none goes with the next one
}

TEST_F(QmpLinkTest, DescriptorThatIsNoneEndsTheLink)
{
    const auto sent = link_->send_with_fd(R"({"execute":"getfd"})", 1 << 20, soon());
    ASSERT_FALSE(sent);
    EXPECT_TRUE(link_->dead());
    EXPECT_EQ(link_->send_with_fd(R"({"execute":"getfd"})", 0, soon()).error().code, Errc::closed);
}

TEST_F(QmpLinkTest, DescriptorForAPeerThatTakesNothing)
{
    const std::string chunk(65536, ' ');
    const int fd = link_->fd();
    while (::send(fd, chunk.data(), chunk.size(), MSG_DONTWAIT) > 0) {}
    const auto sent = link_->send_with_fd(R"({"execute":"getfd"})", 0, soon(50));
    ASSERT_FALSE(sent);
    expect_dead(sent.error(), Errc::timed_out);
}

TEST_F(QmpLinkTest, DescriptorForAPeerThatIsGone)
{
    hang_up();
    const auto sent = link_->send_with_fd(R"({"execute":"getfd"})", 0, soon());
    ASSERT_FALSE(sent);
    expect_dead(sent.error(), Errc::closed);
}

}  // namespace
}  // namespace colo::qemu
