// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "replication/wire.h"

namespace colo::replication::test {

inline Hello sample_hello()
{
    Hello m;
    m.version_min = 1;
    m.version_max = 3;
    m.domain_uuid = "01234567-89ab-cdef-0123-456789abcdef";
    m.domain_name = "web-1";
    m.session = 0x1122334455667788;
    m.generation = 7;
    m.guest.kind = "xen-hvm";
    m.guest.accelerator = "xen";
    m.guest.machine = "xenfv";
    m.guest.cpu_policy = "policy";
    m.guest.device_model = "7.2.0 (Debian)";
    m.guest.device_list = "digest";
    m.guest.boot_digest = "boot";
    m.guest.vcpus = 2;
    m.guest.tsc_khz = 2'095'078;
    m.guest.regions = {{0, 0xa0}, {0x100, 0x7f00}};
    m.guest.special_frames = {0xfeff0, 0xfeff1};
    NicDescription nic;
    nic.id = "net0";
    nic.mac = {2, 0, 0, 1, 2, 3};
    nic.offload_features = 0x1f;
    m.guest.nics = {nic};
    m.beat_interval_us = 10'000;
    m.beat_loss_us = 100'000;
    m.lease_us = 90'000;
    m.arbiter = "lock:/shared";
    m.page_channels = 4;
    m.memory_needed = 3u << 30;
    return m;
}

inline End sample_end()
{
    End m;
    m.epoch = 12;
    m.manifest.base = 10;
    m.manifest.mode = Mode::buffered;
    m.manifest.chunks_per_channel = {3, 0, 5};
    m.manifest.pages = 900;
    m.manifest.digest = 0xdeadbeefcafef00d;
    m.manifest.released = {77, 78};
    m.manifest.state.devices = Bytes(1000, 0xab);
    m.manifest.state.cpu_context = Bytes(100, 0xcd);
    FlowState flow;
    flow.nic = 1;
    flow.guest_ip = 0x0a000001;
    flow.peer_ip = 0x0a000002;
    flow.guest_port = 80;
    flow.peer_port = 40000;
    flow.wire_offset = 0xfffffff0;
    flow.timestamp_offset = 3;
    flow.covered_seq = 4;
    flow.acked_seq = 5;
    flow.highest_timestamp = 6;
    flow.flags = 7;
    m.manifest.proxy.flows = {flow, FlowState{}};
    m.manifest.proxy.last_input = 4711;
    m.manifest.disks = {{"disk0", 99}};
    m.manifest.power = PowerState::powered_off;
    return m;
}

// One of each alternative, every field different from its default.
inline std::vector<Message> sample_messages()
{
    return {sample_hello(),
            HelloAck{2, 0x1122334455667788, 9, 5u << 20},
            Refuse{"memory differs"},
            Begin{12, 10, Mode::buffered},
            Cut{12, TriggerReason::late_output},
            sample_end(),
            Abort{13},
            AbortOk{13},
            Staged{12},
            Applied{12, 4321, 17},
            Resign{"device model refused the state twice"},
            ResignRequest{},
            Handover{},
            Abdicate{"device model hangs"},
            Close{"SIGTERM"},
            TriggerRequest{TriggerReason::power_event}};
}

}  // namespace colo::replication::test
