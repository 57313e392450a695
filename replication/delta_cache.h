// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/error.h"
#include "core/types.h"
#include "replication/mapping.h"

#include <vector>

namespace colo::replication {

// What P knows of S's content: for each frame the content at the last STAGED epoch (the *base*: zero, cached, or unknown),
// and the newest content emitted since (the *next* base, which counts only once it is STAGED). Cached content takes at most
// `bytes`. When the room is used up, a base that was not asked for lately makes place (second chance); if none is found
// quickly, the frame's own base does, and the frame goes in full until it is STAGED again.
class DeltaCache {
public:
    static Result<DeltaCache> make(Gfn gfn_limit, std::uint64_t bytes);

    // S's shadow is all zero and nothing is pending.
    void reset();
    // Every base is unknown.
    void forget_all();

    // Content at the last STAGED epoch: zero_page(), cached content, or nullptr (unknown). Valid until the next set().
    const std::uint8_t* base(Gfn gfn);

    // The newest content emitted for this epoch.
    void set(Gfn gfn, const std::uint8_t* content);
    void set_zero(Gfn gfn);
    void set_unchanged(Gfn gfn);   // it is the base again

    void advance();   // STAGED: next becomes base
    void revert();    // aborted: next is forgotten

    std::uint64_t cached_pages() const { return high_water_ - free_.size(); }

private:
    using Reference = std::uint32_t;   // a slot, or one of these
    static constexpr Reference kUnknown = 0xffffffff, kZero = 0xfffffffe, kNothing = 0xfffffffd, kFirstSpecial = kNothing;
    static bool is_slot(Reference r) { return r < kFirstSpecial; }

    std::uint8_t* at(Reference slot) { return memory_.data() + std::size_t{slot} * kPageSize; }
    void release(Reference r);
    Reference allocate();
    Reference evict();
    void set_next(Gfn gfn, Reference r);

    std::vector<Reference> base_, next_;    // by gfn
    std::vector<std::uint32_t> pending_;    // gfns for which next_ was set since advance/revert
    Mapping memory_;
    std::vector<std::uint32_t> owner_;      // by slot: gfn
    std::vector<std::uint8_t> recent_;      // by slot: asked for since the hand passed
    std::vector<Reference> free_;
    Reference high_water_ = 0, slots_ = 0, hand_ = 0;
};

}  // namespace colo::replication
