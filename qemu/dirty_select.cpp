// SPDX-License-Identifier: Apache-2.0
#include "core/clock.h"
#include "qemu/dirty_log.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <fstream>
#include <linux/userfaultfd.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace colo::qemu {
namespace {

using replication::DirtyLog;
using replication::PageSet;

constexpr DirtyMethod kBestFirst[] = {DirtyMethod::uffd_wp, DirtyMethod::soft_dirty, DirtyMethod::compare};

// Everything at first, nothing after that, then exactly the page that was written, then nothing again.
Result<void> try_log(DirtyLog& log, std::uint8_t* memory, std::uint64_t pages)
{
    constexpr Gfn kWritten = 5;
    if (auto r = log.start(); !r) return r;
    const auto fetch = [&]() -> Result<PageSet> {
        PageSet set(pages);
        if (auto r = log.fetch_and_clear(set, true); !r) return r.error();
        return set;
    };
    auto all = fetch();
    if (!all) return all.error();
    if (all->count() != pages) return make_error(Errc::unsupported, "the first fetch does not report every page");
    auto before = fetch();
    if (!before) return before.error();
    static_cast<volatile std::uint8_t*>(memory)[kWritten * kPageSize] = 1;
    auto set = fetch();
    if (!set) return set.error();
    if (!set->contains(kWritten)) return make_error(Errc::unsupported, "a write to a page is not reported");
    if (set->count() == pages) return make_error(Errc::unsupported, "every page is reported, written or not");
    auto after = fetch();
    if (!after) return after.error();
    if (after->contains(kWritten)) return make_error(Errc::unsupported, "a reported page stays reported");
    return {};
}

}  // namespace

const char* to_string(DirtyMethod method)
{
    switch (method) {
        case DirtyMethod::uffd_wp: return "uffd-wp";
        case DirtyMethod::soft_dirty: return "soft-dirty";
        case DirtyMethod::compare: return "compare";
    }
    return "?";
}

Result<void> test_dirty_method(DirtyMethod method)
{
    if (method == DirtyMethod::compare) return {};
    constexpr std::uint64_t kPages = 64;
    auto ram = GuestRam::create("dirty-log-test", kPages);
    if (!ram) return ram.error();
    DirtyTarget target{::getpid(), reinterpret_cast<std::uintptr_t>((*ram)->data()), kPages, -1};
    Fd userfaultfd;
    if (method == DirtyMethod::uffd_wp) {
        userfaultfd = Fd(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY)));
        if (!userfaultfd) return errno_error("userfaultfd", errno);
        target.userfaultfd = userfaultfd.get();
    }
    // Some pages exist, some do not: both must work.
    for (Gfn g = 0; g < kPages; g += 2) (*ram)->data()[g * kPageSize] = 1;
    auto log = make_dirty_log(method, target, **ram);
    if (!log) return log.error();
    if (auto r = try_log(**log, (*ram)->data(), kPages); !r) return with_context(to_string(method), r.error());
    return {};
}

Result<DirtySelection> select_dirty_log(const std::string& preference)
{
    if (preference == "auto") {
        DirtySelection selection;
        for (const DirtyMethod method : kBestFirst) {
            const Result<void> works = test_dirty_method(method);
            selection.method = method;
            if (works) return selection;
            selection.why += (selection.why.empty() ? "" : "; ") + works.error().text;
        }
        return selection;
    }
    for (const DirtyMethod method : kBestFirst) {
        if (preference != to_string(method)) continue;
        if (auto r = test_dirty_method(method); !r)
            return make_error(Errc::unsupported, fmt::format("dirty_log = \"{}\" does not work on this host ({}); use \"auto\"",
                                                             preference, r.error().text));
        return DirtySelection{method, {}};
    }
    return make_error(Errc::invalid, fmt::format("dirty_log = \"{}\": auto, uffd-wp, soft-dirty or compare", preference));
}

Result<DirtyTarget> find_target(int pid, const GuestRam& ram)
{
    const std::string path = fmt::format("/proc/{}/maps", pid);
    std::ifstream maps(path);
    std::string line;
    while (std::getline(maps, line)) {
        unsigned long from = 0, to = 0, offset = 0, inode = 0;
        if (std::sscanf(line.c_str(), "%lx-%lx %*s %lx %*s %lu", &from, &to, &offset, &inode) != 4) continue;
        if (inode == ram.inode() && offset == 0 && line.find("/memfd:") != std::string::npos &&
            to - from == ram.pages() * kPageSize)
            return DirtyTarget{pid, from, ram.pages(), -1};
    }
    return make_error(Errc::failed, fmt::format("{}: guest RAM is not mapped there", path));
}

Result<std::unique_ptr<DirtyLog>> make_dirty_log(DirtyMethod method, const DirtyTarget& target, GuestRam& ram)
{
    switch (method) {
        case DirtyMethod::uffd_wp:
            if (target.userfaultfd < 0) return make_error(Errc::unsupported, "no userfaultfd of that process");
            return detail::make_uffd_log(target);
        case DirtyMethod::soft_dirty: return detail::make_soft_dirty_log(target);
        case DirtyMethod::compare: return detail::make_compare_log(ram);
    }
    return make_error(Errc::invalid, "no such dirty log");
}

}  // namespace colo::qemu
