// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "frames.h"

#include <gtest/gtest.h>

namespace colo::proxy::test {

struct RecordingSink final : PrimarySink {
    struct Wire {
        std::uint8_t nic;
        FramePtr frame;
        ReleaseReason reason;
    };
    struct Mirror {
        std::uint8_t nic;
        Epoch epoch;
        std::uint64_t number;
        FramePtr frame;
    };
    void to_guest(std::uint8_t, const FramePtr& frame) override { guest.push_back(frame); }
    void to_wire(std::uint8_t nic, const FramePtr& frame, const ReleaseReason& reason) override
    {
        wire.push_back({nic, frame, reason});
    }
    void mirror(std::uint8_t nic, Epoch epoch, std::uint64_t number, const FramePtr& frame) override
    {
        mirrored.push_back({nic, epoch, number, frame});
    }
    void trigger(replication::TriggerReason reason, const std::string& detail) override
    {
        triggers.push_back(reason);
        last_detail = detail;
    }
    void own_mac_seen(std::uint8_t) override { ++own_mac; }
    std::vector<FramePtr> guest;
    std::vector<Wire> wire;
    std::vector<Mirror> mirrored;
    std::vector<replication::TriggerReason> triggers;
    std::string last_detail;
    int own_mac = 0;
};

// A primary in lock-step after its first APPLIED: epoch 1 runs on both sides, the comparer is open.
class PrimaryHarness : public ::testing::Test {
protected:
    static constexpr SessionId kSession = 7;
    PrimaryHarness() { make(ProxyOptions{}); }

    void make(ProxyOptions options)
    {
        options.nics = {kGuestMac};
        sink = RecordingSink{};
        proxy = make_primary_proxy(options, sink);
        proxy->set_output(PrimaryProxy::Output::flow, 1, now);
    }
    void protect()
    {
        proxy->begin_session(kSession, now);
        proxy->set_output(PrimaryProxy::Output::protect, 1, now);
        proxy->seal(1, {}, now);
        proxy->staged(1, now);
        proxy->applied(1, now);
        sink.wire.clear();
    }
    void checkpoint(Epoch next)
    {
        proxy->seal(next, {}, now);
        proxy->staged(next, now);
        proxy->applied(next, now);
    }
    void guest(const FramePtr& frame) { proxy->guest_frame(0, frame, now); }
    void peer(const FramePtr& frame, Epoch epoch = 1) { proxy->peer_output(0, epoch, frame, now); }
    void client(const FramePtr& frame) { proxy->wire_frame(0, frame, now); }
    // The journal of S has everything that was mirrored.
    void journalled() { proxy->peer_journalled(1, sink.mirrored.empty() ? 0 : sink.mirrored.back().number, now); }
    void pass(Duration time)
    {
        now = now + time;
        if (now >= proxy->next_deadline()) proxy->tick(now);
    }
    std::size_t released() const { return sink.wire.size(); }
    ReleaseReason::Kind last_reason() const { return sink.wire.back().reason.kind(); }

    Time now{1'000'000'000};
    RecordingSink sink;
    std::unique_ptr<PrimaryProxy> proxy;
};

}  // namespace colo::proxy::test
