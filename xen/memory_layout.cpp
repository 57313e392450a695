// SPDX-License-Identifier: Apache-2.0
#include "xen/memory_layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace colo::xen {
namespace {

constexpr std::array kFrameParams = {Param::store_pfn,       Param::console_pfn,      Param::ioreq_pfn,       Param::bufioreq_pfn,
                                     Param::paging_ring_pfn, Param::monitor_ring_pfn, Param::sharing_ring_pfn};
// Of the I/O request servers' reserve; Xen's own tools reserve 8.
constexpr std::uint64_t kMaxServerPages = 64;

// Which frames of [from, from + count) exist; returns how many.
Result<std::uint64_t> look(Control& control, Gfn from, std::size_t count, replication::PageSet& present)
{
    std::array<Gfn, kMaxBatch> gfns{};
    std::array<int, kMaxBatch> errors{};
    for (std::size_t i = 0; i < count; ++i) gfns[i] = from + i;
    auto mapping = control.map(std::span(gfns).first(count), Access::read, std::span(errors).first(count));
    if (!mapping) return with_context("look for the domain's memory", mapping.error());
    std::uint64_t found = 0;
    for (std::size_t i = 0; i < count; ++i)
        if (errors[i] == 0) {
            present.add(gfns[i]);
            ++found;
        }
    return found;
}

// RAM lies at the bottom and the devices' frames at the top, with nothing but hole between: from below up to the first
// batch without a frame, then from above until all that the domain owns were found.
Result<void> look_everywhere(Control& control, Gfn limit, std::uint64_t total, replication::PageSet& present)
{
    std::uint64_t found = 0;
    Gfn low = 0, high = limit;
    for (bool up = true; low < high && found < total;) {
        const auto count = static_cast<std::size_t>(std::min<Gfn>(kMaxBatch, high - low));
        const auto more = look(control, up ? low : high - count, count, present);
        if (!more) return more.error();
        found += *more;
        (up ? low : high) += up ? count : -static_cast<Gfn>(count);
        up = up && *more > 0;
    }
    return {};
}

}  // namespace

replication::PageSet MemoryLayout::ram() const
{
    replication::PageSet out;
    for (const auto& region : regions) out.add_range(region.first, region.pages);
    for (const Gfn gfn : special_frames) out.remove(gfn);
    return out;
}

Result<std::vector<Gfn>> special_frames(Control& control)
{
    std::vector<Gfn> out;
    for (const Param param : kFrameParams) {
        auto gfn = control.param(param);
        if (!gfn) return with_context("find the frames that belong to this host", gfn.error());
        if (*gfn != 0) out.push_back(*gfn);
    }
    auto first = control.param(Param::ioreq_server_pfn);
    if (!first) return with_context("find the frames that belong to this host", first.error());
    auto count = control.param(Param::ioreq_server_pages);
    if (!count) return with_context("find the frames that belong to this host", count.error());
    if (*count > kMaxServerPages) return make_error(Errc::corrupt, fmt::format("{} frames for I/O request servers", *count));
    if (*first != 0)
        for (std::uint64_t i = 0; i < *count; ++i) out.push_back(*first + i);
    std::sort(out.begin(), out.end());
    out.erase(std::unique(out.begin(), out.end()), out.end());
    return out;
}

Result<MemoryLayout> probe_layout(Control& control)
{
    MemoryLayout out;
    auto special = special_frames(control);
    if (!special) return special.error();
    out.special_frames = std::move(*special);
    const auto info = control.info();
    if (!info) return info.error();
    const auto limit = control.gfn_limit();
    if (!limit) return limit.error();
    if (*limit > kMaxGfnLimit) return make_error(Errc::limit, fmt::format("a gfn space of {:#x} frames", *limit));
    replication::PageSet present(*limit);
    if (auto r = look_everywhere(control, *limit, info->total_pages, present); !r) return r.error();

    present.for_each([&](Gfn gfn) {
        auto* last = out.regions.empty() ? nullptr : &out.regions.back();
        if (last != nullptr && last->first + last->pages == gfn) ++last->pages;
        else out.regions.push_back({gfn, 1});
    });
    if (out.regions.size() > kMaxRegions)
        return make_error(Errc::unsupported, fmt::format("{} separate pieces of memory: does the guest balloon?", out.regions.size()));
    return out;
}

}  // namespace colo::xen
