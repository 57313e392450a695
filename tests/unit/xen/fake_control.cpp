// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/xen/fake_control.h"

#include "core/check.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sys/mman.h>
#include <unistd.h>

namespace colo::test {

using xen::Access;
using xen::hypercall_error;
using xen::LogAnswer;
using xen::LogOp;
using xen::Mapping;
using xen::Param;

FakeControl::FakeControl() : file_(::memfd_create("fake-domain", MFD_CLOEXEC))
{
    COLO_CHECK(file_ >= 0);
    described.hvm = described.hap = true;
    described.max_pages = 1u << 20;
    described.vcpus = 1;
}

FakeControl::~FakeControl()
{
    COLO_CHECK(mappings_ == 0);   // every test is one about mappings that are left
    ::close(file_);
}

std::uint64_t FakeControl::new_frame()
{
    COLO_CHECK(::ftruncate(file_, static_cast<off_t>((made_ + 1) * kPageSize)) == 0);
    return made_++;
}

void FakeControl::fill_frame(std::uint64_t frame, std::uint8_t fill)
{
    const Bytes page(kPageSize, fill);
    COLO_CHECK(::pwrite(file_, page.data(), page.size(), static_cast<off_t>(frame * kPageSize)) == static_cast<ssize_t>(kPageSize));
}

void FakeControl::set(Gfn gfn, std::uint64_t frame)
{
    frames_[gfn] = frame;
    limit_ = std::max(limit_, gfn + 1);
}

void FakeControl::add_ram(Gfn first, std::uint64_t pages)
{
    for (std::uint64_t i = 0; i < pages; ++i) set(first + i, new_frame());
}

void FakeControl::guest_write(Gfn gfn, std::uint8_t fill)
{
    fill_frame(frames_.at(gfn), fill);
    if (log_on_) dirty_.insert(gfn);
}

void FakeControl::hypervisor_write(Gfn gfn, std::uint8_t fill)
{
    fill_frame(frames_.at(gfn), fill);
    dirty_at_the_end_.insert(gfn);
}

void FakeControl::exchange(Gfn gfn, std::uint8_t fill)
{
    set(gfn, new_frame());
    guest_write(gfn, fill);
}

std::uint8_t FakeControl::content(Gfn gfn) const
{
    std::uint8_t byte = 0;
    COLO_CHECK(::pread(file_, &byte, 1, static_cast<off_t>(frames_.at(gfn) * kPageSize)) == 1);
    return byte;
}

bool FakeControl::is_gone()
{
    if (ends_when_unmapped && mappings_ == 0) died = true;
    return died;
}

Result<void> FakeControl::step(const std::string& name)
{
    if (trace != nullptr) trace->push_back(name);
    if (is_gone()) return hypercall_error("domain: " + name, ESRCH);
    auto& queue = fail[name];
    if (queue.empty()) return {};
    const int err = queue.front();
    queue.pop_front();
    if (err != 0) return hypercall_error("domain: " + name, err);
    return {};
}

Result<xen::DomainInfo> FakeControl::info()
{
    ++infos;
    if (auto r = step("info"); !r) return r.error();
    described.total_pages = frames_.size();
    described.paused = pauses_ > 0;
    return described;
}

Result<Gfn> FakeControl::gfn_limit()
{
    if (auto r = step("gfn-limit"); !r) return r.error();
    return limit_;
}

Result<void> FakeControl::pause()
{
    if (auto r = step("pause"); !r) return r;
    ++pauses_;
    return {};
}

Result<void> FakeControl::unpause()
{
    if (auto r = step("unpause"); !r) return r;
    if (pauses_ == 0) return hypercall_error("unpause", EINVAL);
    --pauses_;
    return {};
}

Result<void> FakeControl::revive()
{
    if (auto r = step("revive"); !r) return r;
    described.shut_down = false;
    return {};
}

Result<xen::InFlight> FakeControl::in_flight()
{
    if (auto r = step("in-flight"); !r) return r.error();
    COLO_CHECK(pauses_ > 0);
    if (accesses.empty()) return xen::InFlight{};
    const xen::InFlight out = accesses.front();
    accesses.pop_front();
    return out;
}

Result<void> FakeControl::enable_log()
{
    ++enables;
    if (auto r = step("enable"); !r) return r;
    if (log_on_ || log_by_another) return hypercall_error("enable", EINVAL);
    log_on_ = true;
    return {};
}

Result<void> FakeControl::disable_log()
{
    if (auto r = step("disable"); !r) return r;
    if (!another_insists) log_by_another = false;
    log_on_ = false;
    failed_allocations = false;
    dirty_.clear();
    return {};
}

Result<LogAnswer> FakeControl::read_log(LogOp op, bool final, std::uint64_t pages)
{
    ++reads;
    if (auto r = step("read-log"); !r) return r.error();
    if (failed_allocations) return hypercall_error("read-log", ENOMEM);
    COLO_CHECK(!final || pauses_ > 0);
    bitmap_.assign((pages + 63) / 64, ~std::uint64_t{0});   // what is beyond the last frame is garbage
    for (std::uint64_t gfn = 0; gfn < pages; ++gfn) bitmap_[gfn / 64] &= ~(std::uint64_t{1} << gfn % 64);
    LogAnswer out;
    out.pages = pages - std::min(pages, std::exchange(answer_short, 0));
    out.dirty = static_cast<std::uint32_t>(dirty_.size());
    const auto report = [&](Gfn gfn) {
        if (gfn < pages) bitmap_[gfn / 64] |= std::uint64_t{1} << gfn % 64;
    };
    for (const Gfn gfn : dirty_) report(gfn);
    if (final)
        for (const Gfn gfn : dirty_at_the_end_) report(gfn);
    if (op == LogOp::clean) {
        dirty_.erase(dirty_.begin(), dirty_.lower_bound(pages));
        if (final) dirty_at_the_end_.clear();
    }
    out.bitmap = bitmap_;
    return out;
}

Result<void> FakeControl::mark_dirty(Gfn gfn)
{
    if (auto r = step("mark"); !r) return r;
    if (log_on_ && has(gfn)) dirty_.insert(gfn);
    return {};
}

Result<Mapping> FakeControl::map(std::span<const Gfn> gfns, Access access, std::span<int> errors)
{
    ++maps;
    if (auto r = step("map"); !r) return r.error();
    COLO_CHECK(!gfns.empty() && gfns.size() <= xen::kMaxBatch && errors.size() == gfns.size());
    const bool none = std::none_of(gfns.begin(), gfns.end(), [&](Gfn gfn) { return has(gfn); });
    if (none && absent_run_fails_as_a_whole) {
        std::fill(errors.begin(), errors.end(), ENOENT);
        return Mapping();
    }
    const std::size_t bytes = gfns.size() * kPageSize;
    auto* at = static_cast<std::uint8_t*>(::mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    COLO_CHECK(at != MAP_FAILED);
    for (std::size_t i = 0; i < gfns.size(); ++i) {
        errors[i] = !has(gfns[i]) ? EINVAL : unmappable.count(gfns[i]) != 0 ? EPERM : 0;
        if (errors[i] != 0) continue;
        const int protection = access == Access::read ? PROT_READ : PROT_READ | PROT_WRITE;
        const auto offset = static_cast<off_t>(frames_.at(gfns[i]) * kPageSize);
        COLO_CHECK(::mmap(at + i * kPageSize, kPageSize, protection, MAP_SHARED | MAP_FIXED, file_, offset) != MAP_FAILED);
    }
    ++mappings_;
    return Mapping(*this, at, gfns.size());
}

void FakeControl::unmap(std::uint8_t* data, std::size_t pages) noexcept
{
    ::munmap(data, pages * kPageSize);
    --mappings_;
    ++unmaps;
}

Result<std::size_t> FakeControl::populate(std::span<const Gfn> gfns)
{
    if (auto r = step("populate"); !r) return r.error();
    std::size_t made = 0;
    for (const Gfn gfn : gfns) {
        if (free_frames == 0 || frames_.size() >= described.max_pages) break;
        COLO_CHECK(!has(gfn));
        --free_frames;
        set(gfn, new_frame());
        fill_frame(frames_.at(gfn), 0xee);   // of whoever had it before
        ++made;
    }
    return made;
}

void FakeControl::give_up(std::span<const Gfn> gfns)
{
    for (const Gfn gfn : gfns) free_frames += frames_.erase(gfn);
}

Result<Bytes> FakeControl::context()
{
    if (auto r = step("context"); !r) return r.error();
    return cpu_context;
}

Result<void> FakeControl::set_context(ByteView context)
{
    if (auto r = step("set-context"); !r) return r;
    if (pauses_ == 0 || context.empty()) return hypercall_error("set-context", EINVAL);
    cpu_context.assign(context.begin(), context.end());
    return {};
}

Result<std::uint64_t> FakeControl::param(Param param)
{
    if (auto r = step("param"); !r) return r.error();
    return params[param];
}

// Those that Xen lets nobody change once they are set.
Result<void> FakeControl::set_param(Param param, std::uint64_t value)
{
    if (auto r = step("set-param"); !r) return r;
    const bool once = param == Param::viridian || param == Param::ioreq_pfn || param == Param::bufioreq_pfn;
    if (once && params[param] != 0 && params[param] != value) return hypercall_error("set-param", EEXIST);
    params[param] = value;
    return {};
}

Result<Bytes> FakeControl::cpu_policy()
{
    if (auto r = step("cpu-policy"); !r) return r.error();
    return policy;
}

Result<xen::TscInfo> FakeControl::tsc()
{
    if (auto r = step("tsc"); !r) return r.error();
    return clock;
}

Result<std::string> FakeControl::hypervisor()
{
    if (auto r = step("hypervisor"); !r) return r.error();
    return std::string("4.17");
}

Result<std::uint32_t> FakeControl::vnuma_nodes()
{
    if (auto r = step("vnuma"); !r) return r.error();
    return numa_nodes;
}

}  // namespace colo::test
