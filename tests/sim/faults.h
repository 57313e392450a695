// SPDX-License-Identifier: Apache-2.0
#pragma once

// The plan of a run: which fault strikes which side at which step. Cells are enumerated, a seed picks its cell, so that
// every combination is visited by construction and not by luck.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace colo::sim {

enum class FaultKind : std::uint8_t {
    power_loss, kill_process, short_stall, long_stall, partition, outgoing_lost, incoming_lost, control_reset, page_reset,
    proxy_reset, bit_flip, truncate, beat_noise, channel_stalls, guest_dies, guest_slow, guest_refuses, storage_fails,
    arbiter_hangs, client_noise, operator_failover, operator_both, stale_chunk,
    operator_pauses, port_fails, operator_migrates,
};
inline constexpr std::size_t kFaultKinds = 26;
const char* to_string(FaultKind kind);
bool is_benign(FaultKind kind);        // protection must survive it
bool is_destructive(FaultKind kind);   // the host, or what it runs, is gone

// How a run brings its victim to the step.
enum class Approach : std::uint8_t { none, new_session, aborted_cut, refused_load, peer_lost, resignation, abdication, migration };

struct Cell {
    bool primary = true;     // whose step, and whom the fault strikes
    std::string step;
    FaultKind fault = FaultKind::power_loss;
    Approach approach = Approach::none;
    std::string name() const;
};
const std::vector<Cell>& all_cells();

}  // namespace colo::sim
