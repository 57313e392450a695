// SPDX-License-Identifier: Apache-2.0
#include "colo/disk_engine.h"
#include "colo/handlers/control.h"
#include "colo/handlers/refusals.h"

#include <algorithm>
#include <memory>

namespace colo {

namespace commands = schema::commands;
using schema::JobType;
using schema::RunState;

namespace {

const schema::SnapshotInfo* snapshot_of(const schema::BlockDeviceInfo& node, const std::string& tag)
{
    if (!node.image.snapshots) return nullptr;
    const auto it = std::ranges::find(*node.image.snapshots, tag, &schema::SnapshotInfo::name);
    return it == node.image.snapshots->end() ? nullptr : &*it;
}

// One snapshot-save, -load or -delete. Whatever can be wrong with nodes and tags is found by the job, not by the
// command. Its order is what clients know: a save is checked before the guest is stopped, a load afterwards, and after
// a load that failed the guest stays stopped.
class SnapshotJob : public JobDriver, public std::enable_shared_from_this<SnapshotJob> {
public:
    SnapshotJob(Control& control, JobType type, SnapshotRequest request)
        : control_(control), type_(type), request_(std::move(request))
    {
    }

    JobType type() const override { return type_; }
    void start(JobHandle job) override;
    void cancel() override { cancelled_ = true; }

private:
    using Nodes = std::vector<schema::BlockDeviceInfo>;  // of the devices, in their order
    using Next = void (SnapshotJob::*)();

    Service& service() { return control_.service(); }
    Result<Nodes> find_nodes();
    Result<Nodes> find_snapshot_nodes();
    Result<void> check_save();
    Result<void> check_load();
    void stopped_as(RunState state, Next next);
    void save();
    void write();
    void load();
    void remove();
    void put_back(const Result<void>& result);
    Done then(void (SnapshotJob::*step)(const Result<void>&));
    void end(const Result<void>& result);

    Control& control_;
    JobType type_;
    SnapshotRequest request_;
    JobHandle job_;
    bool was_running_ = false;
    bool cancelled_ = false;
};

void SnapshotJob::start(JobHandle job)
{
    job_ = std::move(job);
    job_.progress(0, 1);
    switch (type_) {
    case JobType::snapshot_save: return save();
    case JobType::snapshot_load: return stopped_as(RunState::restore_vm, &SnapshotJob::load);
    default: return remove();
    }
}

// Units are coarse: a snapshot is either done or not, also when it failed.
void SnapshotJob::end(const Result<void>& result)
{
    job_.progress(1, 1);
    job_.finished(result);
}

Done SnapshotJob::then(void (SnapshotJob::*step)(const Result<void>&))
{
    return [self = shared_from_this(), step](const Result<void>& result) { (self.get()->*step)(result); };
}

Result<SnapshotJob::Nodes> SnapshotJob::find_nodes()
{
    if (request_.devices.empty()) return refused("At least one device is required for snapshot");
    const DiskEngine* disks = service().disks();
    const Nodes known = disks != nullptr ? disks->nodes(false) : Nodes();
    Nodes result;
    for (const std::string& device : request_.devices) {
        const auto it =
            std::ranges::find(known, std::optional<std::string>(device), &schema::BlockDeviceInfo::node_name);
        if (it == known.end()) return refusal_error(Refused::disks, device);
        result.push_back(*it);
    }
    return result;
}

Result<SnapshotJob::Nodes> SnapshotJob::find_snapshot_nodes()
{
    auto nodes = find_nodes();
    if (!nodes) return nodes;
    for (const std::string& device : request_.devices)
        if (!service().disks()->takes_snapshots(device))
            return refused("Device '" + device + "' is writable but does not support snapshots");
    return nodes;
}

Result<void> SnapshotJob::check_save()
{
    if (const auto reasons = service().blocked_reasons(); !reasons.empty()) return refused(reasons.front());
    const auto nodes = find_snapshot_nodes();
    if (!nodes) return nodes.error();
    for (const auto& node : *nodes)
        if (snapshot_of(node, request_.tag) != nullptr)
            return refused("Snapshot '" + request_.tag + "' already exists in one or more devices");
    if (std::ranges::find(request_.devices, request_.vmstate) == request_.devices.end())
        return refused("vmstate block device '" + request_.vmstate + "' does not exist");
    // A guest whose state is on its way to another host is not stopped for a save that must fail anyway.
    if (control_.book().in_progress()) return refused(kInProgress);
    return {};
}

Result<void> SnapshotJob::check_load()
{
    const auto nodes = find_snapshot_nodes();
    if (!nodes) return nodes.error();
    for (const auto& node : *nodes)
        if (snapshot_of(node, request_.tag) == nullptr)
            return refused("Snapshot '" + request_.tag + "' does not exist in one or more devices");
    const auto vmstate = std::ranges::find(request_.devices, request_.vmstate);
    if (vmstate == request_.devices.end())
        return refused("vmstate block device '" + request_.vmstate + "' does not exist");
    const auto& node = (*nodes)[static_cast<std::size_t>(vmstate - request_.devices.begin())];
    if (snapshot_of(node, request_.tag)->vm_state_size == 0)
        return refused("This is a disk-only snapshot. Revert to it  offline using qemu-img");
    if (control_.book().in_progress()) return refused(kInProgress);
    return {};
}

// Stops a running guest; one that does not run keeps its run state.
void SnapshotJob::stopped_as(RunState state, Next next)
{
    was_running_ = service().run_state() == RunState::running;
    if (!was_running_) return (this->*next)();
    service().stop(state, [self = shared_from_this(), next](const Result<void>& stopped) {
        if (!stopped) return self->end(stopped);
        (self.get()->*next)();
    });
}

void SnapshotJob::save()
{
    if (auto checked = check_save(); !checked) return end(checked);
    stopped_as(RunState::save_vm, &SnapshotJob::write);
}

void SnapshotJob::write()
{
    // Something may have begun since it was checked.
    if (control_.book().in_progress()) return put_back(refused(kInProgress));
    if (cancelled_) return put_back({});
    service().disks()->save_snapshot(request_, then(&SnapshotJob::put_back));
}

void SnapshotJob::load()
{
    if (auto checked = check_load(); !checked) return end(checked);
    if (cancelled_) return put_back({});
    service().disks()->load_snapshot(request_, [self = shared_from_this()](const Result<void>& loaded) {
        if (!loaded) return self->end(loaded);
        self->job_.irrevocable();  // what was there before is gone
        self->put_back({});
    });
}

void SnapshotJob::remove()
{
    if (auto nodes = find_nodes(); !nodes) return end(nodes.error());
    service().disks()->delete_snapshot(request_, then(&SnapshotJob::end));
}

void SnapshotJob::put_back(const Result<void>& result)
{
    if (!was_running_) return end(result);
    service().cont(
        [self = shared_from_this(), result](const Result<void>& resumed) { self->end(result ? resumed : result); });
}

// A job keeps them until it is dismissed.
Result<void> check_lengths(const SnapshotRequest& request)
{
    const auto too_long = [](const char* what) {
        return make_error(Errc::limit, "Parameter '" + std::string(what) + "' is longer than " +
                                           std::to_string(kSnapshotTextMax) + " bytes");
    };
    if (request.tag.size() > kSnapshotTextMax) return too_long("tag");
    if (request.vmstate.size() > kSnapshotTextMax) return too_long("vmstate");
    if (request.devices.size() > kSnapshotDevicesMax)
        return make_error(Errc::limit,
                          "Parameter 'devices' has more than " + std::to_string(kSnapshotDevicesMax) + " elements");
    if (std::ranges::any_of(request.devices, [](const std::string& d) { return d.size() > kSnapshotTextMax; }))
        return too_long("devices");
    return {};
}

void start_snapshot(Control& control, const std::string& id, JobType type, SnapshotRequest request,
                    qmp::TypedReply<void> reply)
{
    if (auto lengths = check_lengths(request); !lengths) return reply.fail(lengths.error());
    auto driver = std::make_shared<SnapshotJob>(control, type, std::move(request));
    // Finalized by itself, dismissed by the client: it wants to see how it ended.
    if (auto created = control.jobs().create(id, std::move(driver), {}); !created) return reply.fail(created.error());
    control.jobs().start(id);
    reply.succeed();
}

}  // namespace

void add_snapshot_commands(Control& control, qmp::Registry& registry)
{
    registry.add<commands::SnapshotSave>([&control](const auto& a, auto reply) {
        start_snapshot(control, a.job_id, JobType::snapshot_save, {a.tag, a.vmstate, a.devices}, std::move(reply));
    });
    registry.add<commands::SnapshotLoad>([&control](const auto& a, auto reply) {
        start_snapshot(control, a.job_id, JobType::snapshot_load, {a.tag, a.vmstate, a.devices}, std::move(reply));
    });
    registry.add<commands::SnapshotDelete>([&control](const auto& a, auto reply) {
        start_snapshot(control, a.job_id, JobType::snapshot_delete, {a.tag, {}, a.devices}, std::move(reply));
    });
    registry.add<commands::QueryBlock>([&control](const auto&, auto reply) {
        const DiskEngine* disks = control.service().disks();
        reply.succeed(disks != nullptr ? disks->drives() : std::vector<schema::BlockInfo>());
    });
    registry.add<commands::QueryNamedBlockNodes>([&control](const auto& arguments, auto reply) {
        const DiskEngine* disks = control.service().disks();
        reply.succeed(disks != nullptr ? disks->nodes(arguments.flat.value_or(false))
                                       : std::vector<schema::BlockDeviceInfo>());
    });
}

}  // namespace colo
