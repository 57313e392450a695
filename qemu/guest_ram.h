// SPDX-License-Identifier: Apache-2.0
#pragma once

// RAM of an embedded guest: a memfd of ours, mapped here and inherited by QEMU as its memory backend. A "gfn" is the index
// of a page in that file (offset in QEMU's RAM block), so the gfn space has no holes.

#include "core/error.h"
#include "qemu/process.h"
#include "replication/guest.h"

namespace colo::qemu {

// Told about pages whose content passed through us; the compare dirty log needs it (see dirty_log.h).
class RamObserver {
public:
    virtual ~RamObserver() = default;
    // `content`: what the caller was given or wrote.
    virtual void page_passed(Gfn gfn, const std::uint8_t* content) = 0;
};

class GuestRam : public replication::GuestMemory {
public:
    static Result<std::unique_ptr<GuestRam>> create(const std::string& name, std::uint64_t pages);
    ~GuestRam() override;

    int fd() const { return fd_.get(); }
    std::uint64_t pages() const { return pages_; }
    std::uint8_t* data() const { return data_; }
    ino_t inode() const { return inode_; }
    // Gives every page back: reads as zero. No QEMU may be using it.
    Result<void> zero();
    // While an observer is set view() is nullptr: every read must be seen.
    void set_observer(RamObserver* observer) { observer_ = observer; }

    Result<void> read(std::span<const Gfn> gfns, std::uint8_t* out, std::span<replication::FrameStatus> status) override;
    Result<void> peek(std::span<const Gfn> gfns, std::uint8_t* out,
                      std::span<replication::FrameStatus> status) override;
    Result<void> write(std::span<const replication::PageWrite> pages) override;
    std::uint64_t resident_bytes() const override;
    const std::uint8_t* view(Gfn gfn) const override;

private:
    GuestRam() = default;
    Fd fd_;
    std::uint64_t pages_ = 0;
    std::uint8_t* data_ = nullptr;
    ino_t inode_ = 0;
    RamObserver* observer_ = nullptr;
};

}  // namespace colo::qemu
