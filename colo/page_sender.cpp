// SPDX-License-Identifier: Apache-2.0
#include "colo/page_sender.h"

#include "colo/channel.h"
#include "core/clock.h"
#include "replication/wire.h"

#include <pthread.h>

#include <array>
#include <algorithm>
#include <chrono>
#include <cstring>

namespace colo {

PageSender::PageSender(std::vector<int> sockets, SessionId session, std::uint64_t queue_bytes, Duration stall)
    : session_(session), queue_bytes_(queue_bytes), stall_(stall)
{
    for (const int socket : sockets) {
        auto channel = std::make_unique<Channel>();
        channel->socket = socket;
        channels_.push_back(std::move(channel));
    }
    for (auto& channel : channels_) channel->thread = std::thread([this, &channel = *channel] { run(channel); });
}

PageSender::~PageSender()
{
    shut_down();
    for (auto& channel : channels_) {
        if (channel->thread.joinable()) channel->thread.join();
        Fd(channel->socket).reset();
    }
}

void PageSender::shut_down()
{
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    for (auto& channel : channels_) shutdown_socket(channel->socket);
    changed_.notify_all();
}

Result<void> PageSender::send(Epoch epoch, ByteView chunk)
{
    std::unique_lock lock(mutex_);
    Channel& channel = *channels_[next_];
    next_ = (next_ + 1) % channels_.size();
    const bool room = changed_.wait_for(lock, std::chrono::microseconds(stall_.count()), [&] {
        return stopping_ || is_broken_ || channel.queued_bytes == 0 || channel.queued_bytes + chunk.size() <= queue_bytes_;
    });
    if (is_broken_) return broken_;
    if (stopping_) return make_error(Errc::closed, "the session is over");
    if (!room) return make_error(Errc::timed_out, "page channel: the peer took nothing for too long");
    if (channel.epoch != epoch) {
        channel.epoch = epoch;
        channel.epoch_chunks = 0;
    }
    ++channel.epoch_chunks;
    Bytes item(sizeof(Epoch) + chunk.size());
    std::memcpy(item.data(), &epoch, sizeof epoch);
    std::memcpy(item.data() + sizeof epoch, chunk.data(), chunk.size());
    channel.queued_bytes += chunk.size();
    channel.queue.push_back(std::move(item));
    changed_.notify_all();
    return {};
}

std::vector<std::uint64_t> PageSender::chunks(Epoch epoch) const
{
    const std::lock_guard lock(mutex_);
    std::vector<std::uint64_t> counts;
    for (const auto& channel : channels_) counts.push_back(channel->epoch == epoch ? channel->epoch_chunks : 0);
    return counts;
}

Result<void> PageSender::usable() const
{
    const std::lock_guard lock(mutex_);
    if (is_broken_) return broken_;
    return {};
}

std::uint64_t PageSender::queued_bytes() const
{
    const std::lock_guard lock(mutex_);
    std::uint64_t bytes = 0;
    for (const auto& channel : channels_) bytes += channel->queued_bytes;
    return bytes;
}

void PageSender::set_bandwidth(std::uint64_t bytes_per_second) { bandwidth_.store(bytes_per_second, std::memory_order_relaxed); }

void PageSender::run(Channel& channel)
{
    pthread_setname_np(pthread_self(), "page-send");
    replication::FrameWriter writer(replication::ChannelKind::page, session_);
    std::unique_lock lock(mutex_);
    while (true) {
        changed_.wait(lock, [&] { return stopping_ || !channel.queue.empty(); });
        if (stopping_) return;
        const Bytes item = std::move(channel.queue.front());
        channel.queue.pop_front();
        lock.unlock();
        Epoch epoch = 0;
        std::memcpy(&epoch, item.data(), sizeof epoch);
        const ByteView chunk = ByteView(item).subspan(sizeof epoch);
        auto prefix = writer.chunk_prefix(epoch, chunk);
        const std::array<iovec, 2> parts{{{prefix.data(), prefix.size()},
                                          {const_cast<std::uint8_t*>(chunk.data()), chunk.size()}}};
        const Time begun = now();
        const auto sent = send_all(channel.socket, parts, begun + stall_);
        bytes_sent_.fetch_add(prefix.size() + chunk.size(), std::memory_order_relaxed);
        if (const std::uint64_t limit = bandwidth_.load(std::memory_order_relaxed); limit > 0 && paced_.load(std::memory_order_relaxed)) {
            // Each channel has its share; what the write took counts.
            const std::uint64_t share = std::max<std::uint64_t>(limit / channels_.size(), 1);
            const Duration owed{static_cast<std::int64_t>(chunk.size() * 1'000'000 / share)};
            if (const Duration spent = now() - begun; owed > spent && owed - spent < Duration{1'000'000})
                std::this_thread::sleep_for(owed - spent);
        }
        lock.lock();
        channel.queued_bytes -= chunk.size();
        if (!sent && !is_broken_) {
            broken_ = with_context("page channel", sent.error());
            is_broken_ = true;
        }
        changed_.notify_all();
        if (is_broken_) return;
    }
}

}  // namespace colo
