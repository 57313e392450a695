// SPDX-License-Identifier: Apache-2.0
#include "qemu/dirty_log.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <unistd.h>

namespace colo::qemu::detail {
namespace {

constexpr std::uint64_t kSoftDirtyBit = std::uint64_t{1} << 55;
constexpr std::size_t kEntriesPerRead = 8192;

class SoftDirtyLog : public replication::DirtyLog {
public:
    explicit SoftDirtyLog(const DirtyTarget& target) : target_(target), entries_(kEntriesPerRead) {}

    Result<void> start() override
    {
        const std::string pagemap = fmt::format("/proc/{}/pagemap", target_.pid);
        const std::string clear = fmt::format("/proc/{}/clear_refs", target_.pid);
        pagemap_ = Fd(::open(pagemap.c_str(), O_RDONLY | O_CLOEXEC));
        if (!pagemap_) return errno_error("open " + pagemap, errno);
        clear_refs_ = Fd(::open(clear.c_str(), O_WRONLY | O_CLOEXEC));
        if (!clear_refs_) return errno_error("open " + clear, errno);
        if (auto r = clear_bits(); !r) return r;
        all_dirty_ = true;
        return {};
    }

    Result<void> fetch_and_clear(replication::PageSet& into, bool final) override
    {
        if (!pagemap_) return make_error(Errc::invalid, "the dirty log was not started");
        if (all_dirty_) {
            // The bits count from start() on: what is written while the caller copies comes with a later fetch.
            into.add_range(0, target_.pages);
            all_dirty_ = false;
            return {};
        }
        // A write between reading and clearing would be lost, so only a stopped guest can be asked.
        if (!final) return {};
        if (auto r = read_bits(into); !r) return r;
        return clear_bits();
    }

    Result<void> peek(replication::PageSet& into) override
    {
        if (!pagemap_) return make_error(Errc::invalid, "the dirty log was not started");
        if (all_dirty_) into.add_range(0, target_.pages);
        return all_dirty_ ? Result<void>{} : read_bits(into);
    }

    void stop() override
    {
        pagemap_.reset();
        clear_refs_.reset();
    }
    std::string method() const override { return to_string(DirtyMethod::soft_dirty); }

private:
    Result<void> clear_bits()
    {
        if (::pwrite(clear_refs_.get(), "4", 1, 0) != 1) return errno_error("clear soft-dirty bits", errno);
        return {};
    }

    Result<void> read_bits(replication::PageSet& into)
    {
        for (Gfn first = 0; first < target_.pages;) {
            const std::size_t count = static_cast<std::size_t>(std::min<std::uint64_t>(entries_.size(), target_.pages - first));
            const off_t offset = static_cast<off_t>((target_.address / kPageSize + first) * sizeof(std::uint64_t));
            const ssize_t n = ::pread(pagemap_.get(), entries_.data(), count * sizeof(std::uint64_t), offset);
            if (n <= 0) return errno_error("read pagemap", n == 0 ? EIO : errno);
            const std::size_t got = static_cast<std::size_t>(n) / sizeof(std::uint64_t);
            for (std::size_t i = 0; i < got; ++i)
                if ((entries_[i] & kSoftDirtyBit) != 0) into.add(first + i);
            first += got;
        }
        return {};
    }

    DirtyTarget target_;
    std::vector<std::uint64_t> entries_;
    Fd pagemap_, clear_refs_;
    bool all_dirty_ = false;
};

}  // namespace

std::unique_ptr<replication::DirtyLog> make_soft_dirty_log(const DirtyTarget& target)
{
    return std::make_unique<SoftDirtyLog>(target);
}

}  // namespace colo::qemu::detail
