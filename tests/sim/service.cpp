// SPDX-License-Identifier: Apache-2.0
#include "service.h"

#include <algorithm>

namespace colo::sim {
namespace {

constexpr std::uint64_t kMagic = 0x434f4c4f53494d31u;
constexpr std::uint32_t kMss = 1000;
constexpr std::uint32_t kResendFirst = 40'000, kResendMax = 320'000;
constexpr std::int64_t kIdle = 5'000;   // us until it runs again without input

std::uint32_t ticks(std::int64_t clock_us) { return static_cast<std::uint32_t>(clock_us / 1000); }

template <class T>
ByteView bytes_of(const T& value)
{
    return {reinterpret_cast<const std::uint8_t*>(&value), sizeof(T)};
}

}  // namespace

std::uint64_t next_chain(std::uint64_t chain, const Request& request, ByteView payload, std::uint64_t value)
{
    std::uint64_t h = mix(chain, mix(request.id, mix(request.op, value)));
    for (std::size_t i = 0; i < payload.size(); i += 16) h = mix(h, payload[i]);
    return h;
}

Bytes body_bytes(std::uint64_t chain, std::uint32_t length)
{
    Bytes body(length);
    std::uint64_t word = 0;
    for (std::uint32_t i = 0; i < length; ++i) {
        if (i % 8 == 0) word = mix(chain, i);
        body[i] = static_cast<std::uint8_t>(word >> (i % 8 * 8));
    }
    return body;
}

void Service::boot()
{
    ram_.put(0, Kernel{kMagic, 0, 0, 0});
    cpu_.check = 0;
}

// The same number in memory and in the registers: a mixture of two states does not add up.
void Service::note_write(std::uint64_t what)
{
    Kernel k = ram_.get<Kernel>(0);
    cpu_.check = mix(cpu_.check, what);
    k.check = cpu_.check;
    ram_.put(0, k);
}

bool Service::consistent() const
{
    const Kernel k = ram_.get<Kernel>(0);
    return k.magic == kMagic && k.check == cpu_.check;
}

std::vector<std::pair<std::uint16_t, std::uint32_t>> Service::received(ByteView ram)
{
    std::vector<std::pair<std::uint16_t, std::uint32_t>> all;
    for (std::size_t slot = 0; slot < kConnections; ++slot) {
        Connection c;
        std::memcpy(&c, ram.data() + (1 + slot) * kPageSize, sizeof c);
        if (c.state != kClosed) all.emplace_back(static_cast<std::uint16_t>(c.peer_port), c.rcv_nxt);
    }
    return all;
}

void Service::send(const Connection& c, std::uint32_t seq, std::uint8_t flags, Bytes payload, std::int64_t clock_us)
{
    Segment s;
    s.source_port = kTcpPort;
    s.target_port = static_cast<std::uint16_t>(c.peer_port);
    s.seq = seq;
    s.ack = c.rcv_nxt;
    s.flags = flags;
    s.tsval = ticks(clock_us);
    s.tsecr = c.ts_recent;
    s.payload = std::move(payload);
    host_.transmit(make_frame(s, true));
}

void Service::receive_udp(const Segment& segment)
{
    if (segment.target_port != kUdpPort || segment.payload.size() != 8) return;
    Kernel k = ram_.get<Kernel>(0);
    ++k.udp_counter;
    ram_.put(0, k);
    Segment answer;
    answer.udp = true;
    answer.source_port = kUdpPort;
    answer.target_port = segment.source_port;
    answer.payload = segment.payload;
    const ByteView counter = bytes_of(k.udp_counter);
    answer.payload.insert(answer.payload.end(), counter.begin(), counter.end());
    host_.transmit(make_frame(answer, true));
    note_write(k.udp_counter);
}

void Service::receive(const Segment& segment, std::int64_t clock_us)
{
    if (cpu_.powered_off != 0) return;
    ++cpu_.steps;
    if (segment.udp) return receive_udp(segment);
    if (segment.target_port != kTcpPort) return;
    for (std::size_t slot = 0; slot < kConnections; ++slot) {
        Connection c = load(slot);
        if (c.state == kClosed || c.peer_port != segment.source_port) continue;
        established(slot, c, segment, clock_us);
        return store(slot, c);
    }
    if (segment.has(tcp_flag::kRst)) return;
    if (segment.has(tcp_flag::kSyn) && !segment.has(tcp_flag::kAck)) return open(segment, clock_us);
    Connection none{};
    none.peer_port = segment.source_port;
    none.rcv_nxt = segment.seq + segment.length();
    send(none, segment.ack, tcp_flag::kRst | tcp_flag::kAck, {}, clock_us);
}

void Service::open(const Segment& segment, std::int64_t clock_us)
{
    for (std::size_t slot = 0; slot < kConnections; ++slot) {
        if (load(slot).state != kClosed) continue;
        Connection c{};
        c.state = kSynReceived;
        c.peer_port = segment.source_port;
        c.iss = static_cast<std::uint32_t>(host_.host_chance());   // each host's own: R3
        c.una = c.iss;
        c.nxt = c.end = c.iss + 1;
        c.rcv_nxt = segment.seq + 1;
        c.ts_recent = segment.tsval;
        c.chain = segment.source_port;
        c.resend_us = kResendFirst;
        c.resend_at = clock_us + c.resend_us;
        send(c, c.iss, tcp_flag::kSyn | tcp_flag::kAck, {}, clock_us);
        note_write(c.peer_port);
        return store(slot, c);
    }
}

void Service::established(std::size_t slot, Connection& c, const Segment& s, std::int64_t clock_us)
{
    if (s.has(tcp_flag::kRst)) {
        if (s.seq == c.rcv_nxt) c = {};
        return;
    }
    if (s.has(tcp_flag::kSyn)) {
        if (c.state == kSynReceived) send(c, c.iss, tcp_flag::kSyn | tcp_flag::kAck, {}, clock_us);
        return;
    }
    if (seq_less(s.tsval, c.ts_recent)) {   // PAWS
        c.ack_due = 1;
        return;
    }
    if (!seq_less(c.rcv_nxt, s.seq)) c.ts_recent = s.tsval;
    if (s.has(tcp_flag::kAck) && seq_less(c.una, s.ack) && !seq_less(c.nxt, s.ack)) {
        c.una = s.ack;
        c.resend_us = kResendFirst;
        c.resend_at = clock_us + c.resend_us;
        if (c.state == kSynReceived) c.state = kEstablished;
        if (c.state == kLastAck && c.una == c.end) {
            note_write(c.chain);
            c = {};
            return;
        }
    }
    if (s.length() != 0) take_payload(slot, c, s);
    send_new(slot, c, clock_us);
}

void Service::take_payload(std::size_t slot, Connection& c, const Segment& s)
{
    c.ack_due = 1;
    if (c.state == kSynReceived || c.fin_queued != 0) return;
    std::uint32_t skip = c.rcv_nxt - s.seq;
    if (seq_less(c.rcv_nxt, s.seq) || skip > s.length()) return;   // a gap, or all of it old
    while (skip < s.payload.size()) {
        if (c.filled < sizeof c.request) c.request[c.filled] = s.payload[skip];
        ++c.filled;
        ++skip;
        ++c.rcv_nxt;
        Request head;
        std::memcpy(&head, c.request, sizeof head);
        if (c.filled >= sizeof head && c.filled == sizeof head + std::min<std::uint32_t>(head.length, kMaxRequestPayload)) serve(slot, c);
    }
    if (s.has(tcp_flag::kFin) && s.seq + s.payload.size() == c.rcv_nxt) {
        ++c.rcv_nxt;
        c.fin_queued = 1;
        ++c.end;
        c.state = kLastAck;
    }
}

void Service::serve(std::size_t slot, Connection& c)
{
    Request request;
    std::memcpy(&request, c.request, sizeof request);
    const ByteView payload(c.request + sizeof request, c.filled - sizeof request);
    c.filled = 0;
    Response response;
    response.id = request.id;
    response.op = request.op;
    switch (static_cast<Op>(request.op)) {
    case Op::time: response.value = host_.host_chance(); break;
    case Op::count: {
        Kernel k = ram_.get<Kernel>(0);
        response.value = ++k.counter;
        ram_.put(0, k);
        break;
    }
    case Op::write: response.value = host_.disk_write(request.argument, mix(c.chain, request.id)); break;
    case Op::read: response.value = host_.disk_read(request.argument); break;
    case Op::download: response.length = std::min<std::uint32_t>(request.argument, kMaxBody); break;
    case Op::echo:
    case Op::close: response.value = request.length; break;
    }
    c.chain = response.chain = next_chain(c.chain, request, payload, response.value);
    note_write(c.chain);
    queue(slot, c, bytes_of(response));
    if (response.length != 0) queue(slot, c, body_bytes(response.chain, response.length));
}

void Service::queue(std::size_t slot, Connection& c, ByteView data)
{
    for (std::size_t done = 0; done < data.size();) {
        const std::size_t at = (c.end - c.iss) % kSendBuffer;
        const std::size_t n = std::min(data.size() - done, kSendBuffer - at);
        ram_.write_bytes(buffer(slot) + at, data.subspan(done, n));
        c.end += static_cast<std::uint32_t>(n);
        done += n;
    }
}

void Service::send_range(std::size_t slot, const Connection& c, std::uint32_t from, std::uint32_t to, std::int64_t clock_us)
{
    const std::uint32_t data_end = c.fin_queued != 0 ? c.end - 1 : c.end;
    while (seq_less(from, to)) {
        const std::uint32_t n = seq_less(from, data_end) ? std::min({kMss, to - from, data_end - from}) : 0;
        Bytes payload(n);
        for (std::uint32_t i = 0; i < n; ++i)
            payload[i] = ram_.bytes()[buffer(slot) + (from + i - c.iss) % kSendBuffer];
        const bool fin = c.fin_queued != 0 && from + n == data_end && seq_less(data_end, to);
        send(c, from, static_cast<std::uint8_t>(tcp_flag::kAck | (n != 0 ? tcp_flag::kPush : 0) | (fin ? tcp_flag::kFin : 0)),
             std::move(payload), clock_us);
        from += n + (fin ? 1u : 0u);
    }
}

void Service::send_new(std::size_t slot, Connection& c, std::int64_t clock_us)
{
    if (c.state == kSynReceived || c.nxt == c.end) return;
    if (c.una == c.nxt) c.resend_at = clock_us + c.resend_us;
    send_range(slot, c, c.nxt, c.end, clock_us);
    c.nxt = c.end;
    c.ack_due = 0;
}

std::int64_t Service::run(std::int64_t clock_us, std::uint32_t pages_to_dirty)
{
    if (cpu_.powered_off != 0) return clock_us + kIdle;
    std::int64_t next = clock_us + kIdle;
    for (std::size_t slot = 0; slot < kConnections; ++slot) {
        Connection c = load(slot);
        if (c.state == kClosed) continue;
        bool changed = false;
        if (c.una != c.nxt && clock_us >= c.resend_at) {
            if (c.state == kSynReceived) send(c, c.iss, tcp_flag::kSyn | tcp_flag::kAck, {}, clock_us);
            else send_range(slot, c, c.una, c.nxt, clock_us);
            c.resend_us = std::min(c.resend_us * 2, kResendMax);
            c.resend_at = clock_us + c.resend_us;
            c.ack_due = 0;
            changed = true;
        }
        if (c.ack_due != 0) {
            send(c, c.nxt, tcp_flag::kAck, {}, clock_us);
            c.ack_due = 0;
            changed = true;
        }
        if (changed) store(slot, c);
        if (c.una != c.nxt) next = std::min(next, c.resend_at);
    }
    for (std::uint32_t i = 0; i < pages_to_dirty; ++i) {
        cpu_.random = mix(cpu_.random);
        const std::uint64_t free_pages = ram_.pages() - kServicePages;
        const std::size_t page = kServicePages + cpu_.random % free_pages;
        ram_.put(page * kPageSize + (cpu_.random >> 40) % (kPageSize / 8) * 8, mix(cpu_.random, cpu_.steps));
        note_write(page);
    }
    return std::max(next, clock_us + 100);
}

}  // namespace colo::sim
