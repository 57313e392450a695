// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the primary does with its guest and the page channels, on the guest thread: pre-capture ahead of the cut, the cut,
// the transfer. Policy of pre-capture lives here, rules live in the engine and in run_cut.

#include "colo/jobs.h"
#include "colo/node.h"
#include "colo/page_sender.h"
#include "colo/worker.h"
#include "replication/engine.h"

#include <atomic>
#include <functional>
#include <memory>

namespace colo {

struct CheckpointRecord {
    Epoch epoch = 0;
    replication::TriggerReason reason = replication::TriggerReason::period;
    replication::Mode mode = replication::Mode::lock_step;
    CutOutput cut;                        // state and proxy section moved out
    replication::CaptureStats capture;
    Time cut_begun, sent, staged, applied;
};

// How far the first copy is. A migration goes round after round; each sends what was dirtied during the one before.
struct CopyProgress {
    std::uint64_t sent_bytes = 0, left_bytes = 0;   // of guest memory
    replication::CaptureStats stats;
    std::uint64_t pages_per_second = 0, dirty_pages_per_second = 0;   // of the last round
    Duration expected_downtime{0};                  // to send what the last round had to
};

class PrimaryWorker {
public:
    struct Callbacks {   // called on the guest thread
        std::function<void(Epoch)> initial_copy_converged;
        std::function<void(Epoch)> cut_progress;   // once for each slice of what is sent ahead of the cut
        std::function<void(Epoch)> cut_begun;
        std::function<void(Epoch, Result<void>)> cut_done;
        std::function<void(Epoch, Result<replication::Manifest>)> transfer_done;
        std::function<void(CheckpointRecord)> captured;        // statistics of a cut that will be sent
        std::function<void(const Error&)> failed;              // page channels broken, dirty log lost
        std::function<void(const CopyProgress&)> progress;     // first copy
        std::function<void()> round_begun;                     // migration: the second round and every later one, the cut as well
    };
    PrimaryWorker(Worker& worker, replication::Guest& guest, PrimarySeal& proxy, Callbacks callbacks);

    // Any thread; carried out in order on the guest thread.
    void open(const replication::CaptureOptions& options, std::shared_ptr<PageSender> sender);
    void start_epoch(const action::StartEpoch& epoch);
    void set_downtime_limit(Duration limit) { downtime_limit_.store(limit.count(), std::memory_order_relaxed); }
    void start_cut(const action::StartCut& cut);
    void send_epoch(Epoch epoch);
    void abort_epoch(Epoch epoch);
    void staged(Epoch epoch);
    void close();
    void set_options(const replication::CaptureOptions& options);

private:
    Time idle();
    void precapture_first_copy();
    Time migration_round();
    void end_round();
    void wait_until_sent();
    Result<std::uint64_t> precapture(std::uint64_t max_pages);
    Result<std::uint64_t> shrink_residue();
    Result<void> send_stopped(Duration answer_bound);
    void do_cut(const action::StartCut& cut);
    void do_send(Epoch epoch);

    Worker& worker_;
    replication::Guest& guest_;
    PrimarySeal& proxy_;
    Callbacks callbacks_;
    // Guest thread only:
    std::unique_ptr<replication::CaptureEngine> engine_;
    std::shared_ptr<PageSender> sender_;
    Epoch epoch_ = 0, base_ = 0;
    bool first_ = false, converged_ = false, ahead_done_ = false;
    Time planned_cut_ = kNever;
    std::uint64_t first_copy_sent_ = 0, last_round_ = 0;
    std::uint32_t slow_rounds_ = 0;
    bool migrates_ = false, draining_ = false;
    std::uint64_t round_pages_ = 0, round_goal_ = 0, rounds_done_ = 0, rate_ = 0;   // sent and to send in this round; pages/s
    Time round_begun_{};
    CopyProgress progress_;
    Duration lead_{20'000};
    CheckpointRecord record_;
    CutOutput cut_;
    replication::PowerState power_ = replication::PowerState::running;
    std::atomic<std::int64_t> downtime_limit_{300'000};   // us; any thread
};

}  // namespace colo
