// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the primary does with its guest and the page channels, on the guest thread: pre-capture ahead of the cut, the cut,
// the transfer. Policy of pre-capture lives here, rules live in the engine and in run_cut.

#include "colo/jobs.h"
#include "colo/node.h"
#include "colo/page_sender.h"
#include "colo/worker.h"
#include "replication/engine.h"

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

class PrimaryWorker {
public:
    struct Callbacks {   // called on the guest thread
        std::function<void(Epoch)> initial_copy_converged;
        std::function<void(Epoch)> cut_begun;
        std::function<void(Epoch, Result<void>)> cut_done;
        std::function<void(Epoch, Result<replication::Manifest>)> transfer_done;
        std::function<void(CheckpointRecord)> captured;        // statistics of a cut that will be sent
        std::function<void(const Error&)> failed;              // page channels broken, dirty log lost
        std::function<void(std::uint64_t sent, std::uint64_t remaining)> progress;   // first copy
    };
    PrimaryWorker(Worker& worker, replication::Guest& guest, PrimarySeal& proxy, Callbacks callbacks);

    // Any thread; carried out in order on the guest thread.
    void open(const replication::CaptureOptions& options, std::shared_ptr<PageSender> sender);
    void start_epoch(Epoch epoch, Epoch base, Time planned_cut);
    void start_cut(const action::StartCut& cut);
    void send_epoch(Epoch epoch);
    void abort_epoch(Epoch epoch);
    void staged(Epoch epoch);
    void close();
    void set_options(const replication::CaptureOptions& options);

private:
    Time idle();
    void precapture_first_copy();
    Result<std::uint64_t> precapture(std::uint64_t max_pages);
    Result<void> shrink_residue();
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
    Duration lead_{20'000};
    CheckpointRecord record_;
    CutOutput cut_;
    replication::PowerState power_ = replication::PowerState::running;
};

}  // namespace colo
