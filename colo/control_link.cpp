// SPDX-License-Identifier: Apache-2.0
#include "colo/control_link.h"

#include "colo/channel.h"
#include "core/clock.h"
#include "replication/wire.h"

#include <pthread.h>

#include <chrono>

namespace colo {
namespace {

constexpr std::size_t kQueueMax = 64;              // the protocol never has more than a handful under way
constexpr Duration kWriteStall{5'000'000};

}  // namespace

ControlLink::ControlLink(int socket, SessionId session, Callbacks callbacks)
    : socket_(socket), session_(session), callbacks_(std::move(callbacks)), reader_([this] { read(); }),
      writer_([this] { write(); })
{
}

ControlLink::~ControlLink()
{
    shut_down(Time{0});
    reader_.join();
    writer_.join();
    Fd(socket_).reset();
}

Result<void> ControlLink::send(replication::Message message)
{
    const std::lock_guard lock(mutex_);
    if (stopping_) return make_error(Errc::closed, "the session is over");
    if (queue_.size() >= kQueueMax) return make_error(Errc::limit, "the peer does not read its control channel");
    queue_.push_back(std::move(message));
    changed_.notify_all();
    return {};
}

void ControlLink::shut_down(Deadline flush_until)
{
    std::unique_lock lock(mutex_);
    if (stopping_) return;
    if (const Time t = now(); flush_until > t)
        changed_.wait_for(lock, std::chrono::microseconds((flush_until - t).count()),
                          [this] { return queue_.empty() && !writing_; });
    stopping_ = true;
    queue_.clear();
    changed_.notify_all();
    shutdown_socket(socket_);
}

void ControlLink::write()
{
    pthread_setname_np(pthread_self(), "control-send");
    replication::FrameWriter writer(replication::ChannelKind::control, session_);
    std::unique_lock lock(mutex_);
    while (true) {
        changed_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
        if (stopping_) return;
        const replication::Message message = std::move(queue_.front());
        queue_.pop_front();
        writing_ = true;
        lock.unlock();
        Bytes out;
        Result<void> sent = writer.append_message(out, message);
        if (sent) sent = send_all(socket_, ByteView(out), now() + kWriteStall);
        lock.lock();
        writing_ = false;
        changed_.notify_all();
        if (!sent) {
            const bool expected = stopping_;
            lock.unlock();
            if (!expected) callbacks_.lost(with_context("control channel", sent.error()));
            return;
        }
    }
}

void ControlLink::read()
{
    pthread_setname_np(pthread_self(), "control-recv");
    const auto result = read_frames();
    {
        const std::lock_guard lock(mutex_);
        if (stopping_) return;
    }
    const Error error = with_context("control channel", result.error());
    if (error.code == Errc::corrupt || error.code == Errc::limit)
        callbacks_.rubbish(error);
    else
        callbacks_.lost(error);
}

Result<void> ControlLink::read_frames()
{
    replication::FrameDecoder decoder(replication::ChannelKind::control);
    while (true) {
        const auto got = recv_some(socket_, decoder.prepare(), kNever);
        if (!got) return got.error();
        decoder.commit(*got);
        while (true) {
            const auto frame = decoder.next();
            if (!frame) return frame.error();
            if (!*frame) break;
            if ((*frame)->header.session != session_) return make_error(Errc::corrupt, "a frame of another session");
            auto message = replication::decode_message(**frame);
            if (!message) return message.error();
            callbacks_.message(std::move(*message));
        }
    }
}

}  // namespace colo
