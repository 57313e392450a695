// SPDX-License-Identifier: Apache-2.0
#include "faults.h"

namespace colo::sim {

const char* to_string(FaultKind kind)
{
    static constexpr const char* kNames[kFaultKinds] = {
        "power-loss",    "kill-process", "short-stall",   "long-stall",    "partition",      "outgoing-lost",
        "incoming-lost", "control-reset", "page-reset",   "proxy-reset",   "bit-flip",       "truncate",
        "beat-noise",    "channel-stalls", "guest-dies",  "guest-slow",    "guest-refuses",  "storage-fails",
        "arbiter-hangs", "client-noise", "operator-failover", "operator-both", "stale-chunk",
        "operator-pauses", "port-fails", "operator-migrates"};
    return kNames[static_cast<std::size_t>(kind)];
}

bool is_benign(FaultKind kind)
{
    return kind == FaultKind::beat_noise || kind == FaultKind::client_noise || kind == FaultKind::stale_chunk;
}

bool is_destructive(FaultKind kind)
{
    return kind == FaultKind::power_loss || kind == FaultKind::kill_process || kind == FaultKind::guest_dies;
}

std::string Cell::name() const
{
    return std::string(primary ? "P " : "S ") + step + (approach == Approach::migration ? " (migration) " : " ") + to_string(fault);
}

namespace {

struct StepPlan {
    bool primary;
    const char* step;
    Approach approach;
};

constexpr StepPlan kSteps[] = {
    {true, "hello", Approach::new_session},
    {true, "first-copy", Approach::new_session},
    {true, "ending", Approach::new_session},
    {true, "job:precapture", Approach::none},
    {true, "cutting", Approach::none},
    {true, "job:cut", Approach::none},
    {true, "job:stop", Approach::none},
    {true, "job:seal", Approach::none},
    {true, "job:save", Approach::none},
    {true, "job:cont", Approach::none},
    {true, "transferring", Approach::none},
    {true, "job:send", Approach::none},
    {true, "wait-staged", Approach::none},
    {true, "wait-applied", Approach::none},
    {true, "steady", Approach::none},
    {true, "aborting", Approach::aborted_cut},
    {true, "closing", Approach::peer_lost},
    {true, "asking", Approach::peer_lost},
    {true, "granted", Approach::peer_lost},
    {true, "abdicating", Approach::abdication},
    {false, "wait-hello", Approach::new_session},
    {false, "greeting", Approach::new_session},
    {false, "following/persisting", Approach::new_session},
    {false, "following", Approach::none},
    {false, "following/staging", Approach::none},
    {false, "following/cut", Approach::none},
    {false, "following/verifying", Approach::none},
    {false, "following/applying", Approach::none},
    {false, "job:stop", Approach::none},
    {false, "job:seal", Approach::none},
    {false, "job:load", Approach::none},
    {false, "job:cont", Approach::none},
    {false, "following/rolling-forward", Approach::refused_load},
    {false, "resigning", Approach::resignation},
    {false, "closing", Approach::peer_lost},
    {false, "lease-wait", Approach::peer_lost},
    {false, "asking", Approach::peer_lost},
    {false, "granted", Approach::peer_lost},
    {false, "going-live", Approach::peer_lost},
    {false, "job:live", Approach::peer_lost},
    {true, "hello", Approach::migration},
    {true, "first-copy", Approach::migration},
    {true, "pre-switchover", Approach::migration},
    {true, "cutting", Approach::migration},
    {true, "transferring", Approach::migration},
    {true, "ending", Approach::migration},
    {true, "wait-staged", Approach::migration},
    {true, "wait-applied", Approach::migration},
    {true, "abdicating", Approach::migration},
    {false, "following/verifying", Approach::migration},
    {false, "following/persisting", Approach::migration},
    {false, "following/applying", Approach::migration},
    {false, "following", Approach::migration},
    {false, "closing", Approach::migration},
    {false, "granted", Approach::migration},
    {false, "job:live", Approach::migration},
};

std::vector<Cell> enumerate()
{
    std::vector<Cell> cells;
    for (std::size_t kind = 0; kind < kFaultKinds; ++kind)
        for (const StepPlan& plan : kSteps)
            cells.push_back({plan.primary, plan.step, static_cast<FaultKind>(kind), plan.approach});
    return cells;
}

}  // namespace

const std::vector<Cell>& all_cells()
{
    static const std::vector<Cell> cells = enumerate();
    return cells;
}

}  // namespace colo::sim
