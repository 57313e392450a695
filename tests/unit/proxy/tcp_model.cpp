// SPDX-License-Identifier: Apache-2.0
#include "tcp_model.h"

namespace colo::proxy::test {

char reply_to(char c, std::uint32_t position)
{
    return static_cast<char>('A' + (static_cast<std::uint32_t>(c) + position * 7) % 26);
}

FramePtr Endpoint::make(std::uint8_t flags, std::uint32_t seq, const std::string& data, std::uint32_t clock) const
{
    Segment s;
    s.from_guest = guest_;
    s.guest_port = id_.first;
    s.peer_port = id_.second;
    s.seq = seq;
    s.ack = (flags & kTcpAck) != 0 ? receive_next_ : 0;
    s.flags = flags;
    s.data = data;
    s.timestamp = {{clock, timestamp_recent_}};
    if ((flags & kTcpSyn) != 0) {
        s.mss = 1460;
        s.window_scale = 7;
        s.sack_permitted = true;
    }
    return tcp(s);
}

void Endpoint::open(std::uint32_t clock, std::vector<FramePtr>& out)
{
    state_ = State::syn_sent;
    una_ = isn_;
    next_ = isn_ + 1;
    out.push_back(make(kTcpSyn, isn_, "", clock));
}

bool Endpoint::check_overlap(const Decoded& segment, Fault& fault) const
{
    for (std::size_t i = 0; i < segment.data.size(); ++i) {
        const std::uint32_t at = segment.seq + static_cast<std::uint32_t>(i) - receive_first_;
        if (at < history_.size() && history_[at] != segment.data[i]) {
            fault.what = "byte " + std::to_string(at) + " was repeated differently";
            return false;
        }
    }
    return true;
}

void Endpoint::segment(const Decoded& segment, std::uint32_t clock, std::string& received, std::vector<FramePtr>& out,
                       Fault& fault)
{
    if ((segment.flags & kTcpRst) != 0) {
        fault.what = "reset";
        return;
    }
    if ((segment.flags & kTcpSyn) != 0) {
        if (state_ == State::established) {  // RFC 5961
            out.push_back(make(kTcpAck, next_, "", clock));
            return;
        }
        if (state_ == State::syn_received) {  // repeated, or with another number that comes too late
            out.push_back(make(kTcpSyn | kTcpAck, isn_, "", clock));
            return;
        }
        if (state_ == State::syn_sent && segment.ack != isn_ + 1) {
            fault.what = "SYN-ACK acknowledges " + std::to_string(segment.ack) + ", not " + std::to_string(isn_ + 1);
            return;
        }
        receive_first_ = receive_next_ = segment.seq + 1;
        timestamp_recent_ = segment.tsval;
        if (state_ == State::syn_sent) {
            state_ = State::established;
            una_ = isn_ + 1;
            out.push_back(make(kTcpAck, next_, "", clock));
        } else {
            state_ = State::syn_received;
            una_ = isn_;
            next_ = isn_ + 1;
            out.push_back(make(kTcpSyn | kTcpAck, isn_, "", clock));
        }
        return;
    }
    if (state_ == State::closed || state_ == State::syn_sent) return;
    if (seq_before(segment.tsval, timestamp_recent_)) {
        if (!guest_ && timestamp_recent_ - segment.tsval > 3)
            fault.what = "TSval fell by " + std::to_string(timestamp_recent_ - segment.tsval);
        out.push_back(make(kTcpAck, next_, "", clock));
        return;
    }
    if (seq_after(segment.ack, next_)) {
        // A client cannot see this; a guest that restarted from a checkpoint may be told of bytes it has yet to send.
        if (!guest_) fault.what = "ACK " + std::to_string(segment.ack) + " beyond " + std::to_string(next_);
        return;
    }
    // Both guests began the connection at slightly different times: a real kernel ignores such an echo.
    const std::uint32_t tolerance = guest_ ? 200 : 0;
    if (seq_after(segment.tsecr, clock + tolerance))
        fault.what = std::string(guest_ ? "guest" : "client") + ": TSecr from the future";
    if (seq_after(segment.ack, una_)) {
        std::uint32_t acked = segment.ack - una_;
        if (state_ == State::syn_received) {
            state_ = State::established;
            --acked;
        }
        pending_.erase(0, acked);
        una_ = segment.ack;
    }
    if (state_ == State::syn_received) return;
    if (!check_overlap(segment, fault)) return;
    if (segment.data.empty()) return;
    const std::uint32_t end = segment.seq + static_cast<std::uint32_t>(segment.data.size());
    if (!seq_after(segment.seq, receive_next_) && seq_after(end, receive_next_)) {
        const std::string fresh = segment.data.substr(receive_next_ - segment.seq);
        received += fresh;
        history_ += fresh;
        receive_next_ = end;
        timestamp_recent_ = segment.tsval;
    }
    out.push_back(make(kTcpAck, next_, "", clock));
}

void Endpoint::transmit(std::uint32_t clock, std::size_t piece, bool again, std::vector<FramePtr>& out)
{
    if (state_ == State::syn_sent && again) out.push_back(make(kTcpSyn, isn_, "", clock));
    if (state_ == State::syn_received && again) out.push_back(make(kTcpSyn | kTcpAck, isn_, "", clock));
    if (state_ != State::established) return;
    std::uint32_t at = again ? una_ : next_;
    while (at - una_ < pending_.size()) {
        const std::string data = pending_.substr(at - una_, piece);
        out.push_back(make(kTcpAck | kTcpPush, at, data, clock));
        at += static_cast<std::uint32_t>(data.size());
    }
    if (seq_after(at, next_)) next_ = at;
}

void Machine::serve(ConnectionId id, const std::string& request)
{
    std::string reply;
    std::uint32_t& position = kernel.served[id];
    for (const char c : request) {
        if (c == 'C') {
            const ConnectionId own{kernel.next_port++, std::uint16_t{7}};
            Endpoint& active = kernel.connections.emplace(own, Endpoint(true, own, random_())).first->second;
            active.send("hello from inside");
            active.open(clock(), output_);
        }
        reply += c == 'R' ? static_cast<char>('a' + random_.below(26)) : reply_to(c, position);
        ++position;
    }
    kernel.connections.at(id).send(reply);
}

void Machine::frame(const FramePtr& frame, Fault& fault)
{
    const Packet packet = parse_packet(frame->view());
    if (packet.kind != PacketKind::tcp) return;
    const ConnectionId id{packet.target_port, packet.source_port};
    auto it = kernel.connections.find(id);
    if (it == kernel.connections.end()) {
        if (!packet.has(kTcpSyn) || packet.has(kTcpAck)) {
            fault.what = "segment for a connection that the guest does not know";
            return;
        }
        it = kernel.connections.emplace(id, Endpoint(true, id, random_())).first;
    }
    std::string received;
    it->second.segment(decode_tcp(frame), clock(), received, output_, fault);
    if (!received.empty()) serve(id, received);
    kernel.connections.at(id).transmit(clock(), 20 + random_.below(200), false, output_);
}

void Machine::timer()
{
    for (auto& [id, endpoint] : kernel.connections) endpoint.transmit(clock(), 20 + random_.below(200), true, output_);
}

}  // namespace colo::proxy::test
