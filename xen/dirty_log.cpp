// SPDX-License-Identifier: Apache-2.0
#include "xen/dirty_log.h"

#include <fmt/format.h>

#include <bit>
#include <chrono>
#include <thread>

namespace colo::xen {
namespace {

// EBUSY means that another tool's reading was preempted half-way; it goes on within microseconds, or its tool is gone for
// good. 4 ms in all, most of a pause: longer, and the cut is better aborted.
constexpr int kBusyTries = 20;
constexpr std::chrono::microseconds kBusyWait{200};

bool has_bit(std::span<const std::uint64_t> bitmap, Gfn gfn)
{
    return gfn / 64 < bitmap.size() && (bitmap[gfn / 64] >> gfn % 64 & 1) != 0;
}

// Bits from `limit` on are not an answer.
void add_bits(std::span<const std::uint64_t> bitmap, Gfn limit, replication::PageSet& into)
{
    for (std::size_t i = 0; i < bitmap.size() && i * 64 < limit; ++i)
        for (std::uint64_t word = bitmap[i]; word != 0; word &= word - 1) {
            const Gfn gfn = i * 64 + static_cast<Gfn>(std::countr_zero(word));
            if (gfn < limit) into.add(gfn);
        }
}

}  // namespace

LogDirty::LogDirty(Control& control, const MemoryLayout& layout) : control_(control), ram_(layout.ram())
{
    if (!layout.special_frames.empty()) marker_ = layout.special_frames.front();
}

Result<void> LogDirty::start()
{
    auto enabled = control_.enable_log();
    if (!enabled && (enabled.error().code == Errc::invalid || enabled.error().code == Errc::refused)) {
        const Error first = enabled.error();
        if (auto off = control_.disable_log(); !off) return with_context("it was on already, or cannot be on: " + first.text, off.error());
        enabled = control_.enable_log();
        taken_over_ = enabled.has_value();
        if (!enabled)
            return with_context("the dirty log does not come on; does the domain have passthrough devices, or does another tool "
                                "(xl save, xl migrate) want it?",
                                enabled.error());
    }
    if (!enabled) return enabled;
    on_ = true;
    owe_everything_ = true;
    if (auto r = plant(); !r) {
        stop();
        return r;
    }
    return {};
}

Result<void> LogDirty::plant()
{
    planted_ = false;
    if (!marker_) return {};
    auto marked = control_.mark_dirty(*marker_);
    planted_ = marked.has_value();
    return marked;
}

Result<LogAnswer> LogDirty::read(LogOp op, bool final, Gfn limit)
{
    auto answer = control_.read_log(op, final, limit);
    for (int tries = 1; !answer && answer.error().code == Errc::refused && tries < kBusyTries; ++tries) {
        std::this_thread::sleep_for(kBusyWait);
        answer = control_.read_log(op, final, limit);
    }
    return answer;
}

// Out of memory for its bitmap, the hypervisor says so for ever; a log that somebody else uses may be off. A new start helps in
// both cases; the caller, who takes every frame as dirty from our answer on, misses nothing: what is written before the mode
// is on again it copies later.
Result<void> LogDirty::incomplete(const std::string& cause)
{
    if (auto off = control_.disable_log(); !off) return with_context(cause + "; start it again", off.error());
    on_ = false;
    if (auto started = start(); !started)
        return with_context(cause + "; start it again", make_error(Errc::failed, started.error().text));
    owe_everything_ = false;
    return make_error(Errc::limit, cause + "; the dirty log is incomplete and was started anew");
}

void LogDirty::hand_out(const LogAnswer& answer, Gfn limit, replication::PageSet& into)
{
    const bool had = marker_ && into.contains(*marker_);
    add_bits(answer.bitmap, limit, into);
    if (marker_ && !had) into.remove(*marker_);
    if (owe_everything_) into.merge(ram_);
}

Result<void> LogDirty::fetch_and_clear(replication::PageSet& into, bool final)
{
    if (!on_) return make_error(Errc::invalid, "the dirty log was not started");
    // Each time: it grows, and what lies beyond what is asked for is not reported.
    const auto limit = control_.gfn_limit();
    if (!limit) return limit.error();
    const auto answer = read(LogOp::clean, final, *limit);
    if (!answer) {
        if (answer.error().code == Errc::limit) return incomplete(answer.error().text);
        if (answer.error().code != Errc::refused) owe_everything_ = true;   // it may have been cleared and not been handed out
        return answer.error();
    }
    if (answer->pages != *limit) return incomplete(fmt::format("answered for {} of {} frames", answer->pages, *limit));
    if (planted_ && !has_bit(answer->bitmap, *marker_)) {
        ++interferences_;
        return incomplete("another tool cleared the log or switched it off");
    }
    hand_out(*answer, *limit, into);
    last_limit_ = *limit;
    last_dirty_ = answer->dirty;
    // Without a marker nobody could tell whether the next reading is complete.
    owe_everything_ = !plant();
    return {};
}

Result<void> LogDirty::peek(replication::PageSet& into)
{
    if (!on_) return make_error(Errc::invalid, "the dirty log was not started");
    const auto limit = control_.gfn_limit();
    if (!limit) return limit.error();
    const auto answer = read(LogOp::peek, false, *limit);
    if (!answer) return answer.error();
    if (answer->pages != *limit)
        return make_error(Errc::limit, fmt::format("the dirty log answered for {} of {} frames", answer->pages, *limit));
    hand_out(*answer, *limit, into);
    return {};
}

void LogDirty::stop()
{
    if (!on_) return;
    on_ = planted_ = owe_everything_ = false;
    (void)control_.disable_log();   // a domain that is gone has no log
}

}  // namespace colo::xen
