// SPDX-License-Identifier: Apache-2.0
#include "replication/dirty_ledger.h"

#include "core/breakage.h"
#include "core/check.h"

namespace colo::replication {

void DirtyLedger::clear()
{
    sets_.clear();
    backlog_.clear();
    returned_.clear();
}

void DirtyLedger::open(Epoch epoch)
{
    COLO_CHECK(sets_.empty() || sets_.rbegin()->first < epoch);
    sets_[epoch] = returned_;
    backlog_ = returned_;
    returned_.clear();
}

void DirtyLedger::fetched(const PageSet& frames)
{
    COLO_CHECK(!sets_.empty());
    sets_.rbegin()->second.merge(frames);
    backlog_.merge(frames);
}

void DirtyLedger::staged(Epoch epoch)
{
    if (broken(Breakage::single_carry_over_bitmap)) {
        for (auto& [number, set] : sets_) set.clear();
        backlog_.clear();
    }
    sets_.erase(sets_.begin(), sets_.upper_bound(epoch));
}

void DirtyLedger::aborted(Epoch epoch)
{
    const auto it = sets_.find(epoch);
    if (it == sets_.end()) return;
    const PageSet set = std::move(it->second);
    const bool newest = std::next(it) == sets_.end();
    sets_.erase(it);
    if (newest) {
        backlog_.clear();
        returned_.merge(set);
    } else {
        fetched(set);
    }
}

PageSet DirtyLedger::owned() const
{
    PageSet all = returned_;
    for (const auto& [epoch, set] : sets_) all.merge(set);
    return all;
}

}  // namespace colo::replication
