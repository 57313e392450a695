// SPDX-License-Identifier: Apache-2.0
#include "proxy_targets.h"

#include "core/check.h"
#include "proxy/packet.h"
#include "proxy/proxy.h"

#include <algorithm>

namespace colo::fuzz {
namespace {

using namespace colo::proxy;

constexpr std::size_t kBound = 8192;
constexpr std::size_t kFlows = 8;

struct Sink final : PrimarySink, SecondarySink {
    void to_guest(std::uint8_t, const FramePtr&) override {}
    void to_wire(std::uint8_t, const FramePtr&, const ReleaseReason& reason) override
    {
        if (protect)
            COLO_CHECK(reason.kind() == ReleaseReason::Kind::matched || reason.kind() == ReleaseReason::Kind::staged);
    }
    void mirror(std::uint8_t, Epoch, std::uint64_t, const FramePtr&) override {}
    void trigger(replication::TriggerReason, const std::string&) override {}
    void own_mac_seen(std::uint8_t) override {}
    void output(std::uint8_t, Epoch, const FramePtr&) override {}
    void journalled(Epoch, std::uint64_t) override {}
    bool protect = false;
};

// A frame of few bytes of input: a TCP or UDP skeleton with fields from the input, or the raw bytes.
FramePtr frame_from(const std::uint8_t*& at, const std::uint8_t* end, bool from_guest)
{
    const auto take = [&]() -> std::uint8_t { return at < end ? *at++ : std::uint8_t{0}; };
    const std::uint8_t shape = take();
    if (shape < 16) {
        const std::size_t wanted = take();   // first: what is left is less by it
        const std::size_t n = std::min(wanted, static_cast<std::size_t>(end - at));
        Bytes raw(at, at + n);
        at += n;
        return make_frame(std::move(raw));
    }
    const std::size_t payload = take() % 32;
    Bytes bytes(kVnetHeaderSize + 14 + 20 + 20 + payload, 0);
    std::uint8_t* l3 = bytes.data() + kVnetHeaderSize + 14;
    store_be16(l3 - 2, kEtherTypeIpv4);
    l3[0] = 0x45;
    store_be16(l3 + 2, static_cast<std::uint16_t>(40 + payload));
    l3[9] = shape % 5 == 0 ? 17 : 6;
    l3[from_guest ? 15 : 19] = 2;
    l3[from_guest ? 19 : 15] = 1;
    std::uint8_t* l4 = l3 + 20;
    const std::uint8_t port = take() % 4;
    l4[from_guest ? 1 : 3] = 80;
    l4[from_guest ? 3 : 1] = port;
    if (l3[9] == 17) {
        store_be16(l4 + 4, static_cast<std::uint16_t>(20 + payload));
    } else {
        store_be32(l4 + 4, 0xfffffff0u + take());
        store_be32(l4 + 8, 0xfffffff0u + take());
        l4[12] = 0x50;
        l4[13] = shape % 3 == 0 ? take() : std::uint8_t{kTcpAck};
    }
    std::fill(l4 + 20, l4 + 20 + payload, take());
    return make_frame(std::move(bytes));
}

// The two cores of one domain, and what both have been told.
struct Pair {
    explicit Pair(const ProxyOptions& options)
        : primary(make_primary_proxy(options, sink)), secondary(make_secondary_proxy(options, sink))
    {
        primary->begin_session(1, now);
    }
    void checkpoint(const FramePtr& frame);
    void aborted();
    void check() const;

    Sink sink;
    Time now{1'000'000};
    std::unique_ptr<PrimaryProxy> primary;
    std::unique_ptr<SecondaryProxy> secondary;
    Epoch epoch = 0;
    std::uint64_t number = 0;
};

void Pair::checkpoint(const FramePtr& frame)
{
    const auto section = primary->seal(++epoch, {{0, frame}}, now);
    secondary->peer_cut(epoch, now);
    primary->staged(epoch, now);
    secondary->applied(epoch, section, now);
    primary->applied(epoch, now);
}

void Pair::aborted()
{
    primary->seal(++epoch, {}, now);
    primary->aborted(epoch, now);
    secondary->aborted(epoch, now);
}

void Pair::check() const
{
    COLO_CHECK(primary->stats().held_bytes <= kBound);
    COLO_CHECK(secondary->stats().journal_bytes <= kBound);
    COLO_CHECK(primary->stats().flows <= kFlows && secondary->stats().flows <= kFlows);
}

void step(Pair& pair, const std::uint8_t*& at, const std::uint8_t* end)
{
    const auto frame = [&](bool from_guest) { return frame_from(at, end, from_guest); };
    const auto choice = [&] { return at < end && *at % 2 == 0; };
    const Time now = pair.now;
    switch (*at++ % 12) {
    case 0: pair.primary->guest_frame(0, frame(true), now); break;
    case 1: pair.primary->peer_output(0, pair.epoch, frame(true), now); break;
    case 2: pair.primary->wire_frame(0, frame(false), now); break;
    case 3: pair.secondary->input(0, pair.epoch, ++pair.number, frame(false), now); break;
    case 4: pair.secondary->guest_frame(0, frame(true), now); break;
    case 5: pair.checkpoint(frame(false)); break;
    case 6: pair.aborted(); break;
    case 7: pair.primary->peer_journalled(pair.epoch, pair.number, now); break;
    case 8:
        pair.sink.protect = true;
        pair.primary->set_output(PrimaryProxy::Output::protect, 1, now);
        break;
    case 9:
        pair.primary->set_mode(choice() ? replication::Mode::buffered : replication::Mode::lock_step, now);
        break;
    case 10: pair.primary->set_lease(choice() ? now : kNever, now); break;
    default: pair.primary->tick(now); pair.secondary->tick(now);
    }
}

}  // namespace

void proxy_packet(ByteView input)
{
    Bytes bytes(input.begin(), input.end());
    const Packet packet = parse_packet(bytes);
    if (packet.kind == PacketKind::opaque) return;
    COLO_CHECK(packet.l4 <= packet.payload && packet.payload <= packet.end && packet.end <= bytes.size());
    if (packet.kind == PacketKind::tcp) {
        rewrite_tcp(bytes, packet, {1, 0xffffffff, 2, 3});
        rewrite_tcp(bytes, packet, {0xffffffff, 1, 0xfffffffe, 0xfffffffd});
        const Packet again = parse_packet(bytes);
        COLO_CHECK(again.seq == packet.seq && again.ack == packet.ack && again.options.tsval == packet.options.tsval);
    }
    finish_checksum(bytes);
}

void proxy_cores(ByteView input)
{
    ProxyOptions options;
    options.hold_bytes_max = options.compare_bytes_max = options.journal_bytes_max = options.replay_bytes_max = kBound;
    options.flows_max = kFlows;
    Pair pair(options);
    const std::uint8_t* at = input.data();
    const std::uint8_t* end = at + input.size();
    while (at < end) {
        pair.now = pair.now + Duration{1000};
        step(pair, at, end);
        pair.check();
    }
    const TakeOver from = pair.secondary->take_over(pair.now);
    pair.sink.protect = false;
    const auto next = make_primary_proxy(options, pair.sink, from, pair.now);
    next->set_output(PrimaryProxy::Output::flow, 2, pair.now);
    COLO_CHECK(next->stats().held_bytes == 0);
}

}  // namespace colo::fuzz
