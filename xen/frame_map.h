// SPDX-License-Identifier: Apache-2.0
#pragma once

// The domain's frames in our address space, kept mapped.
//
// Mapping and unmapping cost more than copying (one hypercall a batch, and a TLB flush on all CPUs for each unmapping), and an
// epoch touches the frames of the last one again. So frames are mapped in runs of 2 MiB, aligned, when the first of a run is
// asked for, and stay; the runs that were not used for longest go when the bound is reached. Frames of a run that do not
// exist are remembered as absent.
//
// A mapping shows the frame that a gfn had when it was mapped. When the domain exchanges it (balloon, device memory that
// moves), the mapping shows the old one, and nothing tells. Two guards: notice_changes() drops all runs when the number of
// the domain's frames or its gfn space have changed; and a domain whose guest has PV drivers, the only ones that exchange
// frames one for one, is not protected in the first place.
//
// One thread at a time. Pointers are valid until the next call of anything but frame counters.

#include "replication/guest.h"
#include "xen/control.h"

#include <list>
#include <unordered_map>
#include <vector>

namespace colo::xen {

struct FrameMapLimits {
    // Of all runs, absent frames included; 2^20 = 4 GiB of address space. A call whose frames lie in more runs than fit
    // gets Errc::limit: 2^18 is enough for every call.
    std::uint64_t mapped_frames = std::uint64_t{1} << 20;
};

struct FrameMapStats {
    std::uint64_t map_calls = 0;
    std::uint64_t unmap_calls = 0;
    std::uint64_t frames_mapped = 0;
    std::uint64_t hits = 0;       // runs that were mapped already
    std::uint64_t evictions = 0;
    std::uint64_t populated = 0;
};

class FrameMap {
public:
    static constexpr std::size_t kRunFrames = 512;
    // Frames of one call: each may lie in a run of its own, and all of these are mapped at the same time.
    static constexpr std::size_t kMaxFrames = 512;

    // `control` outlives it.
    explicit FrameMap(Control& control, FrameMapLimits limits = {});
    ~FrameMap() = default;
    FrameMap(const FrameMap&) = delete;
    FrameMap& operator=(const FrameMap&) = delete;

    // For each frame its status and, if it is ok, a pointer to its kPageSize bytes. With Access::read the pointer may be to
    // memory that cannot be written. All sizes are equal, at most kMaxFrames. A frame that was absent is looked for again.
    Result<void> find(std::span<const Gfn> gfns, Access access, std::span<std::uint8_t*> pages, std::span<replication::FrameStatus> status);

    // Makes frames that are absent; what is there already stays as it is. Errc::limit: the host has no memory left, or the
    // domain's maximum is reached.
    Result<void> populate(std::span<const Gfn> gfns);

    // Once an epoch, cheap: asks for the domain's numbers; if they are not those of the last time, all mappings go.
    // True: they went.
    Result<bool> notice_changes();
    void drop_all();

    // The domain's, as notice_changes() found them, with what was populated here since.
    std::uint64_t total_pages() const { return total_pages_; }
    std::uint64_t mapped_frames() const { return runs_.size() * kRunFrames; }
    const FrameMapStats& stats() const { return stats_; }

private:
    struct Run {
        std::uint64_t number = 0;   // first gfn / kRunFrames
        Mapping mapping;
        bool writable = false;
        std::uint64_t used_by = 0;     // the last call that used it: it may not go before that call ends
        std::uint64_t mapped_by = 0;   // the call that mapped it
        std::vector<replication::FrameStatus> status;
    };
    using Runs = std::list<Run>;    // the one used last is in front

    Result<Run*> run_of(Gfn gfn, Access access);
    Result<void> map(Run& run, Access access);
    template <class Act>
    Result<void> each_part(std::span<const Gfn> gfns, replication::FrameStatus wanted, const Act& act);
    Result<void> make_room();
    void forget(Gfn gfn);

    Control& control_;
    FrameMapLimits limits_;
    Runs runs_;
    std::unordered_map<std::uint64_t, Runs::iterator> by_number_;
    std::uint64_t call_ = 0;
    std::uint64_t total_pages_ = 0;
    Gfn gfn_limit_ = 0;
    FrameMapStats stats_;
};

}  // namespace colo::xen
