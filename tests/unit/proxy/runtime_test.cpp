// SPDX-License-Identifier: Apache-2.0
// Two proxy threads joined by a socket, with ports and wires of memory.
#include "frames.h"

#include "core/clock.h"
#include "proxy/file_descriptor.h"
#include "proxy/runtime.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>

namespace colo::proxy::test {
namespace {

constexpr SessionId kSession = 99;

// One side of a cable that the test holds the other end of.
class Cable {
public:
    Cable() : event_(::eventfd(0, EFD_NONBLOCK)) {}
    int fd() const { return event_.get(); }
    void push(const FramePtr& frame)
    {
        const std::lock_guard lock(mutex_);
        in_.push_back(frame);
        const std::uint64_t one = 1;
        ASSERT_EQ(::write(event_.get(), &one, sizeof one), 8);
    }
    std::size_t receive(std::size_t max, const std::function<void(FramePtr)>& take)
    {
        std::vector<FramePtr> got;
        {
            const std::lock_guard lock(mutex_);
            while (!in_.empty() && got.size() < max) {
                got.push_back(in_.front());
                in_.pop_front();
            }
            std::uint64_t count = 0;
            if (in_.empty() && ::read(event_.get(), &count, sizeof count) < 0) count = 0;
        }
        for (FramePtr& frame : got) take(std::move(frame));
        return got.size();
    }
    SendResult sent(ByteView frame)
    {
        if (full) return SendResult::full;
        const std::lock_guard lock(mutex_);
        out_.push_back(make_frame(Bytes(frame.begin(), frame.end())));
        ready_.notify_all();
        return SendResult::sent;
    }
    // Waits for `n` frames in all; returns what is there.
    std::vector<FramePtr> wait(std::size_t n)
    {
        std::unique_lock lock(mutex_);
        ready_.wait_for(lock, std::chrono::seconds(5), [&] { return out_.size() >= n; });
        return out_;
    }
    std::size_t count()
    {
        const std::lock_guard lock(mutex_);
        return out_.size();
    }
    std::vector<FramePtr> unread;
    std::atomic<bool> full{false};

private:
    FileDescriptor event_;
    std::mutex mutex_;
    std::condition_variable ready_;
    std::deque<FramePtr> in_;
    std::vector<FramePtr> out_;
};

class FakePort final : public FramePort {
public:
    explicit FakePort(std::shared_ptr<Cable> cable) : cable_(std::move(cable)) {}
    int poll_fd() const override { return cable_->fd(); }
    Result<std::size_t> receive(std::size_t max, const std::function<void(FramePtr)>& take) override
    {
        return cable_->receive(max, take);
    }
    Result<SendResult> send(ByteView frame) override { return cable_->sent(frame); }
    PortStats stats() const override { return {}; }
    std::string name() const override { return "fake"; }
    int guest_fd() const override { return 42; }
    std::string netdev_argument(int) const override { return "fake"; }
    Result<void> attach(Time) override { return {}; }
    Result<std::vector<FramePtr>> take_unread() override { return std::exchange(cable_->unread, {}); }

private:
    std::shared_ptr<Cable> cable_;
};

class FakeWire final : public WirePort {
public:
    FakeWire(std::shared_ptr<Cable> cable, std::shared_ptr<std::atomic<bool>> up)
        : cable_(std::move(cable)), up_(std::move(up))
    {
    }
    int poll_fd() const override { return cable_->fd(); }
    Result<std::size_t> receive(std::size_t max, const std::function<void(FramePtr)>& take) override
    {
        return cable_->receive(max, take);
    }
    Result<SendResult> send(ByteView frame) override { return cable_->sent(frame); }
    PortStats stats() const override { return {}; }
    std::string name() const override { return "fake"; }
    Result<void> set_up(bool up) override
    {
        *up_ = up;
        return {};
    }
    bool carrier() const override { return true; }
    std::string host_interface() const override { return {}; }

private:
    std::shared_ptr<Cable> cable_;
    std::shared_ptr<std::atomic<bool>> up_;
};

struct Host final : RuntimeEvents {
    Host()
    {
        RuntimeOptions options;
        options.proxy.nics = {kGuestMac};
        options.announce = {Duration{5'000}, Duration{10'000}, 3, Duration{5'000}};
        options.channel_send_bytes_max = 200'000;
        std::vector<RuntimeNic> nics;
        nics.push_back({std::make_unique<FakePort>(guest), std::make_unique<FakeWire>(client, wire_up)});
        auto made = make_proxy_runtime(std::move(options), std::move(nics), *this);
        EXPECT_TRUE(made);
        runtime = std::move(*made);
    }
    void trigger(replication::TriggerReason reason, const std::string&) override
    {
        last_trigger = static_cast<int>(reason);
    }
    void channel_lost(SessionId session, const Error&) override
    {
        lost_session = session;
        ++losses;
    }
    void own_mac_seen(std::uint8_t) override {}
    void port_failed(std::uint8_t, bool, const Error&) override {}

    std::shared_ptr<Cable> guest = std::make_shared<Cable>(), client = std::make_shared<Cable>();
    std::shared_ptr<std::atomic<bool>> wire_up = std::make_shared<std::atomic<bool>>(false);
    std::atomic<int> last_trigger{0}, losses{0};
    std::atomic<SessionId> lost_session{0};
    std::unique_ptr<ProxyRuntime> runtime;
};

class Runtime : public ::testing::Test {
protected:
    static Time soon() { return now() + std::chrono::seconds(5); }
    static ProxyChannel channel(int fd)
    {
        return {fd, replication::FrameWriter(replication::ChannelKind::proxy, kSession),
                replication::FrameDecoder(replication::ChannelKind::proxy)};
    }
    void connect()
    {
        int fds[2];
        ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
        ASSERT_TRUE(p.runtime->become_primary(soon()));
        p.runtime->set_output(PrimaryProxy::Output::flow, 1);
        ASSERT_TRUE(s.runtime->become_secondary(kSession, channel(fds[0]), soon()));
        ASSERT_TRUE(p.runtime->begin_session(kSession, channel(fds[1]), soon()));
    }
    void checkpoint(Epoch epoch, bool first)
    {
        p.runtime->pause_input(true);
        p.runtime->start_seal(epoch, first);
        const auto section = p.runtime->finish_seal(soon());
        ASSERT_TRUE(section) << section.error().text;
        s.runtime->peer_cut(epoch);
        p.runtime->staged(epoch);
        ASSERT_TRUE(s.runtime->seal_secondary(soon()));
        ASSERT_TRUE(s.runtime->applied_secondary(epoch, *section, false, soon()));
        p.runtime->applied(epoch);
    }
    template <class Condition>
    static bool eventually(Condition condition)
    {
        const Time deadline = soon();
        while (!condition() && now() < deadline) ::poll(nullptr, 0, 2);
        return condition();
    }
    Host p, s;
};

TEST_F(Runtime, MirrorsComparesAndReleases)
{
    connect();
    checkpoint(1, true);
    p.client->push(tcp({.from_guest = false, .seq = 1000, .ack = 1, .data = "question"}));
    EXPECT_EQ(p.guest->wait(1).size(), 1u);
    EXPECT_EQ(s.guest->wait(1).size(), 1u);
    p.guest->push(tcp({.seq = 1, .ack = 1008, .data = "answer"}));
    ::poll(nullptr, 0, 20);
    EXPECT_EQ(p.client->count(), 0u);
    s.guest->push(tcp({.seq = 1, .ack = 1008, .data = "answer"}));
    EXPECT_EQ(p.client->wait(1).size(), 1u);
    // A pure ACK leaves by the journal alone.
    p.client->push(tcp({.from_guest = false, .seq = 1008, .ack = 7, .data = "upload"}));
    p.guest->wait(2);
    p.guest->push(tcp({.seq = 7, .ack = 1014}));
    EXPECT_EQ(p.client->wait(2).size(), 2u);
    EXPECT_EQ(s.client->count(), 0u);
    EXPECT_FALSE(*s.wire_up);
}

// Who the clients are, and when one was last heard: what is said to the guest alone, on the primary's wire.
TEST_F(Runtime, KnowsItsClientsAndWhenOneWasHeard)
{
    connect();
    checkpoint(1, true);
    Bytes to_all = arp(false, false, kClientIp, kGuestIp)->bytes;  // the host's own bridge says such things too
    std::fill_n(to_all.begin() + kVnetHeaderSize, 6, std::uint8_t{0xff});
    p.client->push(make_frame(to_all));
    EXPECT_EQ(p.guest->wait(1).size(), 1u);
    EXPECT_EQ(p.runtime->last_heard(), Time{});
    const Time before = now();
    p.client->push(tcp({.from_guest = false, .seq = 1000, .ack = 1, .data = "question"}));
    EXPECT_EQ(s.guest->wait(2).size(), 2u);
    EXPECT_GE(p.runtime->last_heard(), before);
    EXPECT_EQ(s.runtime->last_heard(), Time{}) << "it was the other host's wire";
    for (Host* host : {&p, &s}) {
        ASSERT_TRUE(eventually([&] { return !host->runtime->stats().clients.empty(); }));
        EXPECT_EQ(host->runtime->stats().clients[0].ip4, kClientIp);
    }
}

TEST_F(Runtime, DifferenceTriggersAndStagedReleases)
{
    connect();
    checkpoint(1, true);
    p.guest->push(tcp({.seq = 1, .data = "a"}));
    s.guest->push(tcp({.seq = 1, .data = "b"}));
    EXPECT_TRUE(eventually([&] { return p.last_trigger == static_cast<int>(replication::TriggerReason::mismatch); }));
    EXPECT_EQ(p.client->count(), 0u);
    checkpoint(2, false);
    EXPECT_EQ(p.client->wait(1).size(), 1u);
}

TEST_F(Runtime, R5_SealDrainsUnderTheOldTagAndGivesUnreadInputAgain)
{
    connect();
    checkpoint(1, true);
    p.runtime->pause_input(true);
    ASSERT_TRUE(p.runtime->fence(soon()));
    p.client->push(tcp({.from_guest = false, .seq = 1, .data = "waits in the wire"}));
    p.guest->push(tcp({.seq = 1, .data = "said before the stop"}));
    p.guest->unread = {tcp({.from_guest = false, .seq = 500, .data = "unread"})};
    p.runtime->start_seal(2, false);
    ASSERT_TRUE(p.runtime->finish_seal(soon()));
    p.runtime->staged(2);
    EXPECT_EQ(p.client->wait(1).size(), 1u) << "it carries tag 1";
    const auto input = p.guest->wait(2);
    ASSERT_EQ(input.size(), 2u);
    EXPECT_EQ(decode_tcp(input[0]).data, "unread");
    EXPECT_EQ(decode_tcp(input[1]).data, "waits in the wire");
    EXPECT_FALSE(p.runtime->finish_seal(soon())) << "no second answer to one seal";
}

TEST_F(Runtime, GoLiveReplaysAnnouncesAndServes)
{
    connect();
    checkpoint(1, true);
    p.client->push(tcp({.from_guest = false, .seq = 1000, .ack = 1, .data = "question"}));
    s.guest->wait(1);
    s.guest->push(arp(true, false, kGuestIp, kClientIp));
    s.guest->push(tcp({.seq = 1, .ack = 1000, .data = "answer"}));
    EXPECT_TRUE(eventually([&] { return s.runtime->stats().core.guest_frames >= 2; }));
    p.runtime->freeze();
    ASSERT_TRUE(s.runtime->go_live(2, soon()));
    EXPECT_TRUE(*s.wire_up);
    const auto out = s.client->wait(4);
    ASSERT_GE(out.size(), 4u);
    EXPECT_EQ(load_be16(out[0]->bytes.data() + kVnetHeaderSize + 12), kEtherTypeRarp) << "the switch first";
    EXPECT_TRUE(std::any_of(out.begin(), out.end(),
                            [](const FramePtr& f) { return parse_packet(f->view()).kind == PacketKind::tcp; }));
    const auto given = s.guest->wait(2);
    EXPECT_GE(std::count_if(given.begin(), given.end(),
                            [](const FramePtr& f) { return parse_packet(f->view()).kind == PacketKind::tcp; }),
              2)
        << "input that the guest has not acknowledged";
    EXPECT_TRUE(eventually([&] { return s.runtime->stats().announcements >= 6; }));
    s.guest->push(udp(true, 53, 1, "free"));
    EXPECT_TRUE(eventually([&] {
        const auto frames = s.client->wait(1);
        return parse_packet(frames.back()->view()).kind == PacketKind::udp ||
               std::any_of(frames.begin(), frames.end(),
                           [](const FramePtr& f) { return parse_packet(f->view()).kind == PacketKind::udp; });
    }));
    EXPECT_EQ(s.runtime->stats().role, RuntimeRole::primary);
}

TEST_F(Runtime, Inv16_LeaseStopsTheReleaseAndItsReturnStartsIt)
{
    connect();
    checkpoint(1, true);
    p.runtime->set_lease(Time{0});
    ASSERT_TRUE(p.runtime->fence(soon()));
    p.guest->push(tcp({.seq = 1, .data = "a"}));
    s.guest->push(tcp({.seq = 1, .data = "a"}));
    ::poll(nullptr, 0, 50);
    EXPECT_EQ(p.client->count(), 0u);
    p.runtime->set_lease(kNever);
    EXPECT_EQ(p.client->wait(1).size(), 1u);
}

TEST_F(Runtime, ABurstWaitsForAFullWireAndLeavesInOrder)
{
    connect();
    checkpoint(1, true);
    constexpr std::uint32_t kFrames = 500;
    for (std::uint32_t i = 0; i < kFrames; ++i) p.guest->push(udp(true, 53, 5353, std::to_string(i)));
    EXPECT_TRUE(eventually([&] { return p.runtime->stats().core.held_frames == kFrames; }));
    p.client->full = true;
    checkpoint(2, false);
    ASSERT_TRUE(p.runtime->fence(soon()));
    EXPECT_EQ(p.client->count(), 0u);
    p.client->full = false;
    const auto out = p.client->wait(kFrames);
    const std::uint64_t dropped = p.runtime->stats().wires[0].dropped_full;  // a busy machine may lose the first
    ASSERT_EQ(out.size() + dropped, kFrames);
    EXPECT_GT(out.size(), kFrames / 2);
    for (std::uint32_t i = 0; i < out.size(); ++i) {
        const Packet packet = parse_packet(out[i]->view());
        const ByteView text = packet.payload_bytes();
        EXPECT_EQ(std::string(text.begin(), text.end()), std::to_string(dropped + i));
    }
}

TEST_F(Runtime, Inv16_R8_WhatWaitsForTheWireObeysLeaseFreezeAndEndOfSession)
{
    enum class Stop { lease, freeze, hold, end };
    for (const Stop stop : {Stop::lease, Stop::freeze, Stop::hold, Stop::end}) {
        connect();
        checkpoint(1, true);
        p.client->full = true;
        for (int i = 0; i < 50; ++i) p.guest->push(udp(true, 53, 5353, "x"));
        EXPECT_TRUE(eventually([&] { return p.runtime->stats().core.held_frames == 50; }));
        checkpoint(2, false);
        ASSERT_TRUE(p.runtime->fence(soon()));
        switch (stop) {
        case Stop::lease: p.runtime->set_lease(Time{0}); break;
        case Stop::freeze: p.runtime->freeze(); break;
        case Stop::hold: p.runtime->set_output(PrimaryProxy::Output::hold, 1); break;
        case Stop::end: p.runtime->end_session(); break;
        }
        ASSERT_TRUE(p.runtime->fence(soon()));
        p.client->full = false;
        ::poll(nullptr, 0, 50);
        ASSERT_TRUE(p.runtime->stand_down(soon()));
        ASSERT_TRUE(s.runtime->stand_down(soon()));
        EXPECT_EQ(p.client->count(), 0u) << static_cast<int>(stop);
        p.runtime->set_lease(kNever);
    }
}

TEST_F(Runtime, R5_InputThatWaitsForAFullPortIsNotConsumed)
{
    connect();
    checkpoint(1, true);
    p.guest->full = true;
    p.client->push(tcp({.from_guest = false, .seq = 500, .data = "waits before the port"}));
    s.guest->wait(1);
    p.runtime->start_seal(2, false);
    ASSERT_TRUE(p.runtime->finish_seal(soon()));
    p.guest->full = false;
    ASSERT_EQ(p.guest->wait(1).size(), 1u);
    p.runtime->staged(2);
    ASSERT_TRUE(s.runtime->seal_secondary(soon()));
    ASSERT_TRUE(s.runtime->applied_secondary(2, {}, false, soon()));
    const auto given = s.guest->wait(2);
    ASSERT_GE(given.size(), 2u) << "the next epoch has it again";
    EXPECT_EQ(decode_tcp(given[1]).data, "waits before the port");
    ::poll(nullptr, 0, 30);
    EXPECT_EQ(p.guest->count(), 1u) << "once";
}

TEST_F(Runtime, FrozenMeansNotOneMoreFrame)
{
    connect();
    p.runtime->freeze();
    for (int i = 0; i < 100; ++i) p.guest->push(tcp({.seq = 1, .data = "x"}));
    ASSERT_TRUE(p.runtime->fence(soon()));
    EXPECT_EQ(p.client->count(), 0u);
    ASSERT_TRUE(p.runtime->stand_down(soon()));
    EXPECT_FALSE(*p.wire_up);
    EXPECT_FALSE(p.runtime->go_live(3, soon()));
}

TEST_F(Runtime, LostChannelIsReportedOnce)
{
    connect();
    ASSERT_TRUE(s.runtime->stand_down(soon()));
    EXPECT_TRUE(eventually([&] { return p.losses == 1; }));
    EXPECT_EQ(p.lost_session, kSession);
    p.client->push(tcp({.from_guest = false, .seq = 1, .data = "on it goes"}));
    EXPECT_EQ(p.guest->wait(1).size(), 1u);
    p.runtime->end_session();
    ASSERT_TRUE(p.runtime->fence(soon()));
    EXPECT_EQ(p.losses, 1);
}

TEST_F(Runtime, APeerThatDoesNotReadBlocksNobodyAndConfirmsNothing)
{
    int fds[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    const FileDescriptor silent(fds[0]);
    ASSERT_TRUE(p.runtime->become_primary(soon()));
    ASSERT_TRUE(p.runtime->begin_session(kSession, channel(fds[1]), soon()));
    p.runtime->set_output(PrimaryProxy::Output::protect, 1);
    for (std::uint32_t i = 0; i < 100; ++i)
        p.client->push(tcp({.from_guest = false, .seq = i * 20000, .data = std::string(20000, 'x')}));
    EXPECT_EQ(p.guest->wait(100).size(), 100u);
    EXPECT_TRUE(eventually([&] { return p.runtime->stats().mirror_dropped > 0; }));
    EXPECT_LE(p.runtime->stats().channel_backlog_bytes, 200'000u);
    p.guest->push(tcp({.seq = 1, .ack = 100 * 20000}));
    ASSERT_TRUE(p.runtime->fence(soon()));
    EXPECT_EQ(p.client->count(), 0u);
}

TEST_F(Runtime, RubbishOnTheChannelEndsIt)
{
    int fds[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    const FileDescriptor hostile(fds[0]);
    ASSERT_TRUE(p.runtime->become_primary(soon()));
    ASSERT_TRUE(p.runtime->begin_session(kSession, channel(fds[1]), soon()));
    const Bytes rubbish(100, 0xee);
    ASSERT_EQ(::send(hostile.get(), rubbish.data(), rubbish.size(), 0), 100);
    EXPECT_TRUE(eventually([&] { return p.losses == 1; }));
}

TEST_F(Runtime, ProgressRisesWhileNothingHappens)
{
    const std::uint64_t before = p.runtime->progress();
    EXPECT_TRUE(eventually([&] { return p.runtime->progress() > before + 2; }));
}

TEST_F(Runtime, FramesReadTooFarAtTheHandOverAreNotLost)
{
    int fds[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    const FileDescriptor peer(fds[0]);
    replication::FrameWriter writer(replication::ChannelKind::proxy, kSession);
    Bytes bytes;
    writer.append_channel_hello(bytes, 0);
    writer.append_input(bytes, 0, 1, 1, tcp({.from_guest = false, .seq = 1, .data = "early"})->view());
    ProxyChannel end = channel(fds[1]);
    end.decoder.push(bytes);
    ASSERT_TRUE(*end.decoder.next());  // the greeting
    ASSERT_TRUE(s.runtime->become_secondary(kSession, std::move(end), soon()));
    ASSERT_TRUE(s.runtime->applied_secondary(1, {}, false, soon()));
    EXPECT_EQ(s.guest->wait(1).size(), 1u);
}

// The owner of the session keeps a duplicate of the socket until it has heard of the loss. Turns are counted, not time: a
// thread that spins makes hundreds of thousands.
TEST_F(Runtime, ALostChannelDoesNotMakeItSpin)
{
    int fds[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    const int duplicate = ::dup(fds[1]);
    ASSERT_GE(duplicate, 0);
    ASSERT_TRUE(p.runtime->become_primary(soon()));
    p.runtime->set_output(PrimaryProxy::Output::flow, 1);
    ASSERT_TRUE(p.runtime->begin_session(kSession, channel(fds[1]), soon()));
    ::close(fds[0]);
    ASSERT_TRUE(eventually([&] { return p.losses == 1; }));
    const std::uint64_t before = p.runtime->progress();
    ::poll(nullptr, 0, 200);
    EXPECT_LT(p.runtime->progress() - before, 5'000u);
    ::close(duplicate);
}

}  // namespace
}  // namespace colo::proxy::test
