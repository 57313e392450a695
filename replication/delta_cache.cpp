// SPDX-License-Identifier: Apache-2.0
#include "replication/delta_cache.h"

#include "core/check.h"
#include "replication/chunk.h"

#include <algorithm>
#include <cstring>

namespace colo::replication {

Result<DeltaCache> DeltaCache::make(Gfn gfn_limit, std::uint64_t bytes)
{
    COLO_CHECK(gfn_limit < kFirstSpecial);
    DeltaCache cache;
    const std::uint64_t slots = std::min<std::uint64_t>(bytes / kPageSize, 2 * gfn_limit);   // base and next of every frame
    cache.slots_ = static_cast<Reference>(std::min<std::uint64_t>(slots, kFirstSpecial - 1));
    auto memory = Mapping::reserve(std::size_t{cache.slots_} * kPageSize);
    if (!memory) return with_context("delta cache", memory.error());
    cache.memory_ = std::move(*memory);
    cache.base_.assign(gfn_limit, kZero);
    cache.next_.assign(gfn_limit, kNothing);
    cache.owner_.assign(cache.slots_, 0);
    cache.recent_.assign(cache.slots_, 0);
    return cache;
}

void DeltaCache::reset()
{
    std::fill(base_.begin(), base_.end(), kZero);
    std::fill(next_.begin(), next_.end(), kNothing);
    pending_.clear();
    free_.clear();
    high_water_ = hand_ = 0;
}

void DeltaCache::forget_all()
{
    reset();
    std::fill(base_.begin(), base_.end(), kUnknown);
}

const std::uint8_t* DeltaCache::base(Gfn gfn)
{
    const Reference r = base_[gfn];
    if (r == kZero) return zero_page();
    if (!is_slot(r)) return nullptr;
    recent_[r] = 1;
    return at(r);
}

void DeltaCache::release(Reference r)
{
    if (is_slot(r)) free_.push_back(r);
}

DeltaCache::Reference DeltaCache::evict()
{
    constexpr int kSteps = 32;   // bounded work; a working set larger than the cache finds nothing old
    for (int step = 0; step < kSteps && high_water_ > 0; ++step) {
        const Reference slot = hand_;
        hand_ = hand_ + 1 == high_water_ ? 0 : hand_ + 1;
        const std::uint32_t gfn = owner_[slot];
        if (base_[gfn] != slot) continue;   // holds a next content
        if (std::exchange(recent_[slot], std::uint8_t{0}) != 0) continue;
        base_[gfn] = kUnknown;
        return slot;
    }
    return kUnknown;
}

DeltaCache::Reference DeltaCache::allocate()
{
    if (!free_.empty()) {
        const Reference slot = free_.back();
        free_.pop_back();
        return slot;
    }
    if (high_water_ < slots_) return high_water_++;
    return evict();
}

void DeltaCache::set_next(Gfn gfn, Reference r)
{
    if (next_[gfn] == kNothing) pending_.push_back(static_cast<std::uint32_t>(gfn));
    next_[gfn] = r;
}

void DeltaCache::set(Gfn gfn, const std::uint8_t* content)
{
    Reference slot = next_[gfn];
    if (!is_slot(slot)) slot = allocate();
    if (slot == kUnknown && is_slot(base_[gfn])) slot = std::exchange(base_[gfn], kUnknown);
    set_next(gfn, slot);
    if (!is_slot(slot)) return;
    owner_[slot] = static_cast<std::uint32_t>(gfn);
    std::memcpy(at(slot), content, kPageSize);
}

void DeltaCache::set_zero(Gfn gfn)
{
    release(next_[gfn]);
    set_next(gfn, kZero);
}

void DeltaCache::set_unchanged(Gfn gfn)
{
    release(next_[gfn]);
    next_[gfn] = kNothing;
}

void DeltaCache::advance()
{
    for (const std::uint32_t gfn : pending_) {
        if (next_[gfn] == kNothing) continue;
        release(base_[gfn]);
        base_[gfn] = std::exchange(next_[gfn], kNothing);
        if (is_slot(base_[gfn])) recent_[base_[gfn]] = 1;
    }
    pending_.clear();
}

void DeltaCache::revert()
{
    for (const std::uint32_t gfn : pending_) release(std::exchange(next_[gfn], kNothing));
    pending_.clear();
}

}  // namespace colo::replication
