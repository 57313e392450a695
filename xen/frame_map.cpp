// SPDX-License-Identifier: Apache-2.0
#include "xen/frame_map.h"

#include "core/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace colo::xen {

using replication::FrameStatus;

namespace {

// What the hypervisor says of a gfn without a frame depends on how it was asked. Everything else means that there may be a
// frame which we did not get.
FrameStatus status_of(int error)
{
    if (error == 0) return FrameStatus::ok;
    return error == EINVAL || error == ENOENT || error == EFAULT ? FrameStatus::absent : FrameStatus::failed;
}

}  // namespace

FrameMap::FrameMap(Control& control, FrameMapLimits limits) : control_(control), limits_(limits) {}

Result<void> FrameMap::find(std::span<const Gfn> gfns, Access access, std::span<std::uint8_t*> pages, std::span<FrameStatus> status)
{
    COLO_CHECK(gfns.size() <= kMaxFrames && pages.size() == gfns.size() && status.size() == gfns.size());
    ++call_;
    // First every run, as one that is mapped anew moves; then where the frames are.
    const Run* run = nullptr;
    for (const Gfn gfn : gfns) {
        if (run == nullptr || run->number != gfn / kRunFrames) {
            auto found = run_of(gfn, access);
            if (!found) return found.error();
            run = *found;
        }
        // It may have come since. Once a call: then it is known.
        if (run->status[gfn % kRunFrames] == FrameStatus::absent && run->mapped_by != call_) {
            forget(gfn);
            auto found = run_of(gfn, access);
            if (!found) return found.error();
            run = *found;
        }
    }
    run = nullptr;
    for (std::size_t i = 0; i < gfns.size(); ++i) {
        if (run == nullptr || run->number != gfns[i] / kRunFrames) run = &*by_number_.at(gfns[i] / kRunFrames);
        const std::size_t at = gfns[i] % kRunFrames;
        status[i] = run->status[at];
        pages[i] = status[i] == FrameStatus::ok ? run->mapping.data() + at * kPageSize : nullptr;
    }
    return {};
}

Result<FrameMap::Run*> FrameMap::run_of(Gfn gfn, Access access)
{
    const std::uint64_t number = gfn / kRunFrames;
    auto found = by_number_.find(number);
    if (found != by_number_.end()) {
        runs_.splice(runs_.begin(), runs_, found->second);
        Run& run = runs_.front();
        run.used_by = call_;
        ++stats_.hits;
        if (access == Access::read_write && !run.writable)
            if (auto r = map(run, access); !r) {
                forget(gfn);
                return r.error();
            }
        return &run;
    }
    if (auto r = make_room(); !r) return r.error();
    Run run;
    run.number = number;
    run.used_by = call_;
    if (auto r = map(run, access); !r) return r.error();
    runs_.push_front(std::move(run));
    by_number_[number] = runs_.begin();
    return &runs_.front();
}

Result<void> FrameMap::map(Run& run, Access access)
{
    std::array<Gfn, kRunFrames> gfns;
    std::array<int, kRunFrames> errors{};
    for (std::size_t i = 0; i < kRunFrames; ++i) gfns[i] = run.number * kRunFrames + i;
    auto mapping = control_.map(gfns, access, errors);
    ++stats_.map_calls;
    if (!mapping) return mapping.error();
    if (run.mapping.data() != nullptr) ++stats_.unmap_calls;
    run.mapping = std::move(*mapping);
    run.writable = access == Access::read_write;
    run.mapped_by = call_;
    run.status.resize(kRunFrames);
    for (std::size_t i = 0; i < kRunFrames; ++i) {
        run.status[i] = status_of(errors[i]);
        stats_.frames_mapped += run.status[i] == FrameStatus::ok;
    }
    COLO_CHECK(run.mapping.data() != nullptr || std::count(run.status.begin(), run.status.end(), FrameStatus::ok) == 0);
    return {};
}

Result<void> FrameMap::make_room()
{
    while ((runs_.size() + 1) * kRunFrames > limits_.mapped_frames) {
        if (runs_.empty() || runs_.back().used_by == call_)
            return make_error(Errc::limit, fmt::format("the frames of one call do not fit into {} mapped frames", limits_.mapped_frames));
        ++stats_.evictions;
        forget(runs_.back().number * kRunFrames);
    }
    return {};
}

void FrameMap::forget(Gfn gfn)
{
    const auto found = by_number_.find(gfn / kRunFrames);
    if (found == by_number_.end()) return;
    if (found->second->mapping.data() != nullptr) ++stats_.unmap_calls;
    runs_.erase(found->second);
    by_number_.erase(found);
}

void FrameMap::drop_all()
{
    for (const Run& run : runs_) stats_.unmap_calls += run.mapping.data() != nullptr;
    runs_.clear();
    by_number_.clear();
}

// Calls `act(frames)` with those that have this status, in order and each once, not more than one call of the hypervisor takes.
template <class Act>
Result<void> FrameMap::each_part(std::span<const Gfn> gfns, FrameStatus wanted, const Act& act)
{
    std::vector<Gfn> found;
    for (std::size_t at = 0; at < gfns.size(); at += kMaxFrames) {
        const auto part = gfns.subspan(at, std::min(kMaxFrames, gfns.size() - at));
        std::array<std::uint8_t*, kMaxFrames> pages;
        std::array<FrameStatus, kMaxFrames> status;
        if (auto r = find(part, Access::read, std::span(pages).first(part.size()), std::span(status).first(part.size())); !r) return r;
        found.clear();
        for (std::size_t i = 0; i < part.size(); ++i)
            if (status[i] == wanted) found.push_back(part[i]);
        std::sort(found.begin(), found.end());
        found.erase(std::unique(found.begin(), found.end()), found.end());
        if (found.empty()) continue;
        if (auto r = act(std::span<const Gfn>(found)); !r) return r;
    }
    return {};
}

Result<void> FrameMap::populate(std::span<const Gfn> gfns)
{
    return each_part(gfns, FrameStatus::absent, [this](std::span<const Gfn> absent) -> Result<void> {
        auto made = control_.populate(absent);
        for (const Gfn gfn : absent) forget(gfn);
        if (!made) return made.error();
        stats_.populated += *made;
        total_pages_ += *made;
        if (*made == absent.size()) return {};
        return make_error(Errc::limit, fmt::format("no memory for frame {:#x}: the host has none left, or the domain's maximum is reached", absent[*made]));
    });
}

Result<bool> FrameMap::notice_changes()
{
    const auto info = control_.info();
    if (!info) return info.error();
    const auto limit = control_.gfn_limit();
    if (!limit) return limit.error();
    const bool changed = total_pages_ != info->total_pages || gfn_limit_ != *limit;
    const bool had = !runs_.empty();
    total_pages_ = info->total_pages;
    gfn_limit_ = *limit;
    if (!changed || !had) return false;
    drop_all();
    return true;
}

}  // namespace colo::xen
