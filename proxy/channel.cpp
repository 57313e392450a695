// SPDX-License-Identifier: Apache-2.0
#include "proxy/channel.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>

namespace colo::proxy {

using replication::FrameType;

PeerChannel::PeerChannel(SessionId session, ProxyChannel channel, std::size_t send_max)
    : fd_(channel.fd),
      session_(session),
      writer_(std::move(channel.writer)),
      decoder_(std::move(channel.decoder)),
      send_max_(send_max)
{
    const int flags = ::fcntl(fd_.get(), F_GETFL);
    (void)::fcntl(fd_.get(), F_SETFL, flags | O_NONBLOCK);
    const int on = 1;
    (void)::setsockopt(fd_.get(), IPPROTO_TCP, TCP_NODELAY, &on,
                       sizeof on);  // fails on a Unix socket, which needs none
}

bool PeerChannel::send_input(std::uint8_t nic, Epoch epoch, std::uint64_t number, ByteView frame)
{
    if (!room(frame.size() + sizeof(replication::FrameWriter::InputPrefix))) return false;
    writer_.append_input(out_, nic, epoch, number, frame);
    return true;
}

bool PeerChannel::send_output(std::uint8_t nic, Epoch epoch, ByteView frame)
{
    if (!room(frame.size() + sizeof(replication::FrameWriter::OutputPrefix))) return false;
    writer_.append_output(out_, nic, epoch, frame);
    return true;
}

void PeerChannel::send_journalled(Epoch epoch, std::uint64_t number, Time now)
{
    journalled_ = {epoch, number};
    if (journalled_frames_++ == 0) journalled_due_ = now + kJournalledDelay;
}

Result<void> PeerChannel::flush(Time now)
{
    const bool much = journalled_frames_ >= kJournalledFrames || unconfirmed_bytes_ >= kJournalledBytes;
    if (journalled_frames_ != 0 && (backlog() || much || now >= journalled_due_)) {
        writer_.append_journalled(out_, journalled_.epoch, journalled_.number);  // a few bytes: always room
        journalled_frames_ = 0;
        unconfirmed_bytes_ = 0;
    }
    while (sent_ < out_.size()) {
        const ssize_t n = ::send(fd_.get(), out_.data() + sent_, out_.size() - sent_, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) break;
        if (n < 0) return errno_error("proxy channel", errno);
        sent_ += static_cast<std::size_t>(n);
        bytes_sent_ += static_cast<std::uint64_t>(n);
    }
    constexpr std::size_t kCompact = 1u << 20;
    if (sent_ == out_.size()) {
        out_.clear();
        sent_ = 0;
    } else if (sent_ >= kCompact && sent_ * 2 >= out_.size()) {
        out_.erase(out_.begin(), out_.begin() + static_cast<std::ptrdiff_t>(sent_));
        sent_ = 0;
    }
    return {};
}

Result<void> PeerChannel::dispatch(const replication::Frame& frame, const Handler& handler)
{
    if (frame.header.session != session_) return {};  // Inv05: another session has no effect
    switch (frame.header.type) {
    case FrameType::input: {
        const auto input = replication::decode_input(frame);
        if (!input) return input.error();
        unconfirmed_bytes_ += input->bytes.size();
        handler.input(*input);
        return {};
    }
    case FrameType::output: {
        const auto output = replication::decode_output(frame);
        if (!output) return output.error();
        handler.output(*output);
        return {};
    }
    case FrameType::journalled: {
        const auto journalled = replication::decode_journalled(frame);
        if (!journalled) return journalled.error();
        handler.journalled(*journalled);
        return {};
    }
    default:
        return make_error(Errc::corrupt,
                          std::string("proxy channel: unexpected ") + replication::to_string(frame.header.type));
    }
}

Result<void> PeerChannel::receive(const Handler& handler)
{
    constexpr int kReads = 8;
    for (int i = 0; i < kReads; ++i) {
        if (!first_read_) {
            const auto space = decoder_.prepare();
            const ssize_t n = ::recv(fd_.get(), space.data(), space.size(), MSG_DONTWAIT);
            if (n < 0 && (errno == EAGAIN || errno == EINTR)) return {};
            if (n < 0) return errno_error("proxy channel", errno);
            if (n == 0) return make_error(Errc::closed, "proxy channel: closed by the peer");
            bytes_received_ += static_cast<std::uint64_t>(n);
            decoder_.commit(static_cast<std::size_t>(n));
        }
        first_read_ = false;  // the hand-over may have left whole frames in the decoder
        for (;;) {
            const auto frame = decoder_.next();
            if (!frame) return frame.error();
            if (!*frame) break;
            if (auto r = dispatch(**frame, handler); !r) return r.error();
        }
    }
    return {};
}

}  // namespace colo::proxy
