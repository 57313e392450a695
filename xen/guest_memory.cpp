// SPDX-License-Identifier: Apache-2.0
#include "xen/guest_memory.h"

#include "core/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace colo::xen {

using replication::FrameStatus;
using replication::PageWrite;

namespace {
constexpr std::size_t kBatch = FrameMap::kMaxFrames;
}

DomainMemory::DomainMemory(Control& control, const MemoryLayout& layout, FrameMapLimits limits)
    : ram_(layout.ram()), frames_(control, limits)
{
}

Result<void> DomainMemory::read(std::span<const Gfn> gfns, std::uint8_t* out, std::span<FrameStatus> status)
{
    COLO_CHECK(status.size() == gfns.size());
    for (std::size_t at = 0; at < gfns.size(); at += kBatch) {
        const std::size_t count = std::min(kBatch, gfns.size() - at);
        if (auto r = read_batch(gfns.subspan(at, count), out + at * kPageSize, status.subspan(at, count)); !r)
            return with_context("read guest memory", r.error());
    }
    return {};
}

Result<void> DomainMemory::read_batch(std::span<const Gfn> gfns, std::uint8_t* out, std::span<FrameStatus> status)
{
    std::array<Gfn, kBatch> ours;
    std::array<std::uint8_t*, kBatch> pages;
    std::array<FrameStatus, kBatch> found;
    std::size_t count = 0;
    for (const Gfn gfn : gfns)
        if (ram_.contains(gfn)) ours[count++] = gfn;
    if (auto r = frames_.find(std::span(ours).first(count), Access::read, std::span(pages).first(count), std::span(found).first(count)); !r)
        return r;
    std::size_t next = 0;
    for (std::size_t i = 0; i < gfns.size(); ++i, out += kPageSize) {
        const std::uint8_t* page = nullptr;
        status[i] = FrameStatus::absent;
        if (ram_.contains(gfns[i])) {
            status[i] = found[next];
            page = pages[next++];
        }
        if (page != nullptr) std::memcpy(out, page, kPageSize);
        else std::memset(out, 0, kPageSize);
    }
    return {};
}

Result<void> DomainMemory::write(std::span<const PageWrite> pages)
{
    const auto foreign = [&](const PageWrite& page) { return !ram_.contains(page.gfn); };
    if (const auto bad = std::find_if(pages.begin(), pages.end(), foreign); bad != pages.end())
        return make_error(Errc::invalid, fmt::format("frame {:#x} is not memory of the guest that may be written", bad->gfn));
    for (std::size_t at = 0; at < pages.size(); at += kBatch)
        if (auto r = write_batch(pages.subspan(at, std::min(kBatch, pages.size() - at))); !r) return with_context("write guest memory", r.error());
    return {};
}

Result<void> DomainMemory::write_batch(std::span<const PageWrite> writes)
{
    const std::size_t count = writes.size();
    std::array<Gfn, kBatch> gfns;
    std::array<std::uint8_t*, kBatch> pages;
    std::array<FrameStatus, kBatch> status;
    const auto names = std::span(gfns).first(count);
    for (std::size_t i = 0; i < count; ++i) gfns[i] = writes[i].gfn;
    const auto find = [&] { return frames_.find(names, Access::read_write, std::span(pages).first(count), std::span(status).first(count)); };
    if (auto r = find(); !r) return r;
    std::vector<Gfn> absent;
    for (std::size_t i = 0; i < count; ++i)
        if (status[i] == FrameStatus::absent) absent.push_back(gfns[i]);
    if (!absent.empty()) {
        const std::uint64_t before = frames_.stats().populated;
        const auto populated = frames_.populate(absent);
        resident_.fetch_add((frames_.stats().populated - before) * kPageSize, std::memory_order_relaxed);
        if (!populated) return populated;
        if (auto r = find(); !r) return r;
    }
    for (std::size_t i = 0; i < count; ++i)
        if (status[i] != FrameStatus::ok) return make_error(Errc::failed, fmt::format("frame {:#x} cannot be mapped", gfns[i]));
    for (std::size_t i = 0; i < count; ++i) {
        if (writes[i].data != nullptr) std::memcpy(pages[i], writes[i].data, kPageSize);
        else std::memset(pages[i], 0, kPageSize);
    }
    return {};
}

Result<void> DomainMemory::refresh()
{
    if (auto r = frames_.notice_changes(); !r) return r.error();
    resident_.store(frames_.total_pages() * kPageSize, std::memory_order_relaxed);
    return {};
}

}  // namespace colo::xen
