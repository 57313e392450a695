// SPDX-License-Identifier: Apache-2.0
#pragma once

// The guest port's memory on top of FrameMap.

#include "xen/frame_map.h"
#include "xen/memory_layout.h"

#include <atomic>

namespace colo::xen {

// Frames outside of the layout's regions, and special ones, are never written (Errc::invalid, nothing of the batch is
// written), and read as absent: they are nothing that the other side could have.
class DomainMemory final : public replication::GuestMemory {
public:
    // `control` outlives it.
    DomainMemory(Control& control, const MemoryLayout& layout, FrameMapLimits limits = {});

    Result<void> read(std::span<const Gfn> gfns, std::uint8_t* out, std::span<replication::FrameStatus> status) override;
    // Populates what is absent. Errc::limit: no memory in the host. Errc::failed: a frame that is there cannot be mapped. A
    // part may have been written after either.
    Result<void> write(std::span<const replication::PageWrite> pages) override;
    std::uint64_t resident_bytes() const override { return resident_.load(std::memory_order_relaxed); }
    // Nothing is stable: a run may be unmapped by the next call.
    const std::uint8_t* view(Gfn) const override { return nullptr; }

    // To be called before the first access of each epoch: see FrameMap::notice_changes(). Asks for resident_bytes(), too.
    Result<void> refresh();

    const FrameMapStats& stats() const { return frames_.stats(); }
    // Before the domain is given to somebody else, or destroyed: no mapping is left.
    void unmap_all() { frames_.drop_all(); }

private:
    Result<void> read_batch(std::span<const Gfn> gfns, std::uint8_t* out, std::span<replication::FrameStatus> status);
    Result<void> write_batch(std::span<const replication::PageWrite> pages);

    replication::PageSet ram_;
    FrameMap frames_;
    std::atomic<std::uint64_t> resident_ = 0;
};

}  // namespace colo::xen
