// SPDX-License-Identifier: Apache-2.0
#include "colo/handlers/job_table.h"
#include "handlers_fixture.h"

#include <map>
#include <set>

namespace colo::test {
namespace {

using qmp::test::json;
using schema::JobStatus;
using schema::JobType;
using schema::JobVerb;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Does what the test says and remembers what it was asked.
class FakeJob : public JobDriver {
public:
    JobType kind = JobType::mirror;
    JobHandle job;
    bool rests_at_once = false, can_complete = true, ends_when_cancelled = true;
    Result<void> final_word;
    std::function<void()> when_started;
    std::vector<std::string> calls;

    std::vector<std::string> take() { return std::exchange(calls, {}); }

    JobType type() const override { return kind; }
    void start(JobHandle handle) override
    {
        calls.push_back("start");
        job = std::move(handle);
        if (when_started) when_started();
    }
    void pause() override
    {
        calls.push_back("pause");
        if (rests_at_once) job.rests();
    }
    void resume() override { calls.push_back("resume"); }
    void cancel() override
    {
        calls.push_back("cancel");
        if (ends_when_cancelled) job.finished(make_error(Errc::failed, "torn down"));
    }
    bool completable() const override { return can_complete; }
    void complete() override
    {
        calls.push_back("complete");
        job.finished({});
    }
    Result<void> finalize() override
    {
        calls.push_back("finalize");
        return final_word;
    }
    void discard() override { calls.push_back("discard"); }
};

class JobTableTest : public HandlersTest {
protected:
    JobTable& table() { return control_.jobs(); }

    std::shared_ptr<FakeJob> create(const std::string& id, JobOptions options = {})
    {
        auto driver = std::make_shared<FakeJob>();
        const auto created = table().create(id, driver, options);
        EXPECT_TRUE(created) << created.error().text;
        return driver;
    }

    std::string verb_error(const std::string& command, const std::string& id = "j")
    {
        return error(command, R"({"id": ")" + id + "\"}");
    }
    void verb(const std::string& command, const std::string& id = "j") { must(command, R"({"id": ")" + id + "\"}"); }

    JobStatus status(const std::string& id = "j")
    {
        for (const schema::JobInfo& info : table().list())
            if (info.id == id) return info.status;
        return JobStatus::null;
    }
    std::string error_of(const std::string& id = "j")
    {
        for (const schema::JobInfo& info : table().list())
            if (info.id == id) return info.error.value_or("");
        return "no such job";
    }
    // The statuses that events told since the last call.
    std::vector<std::string> changes()
    {
        std::vector<std::string> result;
        for (const std::string& event : events_.take()) {
            const std::string start = "JOB_STATUS_CHANGE j ";
            result.push_back(event.starts_with(start) ? event.substr(start.size()) : event);
        }
        return result;
    }

    std::shared_ptr<FakeJob> job_in(JobStatus wanted);
};

// A job "j" in the state, if a client can ever see it there.
std::shared_ptr<FakeJob> JobTableTest::job_in(JobStatus wanted)
{
    auto driver = create("j", {.auto_finalize = wanted != JobStatus::pending, .auto_dismiss = false});
    if (wanted == JobStatus::created) return driver;
    table().start("j");
    driver->rests_at_once = true;
    switch (wanted) {
    case JobStatus::paused: verb("job-pause"); break;
    case JobStatus::standby:
        driver->job.ready();
        verb("job-pause");
        break;
    case JobStatus::ready: driver->job.ready(); break;
    case JobStatus::pending:
    case JobStatus::concluded: driver->job.finished({}); break;
    default: break;
    }
    EXPECT_EQ(status(), wanted);
    driver->take();
    events_.take();
    return driver;
}

struct Column {
    JobStatus status;
    std::set<JobVerb> allowed;
};

const std::set<JobVerb> kWorking = {JobVerb::cancel, JobVerb::pause, JobVerb::resume, JobVerb::set_speed};
const std::set<JobVerb> kReady = {JobVerb::cancel, JobVerb::pause, JobVerb::resume, JobVerb::set_speed,
                                  JobVerb::complete};
const Column kColumns[] = {
    {JobStatus::undefined, {}},
    {JobStatus::created, kWorking},
    {JobStatus::running, kWorking},
    {JobStatus::paused, kWorking},
    {JobStatus::ready, kReady},
    {JobStatus::standby, kReady},
    {JobStatus::waiting, {JobVerb::cancel}},
    {JobStatus::pending, {JobVerb::cancel, JobVerb::finalize}},
    {JobStatus::aborting, {}},
    {JobStatus::concluded, {JobVerb::dismiss}},
    {JobStatus::null, {}},
};

TEST_F(JobTableTest, VerbTable)
{
    for (const Column& column : kColumns)
        for (std::size_t i = 0; i < schema::kJobVerbCount; ++i) {
            const auto verb = static_cast<JobVerb>(i);
            EXPECT_EQ(verb_allowed(verb, column.status), column.allowed.contains(verb))
                << to_string(verb) << " in " << to_string(column.status);
        }
}

// Every verb in every state in which a client can find a job, over the wire.
TEST_F(JobTableTest, VerbsAsClientsSeeThem)
{
    const std::map<JobVerb, std::string> commands = {
        {JobVerb::cancel, "job-cancel"},     {JobVerb::pause, "job-pause"},     {JobVerb::resume, "job-resume"},
        {JobVerb::complete, "job-complete"}, {JobVerb::dismiss, "job-dismiss"}, {JobVerb::finalize, "job-finalize"}};
    for (const Column& column : kColumns) {
        if (column.status == JobStatus::undefined || column.status == JobStatus::waiting ||
            column.status == JobStatus::aborting || column.status == JobStatus::null)
            continue;  // passed within one step
        for (const auto& [name, command] : commands) {
            job_in(column.status);
            const bool paused = column.status == JobStatus::paused || column.status == JobStatus::standby;
            std::string expected;
            if (name == JobVerb::resume && !paused)
                expected = "Can't resume a job that was not paused";
            else if (!column.allowed.contains(name))
                expected = "Job 'j' in state '" + std::string(to_string(column.status)) +
                           "' cannot accept command verb '" + std::string(to_string(name)) + "'";
            else if (name == JobVerb::pause && paused)
                expected = "Job is already paused";
            if (expected.empty())
                verb(command);
            else
                EXPECT_EQ(verb_error(command), expected) << command << " in " << to_string(column.status);
            // Away with it.
            if (verb_allowed(JobVerb::cancel, status())) verb("job-cancel");
            if (status() == JobStatus::concluded) verb("job-dismiss");
            ASSERT_EQ(status(), JobStatus::null);
        }
        job_in(column.status);
        EXPECT_FALSE(table().apply(JobVerb::set_speed, "j"));
        table().cancel_all();
        if (status() == JobStatus::concluded) verb("job-dismiss");
    }
    for (const auto& [name, command] : commands) EXPECT_EQ(verb_error(command, "x"), "Job not found");
}

TEST_F(JobTableTest, LifeOfAJob)
{
    const auto driver = create("j");
    EXPECT_EQ(result("query-jobs"), json(R"([{"id": "j", "type": "mirror", "status": "created",
                                             "current-progress": 0, "total-progress": 0}])"));
    table().start("j");
    table().start("j");  // once is enough
    driver->job.progress(3, 10);
    EXPECT_EQ(result("query-jobs"), json(R"([{"id": "j", "type": "mirror", "status": "running",
                                             "current-progress": 3, "total-progress": 10}])"));
    driver->job.progress(-1, -1);
    EXPECT_EQ(table().list().front().total_progress, 0);
    driver->job.finished({});
    driver->job.finished(make_error(Errc::failed, "late"));
    EXPECT_THAT(changes(), ElementsAre("created", "running", "waiting", "pending", "concluded"));
    EXPECT_THAT(driver->take(), ElementsAre("start", "finalize"));
    EXPECT_EQ(error_of(), "");
    verb("job-dismiss");
    EXPECT_THAT(changes(), ElementsAre("null"));
    EXPECT_EQ(result("query-jobs"), json("[]"));
    EXPECT_EQ(verb_error("job-dismiss"), "Job not found");
}

TEST_F(JobTableTest, Failure)
{
    const auto driver = create("j");
    table().start("j");
    driver->job.finished(make_error(Errc::failed, "disk full"));
    EXPECT_THAT(changes(), ElementsAre("created", "running", "aborting", "concluded"));
    EXPECT_THAT(driver->take(), ElementsAre("start", "discard"));
    EXPECT_EQ(error_of(), "disk full");
    EXPECT_EQ(verb_error("job-cancel"), "Job 'j' in state 'concluded' cannot accept command verb 'cancel'");
}

TEST_F(JobTableTest, NewestFirstAndIdsAreUnique)
{
    create("a");
    create("b-1._x");
    std::vector<std::string> ids;
    for (const schema::JobInfo& info : table().list()) ids.push_back(info.id);
    EXPECT_THAT(ids, ElementsAre("b-1._x", "a"));
    events_.take();
    EXPECT_EQ(table().create("a", std::make_shared<FakeJob>(), {}).error().text, "Job ID 'a' already in use");
    for (const char* bad : {"", "9x", "-a", "a b", "\xc3\xa4"})
        EXPECT_EQ(table().create(bad, std::make_shared<FakeJob>(), {}).error().text,
                  "Invalid job ID '" + std::string(bad) + "'");
    EXPECT_THAT(events_.take(), IsEmpty());
}

TEST_F(JobTableTest, TheNumberOfJobsIsBounded)
{
    for (std::size_t i = 0; i < JobTable::kMaxJobs; ++i) create("j" + std::to_string(i));
    EXPECT_EQ(table().create("x", std::make_shared<FakeJob>(), {}).error().text,
              "There are 256 jobs already; remove concluded ones with job-dismiss");
    verb("job-cancel", "j7");
    create("x");
}

TEST_F(JobTableTest, PauseAndResume)
{
    const auto driver = create("j");
    table().start("j");
    verb("job-pause");
    EXPECT_EQ(status(), JobStatus::running);  // until it found a place to rest
    EXPECT_EQ(verb_error("job-pause"), "Job is already paused");
    driver->job.rests();
    EXPECT_EQ(status(), JobStatus::paused);
    verb("job-resume");
    driver->job.rests();  // too late
    EXPECT_THAT(changes(), ElementsAre("created", "running", "paused", "running"));
    EXPECT_THAT(driver->take(), ElementsAre("start", "pause", "resume"));
    driver->job.ready();
    driver->job.ready();
    verb("job-pause");
    driver->job.rests();
    verb("job-resume");
    EXPECT_THAT(changes(), ElementsAre("ready", "standby", "ready"));
    verb("job-pause");
    driver->job.finished({});  // ends without a place to rest
    EXPECT_EQ(verb_error("job-resume"), "Job 'j' in state 'concluded' cannot accept command verb 'resume'");
}

TEST_F(JobTableTest, PausedBeforeItStarts)
{
    const auto driver = create("j");
    verb("job-pause");
    table().start("j");
    EXPECT_THAT(driver->take(), IsEmpty());
    verb("job-resume");
    EXPECT_THAT(driver->take(), ElementsAre("start"));
    EXPECT_THAT(changes(), ElementsAre("created", "running", "paused", "running"));
}

TEST_F(JobTableTest, WorkThatEndsWhileItRests)
{
    const auto driver = job_in(JobStatus::paused);
    driver->job.finished(make_error(Errc::failed, "link lost"));
    EXPECT_THAT(changes(), ElementsAre("running", "aborting", "concluded"));
    verb("job-dismiss");
    const auto other = job_in(JobStatus::standby);
    other->job.finished({});
    EXPECT_THAT(changes(), ElementsAre("ready", "waiting", "pending", "concluded"));
}

TEST_F(JobTableTest, CompleteNeedsAKindOfJobThatCan)
{
    auto driver = job_in(JobStatus::ready);
    driver->can_complete = false;
    EXPECT_EQ(verb_error("job-complete"), "The active block job 'j' cannot be completed");
    driver->can_complete = true;
    verb("job-complete");
    EXPECT_THAT(changes(), ElementsAre("waiting", "pending", "concluded"));
    verb("job-dismiss");
    driver = job_in(JobStatus::ready);
    driver->ends_when_cancelled = false;
    verb("job-cancel");
    EXPECT_EQ(verb_error("job-complete"), "The active block job 'j' cannot be completed");
}

TEST_F(JobTableTest, Cancel)
{
    auto driver = job_in(JobStatus::running);
    verb("job-cancel");
    EXPECT_THAT(changes(), ElementsAre("aborting", "concluded"));
    EXPECT_EQ(error_of(), "Operation canceled");
    EXPECT_THAT(driver->take(), ElementsAre("cancel", "discard"));
    verb("job-dismiss");
    // One that rests goes on first.
    driver = job_in(JobStatus::standby);
    verb("job-cancel");
    EXPECT_THAT(changes(), ElementsAre("ready", "aborting", "concluded"));
    verb("job-dismiss");
    driver = job_in(JobStatus::paused);
    driver->ends_when_cancelled = false;
    verb("job-cancel");
    EXPECT_EQ(status(), JobStatus::running);
    verb("job-cancel");  // again: nothing new
    driver->job.rests();
    driver->job.finished({});  // what it could still achieve does not count
    EXPECT_THAT(changes(), ElementsAre("running", "aborting", "concluded"));
    EXPECT_EQ(error_of(), "Operation canceled");
    EXPECT_THAT(driver->take(), ElementsAre("cancel", "discard"));
}

TEST_F(JobTableTest, CancelBeforeTheStartLeavesNothing)
{
    const auto driver = create("j");
    verb("job-cancel");
    EXPECT_THAT(changes(), ElementsAre("created", "aborting", "concluded", "null"));
    EXPECT_THAT(driver->take(), IsEmpty());
    EXPECT_EQ(result("query-jobs"), json("[]"));
    // Started, but paused before it did anything.
    create("j");
    verb("job-pause");
    table().start("j");
    verb("job-cancel");
    EXPECT_THAT(changes(), ElementsAre("created", "running", "paused", "running", "aborting", "concluded"));
}

TEST_F(JobTableTest, CancelPastThePointOfReturn)
{
    const auto driver = job_in(JobStatus::running);
    driver->job.irrevocable();
    verb("job-cancel");
    EXPECT_THAT(driver->take(), IsEmpty());
    driver->job.finished({});
    EXPECT_THAT(changes(), ElementsAre("waiting", "pending", "concluded"));
    EXPECT_EQ(error_of(), "");
    verb("job-dismiss");
    const auto paused = job_in(JobStatus::paused);
    paused->job.irrevocable();
    verb("job-cancel");
    EXPECT_THAT(paused->take(), ElementsAre("resume"));
    EXPECT_EQ(status(), JobStatus::running);
}

TEST_F(JobTableTest, FinalizeByHand)
{
    auto driver = job_in(JobStatus::pending);
    EXPECT_THAT(driver->take(), IsEmpty());
    verb("job-finalize");
    EXPECT_THAT(changes(), ElementsAre("concluded"));
    EXPECT_THAT(driver->take(), ElementsAre("finalize"));
    verb("job-dismiss");
    driver = job_in(JobStatus::pending);
    driver->final_word = make_error(Errc::failed, "no space");
    verb("job-finalize");
    EXPECT_THAT(changes(), ElementsAre("aborting", "concluded"));
    EXPECT_EQ(error_of(), "no space");
    verb("job-dismiss");
    driver = job_in(JobStatus::pending);
    verb("job-cancel");
    EXPECT_THAT(changes(), ElementsAre("aborting", "concluded"));
    EXPECT_EQ(error_of(), "Operation canceled");
}

TEST_F(JobTableTest, DismissByItself)
{
    const auto driver = create("j", {.auto_finalize = true, .auto_dismiss = true});
    driver->when_started = [&] { driver->job.finished({}); };  // within start()
    table().start("j");
    EXPECT_THAT(changes(), ElementsAre("created", "running", "waiting", "pending", "concluded", "null"));
    driver->job.progress(1, 1);  // nobody listens any more
    driver->job.rests();
    driver->job.ready();
    driver->job.irrevocable();
    driver->job.finished({});
    EXPECT_THAT(changes(), IsEmpty());
}

TEST_F(JobTableTest, WorkMayOutliveTheTable)
{
    qmp::test::EventLog events;
    const auto driver = std::make_shared<FakeJob>();
    {
        JobTable other(events);
        ASSERT_TRUE(other.create("j", driver, {}));
        other.start("j");
        events.take();
    }
    driver->job.finished({});
    EXPECT_THAT(events.take(), IsEmpty());
    JobHandle().finished({});
}

TEST_F(JobTableTest, QuitCancelsJobs)
{
    const auto driver = job_in(JobStatus::running);
    must("quit");
    EXPECT_THAT(driver->take(), ElementsAre("cancel", "discard"));
    EXPECT_THAT(changes(), ElementsAre("SHUTDOWN false host-qmp-quit", "aborting", "concluded"));
}

// An id goes into every event to every client: one client must not be able to fill the output of all.
TEST_F(JobTableTest, IdsAndSnapshotArgumentsAreShort)
{
    const std::string longest(JobTable::kMaxId, 'j');
    create(longest);
    const std::string more = longest + "j";
    EXPECT_THAT(error("snapshot-delete", R"({"job-id": ")" + more + R"(", "tag": "t", "devices": []})"),
                ::testing::StartsWith("Invalid job ID 'jjj"));
    const std::string text(256, 't');
    EXPECT_EQ(error("snapshot-delete", R"({"job-id": "a", "tag": ")" + text + R"(", "devices": []})"),
              "Parameter 'tag' is longer than 255 bytes");
    EXPECT_EQ(error("snapshot-delete", R"({"job-id": "a", "tag": "t", "devices": [")" + text + R"("]})"),
              "Parameter 'devices' is longer than 255 bytes");
    EXPECT_EQ(table().list().size(), 1u);
}

}  // namespace
}  // namespace colo::test
