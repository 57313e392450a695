// SPDX-License-Identifier: Apache-2.0
#include "proxy/channel.h"

#include "frames.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

namespace colo::proxy::test {
namespace {

constexpr SessionId kSession = 7;

ProxyChannel channel_end(int fd)
{
    return {fd, replication::FrameWriter(replication::ChannelKind::proxy, kSession),
            replication::FrameDecoder(replication::ChannelKind::proxy)};
}

// What the primary receives of a secondary's confirmations.
class DelayedJournalled : public ::testing::Test {
protected:
    void SetUp() override
    {
        int fds[2];
        ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
        secondary.emplace(kSession, channel_end(fds[0]), std::size_t{1} << 20);
        primary.emplace(kSession, channel_end(fds[1]), std::size_t{1} << 20);
    }
    void flush_and_receive()
    {
        ASSERT_TRUE(secondary->flush(now));
        const PeerChannel::Handler handler{
            [](const replication::ProxyInput&) {}, [this](const replication::ProxyOutput&) { ++outputs; },
            [this](const replication::ProxyJournalled& j) { numbers.push_back(j.number); }};
        ASSERT_TRUE(primary->receive(handler));
    }
    Time now{1'000'000'000};
    std::optional<PeerChannel> secondary, primary;
    int outputs = 0;
    std::vector<std::uint64_t> numbers;
};

TEST_F(DelayedJournalled, TravelsWithOutput)
{
    secondary->send_journalled(1, 1, now);
    secondary->send_journalled(1, 2, now);
    flush_and_receive();
    EXPECT_TRUE(numbers.empty());
    ASSERT_TRUE(secondary->send_output(0, 1, tcp({.seq = 1, .data = "answer"})->view()));
    flush_and_receive();
    EXPECT_EQ(outputs, 1);
    EXPECT_EQ(numbers, std::vector<std::uint64_t>{2}) << "the newest says it all";
    EXPECT_EQ(secondary->next_deadline(), kNever);
}

TEST_F(DelayedJournalled, DoesNotWaitForManyFrames)
{
    for (std::uint64_t number = 1; number <= 15; ++number) secondary->send_journalled(1, number, now);
    flush_and_receive();
    EXPECT_TRUE(numbers.empty());
    secondary->send_journalled(1, 16, now);
    flush_and_receive();
    EXPECT_EQ(numbers, std::vector<std::uint64_t>{16});
}

TEST_F(DelayedJournalled, DoesNotWaitLongerThanItsDelay)
{
    secondary->send_journalled(1, 1, now);
    const Time due = secondary->next_deadline();
    EXPECT_EQ(due, now + Duration{1000});
    now = now + Duration{900};
    secondary->send_journalled(1, 2, now);
    flush_and_receive();
    EXPECT_TRUE(numbers.empty());
    EXPECT_EQ(secondary->next_deadline(), due) << "a newer one does not start the wait again";
    now = due;
    flush_and_receive();
    EXPECT_EQ(numbers, std::vector<std::uint64_t>{2});
    EXPECT_EQ(secondary->next_deadline(), kNever);
}

}  // namespace
}  // namespace colo::proxy::test
