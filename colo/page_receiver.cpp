// SPDX-License-Identifier: Apache-2.0
#include "colo/page_receiver.h"

#include "colo/channel.h"
#include "replication/chunk.h"
#include "replication/wire.h"

#include <pthread.h>
#include <string>

namespace colo {

PageReceiver::PageReceiver(std::vector<int> sockets, SessionId session,
                           std::function<Result<void>(std::size_t, ByteView)> chunk, std::function<void(const Error&)> failed)
    : sockets_(std::move(sockets)), session_(session), chunk_(std::move(chunk)), failed_(std::move(failed))
{
    for (std::size_t i = 0; i < sockets_.size(); ++i) threads_.emplace_back([this, i] { run(i); });
}

PageReceiver::~PageReceiver()
{
    shut_down();
    for (auto& thread : threads_) thread.join();
    for (const int socket : sockets_) Fd(socket).reset();
}

void PageReceiver::shut_down()
{
    for (const int socket : sockets_) shutdown_socket(socket);
}

void PageReceiver::run(std::size_t channel)
{
    pthread_setname_np(pthread_self(), "page-recv");
    if (auto r = receive(channel); !r) failed_(with_context("page channel", r.error()));
}

Result<void> PageReceiver::receive(std::size_t channel)
{
    replication::FrameDecoder decoder(replication::ChannelKind::page);
    while (true) {
        // Idle between checkpoints is normal; that the peer is alive is the heartbeat's business.
        const auto got = recv_some(sockets_[channel], decoder.prepare(), kNever);
        if (!got) return got.error();
        decoder.commit(*got);
        while (true) {
            const auto frame = decoder.next();
            if (!frame) return frame.error();
            if (!*frame) break;
            const replication::Frame& f = **frame;
            if (f.header.session != session_ || f.header.type != replication::FrameType::page_chunk)
                return make_error(Errc::corrupt, "a frame that does not belong here");
            const auto chunk = replication::decode_chunk_header(f.payload);
            if (!chunk) return chunk.error();
            if (chunk->epoch != f.header.epoch)
                return make_error(Errc::corrupt, "a frame of epoch " + std::to_string(f.header.epoch) +
                                                     " with a chunk of epoch " + std::to_string(chunk->epoch));
            if (auto r = chunk_(channel, f.payload); !r) return r.error();
        }
    }
}

}  // namespace colo
