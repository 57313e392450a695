// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "frames.h"

#include <gtest/gtest.h>

namespace colo::proxy::test {

struct RecordingSecondarySink final : SecondarySink {
    struct Out {
        Epoch epoch;
        FramePtr frame;
    };
    void to_guest(std::uint8_t, const FramePtr& frame) override { guest.push_back(frame); }
    void output(std::uint8_t, Epoch epoch, const FramePtr& frame) override { out.push_back({epoch, frame}); }
    void journalled(Epoch, std::uint64_t number) override { journal = number; }
    std::vector<FramePtr> guest;
    std::vector<Out> out;
    std::uint64_t journal = 0;
};

class SecondaryHarness : public ::testing::Test {
protected:
    SecondaryHarness() { make({}); }
    void make(ProxyOptions options)
    {
        options.nics = {kGuestMac};
        sink = {};
        proxy = make_secondary_proxy(options, sink);
        number = 0;
    }
    void input(const FramePtr& frame, Epoch epoch = 1) { proxy->input(0, epoch, ++number, frame, now); }
    void guest(const FramePtr& frame) { proxy->guest_frame(0, frame, now); }
    static FramePtr client_data(std::uint32_t seq, const std::string& data, std::uint32_t ack = 1)
    {
        return tcp({.from_guest = false, .seq = seq, .ack = ack, .data = data});
    }

public:
    static replication::FlowState flow(std::uint32_t offset, std::uint32_t timestamp_offset = 0)
    {
        replication::FlowState state;
        state.guest_ip = kGuestIp;
        state.peer_ip = kClientIp;
        state.guest_port = 80;
        state.peer_port = 40000;
        state.wire_offset = offset;
        state.timestamp_offset = timestamp_offset;
        state.flags = 1;
        return state;
    }

protected:
    Time now{1'000'000'000};
    std::uint64_t number = 0;
    RecordingSecondarySink sink;
    std::unique_ptr<SecondaryProxy> proxy;
};

}  // namespace colo::proxy::test
