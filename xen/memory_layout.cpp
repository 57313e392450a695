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
    auto limit = control.gfn_limit();
    if (!limit) return limit.error();
    if (*limit > kMaxGfnLimit) return make_error(Errc::limit, fmt::format("a gfn space of {:#x} frames", *limit));

    std::array<Gfn, kMaxBatch> gfns{};
    std::array<int, kMaxBatch> errors{};
    for (Gfn at = 0; at < *limit; at += kMaxBatch) {
        const auto count = static_cast<std::size_t>(std::min<Gfn>(kMaxBatch, *limit - at));
        for (std::size_t i = 0; i < count; ++i) gfns[i] = at + i;
        auto mapping = control.map(std::span(gfns).first(count), Access::read, std::span(errors).first(count));
        if (!mapping) return with_context("look for the domain's memory", mapping.error());
        for (std::size_t i = 0; i < count; ++i) {
            if (errors[i] != 0) continue;
            auto* last = out.regions.empty() ? nullptr : &out.regions.back();
            if (last != nullptr && last->first + last->pages == gfns[i]) ++last->pages;
            else out.regions.push_back({gfns[i], 1});
        }
        if (out.regions.size() > kMaxRegions)
            return make_error(Errc::unsupported, fmt::format("more than {} separate pieces of memory: does the guest balloon?", kMaxRegions));
    }
    return out;
}

}  // namespace colo::xen
