// SPDX-License-Identifier: Apache-2.0
#include "colo/primary_worker.h"

#include "core/clock.h"
#include "core/failpoint.h"

#include <algorithm>
#include <chrono>
#include <thread>

namespace colo {
namespace {

constexpr std::uint64_t kSlicePages = 4096;        // 16 MiB: how long a cut may have to wait for pre-capture
constexpr std::uint64_t kSmallResidue = 48;        // pages: copying them costs less than another scan
constexpr int kShrinkRoundsMax = 8;
constexpr std::uint64_t kShrinkSlicePages = 1024;  // 4 MiB between two looks at the clock
constexpr Duration kShrinkTime{200'000};           // the trigger waits meanwhile
constexpr std::uint64_t kPausePages = 8192;        // 32 MiB: more than that is sent first, however long it takes
constexpr std::uint64_t kConvergedPages = 1024;    // first copy: 4 MiB left
constexpr std::uint32_t kSlowRoundsMax = 3;        // first copy: rounds that do not shrink
constexpr std::uint64_t kRatePages = 1024;         // migration: a shorter round says nothing about the link
constexpr Duration kLookAgain{1'000};              // migration: whether the channels have sent what they were given
constexpr Duration kSentTime{200'000};             // migration: and how long the last of it may take before the stop

}  // namespace

PrimaryWorker::PrimaryWorker(Worker& worker, replication::Guest& guest, PrimarySeal& proxy, Callbacks callbacks)
    : worker_(worker), guest_(guest), proxy_(proxy), callbacks_(std::move(callbacks))
{
}

void PrimaryWorker::open(const replication::CaptureOptions& options, std::shared_ptr<PageSender> sender)
{
    worker_.post([this, options, sender = std::move(sender)]() mutable {
        engine_ = replication::make_capture_engine(guest_, options);
        sender_ = std::move(sender);
        epoch_ = 0;
    });
    worker_.set_idle([this] { return idle(); });
}

void PrimaryWorker::set_options(const replication::CaptureOptions& options)
{
    worker_.post([this, options] {
        if (engine_) engine_->set_options(options);
    });
}

void PrimaryWorker::start_epoch(const action::StartEpoch& start)
{
    worker_.post([this, epoch = start.epoch, base = start.base, planned_cut = start.planned_cut, migrates = start.migrates] {
        if (!engine_) return;
        if (auto r = engine_->begin_epoch(epoch, base); !r) return callbacks_.failed(with_context("dirty log", r.error()));
        epoch_ = epoch;
        base_ = base;
        first_ = base == 0;
        sender_->set_paced(first_);
        converged_ = ahead_done_ = false;
        planned_cut_ = planned_cut;
        first_copy_sent_ = last_round_ = 0;
        slow_rounds_ = 0;
        migrates_ = migrates;
        draining_ = false;
        round_pages_ = round_goal_ = rounds_done_ = rate_ = 0;
        progress_ = {};
    });
}

void PrimaryWorker::start_cut(const action::StartCut& cut)
{
    worker_.post([this, cut] {
        if (engine_ && epoch_ == cut.epoch) do_cut(cut);
    });
}

void PrimaryWorker::send_epoch(Epoch epoch)
{
    worker_.post([this, epoch] {
        if (engine_ && epoch_ == epoch) do_send(epoch);
    });
}

void PrimaryWorker::abort_epoch(Epoch epoch)
{
    worker_.post([this, epoch] {
        if (!engine_) return;
        engine_->aborted(epoch);
        if (epoch_ == epoch) epoch_ = 0;
    });
}

void PrimaryWorker::staged(Epoch epoch)
{
    worker_.post([this, epoch] {
        if (engine_) engine_->staged(epoch);
        if (epoch_ == epoch) epoch_ = 0;
    });
}

void PrimaryWorker::close()
{
    worker_.post([this] {
        if (engine_) guest_.dirty_log().stop();
        engine_.reset();
        sender_.reset();
        epoch_ = 0;
    });
}

Result<std::uint64_t> PrimaryWorker::precapture(std::uint64_t max_pages)
{
    const auto sink = [this](ByteView chunk) { return sender_->send(epoch_, chunk); };
    return engine_->precapture(sink, max_pages);
}

// Called on the guest thread while no job waits: pre-capture in slices, so that a cut never waits long.
Time PrimaryWorker::idle()
{
    if (!engine_ || epoch_ == 0 || ahead_done_) return kNever;
    if (first_ && migrates_) return migration_round();
    if (first_) {
        precapture_first_copy();
        ahead_done_ = converged_;
        return converged_ || epoch_ == 0 ? kNever : now();
    }
    const Time begin = planned_cut_ == kNever ? kNever : planned_cut_ - lead_;
    const Time t = now();
    if (t < begin) return begin;
    if (auto r = failpoint::pass("p-precapture", guest_.device_model_pid()); !r) callbacks_.failed(r.error());
    const auto pages = precapture(kSlicePages);
    if (!pages) {
        epoch_ = 0;
        callbacks_.failed(with_context("pre-capture", pages.error()));
        return kNever;
    }
    if (engine_->backlog() > 0) return now();
    // The lead follows what this epoch's pre-capture took, with room for the rounds that shrink the rest.
    const Duration took = now() - t;
    lead_ = std::clamp(Duration{took * 2 + Duration{10'000}}, Duration{10'000}, Duration{250'000});
    ahead_done_ = true;
    return kNever;
}

void PrimaryWorker::precapture_first_copy()
{
    const auto pages = precapture(kSlicePages);
    if (!pages) {
        epoch_ = 0;
        callbacks_.failed(with_context("first copy", pages.error()));
        return;
    }
    first_copy_sent_ += *pages;
    const std::uint64_t left = engine_->backlog();
    progress_.sent_bytes = first_copy_sent_ * kPageSize;
    progress_.left_bytes = left * kPageSize;
    progress_.stats = engine_->stats();
    if (callbacks_.progress) callbacks_.progress(progress_);
    if (left > 0) {
        last_round_ += *pages;
        return;
    }
    const std::uint64_t round = last_round_ + *pages;
    const bool shrinking = slow_rounds_ == 0 && round > kSlicePages ? true : round * 10 < first_copy_sent_ * 9;
    if (!shrinking) ++slow_rounds_;
    last_round_ = 0;
    if (round <= kConvergedPages || slow_rounds_ >= kSlowRoundsMax || engine_->stats().rounds > 64) {
        converged_ = true;
        callbacks_.initial_copy_converged(epoch_);
    }
}

// One slice. A round has an end when its pages are in the sockets: then its time says what the link takes.
Time PrimaryWorker::migration_round()
{
    if (draining_) {
        if (auto r = sender_->usable(); !r) {
            epoch_ = 0;
            callbacks_.failed(with_context("copy of memory", r.error()));
            return kNever;
        }
        if (sender_->queued_bytes() > 0) return now() + kLookAgain;
        end_round();
        return converged_ ? kNever : now();
    }
    const bool begins = round_goal_ == 0;
    if (begins) {
        round_begun_ = now();
        if (rounds_done_ > 0) callbacks_.round_begun();
    }
    const auto pages = precapture(kSlicePages);
    if (!pages) {
        epoch_ = 0;
        callbacks_.failed(with_context("copy of memory", pages.error()));
        return kNever;
    }
    if (begins) round_goal_ = *pages + engine_->backlog();   // what is dirtied from here on is the next round's
    round_pages_ += *pages;
    first_copy_sent_ += *pages;
    draining_ = round_pages_ >= round_goal_;
    progress_.sent_bytes = first_copy_sent_ * kPageSize;
    progress_.left_bytes = engine_->backlog() * kPageSize;
    progress_.stats = engine_->stats();
    callbacks_.progress(progress_);
    return now();
}

// The next round has to send about what this one had: if the link takes that within the downtime limit, the guest may stop.
void PrimaryWorker::end_round()
{
    const Duration took = std::max(now() - round_begun_, Duration{1});
    const auto per_second = [&](std::uint64_t pages) { return pages * 1'000'000 / static_cast<std::uint64_t>(took.count()); };
    if (round_pages_ >= kRatePages || rate_ == 0) rate_ = std::max<std::uint64_t>(per_second(round_pages_), 1);
    const std::uint64_t needs_us = round_pages_ * 1'000'000 / rate_;
    progress_.pages_per_second = rate_;
    progress_.dirty_pages_per_second = rounds_done_ == 0 ? 0 : per_second(round_pages_);
    progress_.expected_downtime = Duration{static_cast<std::int64_t>(needs_us)};
    callbacks_.progress(progress_);
    converged_ = round_pages_ <= kSmallResidue || progress_.expected_downtime.count() <= downtime_limit_.load(std::memory_order_relaxed);
    // The first round had all of memory to send and nothing was dirtied "before" it: it says nothing about the next one.
    if (rounds_done_ == 0) converged_ = false;
    ++rounds_done_;
    round_pages_ = round_goal_ = 0;
    draining_ = false;
    ahead_done_ = converged_;
    if (converged_) callbacks_.initial_copy_converged(epoch_);
}

// Before a migration stops the guest: what waits in front of the residue would make the pause longer.
void PrimaryWorker::wait_until_sent()
{
    const Time until = now() + kSentTime;
    while (sender_->queued_bytes() > 0 && now() < until)
        std::this_thread::sleep_for(std::chrono::microseconds(kLookAgain.count()));
}

// Rounds while the guest runs, each shorter than the one before, until the rest is cheap to copy inside the pause. Pages of
// the last round: about as many are left.
Result<std::uint64_t> PrimaryWorker::shrink_residue()
{
    const Time until = now() + kShrinkTime;
    std::uint64_t before = ~std::uint64_t{0};
    for (int round = 0; round < kShrinkRoundsMax; ++round) {
        std::uint64_t pages = 0;
        do {
            const auto some = precapture(kShrinkSlicePages);
            if (!some) return some.error();
            pages += *some;
            callbacks_.cut_progress(epoch_);
            // A slow link: what is left is cheaper to copy inside the pause than to wait for.
            if (now() > until && migrates_ && first_) return pages + engine_->backlog();
            if (now() > until && engine_->backlog() <= kPausePages) return pages;
        } while (engine_->backlog() >= kShrinkSlicePages);
        if (pages <= kSmallResidue || pages >= before / 4 * 3) return pages + engine_->backlog();
        before = pages;
    }
    return before;
}

// A generous downtime limit leaves more than there is room for inside a cut: the guest stops first, for good, and all of it
// is sent before the cut looks at it.
Result<void> PrimaryWorker::send_stopped(Duration answer_bound)
{
    if (auto r = guest_.stop(now() + answer_bound); !r) return with_context("stop", r.error());
    if (const auto pages = precapture(0); !pages) return with_context("copy of memory", pages.error());
    return {};
}

void PrimaryWorker::do_cut(const action::StartCut& cut)
{
    record_ = {};
    record_.epoch = cut.epoch;
    record_.reason = cut.reason;
    record_.mode = cut.mode;
    power_ = cut.power;
    ahead_done_ = true;   // the epoch's pages are the cut's from here on
    record_.cut_begun = now();
    const bool moves = migrates_ && first_;
    if (moves) sender_->set_paced(false);   // max-bandwidth is about the copy ahead; the guest waits for what is left
    const auto left = shrink_residue();
    if (!left) {
        callbacks_.failed(with_context("pre-capture", left.error()));
        return callbacks_.cut_done(cut.epoch, left.error());
    }
    if (moves) wait_until_sent();
    callbacks_.cut_begun(cut.epoch);
    if (moves && *left > kPausePages)
        if (auto r = send_stopped(cut.answer_bound); !r) return callbacks_.cut_done(cut.epoch, r.error());
    auto out = run_cut(guest_, *engine_, proxy_, cut.epoch, cut.base == 0, {cut.pause_bound, cut.answer_bound},
                       system_clock(), cut.power);
    if (!out) return callbacks_.cut_done(cut.epoch, out.error());
    if (moves) callbacks_.round_begun();   // the last pass, over what a stopped guest had dirtied
    cut_ = std::move(*out);
    record_.cut = cut_;
    callbacks_.cut_done(cut.epoch, {});
}

void PrimaryWorker::do_send(Epoch epoch)
{
    const auto sink = [this](ByteView chunk) { return sender_->send(epoch_, chunk); };
    if (auto r = failpoint::pass("p-mid-transfer", guest_.device_model_pid()); !r) return callbacks_.transfer_done(epoch, r.error());
    if (auto r = engine_->flush_residue(sink); !r) return callbacks_.transfer_done(epoch, with_context("send pages", r.error()));
    const auto totals = engine_->totals();
    replication::Manifest manifest;
    manifest.base = base_;
    manifest.mode = record_.mode;
    manifest.power = power_;
    manifest.chunks_per_channel = sender_->chunks(epoch);
    manifest.pages = totals.pages;
    manifest.digest = totals.digest;
    manifest.released = totals.released;
    manifest.state = std::move(cut_.state);
    manifest.proxy = std::move(cut_.proxy);
    record_.capture = engine_->stats();
    record_.sent = now();
    record_.cut.state = {};
    record_.cut.proxy = {};
    callbacks_.captured(record_);
    (void)failpoint::pass("p-before-end", guest_.device_model_pid());
    callbacks_.transfer_done(epoch, std::move(manifest));
}

}  // namespace colo
