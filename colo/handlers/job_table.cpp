// SPDX-License-Identifier: Apache-2.0
#include "colo/handlers/job_table.h"

#include "colo/handlers/names.h"
#include "core/check.h"

#include <algorithm>
#include <initializer_list>

namespace colo {

using schema::JobStatus;
using schema::JobVerb;

namespace {

constexpr const char* kCancelled = "Operation canceled";

bool is_one_of(JobStatus status, std::initializer_list<JobStatus> set)
{
    return std::ranges::find(set, status) != set.end();
}

bool transition_allowed(JobStatus from, JobStatus to)
{
    switch (from) {
    case JobStatus::undefined: return to == JobStatus::created;
    case JobStatus::created: return is_one_of(to, {JobStatus::running, JobStatus::aborting, JobStatus::null});
    case JobStatus::running:
        return is_one_of(to, {JobStatus::paused, JobStatus::ready, JobStatus::waiting, JobStatus::aborting});
    case JobStatus::paused: return to == JobStatus::running;
    case JobStatus::ready: return is_one_of(to, {JobStatus::standby, JobStatus::waiting, JobStatus::aborting});
    case JobStatus::standby: return to == JobStatus::ready;
    case JobStatus::waiting: return is_one_of(to, {JobStatus::pending, JobStatus::aborting});
    case JobStatus::pending: return is_one_of(to, {JobStatus::aborting, JobStatus::concluded});
    case JobStatus::aborting: return to == JobStatus::concluded;
    case JobStatus::concluded: return to == JobStatus::null;
    case JobStatus::null: return false;
    }
    return false;
}

std::string in_quotes(std::string_view text)
{
    return "'" + std::string(text) + "'";
}

}  // namespace

bool verb_allowed(JobVerb verb, JobStatus status)
{
    const bool working = is_one_of(
        status, {JobStatus::created, JobStatus::running, JobStatus::paused, JobStatus::ready, JobStatus::standby});
    switch (verb) {
    case JobVerb::cancel: return working || status == JobStatus::waiting || status == JobStatus::pending;
    case JobVerb::pause:
    case JobVerb::resume:
    case JobVerb::set_speed: return working;
    case JobVerb::complete: return status == JobStatus::ready || status == JobStatus::standby;
    case JobVerb::finalize: return status == JobStatus::pending;
    case JobVerb::dismiss: return status == JobStatus::concluded;
    }
    return false;
}

JobTable::JobTable(qmp::EventSink& events) : events_(events), self_(std::make_shared<JobTable*>(this)) {}

JobTable::~JobTable() = default;

JobTable::Job* JobTable::find(std::string_view id)
{
    const auto it = std::ranges::find(jobs_, id, &Job::id);
    return it == jobs_.end() ? nullptr : &*it;
}

JobTable::Job* JobTable::find(std::uint64_t serial)
{
    const auto it = std::ranges::find(jobs_, serial, &Job::serial);
    return it == jobs_.end() ? nullptr : &*it;
}

void JobTable::change(Job& job, JobStatus status)
{
    COLO_CHECK(transition_allowed(job.status, status));
    job.status = status;
    events_.emit(schema::events::JobStatusChange{job.id, status});
}

Result<void> JobTable::create(const std::string& id, std::shared_ptr<JobDriver> driver, JobOptions options)
{
    // It goes into every event of the job, to every client.
    if (id.size() > kMaxId) return make_error(Errc::invalid, "Invalid job ID " + in_quotes(id.substr(0, kMaxId) + "..."));
    if (!well_formed(id)) return make_error(Errc::invalid, "Invalid job ID " + in_quotes(id));
    if (find(id) != nullptr) return make_error(Errc::refused, "Job ID " + in_quotes(id) + " already in use");
    if (jobs_.size() >= kMaxJobs)
        return make_error(Errc::limit, "There are " + std::to_string(kMaxJobs) +
                                           " jobs already; remove concluded ones with job-dismiss");
    Job& job = jobs_.emplace_front();
    job.serial = next_serial_++;
    job.id = id;
    job.driver = std::move(driver);
    job.options = options;
    change(job, JobStatus::created);
    return {};
}

void JobTable::start(const std::string& id)
{
    Job* job = find(id);
    if (job == nullptr || job->status != JobStatus::created) return;
    job->started = true;
    change(*job, JobStatus::running);
    if (job->pause_wanted) return change(*job, JobStatus::paused);
    begin(*job);
}

// The job may be gone when a call of its driver returns; the driver is kept that long.
void JobTable::begin(Job& job)
{
    job.begun = true;
    const auto driver = job.driver;
    driver->start(handle(job));
}

void JobTable::pause(Job& job)
{
    job.pause_wanted = true;
    if (!job.begun) return;
    const auto driver = job.driver;
    driver->pause();
}

// Takes a pause back, whether or not the work rests already.
void JobTable::go_on(Job& job)
{
    job.pause_wanted = false;
    if (job.status == JobStatus::paused) change(job, JobStatus::running);
    if (job.status == JobStatus::standby) change(job, JobStatus::ready);
    if (job.cancelled) return;
    if (!job.begun && job.status == JobStatus::running) return begin(job);
    if (!job.begun) return;
    const auto driver = job.driver;
    driver->resume();
}

void JobTable::cancel(Job& job)
{
    if (job.done) return abort(job, kCancelled);  // waiting or pending
    if (job.cancelled) return;
    job.cancelled = !job.irrevocable;
    if (job.irrevocable && job.pause_wanted) return go_on(job);
    if (job.irrevocable) return;
    if (job.pause_wanted) go_on(job);
    if (!job.begun) return abort(job, kCancelled);
    const auto driver = job.driver;
    driver->cancel();
}

Result<void> JobTable::apply(JobVerb verb, const std::string& id)
{
    Job* job = find(id);
    if (job == nullptr) return make_error(Errc::refused, "Job not found");
    if (verb == JobVerb::resume && !job->pause_wanted)
        return make_error(Errc::refused, "Can't resume a job that was not paused");
    if (!verb_allowed(verb, job->status))
        return make_error(Errc::refused, "Job " + in_quotes(id) + " in state " + in_quotes(to_string(job->status)) +
                                             " cannot accept command verb " + in_quotes(to_string(verb)));
    switch (verb) {
    case JobVerb::pause:
        if (job->pause_wanted) return make_error(Errc::refused, "Job is already paused");
        pause(*job);
        break;
    case JobVerb::complete:
        if (!job->driver->completable() || job->cancelled)
            return make_error(Errc::refused, "The active block job " + in_quotes(id) + " cannot be completed");
        std::shared_ptr(job->driver)->complete();
        break;
    case JobVerb::cancel: cancel(*job); break;
    case JobVerb::resume: go_on(*job); break;
    case JobVerb::finalize: finalize(*job); break;
    case JobVerb::dismiss: dismiss(*job); break;
    case JobVerb::set_speed: return make_error(Errc::unsupported, "The speed of job " + in_quotes(id) + " is not limited");
    }
    return {};
}

void JobTable::cancel_all()
{
    std::vector<std::uint64_t> serials;
    for (const Job& job : jobs_) serials.push_back(job.serial);
    for (const std::uint64_t serial : serials)
        if (Job* job = find(serial); job != nullptr && verb_allowed(JobVerb::cancel, job->status)) cancel(*job);
}

std::vector<schema::JobInfo> JobTable::list() const
{
    std::vector<schema::JobInfo> result;
    for (const Job& job : jobs_) {
        schema::JobInfo info{job.id, job.driver->type(), job.status, job.current, job.total, {}};
        if (!job.error.empty()) info.error = job.error;
        result.push_back(std::move(info));
    }
    return result;
}

// ---- how it ends

void JobTable::succeed(Job& job)
{
    change(job, JobStatus::waiting);  // for other jobs of its group; every job is a group of its own
    change(job, JobStatus::pending);
    if (job.options.auto_finalize) finalize(job);
}

void JobTable::finalize(Job& job)
{
    if (auto final = job.driver->finalize(); !final) return abort(job, final.error().text);
    conclude(job);
}

void JobTable::abort(Job& job, const std::string& error)
{
    if (job.error.empty()) job.error = error.empty() ? "failed for an unknown reason" : error;
    job.done = true;
    if (job.begun) job.driver->discard();
    change(job, JobStatus::aborting);
    conclude(job);
}

// A job that never started leaves nothing that anybody could want to look at.
void JobTable::conclude(Job& job)
{
    change(job, JobStatus::concluded);
    if (job.options.auto_dismiss || !job.started) dismiss(job);
}

void JobTable::dismiss(Job& job)
{
    change(job, JobStatus::null);
    jobs_.remove_if([serial = job.serial](const Job& other) { return other.serial == serial; });
}

// ---- what the work says

void JobTable::progress(Job& job, std::int64_t current, std::int64_t total)
{
    job.total = std::max<std::int64_t>(total, 0);
    job.current = std::clamp<std::int64_t>(current, 0, job.total);
}

void JobTable::rests(Job& job)
{
    if (!job.pause_wanted || job.cancelled) return;
    if (job.status == JobStatus::running) change(job, JobStatus::paused);
    if (job.status == JobStatus::ready) change(job, JobStatus::standby);
}

void JobTable::ready(Job& job)
{
    if (job.status == JobStatus::paused) change(job, JobStatus::running);  // it went on in spite of the pause
    if (job.status == JobStatus::running) change(job, JobStatus::ready);
}

void JobTable::finished(Job& job, const Result<void>& result)
{
    if (job.done) return;
    job.done = true;
    if (job.status == JobStatus::paused) change(job, JobStatus::running);
    if (job.status == JobStatus::standby) change(job, JobStatus::ready);
    if (!result) return abort(job, job.cancelled ? kCancelled : result.error().text);
    if (job.cancelled) return abort(job, kCancelled);
    succeed(job);
}

// ---- JobHandle

void JobHandle::progress(std::int64_t current, std::int64_t total) const
{
    if (const auto table = table_.lock())
        if (auto* job = (*table)->find(serial_)) (*table)->progress(*job, current, total);
}

void JobHandle::rests() const
{
    if (const auto table = table_.lock())
        if (auto* job = (*table)->find(serial_); job != nullptr && !job->done) (*table)->rests(*job);
}

void JobHandle::ready() const
{
    if (const auto table = table_.lock())
        if (auto* job = (*table)->find(serial_); job != nullptr && !job->done) (*table)->ready(*job);
}

void JobHandle::irrevocable() const
{
    if (const auto table = table_.lock())
        if (auto* job = (*table)->find(serial_); job != nullptr && !job->cancelled) job->irrevocable = true;
}

void JobHandle::finished(const Result<void>& result) const
{
    if (const auto table = table_.lock())
        if (auto* job = (*table)->find(serial_)) (*table)->finished(*job, result);
}

}  // namespace colo
