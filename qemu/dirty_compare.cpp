// SPDX-License-Identifier: Apache-2.0
#include "qemu/dirty_log.h"

#include <cerrno>
#include <cstring>
#include <sys/mman.h>

namespace colo::qemu::detail {
namespace {

// The shadow is what the caller last got or wrote. Were it instead the content at the last fetch, a page that changed
// X -> Y -> X, read by the caller while it was Y, would look clean although the other side holds Y.
class CompareLog : public replication::DirtyLog, public RamObserver {
public:
    explicit CompareLog(GuestRam& ram) : ram_(ram) {}
    ~CompareLog() override { stop(); }

    Result<void> start() override
    {
        if (shadow_ == nullptr) {
            void* at = ::mmap(nullptr, bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (at == MAP_FAILED) return errno_error("map a copy of guest RAM", errno);
            shadow_ = static_cast<std::uint8_t*>(at);
            ::madvise(at, bytes(), MADV_DONTDUMP);
        }
        ram_.set_observer(this);
        all_dirty_ = true;
        return {};
    }

    Result<void> fetch_and_clear(replication::PageSet& into, bool) override
    {
        if (shadow_ == nullptr) return make_error(Errc::invalid, "the dirty log was not started");
        for (Gfn g = 0; g < ram_.pages(); ++g) {
            const std::uint8_t* now = ram_.data() + g * kPageSize;
            std::uint8_t* then = shadow_ + g * kPageSize;
            if (std::memcmp(now, then, kPageSize) != 0) std::memcpy(then, now, kPageSize);
            else if (!all_dirty_) continue;
            into.add(g);
        }
        all_dirty_ = false;
        return {};
    }

    Result<void> peek(replication::PageSet& into) override
    {
        if (shadow_ == nullptr) return make_error(Errc::invalid, "the dirty log was not started");
        for (Gfn g = 0; g < ram_.pages(); ++g)
            if (all_dirty_ || std::memcmp(ram_.data() + g * kPageSize, shadow_ + g * kPageSize, kPageSize) != 0)
                into.add(g);
        return {};
    }

    void stop() override
    {
        if (shadow_ == nullptr) return;
        ram_.set_observer(nullptr);
        ::munmap(shadow_, bytes());
        shadow_ = nullptr;
    }
    std::string method() const override { return to_string(DirtyMethod::compare); }

    void page_passed(Gfn gfn, const std::uint8_t* content) override
    {
        std::memcpy(shadow_ + gfn * kPageSize, content, kPageSize);
    }

private:
    std::size_t bytes() const { return ram_.pages() * kPageSize; }

    GuestRam& ram_;
    std::uint8_t* shadow_ = nullptr;
    bool all_dirty_ = false;
};

}  // namespace

std::unique_ptr<replication::DirtyLog> make_compare_log(GuestRam& ram) { return std::make_unique<CompareLog>(ram); }

}  // namespace colo::qemu::detail
