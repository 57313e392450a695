// SPDX-License-Identifier: Apache-2.0
#include "colo/secondary_worker.h"

#include "core/clock.h"
#include "core/failpoint.h"
#include "replication/chunk.h"

#include <chrono>

namespace colo {
namespace {

// How long a chunk may wait for its Begin: both travel at once on two connections.
constexpr Duration kBeginWait{10'000'000};
constexpr std::chrono::milliseconds kLookAgain{50};   // a session may end without anybody to wake us

}  // namespace

SecondaryWorker::SecondaryWorker(Worker& worker, replication::Guest& guest, SecondarySeal& proxy, Callbacks callbacks)
    : worker_(worker), guest_(guest), proxy_(proxy), callbacks_(std::move(callbacks))
{
}

void SecondaryWorker::prepare_standby(bool created, Duration bound)
{
    worker_.post([this, created, bound] {
        guest_.kill();
        forget();  // with its guest; the next primary asks how much memory there is
        const Deadline deadline = now() + bound;
        auto r = created ? guest_.recreate(deadline) : guest_.create(replication::StartMode::loadable, deadline);
        log_started_ = false;
        callbacks_.standby_ready(std::move(r));
    });
}

void SecondaryWorker::open(const replication::StagerLimits& limits, std::size_t channels)
{
    ++incarnation_;
    stage([this, limits, channels] {
        forget();
        auto stager = replication::make_stager(guest_.description(), limits);
        if (!stager) return callbacks_.failed(with_context("reserve memory for the copy", stager.error()));
        const std::lock_guard lock(mutex_);
        stager_ = std::move(*stager);
        channels_ = channels;
    });
}

// The memory goes before a new copy takes any, and without the lock: gigabytes take their time.
void SecondaryWorker::forget()
{
    std::unique_ptr<replication::Stager> old;  // outlives the lock
    const std::lock_guard lock(mutex_);
    old.swap(stager_);
    open_epoch_ = highest_begun_ = finishing_ = told_full_ = 0;
}

void SecondaryWorker::release_memory()
{
    stage_worker_.post([this] { forget(); });
}

void SecondaryWorker::stage(std::function<void()> job)
{
    stage_worker_.post([this, incarnation = incarnation_.load(), job = std::move(job)] {
        if (incarnation == incarnation_.load()) job();
    });
}

void SecondaryWorker::stage_begin(Epoch epoch, Epoch base)
{
    stage([this, epoch, base] {
        std::unique_lock lock(mutex_);
        if (!stager_) return;
        if (auto r = stager_->begin(epoch, base, channels_); !r) {
            lock.unlock();
            return callbacks_.failed(with_context("begin staging", r.error()));
        }
        open_epoch_ = highest_begun_ = epoch;
        begun_.notify_all();
    });
}

void SecondaryWorker::stage_drop(Epoch epoch)
{
    stage([this, epoch] {
        const std::lock_guard lock(mutex_);
        if (!stager_) return;
        stager_->drop(epoch);
        if (open_epoch_ == epoch) open_epoch_ = 0;
        if (finishing_ == epoch) finishing_ = 0;
    });
}

void SecondaryWorker::stage_finish(Epoch epoch, replication::Manifest manifest)
{
    stage([this, epoch, manifest = std::make_shared<replication::Manifest>(std::move(manifest))] {
        std::unique_lock lock(mutex_);
        if (!stager_ || open_epoch_ != epoch) return;
        finishing_ = epoch;
        manifest_ = std::move(*manifest);
        check_complete(lock);
    });
}

Result<void> SecondaryWorker::chunk(std::size_t channel, ByteView bytes)
{
    if (auto r = failpoint::pass("s-mid-stage", guest_.device_model_pid()); !r) return r.error();
    const auto header = replication::decode_chunk_header(bytes);
    if (!header) return header.error();
    const std::uint64_t incarnation = incarnation_.load();
    const Deadline give_up = now() + kBeginWait;
    std::unique_lock lock(mutex_);
    while (!stager_ || highest_begun_ < header->epoch) {
        if (incarnation_.load() != incarnation) return make_error(Errc::closed, "the session is over");
        if (now() >= give_up) return make_error(Errc::timed_out, "pages of an epoch that was never begun");
        begun_.wait_for(lock, kLookAgain);
    }
    if (incarnation_.load() != incarnation) return make_error(Errc::closed, "the session is over");
    if (auto r = stager_->add_chunk(channel, bytes); !r) return r.error();
    // The first copy also goes where it will be needed, so that the first apply has little left to write.
    if (auto r = stager_->prefill(guest_.memory()); !r) return r.error();
    const Epoch full = stager_->fill() >= replication::kStagingTrigger ? stager_->open_epoch() : 0;
    const bool tell = full > told_full_;
    if (tell) told_full_ = full;
    check_complete(lock);
    if (lock.owns_lock()) lock.unlock();
    if (tell) callbacks_.staging_full(full);
    return {};
}

// Verifies and reports once every chunk of the manifest is there. Unlocks before it calls out.
void SecondaryWorker::check_complete(std::unique_lock<std::mutex>& lock)
{
    if (finishing_ == 0 || !stager_->complete(manifest_)) return;
    const Epoch epoch = finishing_;
    finishing_ = 0;
    Result<void> result = stager_->verify(epoch, manifest_);
    if (result) result = guest_.verify(manifest_.state);
    lock.unlock();
    callbacks_.stage_complete(epoch, std::move(result));
}

// Cannot fail, so STAGED need not wait for it; apply() and the next begin do. Also after the session's end: from here on
// there is no other state to run (R1).
void SecondaryWorker::commit(Epoch epoch)
{
    stage_worker_.post([this, epoch] {
        const std::lock_guard lock(mutex_);
        if (!stager_) return;
        stager_->commit(epoch);
        committed_manifest_ = std::move(manifest_);
        manifest_ = {};
        open_epoch_ = 0;
        committed_.notify_all();
    });
}

void SecondaryWorker::apply(const action::Apply& apply, Duration bound)
{
    worker_.post([this, apply, bound] { do_apply(apply.epoch, apply.mode, apply.resume, false, bound); });
}

void SecondaryWorker::roll_forward(const action::RollForward& roll, Duration bound)
{
    worker_.post([this, roll, bound] { do_apply(roll.epoch, replication::Mode::lock_step, roll.resume, true, bound); });
}

void SecondaryWorker::do_apply(Epoch epoch, replication::Mode mode, bool resume, bool roll, Duration bound)
{
    std::unique_lock lock(mutex_);
    const bool there = committed_.wait_for(lock, std::chrono::microseconds(bound.count()),
                                           [&] { return stager_ && stager_->committed() >= epoch; });
    if (!there || stager_->committed() != epoch) {
        lock.unlock();
        return callbacks_.apply_done(epoch, make_error(Errc::cancelled, "the epoch is not there"), {});
    }
    replication::Stager& stager = *stager_;
    const replication::Manifest manifest = committed_manifest_;
    ApplyRequest request;
    request.epoch = epoch;
    request.manifest = &manifest;
    request.load = mode == replication::Mode::lock_step;
    request.resume = resume && request.load;
    request.bound = bound;
    Result<ApplyOutput> out = make_error(Errc::failed, "not run");
    if (!roll) {
        if (request.load && !log_started_) {
            // A fresh log reports every frame once; from then on it tells what S's own guest wrote.
            auto started = guest_.dirty_log().start();
            replication::PageSet all;
            if (started) started = guest_.dirty_log().fetch_and_clear(all, true);
            if (!started) out = with_context("start dirty log", started.error());
            log_started_ = static_cast<bool>(started);
        }
        if (!request.load || log_started_) out = run_apply(guest_, stager, proxy_, request, system_clock());
    } else {
        out = run_roll_forward(guest_, stager, proxy_, request, system_clock());
        log_started_ = static_cast<bool>(out);
    }
    lock.unlock();
    callbacks_.apply_done(epoch, out ? Result<void>{} : Result<void>{out.error()}, out ? *out : ApplyOutput{});
}

// The shadow stays: a take-over in buffered mode still needs it.
void SecondaryWorker::close()
{
    ++incarnation_;
    begun_.notify_all();
}

}  // namespace colo
