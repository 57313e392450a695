// SPDX-License-Identifier: Apache-2.0
#pragma once

// The page channels of the primary: one thread each, fed from a bounded queue, so that encoding and sending overlap.
// Chunks go round robin; the secondary restores their order by ChunkHeader::order.

#include "core/error.h"
#include "core/types.h"

#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace colo {

class PageSender {
public:
    // Takes the connected sockets. `queue_bytes` bounds each channel's queue; `stall` is how long one write may block
    // before the channel counts as broken.
    PageSender(std::vector<int> sockets, SessionId session, std::uint64_t queue_bytes, Duration stall);
    ~PageSender();

    // Guest thread. Blocks while the queue is full, at most `stall`.
    Result<void> send(Epoch epoch, ByteView chunk);
    // Chunks of `epoch` handed to each channel since it was first used.
    std::vector<std::uint64_t> chunks(Epoch epoch) const;
    // 0 = unlimited. Holds while `paced`: the live first copy. A checkpoint is not slowed down, output waits for it.
    void set_bandwidth(std::uint64_t bytes_per_second);
    void set_paced(bool paced) { paced_.store(paced, std::memory_order_relaxed); }
    // Handed to send() and not yet written to a socket.
    std::uint64_t queued_bytes() const;
    // Whether every channel still works; send() says the same, but not to who only waits.
    Result<void> usable() const;
    std::uint64_t bytes_sent() const { return bytes_sent_.load(std::memory_order_relaxed); }
    // Any thread: wakes and fails everything.
    void shut_down();
    std::size_t channels() const { return channels_.size(); }

private:
    struct Channel {
        int socket = -1;
        std::thread thread;
        std::deque<Bytes> queue;
        std::uint64_t queued_bytes = 0, sequence = 0;
        Epoch epoch = 0;
        std::uint64_t epoch_chunks = 0;
    };
    void run(Channel& channel);

    SessionId session_;
    std::uint64_t queue_bytes_;
    Duration stall_;
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<std::unique_ptr<Channel>> channels_;
    std::size_t next_ = 0;
    bool stopping_ = false;
    Error broken_;
    bool is_broken_ = false;
    std::atomic<std::uint64_t> bytes_sent_{0}, bandwidth_{0};
    std::atomic<bool> paced_{true};
};

}  // namespace colo
