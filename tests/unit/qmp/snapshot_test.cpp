// SPDX-License-Identifier: Apache-2.0
#include "handlers_fixture.h"

#include <algorithm>

namespace colo::test {
namespace {

using qmp::test::json;
using schema::RunState;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

class FakeDisks : public DiskEngine {
public:
    std::vector<schema::BlockDeviceInfo> known;
    std::vector<std::string> incapable;
    Result<void> outcome;
    std::vector<std::string> calls;

    void add(const std::string& name, const std::string& tag = {}, std::int64_t vm_state_size = 0)
    {
        schema::BlockDeviceInfo node;
        node.node_name = name;
        node.drv = "qcow2";
        if (!tag.empty()) {
            schema::SnapshotInfo snapshot;
            snapshot.name = tag;
            snapshot.vm_state_size = vm_state_size;
            node.image.snapshots = {snapshot};
        }
        known.push_back(node);
    }

    std::vector<schema::BlockInfo> drives() const override { return {}; }
    std::vector<schema::BlockDeviceInfo> nodes(bool flat) const override
    {
        return flat ? std::vector<schema::BlockDeviceInfo>() : known;
    }
    bool takes_snapshots(const std::string& node) const override
    {
        return std::find(incapable.begin(), incapable.end(), node) == incapable.end();
    }
    void save_snapshot(const SnapshotRequest& r, Done done) override { work("save", r, done); }
    void load_snapshot(const SnapshotRequest& r, Done done) override { work("load", r, done); }
    void delete_snapshot(const SnapshotRequest& r, Done done) override { work("delete", r, done); }

private:
    void work(const std::string& what, const SnapshotRequest& request, const Done& done)
    {
        calls.push_back(what + " " + request.tag);
        done(outcome);
    }
};

class SnapshotTest : public HandlersTest {
protected:
    SnapshotTest()
    {
        service_.obeys = true;
        control_.guest_resumed();
        events_.take();
    }

    std::string request(const std::string& job, const std::string& devices, const std::string& vmstate = "d0")
    {
        const std::string where = vmstate.empty() ? "" : R"(, "vmstate": ")" + vmstate + "\"";
        return R"({"job-id": ")" + job + R"(", "tag": "t", "devices": [)" + devices + "]" + where + "}";
    }
    // Runs one job to its end; statuses and calls of the daemon go where they can be compared.
    void run_job(const std::string& command, const std::string& arguments)
    {
        must(command, arguments);
        for (const schema::JobInfo& info : control_.jobs().list()) {
            error_ = info.error.value_or("");
            EXPECT_EQ(info.current_progress, 1);
            EXPECT_EQ(info.total_progress, 1);
        }
        must("job-dismiss", R"({"id": "j"})");
        changes_.clear();
        for (const std::string& event : events_.take())
            changes_ += (changes_.empty() ? "" : " ") + event.substr(std::string("JOB_STATUS_CHANGE j ").size());
        calls_ = service_.take_calls();
    }

    FakeDisks disks_;
    std::string error_;
    std::string changes_;
    std::vector<std::string> calls_;
};

constexpr const char* kSucceeded = "created running waiting pending concluded null";
constexpr const char* kFailed = "created running aborting concluded null";

TEST_F(SnapshotTest, GuestWithoutDisks)
{
    EXPECT_EQ(result("query-block"), json("[]"));
    EXPECT_EQ(result("query-named-block-nodes"), json("[]"));
    EXPECT_EQ(result("query-named-block-nodes", R"({"flat": true})"), json("[]"));

    run_job("snapshot-save", request("j", ""));
    EXPECT_EQ(error_, "At least one device is required for snapshot");
    EXPECT_EQ(changes_, kFailed);
    EXPECT_THAT(calls_, IsEmpty());  // a save is checked before the guest is stopped
    run_job("snapshot-save", request("j", R"("x", "y")"));
    EXPECT_EQ(error_, "No block device node 'x'");

    run_job("snapshot-delete", request("j", "", ""));
    EXPECT_EQ(error_, "At least one device is required for snapshot");
    run_job("snapshot-delete", request("j", R"("x")", ""));
    EXPECT_EQ(error_, "No block device node 'x'");
    EXPECT_EQ(changes_, kFailed);
    EXPECT_THAT(calls_, IsEmpty());

    // A load stops the guest first and leaves it stopped.
    run_job("snapshot-load", request("j", ""));
    EXPECT_EQ(error_, "At least one device is required for snapshot");
    EXPECT_THAT(calls_, ElementsAre("stop restore-vm"));
    EXPECT_EQ(*result("query-status").find("status"), schema::Value("restore-vm"));
    must("cont");
    EXPECT_EQ(*result("query-status").find("status"), schema::Value("running"));
    service_.take_calls();
    service_.state = RunState::paused;
    run_job("snapshot-load", request("j", R"("x")"));
    EXPECT_EQ(error_, "No block device node 'x'");
    EXPECT_THAT(calls_, IsEmpty());
    EXPECT_EQ(service_.state, RunState::paused);
}

TEST_F(SnapshotTest, ErrorsOfTheCommandItself)
{
    EXPECT_EQ(error("snapshot-save", request("9x", "")), "Invalid job ID '9x'");
    EXPECT_EQ(error("snapshot-load", request("", "")), "Invalid job ID ''");
    EXPECT_EQ(error("snapshot-delete", request("a b", "", "")), "Invalid job ID 'a b'");
    must("snapshot-delete", request("j", "", ""));
    EXPECT_EQ(error("snapshot-delete", request("j", "", "")), "Job ID 'j' already in use");
    EXPECT_EQ(result("query-jobs"), json(R"([{"id": "j", "type": "snapshot-delete", "status": "concluded",
        "current-progress": 1, "total-progress": 1, "error": "At least one device is required for snapshot"}])"));
    must("snapshot-load", request("k", ""));
    EXPECT_EQ(*result("query-jobs").as_array()->front().find("type"), schema::Value("snapshot-load"));
}

TEST_F(SnapshotTest, Save)
{
    service_.engine = &disks_;
    disks_.add("d0");
    disks_.add("d1");
    const std::string good = request("j", R"("d1", "d0")");
    run_job("snapshot-save", good);
    EXPECT_EQ(error_, "");
    EXPECT_EQ(changes_, kSucceeded);
    EXPECT_THAT(calls_, ElementsAre("stop save-vm", "cont"));
    EXPECT_THAT(disks_.calls, ElementsAre("save t"));
    EXPECT_EQ(result("query-named-block-nodes").as_array()->size(), 2u);
    EXPECT_EQ(result("query-named-block-nodes", R"({"flat": true})").as_array()->size(), 0u);

    disks_.outcome = make_error(Errc::failed, "No space left on device");
    run_job("snapshot-save", good);
    EXPECT_EQ(error_, "No space left on device");
    EXPECT_EQ(changes_, kFailed);
    EXPECT_THAT(calls_, ElementsAre("stop save-vm", "cont"));
    disks_.outcome = {};

    service_.state = RunState::paused;
    run_job("snapshot-save", good);
    EXPECT_EQ(changes_, kSucceeded);
    EXPECT_THAT(calls_, IsEmpty());
    EXPECT_EQ(service_.state, RunState::paused);
}

TEST_F(SnapshotTest, ConditionsOfASave)
{
    service_.engine = &disks_;
    disks_.add("d0");
    disks_.add("raw0", "t");
    disks_.incapable = {"raw0"};
    service_.blockers = {"a device is in the way"};
    run_job("snapshot-save", request("j", ""));
    EXPECT_EQ(error_, "a device is in the way");
    service_.blockers.clear();
    run_job("snapshot-save", request("j", R"("raw0", "x")"));
    EXPECT_EQ(error_, "No block device node 'x'");
    run_job("snapshot-save", request("j", R"("d0", "raw0")"));
    EXPECT_EQ(error_, "Device 'raw0' is writable but does not support snapshots");
    disks_.incapable.clear();
    run_job("snapshot-save", request("j", R"("d0", "raw0")", "other"));
    EXPECT_EQ(error_, "Snapshot 't' already exists in one or more devices");
    run_job("snapshot-save", request("j", R"("d0")", "raw0"));
    EXPECT_EQ(error_, "vmstate block device 'raw0' does not exist");
    control_.outgoing(TransferPhase::setup, {});
    run_job("snapshot-save", request("j", R"("d0")"));
    EXPECT_EQ(error_, "There's a migration process in progress");
    EXPECT_EQ(changes_, kFailed);
    EXPECT_THAT(calls_, IsEmpty());
    EXPECT_THAT(disks_.calls, IsEmpty());
}

TEST_F(SnapshotTest, Load)
{
    service_.engine = &disks_;
    disks_.add("d0", "t", 4096);
    disks_.add("d1", "t");
    disks_.add("d2");
    run_job("snapshot-load", request("j", R"("d0", "d1")"));
    EXPECT_EQ(changes_, kSucceeded);
    EXPECT_THAT(calls_, ElementsAre("stop restore-vm", "cont"));
    service_.state = RunState::prelaunch;
    run_job("snapshot-load", request("j", R"("d0", "d1")"));
    EXPECT_THAT(calls_, IsEmpty());
    EXPECT_EQ(service_.state, RunState::prelaunch);

    service_.state = RunState::running;
    const std::pair<std::string, const char*> cases[] = {
        {request("j", R"("d0", "d2")"), "Snapshot 't' does not exist in one or more devices"},
        {request("j", R"("d0")", "d1"), "vmstate block device 'd1' does not exist"},
        {request("j", R"("d0", "d1")", "d1"), "This is a disk-only snapshot. Revert to it  offline using qemu-img"},
    };
    for (const auto& [arguments, text] : cases) {
        service_.state = RunState::running;
        run_job("snapshot-load", arguments);
        EXPECT_EQ(error_, text);
        EXPECT_EQ(changes_, kFailed);
        EXPECT_THAT(calls_, ElementsAre("stop restore-vm"));
        EXPECT_EQ(service_.state, RunState::restore_vm);
    }
    disks_.outcome = make_error(Errc::corrupt, "Error -22 while loading VM state");
    service_.state = RunState::running;
    run_job("snapshot-load", request("j", R"("d0")"));
    EXPECT_EQ(error_, "Error -22 while loading VM state");
    EXPECT_EQ(service_.state, RunState::restore_vm);
}

// The daemon does not let a protected guest be stopped; the job says so and nothing changes.
TEST_F(SnapshotTest, LoadOfAGuestThatMayNotBeStopped)
{
    service_.outcome = make_error(Errc::refused, "The domain is protected");
    run_job("snapshot-load", request("j", ""));
    EXPECT_EQ(error_, "The domain is protected");
    EXPECT_EQ(changes_, kFailed);
    EXPECT_EQ(service_.state, RunState::running);
}

TEST_F(SnapshotTest, Delete)
{
    service_.engine = &disks_;
    disks_.add("d0");
    disks_.incapable = {"d0"};
    run_job("snapshot-delete", request("j", R"("d0")", ""));  // the tag is not there: no error
    EXPECT_EQ(changes_, kSucceeded);
    EXPECT_THAT(calls_, IsEmpty());
    EXPECT_THAT(disks_.calls, ElementsAre("delete t"));
}

TEST_F(SnapshotTest, CancelledWhileTheGuestStops)
{
    service_.engine = &disks_;
    disks_.add("d0");
    service_.hold = true;
    must("snapshot-save", request("j", R"("d0")"));
    EXPECT_EQ(*result("query-jobs").as_array()->front().find("status"), schema::Value("running"));
    must("job-pause", R"({"id": "j"})");
    must("job-cancel", R"({"id": "j"})");
    service_.finish({});  // stopped
    service_.finish({});  // resumed
    EXPECT_THAT(service_.take_calls(), ElementsAre("stop save-vm", "cont"));
    EXPECT_THAT(disks_.calls, IsEmpty());
    EXPECT_EQ(*result("query-jobs").as_array()->front().find("error"), schema::Value("Operation canceled"));
}

}  // namespace
}  // namespace colo::test
