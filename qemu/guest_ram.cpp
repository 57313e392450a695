// SPDX-License-Identifier: Apache-2.0
#include "qemu/guest_ram.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace colo::qemu {

using replication::FrameStatus;

Result<std::unique_ptr<GuestRam>> GuestRam::create(const std::string& name, std::uint64_t pages)
{
    std::unique_ptr<GuestRam> ram(new GuestRam);
    ram->fd_ = Fd(::memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!ram->fd_) return errno_error("memfd_create", errno);
    const std::size_t bytes = pages * kPageSize;
    if (::ftruncate(ram->fd(), static_cast<off_t>(bytes)) != 0) return errno_error("size of guest RAM", errno);
    // QEMU has the descriptor too: were it to cut the file short, our next access would be our last.
    if (::fcntl(ram->fd(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        return errno_error("seal the size of guest RAM", errno);
    struct stat info {};
    if (::fstat(ram->fd(), &info) != 0) return errno_error("fstat", errno);
    ram->inode_ = info.st_ino;
    void* at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, ram->fd(), 0);
    if (at == MAP_FAILED) return errno_error(fmt::format("map {} MiB of guest RAM", bytes >> 20), errno);
    ram->data_ = static_cast<std::uint8_t*>(at);
    ram->pages_ = pages;
    ::madvise(at, bytes, MADV_DONTDUMP);
    return ram;
}

GuestRam::~GuestRam()
{
    if (data_ != nullptr) ::munmap(data_, pages_ * kPageSize);
}

Result<void> GuestRam::zero()
{
    const off_t bytes = static_cast<off_t>(pages_ * kPageSize);
    if (::fallocate(fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, bytes) != 0)
        return errno_error("give guest RAM back", errno);
    return {};
}

Result<void> GuestRam::peek(std::span<const Gfn> gfns, std::uint8_t* out, std::span<FrameStatus> status)
{
    for (std::size_t i = 0; i < gfns.size(); ++i, out += kPageSize) {
        status[i] = gfns[i] < pages_ ? FrameStatus::ok : FrameStatus::absent;
        if (status[i] == FrameStatus::ok)
            std::memcpy(out, data_ + gfns[i] * kPageSize, kPageSize);
        else
            std::memset(out, 0, kPageSize);
    }
    return {};
}

Result<void> GuestRam::read(std::span<const Gfn> gfns, std::uint8_t* out, std::span<FrameStatus> status)
{
    if (auto r = peek(gfns, out, status); !r || observer_ == nullptr) return r;
    for (std::size_t i = 0; i < gfns.size(); ++i)
        if (status[i] == FrameStatus::ok) observer_->page_passed(gfns[i], out + i * kPageSize);
    return {};
}

Result<void> GuestRam::write(std::span<const replication::PageWrite> pages)
{
    static const std::uint8_t kZero[kPageSize] = {};
    const auto outside = [&](const replication::PageWrite& p) { return p.gfn >= pages_; };
    if (const auto bad = std::find_if(pages.begin(), pages.end(), outside); bad != pages.end())
        return make_error(Errc::invalid, fmt::format("page {:#x} lies outside of guest RAM", bad->gfn));
    for (const auto& page : pages) {
        std::memcpy(data_ + page.gfn * kPageSize, page.data != nullptr ? page.data : kZero, kPageSize);
        if (observer_ != nullptr) observer_->page_passed(page.gfn, page.data != nullptr ? page.data : kZero);
    }
    return {};
}

std::uint64_t GuestRam::resident_bytes() const
{
    struct stat info {};
    return ::fstat(fd(), &info) == 0 ? static_cast<std::uint64_t>(info.st_blocks) * 512 : 0;
}

const std::uint8_t* GuestRam::view(Gfn gfn) const
{
    return observer_ == nullptr && gfn < pages_ ? data_ + gfn * kPageSize : nullptr;
}

}  // namespace colo::qemu
