// SPDX-License-Identifier: Apache-2.0
#pragma once

// The proxy channel of a session: mirrored input one way, S's output and journal confirmations the other. Never blocks:
// what the peer does not read waits within a bound, beyond it frames are refused and the caller counts them.

#include "proxy/file_descriptor.h"
#include "proxy/frame.h"
#include "proxy/runtime.h"

#include <functional>

namespace colo::proxy {

class PeerChannel {
public:
    PeerChannel(SessionId session, ProxyChannel channel, std::size_t send_max);

    int fd() const { return fd_.get(); }
    SessionId session() const { return session_; }

    bool send_input(std::uint8_t nic, Epoch epoch, std::uint64_t number, ByteView frame);  // false: no room
    bool send_output(std::uint8_t nic, Epoch epoch, ByteView frame);
    // The newest replaces the ones not sent yet. It waits for output to travel with, because an answer says the same
    // and more: at most kJournalledDelay, and not for more than kJournalledFrames or kJournalledBytes of input. The sender
    // of an upload waits for these ACKs.
    void send_journalled(Epoch epoch, std::uint64_t number, Time now);
    // Writes what the socket takes.
    Result<void> flush(Time now);
    // When flush() must be called although nothing else happens.
    Time next_deadline() const { return journalled_frames_ == 0 ? kNever : journalled_due_; }
    bool backlog() const { return sent_ < out_.size(); }
    std::size_t backlog_bytes() const { return out_.size() - sent_; }

    struct Handler {
        std::function<void(const replication::ProxyInput&)> input;
        std::function<void(const replication::ProxyOutput&)> output;
        std::function<void(const replication::ProxyJournalled&)> journalled;
    };
    // Reads what is there, up to a bound per call. Errors end the channel.
    Result<void> receive(const Handler& handler);

    std::uint64_t bytes_sent() const { return bytes_sent_; }
    std::uint64_t bytes_received() const { return bytes_received_; }

private:
    static constexpr Duration kJournalledDelay{1000};
    static constexpr std::uint32_t kJournalledFrames = 16;
    static constexpr std::uint64_t kJournalledBytes = 8192;

    Result<void> dispatch(const replication::Frame& frame, const Handler& handler);
    bool room(std::size_t size) const { return backlog_bytes() + size <= send_max_; }

    FileDescriptor fd_;
    SessionId session_;
    replication::FrameWriter writer_;
    replication::FrameDecoder decoder_;
    std::size_t send_max_;
    Bytes out_;
    std::size_t sent_ = 0;
    std::uint32_t journalled_frames_ = 0;  // not confirmed yet
    std::uint64_t unconfirmed_bytes_ = 0;
    Time journalled_due_;
    replication::ProxyJournalled journalled_;
    std::uint64_t bytes_sent_ = 0, bytes_received_ = 0;
    bool first_read_ = true;
};

}  // namespace colo::proxy
