// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a kind of job implements, and what a running job says. See job_table.h for the states.

#include "core/error.h"
#include "schema/types.h"

#include <cstdint>
#include <memory>

namespace colo {

class JobTable;

// The running work's side of a job: a value that the work keeps and calls on the control thread. Calls on behalf of a
// job or a table that is gone are ignored, so that work which outlives its job does no harm.
class JobHandle {
public:
    JobHandle() = default;

    // In units of the driver's choice; never negative.
    void progress(std::int64_t current, std::int64_t total) const;
    // The work rests, as pause() asked. Ignored if it is to go on already.
    void rests() const;
    // Everything is done that can be done without complete().
    void ready() const;
    // From here on the work cannot be undone: a cancellation is accepted, but the outcome is that of finished().
    void irrevocable() const;
    // The work ended, in this way. Exactly once; the driver hears nothing more of it but finalize() or discard().
    void finished(const Result<void>& result) const;

private:
    friend class JobTable;
    JobHandle(std::weak_ptr<JobTable*> table, std::uint64_t serial) : table_(std::move(table)), serial_(serial) {}

    std::weak_ptr<JobTable*> table_;
    std::uint64_t serial_ = 0;
};

// Called by the table on the control thread; must not block. The table keeps a driver as long as its job.
class JobDriver {
public:
    virtual ~JobDriver() = default;

    virtual schema::JobType type() const = 0;

    // Begins the work, which reports through `job`, possibly before this returns. Called once.
    virtual void start(JobHandle job) = 0;

    // Asks the work to rest, and to go on. A driver without a place to rest leaves both alone: its job just goes on.
    // resume() may come before the work rests.
    virtual void pause() {}
    virtual void resume() {}

    // Asks the work, resting or not, to end early. It still reports finished(); with what result does not matter.
    virtual void cancel() {}

    // Whether this kind of job becomes ready and waits for complete().
    virtual bool completable() const { return false; }
    virtual void complete() {}

    // The last word: finalize() after a success makes the result final, or says why that cannot be; discard() after a
    // failure, a cancellation, or a finalize() that failed.
    virtual Result<void> finalize() { return {}; }
    virtual void discard() {}
};

}  // namespace colo
