// SPDX-License-Identifier: Apache-2.0
// Connections of a session over loopback: set-up, control messages, pages, rubbish, closing in mid-frame.
#include "colo/control_link.h"
#include "colo/page_receiver.h"
#include "colo/page_sender.h"
#include "colo/session_setup.h"
#include "core/clock.h"
#include "replication/chunk.h"

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>

namespace colo {
namespace {

constexpr Duration kLong{20'000'000};

// Collects what arrives on other threads.
template <class T>
class Inbox {
public:
    void put(T value)
    {
        const std::lock_guard lock(mutex_);
        items_.push_back(std::move(value));
        changed_.notify_all();
    }
    T take()
    {
        std::unique_lock lock(mutex_);
        const bool got = changed_.wait_for(lock, std::chrono::seconds(20), [this] { return !items_.empty(); });
        EXPECT_TRUE(got) << "nothing arrived";
        if (!got) return T{};
        T value = std::move(items_.front());
        items_.pop_front();
        return value;
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<T> items_;
};

// A chunk as far as its header is concerned.
Bytes chunk_of(Epoch epoch, std::uint8_t filler)
{
    Bytes bytes(1000, filler);
    replication::ChunkHeader header;
    header.epoch = epoch;
    header.base = epoch - 1;
    header.order = 1;
    header.pages = 1;
    header.raw_bytes = 1000 - replication::kChunkHeaderSize;
    header.compression = replication::Compression::none;
    replication::store_chunk_header(bytes.data(), header);
    return bytes;
}

class SessionTest : public ::testing::Test {
protected:
    void SetUp() override
    {
        auto opened = SessionListener::open("tcp:127.0.0.1:0", [this](SessionChannels c) { arrived.put(std::move(c)); });
        ASSERT_TRUE(opened) << opened.error().text;
        listener = std::move(*opened);
    }
    void connect(std::uint8_t pages)
    {
        auto dialled = dial_session(listener->uri(), 77, pages, now() + kLong);
        ASSERT_TRUE(dialled) << dialled.error().text;
        ours = std::move(*dialled);
        theirs = arrived.take();
    }
    ControlLink::Callbacks callbacks(Inbox<replication::Message>& messages, Inbox<std::string>& ends)
    {
        return {[&messages](replication::Message m) { messages.put(std::move(m)); },
                [&ends](const Error& e) { ends.put("lost " + e.text); }, [&ends](const Error& e) { ends.put("rubbish " + e.text); }};
    }
    Inbox<SessionChannels> arrived;
    std::unique_ptr<SessionListener> listener;
    SessionChannels ours, theirs;
};

// TCP takes a full window for a dead peer after a while, and a peer that works on an epoch reads nothing.
TEST(SessionSetup, SocketsOutliveWhatAnEpochMayTake)
{
    for (const Duration busy : {Duration{0}, Duration{5'000'000}, Duration{600'000'000}}) {
        EXPECT_GT(session_sockets(busy).user_timeout, busy);
        EXPECT_EQ(session_sockets(busy).keepalive, SocketOptions{}.keepalive);
    }
}

TEST_F(SessionTest, AllConnectionsOfASessionArriveTogether)
{
    connect(3);
    EXPECT_EQ(theirs.session, 77u);
    EXPECT_EQ(theirs.pages.size(), 3u);
    EXPECT_TRUE(theirs.control.valid());
    EXPECT_TRUE(theirs.proxy.valid());
}

TEST_F(SessionTest, AStrangerDoesNotDisturb)
{
    auto stranger = connect_session(listener->uri(), now() + kLong);
    ASSERT_TRUE(stranger);
    const Bytes noise(200, 0x55);
    ASSERT_TRUE(send_all(stranger->get(), ByteView(noise), now() + kLong));
    connect(1);
    EXPECT_EQ(theirs.pages.size(), 1u);
}

TEST_F(SessionTest, MessagesTravelBothWaysInOrder)
{
    connect(1);
    Inbox<replication::Message> at_us, at_them;
    Inbox<std::string> ends;
    ControlLink a(ours.control.release(), 77, callbacks(at_us, ends)), b(theirs.control.release(), 77, callbacks(at_them, ends));
    for (Epoch e = 1; e <= 20; ++e) ASSERT_TRUE(a.send(replication::Begin{e, e - 1, replication::Mode::lock_step}));
    for (Epoch e = 1; e <= 20; ++e) EXPECT_EQ(replication::epoch_of(at_them.take()), e);
    ASSERT_TRUE(b.send(replication::Staged{9}));
    EXPECT_EQ(replication::epoch_of(at_us.take()), 9u);
}

TEST_F(SessionTest, ShutDownFlushesTheLastWord)
{
    connect(1);
    Inbox<replication::Message> at_us, at_them;
    Inbox<std::string> ends;
    ControlLink b(theirs.control.release(), 77, callbacks(at_them, ends));
    {
        ControlLink a(ours.control.release(), 77, callbacks(at_us, ends));
        ASSERT_TRUE(a.send(replication::Resign{"tired"}));
        a.shut_down(now() + kLong);
        EXPECT_FALSE(a.send(replication::Staged{1}));
    }
    EXPECT_TRUE(std::holds_alternative<replication::Resign>(at_them.take()));
    EXPECT_EQ(ends.take().substr(0, 4), "lost");
}

TEST_F(SessionTest, RubbishOnTheControlChannelIsToldApartFromALoss)
{
    connect(1);
    Inbox<replication::Message> messages;
    Inbox<std::string> ends;
    ControlLink b(theirs.control.release(), 77, callbacks(messages, ends));
    const Bytes noise(400, 0xab);
    ASSERT_TRUE(send_all(ours.control.get(), ByteView(noise), now() + kLong));
    EXPECT_EQ(ends.take().substr(0, 7), "rubbish");
}

TEST_F(SessionTest, Inv05_AFrameOfAnotherSessionEndsThisOne)
{
    connect(1);
    Inbox<replication::Message> messages;
    Inbox<std::string> ends;
    ControlLink b(theirs.control.release(), 77, callbacks(messages, ends));
    ControlLink a(ours.control.release(), 78, callbacks(messages, ends));
    ASSERT_TRUE(a.send(replication::Staged{1}));
    EXPECT_EQ(ends.take().substr(0, 7), "rubbish");
}

TEST_F(SessionTest, PagesArriveOnEveryChannelAndAreCounted)
{
    connect(2);
    Inbox<std::pair<std::size_t, Bytes>> chunks;
    Inbox<std::string> ends;
    PageReceiver receiver({theirs.pages[0].release(), theirs.pages[1].release()}, 77,
                          [&](std::size_t channel, ByteView bytes) -> Result<void> {
                              chunks.put({channel, Bytes(bytes.begin(), bytes.end())});
                              return {};
                          },
                          [&](const Error& e) { ends.put(e.text); });
    {
        PageSender sender({ours.pages[0].release(), ours.pages[1].release()}, 77, 1 << 20, kLong);
        for (std::uint8_t i = 0; i < 9; ++i) ASSERT_TRUE(sender.send(5, chunk_of(5, i)));
        EXPECT_EQ(sender.chunks(5), (std::vector<std::uint64_t>{5, 4}));
        EXPECT_EQ(sender.chunks(6), (std::vector<std::uint64_t>{0, 0}));
        std::size_t sum = 0;
        for (int i = 0; i < 9; ++i) sum += chunks.take().second.at(999);
        EXPECT_EQ(sum, 36u);
    }
    ends.take();   // the sender is gone
    ends.take();
}

TEST_F(SessionTest, Inv31_AChunkOfAnotherEpochThanItsFrameIsCorrupt)
{
    connect(1);
    Inbox<std::string> ends;
    std::atomic<int> chunks = 0;
    PageReceiver receiver(
        {theirs.pages[0].release()}, 77,
        [&](std::size_t, ByteView) -> Result<void> {
            ++chunks;
            return {};
        },
        [&](const Error& e) { ends.put(e.text); });
    PageSender sender({ours.pages[0].release()}, 77, 1 << 20, kLong);
    ASSERT_TRUE(sender.send(5, chunk_of(5, 0)));
    ASSERT_TRUE(sender.send(6, chunk_of(5, 0)));
    EXPECT_NE(ends.take().find("a frame of epoch 6 with a chunk of epoch 5"), std::string::npos);
    EXPECT_EQ(chunks, 1);
}

TEST_F(SessionTest, PeerClosingInMidFrameIsAnError)
{
    connect(1);
    Inbox<std::string> ends;
    PageReceiver receiver({theirs.pages[0].release()}, 77, [](std::size_t, ByteView) -> Result<void> { return {}; },
                          [&](const Error& e) { ends.put(e.text); });
    const Bytes half(10, 0);
    ASSERT_TRUE(send_all(ours.pages[0].get(), ByteView(half), now() + kLong));
    ours.pages[0].reset();
    EXPECT_NE(ends.take(), "");
}

TEST_F(SessionTest, APeerThatTakesNothingStallsTheSenderNoLongerThanAllowed)
{
    connect(1);
    PageSender sender({ours.pages[0].release()}, 77, 64 << 10, Duration{200'000});
    Result<void> result;
    for (int i = 0; i < 10'000 && result; ++i) result = sender.send(1, Bytes(32 << 10, 1));
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, Errc::timed_out) << result.error().text;
}

}  // namespace
}  // namespace colo
