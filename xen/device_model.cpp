// SPDX-License-Identifier: Apache-2.0
#include "xen/device_model.h"

#include "core/clock.h"
#include "qemu/device_state.h"
#include "qemu/qmp_link.h"
#include "qemu/state_file.h"
#include "xen/domain_config.h"

#include <boost/json.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <sys/socket.h>
#include <sys/un.h>
#include <thread>
#include <unistd.h>

namespace colo::xen {
namespace {

namespace json = boost::json;

constexpr std::string_view kStop = R"({"execute":"stop"})";
constexpr std::string_view kCont = R"({"execute":"cont"})";
// The queue of a socket that nobody takes clients from is full.
constexpr std::chrono::milliseconds kConnectPause{10};

Result<qemu::Fd> connect_to(const std::string& path, Deadline deadline)
{
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) return make_error(Errc::invalid, "a path that is too long for a socket: " + path);
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    qemu::Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) return errno_error("socket", errno);
    while (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        if (errno == ENOENT || errno == ECONNREFUSED)
            return make_error(Errc::guest_died, fmt::format("there is no device model at {} ({})", path, std::strerror(errno)));
        if (errno != EAGAIN && errno != EINTR) return errno_error("connect to " + path, errno);
        if (now() >= deadline) return make_error(Errc::timed_out, path + ": other clients wait there, and none is served");
        std::this_thread::sleep_for(kConnectPause);
    }
    return fd;
}

// By this name the device model opens a file of ours that has no other. It is another open file, with a position of its own.
std::string path_of(int fd) { return fmt::format("/proc/{}/fd/{}", ::getpid(), fd); }

class QmpModel final : public DeviceModel {
public:
    QmpModel(int fd, const std::string& socket)
        : link_(fd, "device model at " + socket, [this](std::string_view name, const json::object& data) { on_event(name, data); })
    {
    }
    ~QmpModel() override;

    Result<void> open(Deadline deadline);
    const std::string& version() const override { return version_; }
    Result<void> stop(Deadline deadline) override { return run("stop", kStop, deadline); }
    Result<void> cont(Deadline deadline) override { return run("cont", kCont, deadline); }
    Result<void> stop_and_begin_save(Deadline deadline) override;
    Result<Bytes> finish_save(Deadline deadline) override;
    Result<void> load(ByteView state, Deadline deadline) override;
    Result<void> set_dirty_log(bool on, Deadline deadline) override;
    Result<void> connect_cable(std::size_t nic, int fd, Deadline deadline) override;
    Result<void> save_to(const std::string& file, bool live, Deadline deadline) override;
    Result<void> powerdown(Deadline deadline) override
    {
        return run("system_powerdown", R"({"execute":"system_powerdown"})", deadline);
    }

private:
    Result<void> run(std::string_view what, std::string_view command, Deadline deadline);
    Result<void> attach_snapshot(Deadline deadline);
    Result<void> check_job(const std::string& job, Deadline deadline);
    void on_event(std::string_view name, const json::object& data);

    qemu::QmpLink link_;
    std::string version_;
    std::unique_ptr<qemu::StateFile> saved_;
    std::unique_ptr<qemu::SnapshotFile> snapshot_;
    std::string node_;       // name of the snapshot's block node, once it is attached
    std::string job_;        // that is waited for
    bool job_ended_ = false;
    bool saving_ = false;
    std::uint64_t jobs_ = 0;
};

QmpModel::~QmpModel()
{
    // It may serve its domain for years to come; the file behind the node is gone with us.
    constexpr std::chrono::seconds kPatience{1};
    if (!node_.empty() && !link_.dead() && link_.outstanding() == 0)
        (void)run("blockdev-del", fmt::format(R"({{"execute":"blockdev-del","arguments":{{"node-name":"{}"}}}})", node_), now() + kPatience);
}

Result<void> QmpModel::open(Deadline deadline)
{
    auto saved = qemu::StateFile::create();
    if (!saved) return saved.error();
    saved_ = std::make_unique<qemu::StateFile>(std::move(*saved));
    auto snapshot = qemu::SnapshotFile::create();
    if (!snapshot) return snapshot.error();
    snapshot_ = std::make_unique<qemu::SnapshotFile>(std::move(*snapshot));
    auto version = link_.negotiate(deadline);
    if (!version && version.error().code == Errc::timed_out)
        return with_context("it does not greet: it hangs, or a second colod for this domain holds its control channel", version.error());
    if (!version) return version.error();
    version_ = std::move(*version);
    return {};
}

Result<void> QmpModel::run(std::string_view what, std::string_view command, Deadline deadline)
{
    if (saving_) return make_error(Errc::invalid, fmt::format("{}: a save was begun and not finished", what));
    if (auto r = link_.drain(); !r) return r;   // events that came in the meantime
    auto answer = link_.execute(what, command, deadline);
    if (!answer) return answer.error();
    return {};
}

Result<void> QmpModel::stop_and_begin_save(Deadline deadline)
{
    if (saving_) return make_error(Errc::invalid, "a save was begun and not finished");
    if (auto r = link_.drain(); !r) return r;
    // live=false: otherwise a stopped one gives its disks up.
    const std::string both = fmt::format(R"({}{{"execute":"xen-save-devices-state","arguments":{{"filename":"{}","live":false}}}})", kStop,
                                         path_of(saved_->fd()));
    if (auto r = link_.send(both, 2, deadline); !r) return r;
    auto stopped = link_.receive("stop", deadline);
    saving_ = !link_.dead();
    if (!stopped) return stopped.error();
    return {};
}

Result<Bytes> QmpModel::finish_save(Deadline deadline)
{
    if (!saving_) return make_error(Errc::invalid, "no save was begun");
    saving_ = false;
    if (auto r = link_.receive("xen-save-devices-state", deadline); !r) return r.error();
    auto state = saved_->read();
    if (!state) return state.error();
    if (auto r = check_model_state(*state); !r) return r.error();
    return state;
}

Result<void> QmpModel::attach_snapshot(Deadline deadline)
{
    if (!node_.empty()) return {};
    // A name of our own: a daemon that was killed left its node behind.
    const std::string node = fmt::format("colo-{}-{}", ::getpid(), snapshot_->fd());
    auto added = run("blockdev-add",
                     fmt::format(R"({{"execute":"blockdev-add","arguments":{{"driver":"qcow2","node-name":"{}","file":{{"driver":"file",)"
                                 R"("filename":"{}","locking":"off"}}}}}})",
                                 node, path_of(snapshot_->fd())),
                     deadline);
    if (added) node_ = node;
    return added;
}

// xen-load-devices-state would end QEMU 7.2 with a failed assertion; loading a snapshot does the same work and does not.
Result<void> QmpModel::load(ByteView state, Deadline deadline)
{
    if (auto r = check_model_state(state); !r) return r;
    if (auto r = attach_snapshot(deadline); !r) return with_context("load device state", r.error());
    if (auto r = snapshot_->write(state); !r) return r;
    job_ = fmt::format("load-{}-{}", ::getpid(), ++jobs_);
    job_ended_ = false;
    auto begun = run("snapshot-load",
                     fmt::format(R"({{"execute":"snapshot-load","arguments":{{"job-id":"{0}","tag":"c","vmstate":"{1}","devices":["{1}"]}}}})",
                                 job_, node_),
                     deadline);
    if (!begun) return with_context("load device state", begun.error());
    if (auto r = link_.wait_event("snapshot-load", [this] { return job_ended_; }, deadline); !r) return with_context("load device state", r.error());
    if (auto r = check_job(job_, deadline); !r) return with_context("load device state", r.error());
    return run("job-dismiss", fmt::format(R"({{"execute":"job-dismiss","arguments":{{"id":"{}"}}}})", job_), deadline);
}

Result<void> QmpModel::check_job(const std::string& job, Deadline deadline)
{
    auto answer = link_.execute("query-jobs", R"({"execute":"query-jobs"})", deadline);
    if (!answer) return answer.error();
    json::error_code ec;
    const json::value list = json::parse(*answer, ec);
    if (ec || !list.is_array()) return make_error(Errc::corrupt, "query-jobs: not a list");
    for (const auto& entry : list.get_array()) {
        const json::object* one = entry.if_object();
        const json::value* id = one != nullptr ? one->if_contains("id") : nullptr;
        if (id == nullptr || *id != job.c_str()) continue;
        if (const json::value* error = one->if_contains("error"); error != nullptr)
            return make_error(Errc::refused, "QEMU: " + json::serialize(*error).substr(0, 300));
        return {};
    }
    return make_error(Errc::corrupt, "query-jobs does not know our job");
}

Result<void> QmpModel::set_dirty_log(bool on, Deadline deadline)
{
    // QEMU 7.2 ends with a failed assertion when it is to switch off what is off; on while it is on does nothing.
    if (!on)
        if (auto r = set_dirty_log(true, deadline); !r) return r;
    return run("xen-set-global-dirty-log",
               fmt::format(R"({{"execute":"xen-set-global-dirty-log","arguments":{{"enable":{}}}}})", on ? "true" : "false"), deadline);
}

Result<void> QmpModel::connect_cable(std::size_t nic, int fd, Deadline deadline)
{
    if (saving_) return make_error(Errc::invalid, "connect cable: a save was begun and not finished");
    if (auto r = link_.drain(); !r) return r;
    // Of a daemon that died; usually there is none, and that is refused.
    for (const char* part : {"plug", "tap"})
        if (auto r = run("netdev_del", fmt::format(R"({{"execute":"netdev_del","arguments":{{"id":"colo-{}{}"}}}})", part, nic), deadline);
            !r && link_.dead())
            return r;
    const std::string get = fmt::format(R"({{"execute":"getfd","arguments":{{"fdname":"colo-fd{}"}}}})", nic);
    if (auto r = link_.send_with_fd(get, fd, deadline); !r) return with_context("getfd", r.error());
    if (auto r = link_.receive("getfd", deadline); !r) return r.error();
    if (auto r = run("netdev_add", fmt::format(R"({{"execute":"netdev_add","arguments":{{"type":"tap","id":"colo-tap{0}","fd":"colo-fd{0}","vhost":false}}}})", nic),
                     deadline);
        !r)
        return r;
    return run("netdev_add",
               fmt::format(R"({{"execute":"netdev_add","arguments":{{"type":"hubport","id":"colo-plug{0}","hubid":{1},"netdev":"colo-tap{0}"}}}})", nic,
                           kFirstHub + nic),
               deadline);
}

Result<void> QmpModel::save_to(const std::string& file, bool live, Deadline deadline)
{
    // It would wait for a reader of a pipe, with everything that it does.
    std::error_code ec;
    if (const auto found = std::filesystem::status(file, ec); std::filesystem::exists(found) && !std::filesystem::is_regular_file(found))
        return make_error(Errc::invalid, file + " is not a regular file");
    return run("xen-save-devices-state",
               fmt::format(R"({{"execute":"xen-save-devices-state","arguments":{{"filename":{},"live":{}}}}})", qemu::json_quote(file), live), deadline);
}

void QmpModel::on_event(std::string_view name, const json::object& data)
{
    if (name != "JOB_STATUS_CHANGE") return;
    const json::value* id = data.if_contains("id");
    const json::value* status = data.if_contains("status");
    if (id != nullptr && status != nullptr && *id == job_.c_str() && *status == "concluded") job_ended_ = true;
}

}  // namespace

Result<std::unique_ptr<DeviceModel>> connect_device_model(const std::string& socket, Deadline deadline)
{
    auto fd = connect_to(socket, deadline);
    if (!fd) return fd.error();
    auto model = std::make_unique<QmpModel>(fd->release(), socket);
    if (auto r = model->open(deadline); !r) return r.error();
    return std::unique_ptr<DeviceModel>(std::move(model));
}

Result<std::unique_ptr<qemu::QmpLink>> connect_monitor(const std::string& socket, Deadline deadline)
{
    auto fd = connect_to(socket, deadline);
    if (!fd) return fd.error();
    auto link = std::make_unique<qemu::QmpLink>(fd->release(), "device model at " + socket, nullptr);
    if (auto r = link->negotiate(deadline); !r) return r.error();
    return link;
}

Result<void> check_model_state(ByteView state)
{
    constexpr std::array<std::uint8_t, 9> kHead = {'Q', 'E', 'V', 'M', 0, 0, 0, 3, 4};   // version 3, then a full section
    if (state.size() > qemu::kMaxDeviceState) return make_error(Errc::limit, fmt::format("device state of {} bytes", state.size()));
    if (state.size() < kHead.size() + 1 || !std::equal(kHead.begin(), kHead.end(), state.begin()))
        return make_error(Errc::corrupt, fmt::format("device state of {} bytes that does not begin as one does", state.size()));
    if (state.back() != 0) return make_error(Errc::corrupt, "device state without its end mark");
    return {};
}

}  // namespace colo::xen
