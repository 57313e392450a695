// SPDX-License-Identifier: Apache-2.0
// Both cores under any sequence of frames and epoch events: bounds and books hold, nothing crashes, nothing leaves a
// protected primary without a reason in which the secondary took part.
#include "core/check.h"
#include "proxy/packet.h"
#include "proxy/proxy.h"

#include <algorithm>

namespace {

using namespace colo;
using namespace colo::proxy;

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
        const std::size_t n = std::min<std::size_t>(take(), static_cast<std::size_t>(end - at));
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

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
{
    ProxyOptions options;
    options.hold_bytes_max = options.compare_bytes_max = options.journal_bytes_max = options.replay_bytes_max = 8192;
    options.flows_max = 8;
    Sink sink;
    const auto primary = make_primary_proxy(options, sink);
    auto secondary = make_secondary_proxy(options, sink);
    Time now{1'000'000};
    primary->begin_session(1, now);
    Epoch epoch = 0;
    std::uint64_t number = 0;
    const std::uint8_t* at = data;
    const std::uint8_t* end = data + size;
    while (at < end) {
        now = now + Duration{1000};
        switch (*at++ % 12) {
        case 0: primary->guest_frame(0, frame_from(at, end, true), now); break;
        case 1: primary->peer_output(0, epoch, frame_from(at, end, true), now); break;
        case 2: primary->wire_frame(0, frame_from(at, end, false), now); break;
        case 3: secondary->input(0, epoch, ++number, frame_from(at, end, false), now); break;
        case 4: secondary->guest_frame(0, frame_from(at, end, true), now); break;
        case 5: {
            const auto section = primary->seal(++epoch, {{0, frame_from(at, end, false)}}, now);
            secondary->peer_cut(epoch, now);
            primary->staged(epoch, now);
            secondary->applied(epoch, section, now);
            primary->applied(epoch, now);
            break;
        }
        case 6:
            primary->seal(++epoch, {}, now);
            primary->aborted(epoch, now);
            secondary->aborted(epoch, now);
            break;
        case 7: primary->peer_journalled(epoch, number, now); break;
        case 8:
            sink.protect = true;
            primary->set_output(PrimaryProxy::Output::protect, 1, now);
            break;
        case 9:
            primary->set_mode(at < end && *at % 2 == 0 ? replication::Mode::buffered : replication::Mode::lock_step,
                              now);
            break;
        case 10: primary->set_lease(at < end && *at % 2 == 0 ? now : kNever, now); break;
        default: primary->tick(now); secondary->tick(now);
        }
        COLO_CHECK(primary->stats().held_bytes <= 8192);
        COLO_CHECK(secondary->stats().journal_bytes <= 8192);
        COLO_CHECK(primary->stats().flows <= 8 && secondary->stats().flows <= 8);
    }
    const TakeOver from = secondary->take_over(now);
    sink.protect = false;
    const auto next = make_primary_proxy(options, sink, from, now);
    next->set_output(PrimaryProxy::Output::flow, 2, now);
    COLO_CHECK(next->stats().held_bytes == 0);
    return 0;
}
