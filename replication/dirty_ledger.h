// SPDX-License-Identifier: Apache-2.0
#pragma once

// R6: whose are the dirty bits? Fetching them from the log is destructive, so each fetched bit is owned by the epoch it was
// fetched for until that epoch is STAGED (then S has the content) or aborted (then the next epoch owns it).

#include "core/types.h"
#include "replication/page_set.h"

#include <map>

namespace colo::replication {

class DirtyLedger {
public:
    void clear();
    // A new epoch; inherits what aborted epochs gave back. Numbers rise.
    void open(Epoch epoch);
    // Bits fetched while `newest` is the newest epoch; they join its set and its backlog.
    void fetched(const PageSet& frames);
    // Frames of the newest epoch whose content was not yet copied since they were last fetched.
    const PageSet& backlog() const { return backlog_; }
    void copied(Gfn gfn) { backlog_.remove(gfn); }
    void copied_all() { backlog_.clear(); }

    void staged(Epoch epoch);
    void aborted(Epoch epoch);

    PageSet owned() const;   // union over all epochs and what waits for the next one

private:
    std::map<Epoch, PageSet> sets_;
    PageSet backlog_;
    PageSet returned_;       // of aborted epochs, for the next one
};

}  // namespace colo::replication
