// SPDX-License-Identifier: Apache-2.0
#pragma once

// The jobs of the daemon: work that goes on after its command was answered. States and verbs are those of the
// interface, one event for each change:
//
//   created -> running <-> paused          waiting, pending: finished, until it is finalized
//              running  -> ready <-> standby   (kinds of job that wait for `complete`)
//              running, ready -> waiting -> pending -> concluded -> null
//              any of them    -> aborting          -> concluded -> null
//
// Sans-I/O: commands come in as verbs, work reports through its JobHandle. Bounded: kMaxJobs that were not dismissed.
// Control thread only. A driver may report from within any of its calls.

#include "colo/handlers/job.h"
#include "qmp/event.h"

#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace colo {

// What the interface allows to be done to a job in a state.
bool verb_allowed(schema::JobVerb verb, schema::JobStatus status);

struct JobOptions {
    bool auto_finalize = true;  // pending -> concluded without being asked
    bool auto_dismiss = false;  // concluded -> null without being asked
};

class JobTable {
public:
    // A client that never dismisses is refused more jobs; concluded ones are not thrown away behind its back.
    static constexpr std::size_t kMaxJobs = 256;
    static constexpr std::size_t kMaxId = 255;  // bytes

    explicit JobTable(qmp::EventSink& events);
    ~JobTable();
    JobTable(const JobTable&) = delete;
    JobTable& operator=(const JobTable&) = delete;

    // A job in state created. Fails if the id is not well-formed or in use, or the table is full; nothing happens then.
    Result<void> create(const std::string& id, std::shared_ptr<JobDriver> driver, JobOptions options);
    // created -> running.
    void start(const std::string& id);

    // A command of a client: checks and carries out. `set_speed` has no command here and is refused by all.
    Result<void> apply(schema::JobVerb verb, const std::string& id);
    // The daemon ends: what runs is cancelled.
    void cancel_all();

    // Newest first.
    std::vector<schema::JobInfo> list() const;

private:
    friend class JobHandle;
    struct Job {
        std::uint64_t serial = 0;
        std::string id;
        std::shared_ptr<JobDriver> driver;
        JobOptions options;
        schema::JobStatus status = schema::JobStatus::undefined;
        std::int64_t current = 0, total = 0;
        std::string error;  // first one; empty: none
        bool started = false;
        bool begun = false;         // driver->start() was called; a pause may come between
        bool done = false;          // the work ended; nothing is asked of it any more
        bool pause_wanted = false;  // by a client
        bool cancelled = false;
        bool irrevocable = false;
    };

    Job* find(std::string_view id);
    Job* find(std::uint64_t serial);
    void change(Job& job, schema::JobStatus status);
    JobHandle handle(const Job& job) { return {self_, job.serial}; }
    void begin(Job& job);
    void go_on(Job& job);

    void pause(Job& job);
    void cancel(Job& job);
    void finalize(Job& job);
    void succeed(Job& job);
    void abort(Job& job, const std::string& error);
    void conclude(Job& job);
    void dismiss(Job& job);

    // From JobHandle.
    void progress(Job& job, std::int64_t current, std::int64_t total);
    void rests(Job& job);
    void ready(Job& job);
    void finished(Job& job, const Result<void>& result);

    qmp::EventSink& events_;
    std::shared_ptr<JobTable*> self_;
    std::list<Job> jobs_;  // newest first; addresses stay
    std::uint64_t next_serial_ = 1;
};

}  // namespace colo
