// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the secondary does with its guest and with arriving pages. Chunks come from the page-channel threads; guest work runs
// on the guest thread; the control thread's orders about staging go through a thread of their own, in order. One lock
// keeps the stager, and it is held for as long as an apply takes: that is why the control thread never takes it.

#include "colo/jobs.h"
#include "colo/node.h"
#include "colo/worker.h"
#include "replication/engine.h"

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>

namespace colo {

class SecondaryWorker {
public:
    struct Callbacks {   // from page-channel threads or the guest thread
        std::function<void(Result<void>)> standby_ready;
        std::function<void(Epoch)> staging_full;  // kStagingTrigger was passed; once an epoch
        std::function<void(Epoch, Result<void>)> stage_complete;
        std::function<void(Epoch, Result<void>, ApplyOutput)> apply_done;
        std::function<void(const Error&)> failed;   // staging broken: the session must end
    };
    SecondaryWorker(Worker& worker, replication::Guest& guest, SecondarySeal& proxy, Callbacks callbacks);

    void prepare_standby(bool created, Duration bound);
    void open(const replication::StagerLimits& limits, std::size_t channels);

    // Control thread.
    void stage_begin(Epoch epoch, Epoch base);
    void stage_drop(Epoch epoch);
    void stage_finish(Epoch epoch, replication::Manifest manifest);
    void commit(Epoch epoch);
    void apply(const action::Apply& apply, Duration bound);
    void roll_forward(const action::RollForward& roll, Duration bound);
    void close();
    void release_memory();  // this side serves now: shadow and staging have done their work

    // A page-channel thread. Waits (bounded) for the Begin of the chunk's epoch, which travels on the control channel.
    Result<void> chunk(std::size_t channel, ByteView bytes);

private:
    void stage(std::function<void()> job);   // on the stage thread, unless the session is over by then
    void forget();
    void check_complete(std::unique_lock<std::mutex>& lock);
    void do_apply(Epoch epoch, replication::Mode mode, bool resume, bool roll, Duration bound);

    Worker& worker_;
    replication::Guest& guest_;
    SecondarySeal& proxy_;
    Callbacks callbacks_;

    std::atomic<std::uint64_t> incarnation_{0};   // rises with every session, so that a late chunk meets nothing
    std::mutex mutex_;                            // everything below
    std::condition_variable begun_, committed_;
    std::unique_ptr<replication::Stager> stager_;
    std::size_t channels_ = 0;
    Epoch open_epoch_ = 0;                // Begin seen, chunks accepted
    Epoch highest_begun_ = 0;
    Epoch finishing_ = 0;                 // manifest seen, waiting for chunks
    Epoch told_full_ = 0;                 // the last epoch of which staging_full was told
    replication::Manifest manifest_;      // of finishing_ or of the committed epoch
    replication::Manifest committed_manifest_;
    // Guest thread only:
    bool log_started_ = false;
    Worker stage_worker_{"stage"};        // last: ends first
};

}  // namespace colo
