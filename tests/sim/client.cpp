// SPDX-License-Identifier: Apache-2.0
#include "client.h"

#include <algorithm>
#include <cstring>

namespace colo::sim {

// ---- switch -----------------------------------------------------------------------------------------------------------

void Switch::carry(Bytes frame, std::function<void(ByteView)> deliver)
{
    if (random_.chance(loss)) return;
    if (random_.chance(damage)) frame[random_.below(frame.size())] ^= static_cast<std::uint8_t>(1u << random_.below(8));
    const int copies = random_.chance(duplicate) ? 2 : 1;
    for (int i = 0; i < copies; ++i)
        scheduler_.after(delay + random_.between(0, jitter.count()), [frame, deliver] { deliver(frame); });
}

void Switch::from_host(int host, ByteView frame)
{
    if (unplugged[host]) return;
    if (source_mac(frame) == kGuestMac) guest_at_ = host;
    carry(Bytes(frame.begin(), frame.end()), [this](ByteView f) { to_client(f); });
}

void Switch::from_client(ByteView frame)
{
    carry(Bytes(frame.begin(), frame.end()), [this](ByteView f) {
        if (!unplugged[guest_at_]) to_host(guest_at_, f);
    });
}

// ---- client -----------------------------------------------------------------------------------------------------------

Client::Client(Scheduler& scheduler, Random random, std::function<void(ByteView)> send,
               std::function<void(const std::string&)> violation)
    : scheduler_(scheduler), random_(random), send_(std::move(send)), violation_(std::move(violation))
{
}

void Client::start(std::size_t connections)
{
    connections_.resize(connections);
    for (std::size_t i = 0; i < connections; ++i) open(i);
    scheduler_.after(Duration{500}, [this] { udp_timer(); });
}

void Client::open(std::size_t index)
{
    Connection& c = connections_[index];
    const std::uint64_t written = c.written;
    c = {};
    c.written = written;   // the sector belongs to the index, across connections
    c.port = next_port_++;
    c.chain = c.port;
    c.iss = static_cast<std::uint32_t>(random_.chance(0.3) ? 0xffffff00u + random_.below(512) : random_.next());
    c.una = c.iss;
    c.nxt = c.iss + 1;
    c.left = random_.chance(0.5) ? 3 + static_cast<int>(random_.below(12)) : 100 + static_cast<int>(random_.below(200));
    c.asked = scheduler_.now();
    segment(c, c.iss, tcp_flag::kSyn, {});
    c.resend_at = scheduler_.now() + c.resend;
    timer(index, c.port);
}

void Client::segment(Connection& c, std::uint32_t seq, std::uint8_t flags, ByteView payload)
{
    Segment s;
    s.source_port = c.port;
    s.target_port = kTcpPort;
    s.seq = seq;
    s.ack = c.rcv_nxt;
    s.flags = flags;
    s.tsval = static_cast<std::uint32_t>(scheduler_.now().us / 1000);
    s.tsecr = c.ts_recent;
    s.payload.assign(payload.begin(), payload.end());
    send_(make_frame(s, false));
}

// Everything that is not acknowledged, from the start.
void Client::transmit(Connection& c)
{
    constexpr std::size_t kMss = 1000;
    for (std::size_t at = 0; at < c.unsent.size(); at += kMss) {
        const std::size_t n = std::min(kMss, c.unsent.size() - at);
        segment(c, c.una + static_cast<std::uint32_t>(at), tcp_flag::kAck | tcp_flag::kPush, ByteView(c.unsent).subspan(at, n));
    }
    if (c.fin_sent) segment(c, c.una + static_cast<std::uint32_t>(c.unsent.size()), tcp_flag::kAck | tcp_flag::kFin, {});
}

void Client::timer(std::size_t index, std::uint16_t port)
{
    scheduler_.after(Duration{10'000}, [this, index, port] {
        Connection& c = connections_[index];
        if (lost_ || c.port != port || c.state == Connection::State::closed) return;
        if (c.una != c.nxt && scheduler_.now() >= c.resend_at) {
            c.resend = std::min(c.resend * 2, Duration{500'000});
            c.resend_at = scheduler_.now() + c.resend;
            if (c.state == Connection::State::opening) segment(c, c.iss, tcp_flag::kSyn, {});
            else transmit(c);
        }
        timer(index, port);
    });
}

void Client::ask(std::size_t index)
{
    Connection& c = connections_[index];
    if (c.state != Connection::State::open || c.waiting || lost_) return;
    if (c.left-- <= 0 || draining_) {
        c.state = Connection::State::closing;
        c.fin_sent = true;
        ++c.nxt;
        c.asked = scheduler_.now();
        c.resend = Duration{60'000};
        c.resend_at = scheduler_.now() + c.resend;
        return transmit(c);
    }
    static constexpr Op kOps[] = {Op::echo, Op::echo, Op::count, Op::write, Op::read, Op::download};
    const Op op = random_.chance(time_share) ? Op::time : kOps[random_.below(std::size(kOps))];
    c.request = {static_cast<std::uint32_t>(op), static_cast<std::uint32_t>(random_.next()), 0, 0};
    if (op == Op::download) c.request.argument = static_cast<std::uint32_t>(1 + random_.below(kMaxBody));
    if (op == Op::write || op == Op::read) c.request.argument = static_cast<std::uint32_t>(index);
    c.request.length = static_cast<std::uint32_t>(random_.chance(upload_share) ? random_.below(kMaxRequestPayload) : random_.below(64));
    c.payload.resize(c.request.length);
    for (std::size_t i = 0; i < c.payload.size(); ++i) c.payload[i] = static_cast<std::uint8_t>(mix(c.request.id, i));
    c.count_floor = highest_count_;
    c.waiting = true;
    c.asked = scheduler_.now();
    const auto* head = reinterpret_cast<const std::uint8_t*>(&c.request);
    c.unsent.insert(c.unsent.end(), head, head + sizeof c.request);
    c.unsent.insert(c.unsent.end(), c.payload.begin(), c.payload.end());
    c.nxt = c.una + static_cast<std::uint32_t>(c.unsent.size());
    c.resend = Duration{60'000};
    c.resend_at = scheduler_.now() + c.resend;
    if (segment_gap.count() > 0) transmit_slowly(index);
    else transmit(c);
}

// A slow sender: the guest confirms the first segments before it can answer.
void Client::transmit_slowly(std::size_t index)
{
    constexpr std::size_t kMss = 1000;
    const Connection& c = connections_[index];
    Duration at{0};
    for (std::size_t from = 0; from < c.unsent.size(); from += kMss) {
        const std::uint32_t seq = c.una + static_cast<std::uint32_t>(from);
        const Bytes part(c.unsent.begin() + static_cast<std::ptrdiff_t>(from),
                         c.unsent.begin() + static_cast<std::ptrdiff_t>(std::min(from + kMss, c.unsent.size())));
        scheduler_.after(at, [this, index, port = c.port, seq, part] {
            Connection& now = connections_[index];
            if (!lost_ && now.port == port && !seq_less(seq, now.una)) segment(now, seq, tcp_flag::kAck | tcp_flag::kPush, part);
        });
        at += random_.between(200, segment_gap.count());
    }
}

void Client::receive(ByteView frame)
{
    if (lost_) return;
    const auto s = read_frame(frame);
    if (!s) return;
    if (s->udp) return on_udp(*s);
    for (std::size_t i = 0; i < connections_.size(); ++i)
        if (connections_[i].port == s->target_port && connections_[i].state != Connection::State::closed) return on_segment(i, *s);
}

void Client::on_segment(std::size_t index, const Segment& s)
{
    Connection& c = connections_[index];
    const std::string who = "connection " + std::to_string(c.port) + ": ";
    if (s.has(tcp_flag::kRst)) return violation_("Inv03: " + who + "reset by the server");
    if (seq_less(c.nxt, s.ack)) return violation_("Inv03: " + who + "bytes acknowledged that were never sent");
    if (s.has(tcp_flag::kSyn)) {
        if (c.state == Connection::State::opening) {
            c.state = Connection::State::open;
            c.irs = s.seq;
            c.rcv_nxt = s.seq + 1;
            c.ts_recent = s.tsval;
            c.una = c.iss + 1;
            gap(c.asked);
            segment(c, c.nxt, tcp_flag::kAck, {});
            scheduler_.after(random_.between(0, pause.count()), [this, index, port = c.port] {
                if (connections_[index].port == port) ask(index);
            });
        } else {
            segment(c, c.nxt, tcp_flag::kAck, {});   // RFC 5961: a challenge, whatever its number
        }
        return;
    }
    if (c.state == Connection::State::opening) return;
    if (seq_less(s.tsval, c.ts_recent)) return segment(c, c.nxt, tcp_flag::kAck, {});   // PAWS
    if (!seq_less(c.rcv_nxt, s.seq)) c.ts_recent = s.tsval;
    if (seq_less(c.una, s.ack)) {
        const std::size_t n = std::min<std::size_t>(s.ack - c.una, c.unsent.size());
        c.unsent.erase(c.unsent.begin(), c.unsent.begin() + static_cast<std::ptrdiff_t>(n));
        c.una = s.ack;
        if (c.fin_sent && c.una == c.nxt) c.fin_sent = false;
        c.resend = Duration{60'000};
        c.resend_at = scheduler_.now() + c.resend;
    }
    if (s.length() != 0) take(index, c, s);
}

void Client::take(std::size_t index, Connection& c, const Segment& s)
{
    const std::uint32_t offset = s.seq - (c.irs + 1);
    for (std::size_t i = 0; i < s.payload.size() && offset + i < c.history.size(); ++i) {
        if (c.history[offset + i] == s.payload[i]) continue;
        return violation_("Inv03: connection " + std::to_string(c.port) + ": byte " + std::to_string(offset + i) +
                          " differs from the one received before");
    }
    if (!seq_less(c.rcv_nxt, s.seq)) {
        const std::uint32_t skip = c.rcv_nxt - s.seq;
        if (skip <= s.payload.size() && !c.fin_seen) {
            c.history.insert(c.history.end(), s.payload.begin() + static_cast<std::ptrdiff_t>(skip), s.payload.end());
            c.rcv_nxt += static_cast<std::uint32_t>(s.payload.size()) - skip;
            if (s.has(tcp_flag::kFin)) {
                c.fin_seen = true;
                ++c.rcv_nxt;
            }
        }
    }
    segment(c, c.nxt, tcp_flag::kAck, {});
    parse(index, c);
    if (c.fin_seen && c.state == Connection::State::closing && c.una == c.nxt) {
        c.state = Connection::State::closed;
        gap(c.asked);
        if (!draining_) scheduler_.after(random_.between(500, 5000), [this, index] { if (!draining_ && !lost_) open(index); });
    } else if (c.fin_seen && c.state == Connection::State::open) {
        violation_("Inv03: connection " + std::to_string(c.port) + ": closed by the server unasked");
    }
}

void Client::parse(std::size_t index, Connection& c)
{
    Response r;
    if (c.history.size() - c.parsed < sizeof r) return;
    std::memcpy(&r, c.history.data() + c.parsed, sizeof r);
    if (!c.waiting || r.id != c.request.id || r.op != c.request.op || r.length > kMaxBody)
        return violation_("Inv03: connection " + std::to_string(c.port) + ": an answer to a question that was not asked");
    if (c.history.size() - c.parsed < sizeof r + r.length) return;
    const Bytes body(c.history.begin() + static_cast<std::ptrdiff_t>(c.parsed + sizeof r),
                     c.history.begin() + static_cast<std::ptrdiff_t>(c.parsed + sizeof r + r.length));
    c.parsed += sizeof r + r.length;
    answered(index, c, r, body);
}

void Client::answered(std::size_t index, Connection& c, const Response& r, ByteView body)
{
    const std::string who = "connection " + std::to_string(c.port) + ": ";
    const auto op = static_cast<Op>(r.op);
    if (op == Op::write && r.value != mix(c.chain, c.request.id)) violation_("Inv03: " + who + "another value was written");
    const std::uint64_t chain = next_chain(c.chain, c.request, c.payload, r.value);
    if (r.chain != chain) return violation_("Inv03: " + who + "the server's history is not the one this client has seen");
    c.chain = chain;
    if (op == Op::download && Bytes(body.begin(), body.end()) != body_bytes(chain, c.request.argument))
        violation_("Inv03: " + who + "wrong bytes in a download");
    if (op == Op::write) c.written = r.value;
    if (op == Op::read && r.value != c.written) violation_("Inv21: " + who + "an acknowledged write is not on the disk");
    if (op == Op::count) {
        if (r.value <= c.count_floor) violation_("Inv03: " + who + "the counter went back");
        if (!counts_.insert(r.value).second) violation_("Inv03: " + who + "a counter value was given twice");
        highest_count_ = std::max(highest_count_, r.value);
    }
    c.waiting = false;
    ++answers_;
    gap(c.asked);
    scheduler_.after(random_.between(0, pause.count()), [this, index, port = c.port] {
        if (connections_[index].port == port) ask(index);
    });
}

void Client::gap(Time asked)
{
    longest_gap_ = std::max(longest_gap_, scheduler_.now() - asked);
}

// ---- UDP --------------------------------------------------------------------------------------------------------------

void Client::udp_timer()
{
    if (lost_ || draining_) return;
    Segment s;
    s.udp = true;
    s.source_port = 5000;
    s.target_port = kUdpPort;
    const std::uint64_t id = ++udp_id_;
    s.payload.resize(8);
    std::memcpy(s.payload.data(), &id, 8);
    udp_floor_[udp_id_] = udp_highest_;
    if (udp_floor_.size() > 64) udp_floor_.erase(udp_floor_.begin());
    send_(make_frame(s, false));
    scheduler_.after(random_.between(3000, 15'000), [this] { udp_timer(); });
}

void Client::on_udp(const Segment& s)
{
    std::uint64_t id = 0, counter = 0;
    if (s.payload.size() != 16) return violation_("Inv03: a malformed datagram");
    std::memcpy(&id, s.payload.data(), 8);
    std::memcpy(&counter, s.payload.data() + 8, 8);
    const auto floor = udp_floor_.find(static_cast<std::uint32_t>(id));
    if (floor != udp_floor_.end() && counter <= floor->second) violation_("Inv03: the datagram counter went back");
    udp_highest_ = std::max(udp_highest_, counter);
}

bool Client::idle() const
{
    return std::all_of(connections_.begin(), connections_.end(),
                       [](const Connection& c) { return c.state == Connection::State::closed; });
}

std::string Client::waiting_for() const
{
    static constexpr const char* kStates[] = {"opening", "open", "closing", "closed"};
    std::string text;
    for (const Connection& c : connections_) {
        if (c.state == Connection::State::closed) continue;
        text += " port " + std::to_string(c.port) + " " + kStates[static_cast<std::size_t>(c.state)] +
                (c.waiting ? " waits for op " + std::to_string(c.request.op) : "") + " unacknowledged " +
                std::to_string(c.nxt - c.una) + " since " + std::to_string((scheduler_.now() - c.asked).count() / 1000) + " ms;";
    }
    return text;
}

}  // namespace colo::sim
