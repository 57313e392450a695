// SPDX-License-Identifier: Apache-2.0
#include "qemu/dirty_log.h"

#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

// Kernel interfaces younger than the headers of Debian 12 (Linux 6.7, include/uapi/linux/{userfaultfd,fs}.h).
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif
#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif

namespace colo::qemu::detail {
namespace {

struct PageRegion {
    std::uint64_t start, end, categories;
};
struct ScanArgument {
    std::uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    std::uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
constexpr unsigned long kPagemapScan = _IOWR('f', 16, ScanArgument);
constexpr std::uint64_t kIsWritten = 1 << 1;
constexpr std::uint64_t kScanWriteProtectMatching = 1 << 0, kScanCheckWpAsync = 1 << 1;

class UffdLog : public replication::DirtyLog {
public:
    explicit UffdLog(const DirtyTarget& target) : target_(target) {}
    ~UffdLog() override { stop(); }

    Result<void> start() override
    {
        if (!armed_) {
            if (auto r = arm_userfaultfd(target_.userfaultfd, target_.address, bytes()); !r) return r;
            armed_ = true;
        }
        const std::string path = fmt::format("/proc/{}/pagemap", target_.pid);
        pagemap_ = Fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
        if (!pagemap_) return errno_error("open " + path, errno);
        all_dirty_ = true;
        return {};
    }

    Result<void> fetch_and_clear(replication::PageSet& into, bool) override
    {
        if (!pagemap_) return make_error(Errc::invalid, "the dirty log was not started");
        if (all_dirty_) into.add_range(0, target_.pages);
        all_dirty_ = false;
        const auto scanned = scan_written(into, kScanWriteProtectMatching | kScanCheckWpAsync);
        // Part of the bits may be gone already: only "everything is dirty" is still true.
        if (!scanned) all_dirty_ = true;
        return scanned;
    }

    Result<void> peek(replication::PageSet& into) override
    {
        if (!pagemap_) return make_error(Errc::invalid, "the dirty log was not started");
        if (all_dirty_) into.add_range(0, target_.pages);
        return all_dirty_ ? Result<void>{} : scan_written(into, kScanCheckWpAsync);
    }

    void stop() override
    {
        if (!armed_) return;
        uffdio_range range{target_.address, bytes()};
        ::ioctl(target_.userfaultfd, UFFDIO_UNREGISTER, &range);
        armed_ = false;
        pagemap_.reset();
    }

    std::string method() const override { return to_string(DirtyMethod::uffd_wp); }

private:
    std::uint64_t bytes() const { return target_.pages * kPageSize; }

    Result<void> scan_written(replication::PageSet& into, std::uint64_t flags)
    {
        ScanArgument scan{};
        scan.size = sizeof scan;
        scan.flags = flags;
        scan.start = target_.address;
        scan.end = target_.address + bytes();
        scan.vec = reinterpret_cast<std::uintptr_t>(regions_.data());
        scan.vec_len = regions_.size();
        scan.category_mask = kIsWritten;
        scan.return_mask = kIsWritten;
        while (scan.start < scan.end) {
            const int found = ::ioctl(pagemap_.get(), kPagemapScan, &scan);
            if (found < 0) {
                const Error error = errno_error("PAGEMAP_SCAN", errno);
                return make_error(error.code == Errc::failed ? Errc::limit : error.code, error.text);
            }
            for (std::size_t i = 0; i < static_cast<std::size_t>(found); ++i)
                into.add_range((regions_[i].start - target_.address) / kPageSize,
                               (regions_[i].end - regions_[i].start) / kPageSize);
            if (scan.walk_end <= scan.start) return make_error(Errc::failed, "PAGEMAP_SCAN makes no progress");
            scan.start = scan.walk_end;
        }
        return {};
    }

    DirtyTarget target_;
    Fd pagemap_;
    bool armed_ = false;
    bool all_dirty_ = false;
    std::array<PageRegion, 4096> regions_{};
};

}  // namespace

Result<void> arm_userfaultfd(int userfaultfd, std::uint64_t address, std::uint64_t bytes)
{
    uffdio_api api{};
    api.api = UFFD_API;
    api.features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
    // The handshake is possible once per descriptor; a log that starts again finds it done (EINVAL or EPERM by kernel).
    const bool fresh = ::ioctl(userfaultfd, UFFDIO_API, &api) == 0;
    const int api_error = errno;
    uffdio_register area{};
    area.range = {address, bytes};
    area.mode = UFFDIO_REGISTER_MODE_WP;
    if (::ioctl(userfaultfd, UFFDIO_REGISTER, &area) == 0) return {};
    const int error = fresh ? errno : api_error;
    return errno_error(fresh ? "register RAM with userfaultfd" : "userfaultfd write protection (Linux 6.7 or newer)", error);
}

std::unique_ptr<replication::DirtyLog> make_uffd_log(const DirtyTarget& target) { return std::make_unique<UffdLog>(target); }

}  // namespace colo::qemu::detail
