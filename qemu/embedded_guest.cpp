// SPDX-License-Identifier: Apache-2.0
#include "qemu/embedded_guest.h"

#include "core/clock.h"
#include "qemu/cut_priority.h"
#include "qemu/device_model.h"
#include "qemu/device_state.h"
#include "qemu/dirty_log.h"
#include "qemu/guest_ram.h"
#include "qemu/self_test.h"
#include "qemu/state_file.h"
#include "qemu/switched_dirty_log.h"

#include <boost/json.hpp>
#include <fmt/format.h>

#include <atomic>
#include <filesystem>
#include <mutex>
#include <utility>

namespace colo::qemu {
namespace {

using replication::CutTimes;
using replication::DeviceState;
using replication::GuestDescription;
using replication::GuestEvent;
using replication::GuestEventKind;
using replication::StartMode;

// QEMU reads its control channels byte by byte, so a short command is a fast one.
constexpr std::string_view kStop = R"({"execute":"stop"})";
constexpr std::string_view kCont = R"({"execute":"cont"})";
constexpr std::string_view kSave = R"({{"execute":"xen-save-devices-state","arguments":{{"filename":"{}","live":false}}}})";
constexpr std::string_view kLoad = R"({{"execute":"xen-load-devices-state","arguments":{{"filename":"{}"}}}})";
constexpr std::string_view kSnapshotLoad =
    R"({{"execute":"snapshot-load","arguments":{{"job-id":"{0}","tag":"c","vmstate":"snapshot","devices":["snapshot"]}}}})";

const std::string& save_command()
{
    static const std::string command = fmt::format(fmt::runtime(kSave), inherited_fd_numbers().saved_state);
    return command;
}

// About the time of an answer; a wake-up costs 50 to 100 us.
constexpr Duration kSpin{300};

class QemuGuest final : public EmbeddedGuest {
public:
    explicit QemuGuest(EmbeddedGuestOptions options) : options_(std::move(options)) {}
    ~QemuGuest() override { drop_model(); }

    const EmbeddedGuestChoices& choices() const override { return choices_; }
    const GuestDescription& description() const override { return description_; }
    replication::GuestMemory& memory() override { return *ram_; }
    replication::DirtyLog& dirty_log() override { return dirty_log_; }

    Result<void> create(StartMode mode, Deadline deadline) override;
    Result<void> cut_begin(Deadline deadline) override;
    Result<DeviceState> cut_save(Deadline deadline) override;
    Result<void> resume(Deadline deadline) override;
    CutTimes last_cut_times() const override { return times_; }
    Result<void> stop(Deadline deadline) override;
    Result<void> load(const DeviceState& state, Deadline deadline) override;
    Result<void> verify(const DeviceState& state) const override;
    Result<void> recreate(Deadline deadline) override;

    void kill() noexcept override;
    Time last_progress() const override { return Time{progress_us_.load(std::memory_order_relaxed)}; }
    void probe() override;
    int device_model_pid() const override { return pid_; }
    bool running() const override { return running_; }
    void set_event_handler(std::function<void(GuestEvent)> handler) override { handler_ = std::move(handler); }

    Result<void> save_device_state(const std::string& file, bool live, Deadline deadline) override;
    Result<void> load_device_state(const std::string& file, Deadline deadline) override;
    Result<void> set_global_dirty_log(bool enable, Deadline deadline) override;
    Result<void> reset(Deadline deadline) override;
    Result<void> powerdown(Deadline deadline) override;

private:
    Result<void> choose(Deadline deadline);
    Result<void> describe();
    Result<void> start_model(Deadline deadline, std::uint64_t kills);
    Result<void> attach_dirty_log();
    Result<void> learn_sections(Deadline deadline);
    void drop_model();
    Result<QmpLink*> link();
    Error explain(const Error& error);   // an end of file on a channel means that QEMU is gone: say how
    Result<void> forget_events();
    void hurry(bool on);
    Result<void> stop_and_save(Deadline deadline);
    Result<void> finish_save(Deadline deadline);
    Result<std::string> run(std::string_view what, std::string_view command, Deadline deadline);
    Result<void> check_loadable(Deadline deadline);
    Result<void> load_snapshot(ByteView state, Deadline deadline);
    Result<void> load_xen(ByteView state, Deadline deadline);
    void on_event(GuestEvent event);

    EmbeddedGuestOptions options_;
    std::function<void(GuestEvent)> handler_;
    EmbeddedGuestChoices choices_;
    DirtyMethod dirty_method_ = DirtyMethod::compare;
    GuestDescription description_;
    std::unique_ptr<GuestRam> ram_;
    std::unique_ptr<StateFile> state_file_;
    std::unique_ptr<SnapshotFile> snapshot_file_;
    SwitchedDirtyLog dirty_log_;
    StateSections accepted_;   // of our own QEMU's first save

    mutable std::mutex model_mutex_;   // guards the pointer only: kill() and probe() come from any thread
    std::shared_ptr<DeviceModel> model_;
    std::atomic<int> pid_ = 0;
    std::atomic<std::uint64_t> kills_ = 0;   // a kill() while there is no model yet is not lost
    std::atomic<bool> running_ = false;
    std::atomic<std::int64_t> progress_us_ = 0;
    CutPriority priority_;
    QmpLink* saving_on_ = nullptr;   // a save was sent there and its answer not read yet
    std::uint64_t jobs_ = 0;
    CutTimes times_;
};

Result<void> QemuGuest::create(StartMode mode, Deadline deadline)
{
    if (ram_) return make_error(Errc::invalid, "the guest exists already");
    const std::uint64_t kills = kills_;
    auto ram = GuestRam::create(options_.name + "-ram", std::uint64_t{options_.memory_mib} << 8);
    if (!ram) return ram.error();
    auto state_file = StateFile::create();
    if (!state_file) return state_file.error();
    auto snapshot_file = SnapshotFile::create();
    if (!snapshot_file) return snapshot_file.error();
    state_file_ = std::make_unique<StateFile>(std::move(*state_file));
    snapshot_file_ = std::make_unique<SnapshotFile>(std::move(*snapshot_file));
    ram_ = std::move(*ram);
    if (auto r = choose(deadline); !r) return r;
    if (auto r = describe(); !r) return r;
    if (auto r = start_model(deadline, kills); !r) return r;
    if (mode == StartMode::boot) return resume(deadline);
    return {};
}

Result<void> QemuGuest::choose(Deadline deadline)
{
    auto dirty = select_dirty_log(options_.dirty_log);
    if (!dirty) return dirty.error();
    auto accelerator = choose_accelerator(options_);
    if (!accelerator) return accelerator.error();
    auto load = choose_device_load(options_, deadline);
    if (!load) return load.error();
    dirty_method_ = dirty->method;
    choices_ = {accelerator->value, accelerator->why, to_string(dirty->method), dirty->why, load->value, load->why};
    return {};
}

Result<void> QemuGuest::describe()
{
    auto digest = boot_digest(options_);
    if (!digest) return digest.error();
    const CommandLine line = make_command_line(options_, choices_.accelerator);
    description_ = {};
    description_.kind = "qemu";
    description_.accelerator = choices_.accelerator;
    description_.machine = options_.machine;
    description_.cpu_policy = options_.cpu_model;
    description_.device_list = line.device_list;
    description_.boot_digest = *digest;
    description_.vcpus = options_.vcpus;
    description_.regions = {{0, ram_->pages()}};
    for (const EmbeddedNic& nic : options_.nics) description_.nics.push_back({nic.id, nic.mac, nic.offload_features});
    return {};
}

Result<void> QemuGuest::start_model(Deadline deadline, std::uint64_t kills)
{
    DeviceModelOptions start;
    start.process.argv = make_command_line(options_, choices_.accelerator).argv;
    start.process.log_file = options_.run_directory + "/qemu.log";
    start.serial_log = options_.run_directory + "/serial.log";
    start.process.working_directory = "/proc/self/fd";  // so that "8" names inherited descriptor 8
    start.process.inherited_fds = {ram_->fd(), state_file_->fd(), snapshot_file_->fd()};
    for (const EmbeddedNic& nic : options_.nics)
        if (nic.fd >= 0) start.process.inherited_fds.push_back(nic.fd);
    start.process.inject_userfaultfd = dirty_method_ == DirtyMethod::uffd_wp;
    start.channels_at = 1;
    start.on_event = [this](GuestEvent event) { on_event(std::move(event)); };
    start.progress_us = &progress_us_;
    const bool injected = start.process.inject_userfaultfd;
    auto model = DeviceModel::start(std::move(start), deadline);
    if (!model) return with_context(injected ? "start with userfaultfd injection" : "start", model.error());
    {
        const std::lock_guard lock(model_mutex_);
        model_ = std::move(*model);
        if (kills_ != kills) model_->kill();
    }
    pid_ = model_->process().pid();
    running_ = false;
    saving_on_ = nullptr;
    description_.device_model = model_->version();
    if (auto r = attach_dirty_log(); !r) return r;
    priority_.set_threads(lasting_threads(pid_));
    if (auto r = learn_sections(deadline); !r) return r;
    if (kills_ != kills) return make_error(Errc::guest_died, "killed while it was made");
    return {};
}

Result<void> QemuGuest::attach_dirty_log()
{
    auto target = find_target(pid_, *ram_);
    if (!target) return target.error();
    target->userfaultfd = model_->process().userfaultfd();
    auto log = make_dirty_log(dirty_method_, *target, *ram_);
    if (!log) return log.error();
    return dirty_log_.attach(std::move(*log));
}

// A QEMU that never ran has the same sections as one that did, so a secondary knows what to expect before the first blob.
Result<void> QemuGuest::learn_sections(Deadline deadline)
{
    if (auto r = run("xen-save-devices-state", save_command(), deadline); !r) return r.error();
    auto blob = state_file_->read();
    if (!blob) return blob.error();
    auto sections = parse_device_state(*blob);
    if (!sections) return with_context("QEMU's own device state", sections.error());
    accepted_ = std::move(*sections);
    return {};
}

void QemuGuest::drop_model()
{
    priority_.restore();
    priority_.set_threads({});
    std::shared_ptr<DeviceModel> model;
    {
        const std::lock_guard lock(model_mutex_);
        model.swap(model_);
    }
    pid_ = 0;
    running_ = false;
    dirty_log_.detach();
}

Result<QmpLink*> QemuGuest::link()
{
    if (!model_) return make_error(Errc::guest_died, "there is no device model");
    if (model_->gone()) return make_error(Errc::guest_died, model_->obituary());
    if (model_->control().dead()) return make_error(Errc::guest_died, "the control channel of QEMU is dead");
    return &model_->control();
}

Result<std::string> QemuGuest::run(std::string_view what, std::string_view command, Deadline deadline)
{
    auto control = link();
    if (!control) return with_context(what, control.error());
    auto answer = (*control)->execute(what, command, deadline);
    if (answer) progress_us_.store(now().us, std::memory_order_relaxed);
    else return explain(answer.error());
    return answer;
}

Error QemuGuest::explain(const Error& error)
{
    return error.code == Errc::closed ? make_error(Errc::guest_died, fmt::format("{}; {}", error.text, model_->obituary())) : error;
}

// Events are for the watcher; on our two channels they only have to be taken away, or QEMU would hoard them.
Result<void> QemuGuest::forget_events()
{
    if (auto r = model_->control().drain(); !r) return r;
    return model_->state().drain();
}

void QemuGuest::hurry(bool on)
{
    const bool raised = on && options_.raise_priority && priority_.raise();
    if (!on) priority_.restore();
    const Duration spin = raised ? kSpin : Duration{};
    for (QmpLink* channel : {&model_->control(), &model_->state()}) channel->set_spin(spin);
}

// Writes `stop`, waits for its answer and has the save begun.
Result<void> QemuGuest::stop_and_save(Deadline deadline)
{
    static const std::string both = std::string(kStop) + save_command();
    const bool ahead = model_->prepared(save_command());
    QmpLink& control = model_->control();
    times_.stop_sent = now();
    if (auto r = control.send(ahead ? kStop : std::string_view(both), ahead ? 1 : 2, deadline); !r) return r;
    if (!ahead) saving_on_ = &control;
    if (auto r = control.receive("stop", deadline); !r) return r.error();
    times_.stopped = now();
    if (!ahead) return {};
    if (auto r = model_->launch(deadline); !r) return r;
    saving_on_ = &model_->state();   // an answer is owed there from here on, not before
    return {};
}

Result<void> QemuGuest::cut_begin(Deadline deadline)
{
    auto control = link();
    if (!control) return with_context("cut", control.error());
    if (saving_on_ != nullptr) (void)finish_save(deadline);   // of a cut that failed and was not resumed
    if (auto r = forget_events(); !r) return r;
    times_ = {};
    hurry(true);
    auto stopped = stop_and_save(deadline);
    if (stopped) running_ = false;
    else hurry(false);
    return stopped;
}

Result<void> QemuGuest::finish_save(Deadline deadline)
{
    QmpLink* const channel = std::exchange(saving_on_, nullptr);
    if (auto r = channel->receive("xen-save-devices-state", deadline); !r) return r.error();
    times_.saved = now();
    progress_us_.store(times_.saved.us, std::memory_order_relaxed);
    return model_->prepared({}) ? model_->prepare(kCont, deadline) : Result<void>{};
}

Result<DeviceState> QemuGuest::cut_save(Deadline deadline)
{
    auto control = link();
    if (!control) return with_context("save", control.error());
    if (saving_on_ == nullptr) return make_error(Errc::invalid, "no cut was begun");
    if (auto r = finish_save(deadline); !r) return r.error();
    auto blob = state_file_->read();
    if (!blob) return blob.error();
    return DeviceState{std::move(*blob), {}};
}

Result<void> QemuGuest::resume(Deadline deadline)
{
    auto control = link();
    if (!control) return with_context("resume", control.error());
    if (saving_on_ != nullptr) (void)finish_save(deadline);   // the caller gave the cut up
    if (auto r = forget_events(); !r) {
        hurry(false);
        return explain(r.error());
    }
    // Powered off or panicked by itself just before the stop: off is a state, not a failure (R9). QEMU would let a guest
    // that panicked go on.
    if (model_->went_off) {
        hurry(false);
        running_ = false;
        return {};
    }
    const bool ahead = model_->prepared(kCont);
    QmpLink& channel = ahead ? model_->state() : **control;
    times_.cont_sent = now();
    Result<void> sent = ahead ? model_->launch(deadline) : channel.send(kCont, 1, deadline);
    if (sent)
        if (auto r = channel.receive("cont", deadline); !r) sent = explain(r.error());
    times_.cont_done = now();
    hurry(false);
    if (!sent) {
        // The news that it went off may come behind the refusal, which is then no failure either.
        if (auto r = forget_events(); r && model_->went_off) {
            running_ = false;
            return {};
        }
        return sent;
    }
    progress_us_.store(times_.cont_done.us, std::memory_order_relaxed);
    running_ = true;
    if (auto r = forget_events(); !r) return r;
    return model_->prepared({}) ? model_->prepare(save_command(), deadline) : Result<void>{};
}

// Also the end of a cut whose guest does not run on.
Result<void> QemuGuest::stop(Deadline deadline)
{
    auto control = link();
    if (control && saving_on_ != nullptr) (void)finish_save(deadline);  // its answer would be taken for ours
    auto stopped = run("stop", kStop, deadline);
    if (control) hurry(false);
    if (!stopped) return stopped.error();
    running_ = false;
    return forget_events();
}

Result<void> QemuGuest::verify(const DeviceState& state) const
{
    if (!state.cpu_context.empty()) return make_error(Errc::invalid, "a CPU context does not belong to this kind of guest");
    auto sections = parse_device_state(state.devices);
    if (!sections) return sections.error();
    return check_sections(accepted_, *sections);
}

Result<void> QemuGuest::load(const DeviceState& state, Deadline deadline)
{
    if (auto r = verify(state); !r) return r;
    if (running_) return make_error(Errc::invalid, "load into a running guest");
    if (auto r = check_loadable(deadline); !r) return with_context("load device state", r.error());
    auto loaded = choices_.device_load == "snapshot" ? load_snapshot(state.devices, deadline) : load_xen(state.devices, deadline);
    return loaded ? loaded : with_context("load device state", loaded.error());
}

// Once its guest powered off or KVM failed, QEMU wants a reset before it runs anything, and no load changes that. The power
// event was of the state that is replaced; it says nothing about the one that is loaded.
Result<void> QemuGuest::check_loadable(Deadline deadline)
{
    auto answer = run("query-status", R"({"execute":"query-status"})", deadline);
    if (!answer) return answer.error();
    boost::system::error_code ec;
    const boost::json::value status = boost::json::parse(*answer, ec);
    const boost::json::value* name = !ec && status.is_object() ? status.get_object().if_contains("status") : nullptr;
    if (name == nullptr || !name->is_string()) return make_error(Errc::corrupt, "query-status: no status");
    const std::string_view state(name->get_string().data(), name->get_string().size());
    if (state == "shutdown" || state == "internal-error")
        return make_error(Errc::guest_died, fmt::format("QEMU is in state {}, which only a new one leaves", state));
    model_->went_off = false;
    return {};
}

Result<void> QemuGuest::load_snapshot(ByteView state, Deadline deadline)
{
    if (auto r = snapshot_file_->write(state); !r) return r;
    auto control = link();
    if (!control) return control.error();
    const std::string job = fmt::format("l{}", ++jobs_);
    model_->job_concluded = false;
    if (auto r = run("snapshot-load", fmt::format(fmt::runtime(kSnapshotLoad), job), deadline); !r) return r.error();
    const auto concluded = [this] { return model_->job_concluded; };
    if (auto r = (*control)->wait_event("snapshot-load", concluded, deadline); !r)
        return r.error().code == Errc::closed ? make_error(Errc::guest_died, model_->obituary()) : r.error();
    auto jobs = run("query-jobs", R"({"execute":"query-jobs"})", deadline);
    if (!jobs) return jobs.error();
    boost::system::error_code ec;
    const boost::json::value list = boost::json::parse(*jobs, ec);
    if (ec || !list.is_array()) return make_error(Errc::corrupt, "query-jobs: not a list");
    bool found = false;
    for (const auto& entry : list.get_array()) {
        if (!entry.is_object() || !entry.get_object().contains("id") || entry.get_object().at("id") != job.c_str()) continue;
        found = true;
        if (const auto* error = entry.get_object().if_contains("error"); error != nullptr)
            return make_error(Errc::refused, "QEMU: " + boost::json::serialize(*error));
    }
    if (!found) return make_error(Errc::corrupt, "query-jobs does not know our job");
    auto dismissed = run("job-dismiss", fmt::format(R"({{"execute":"job-dismiss","arguments":{{"id":"{}"}}}})", job), deadline);
    if (!dismissed) return dismissed.error();
    return {};
}

Result<void> QemuGuest::load_xen(ByteView state, Deadline deadline)
{
    if (auto r = state_file_->write(state); !r) return r;
    auto done = run("xen-load-devices-state", fmt::format(fmt::runtime(kLoad), inherited_fd_numbers().saved_state), deadline);
    if (!done) return done.error();
    return {};
}

Result<void> QemuGuest::recreate(Deadline deadline)
{
    if (!ram_) return make_error(Errc::invalid, "recreate before create");
    const std::uint64_t kills = kills_;
    drop_model();
    if (auto r = ram_->zero(); !r) return r;
    return start_model(deadline, kills);
}

void QemuGuest::kill() noexcept
{
    const std::lock_guard lock(model_mutex_);
    ++kills_;
    if (model_) model_->kill();
    priority_.restore();
    running_ = false;
}

void QemuGuest::probe()
{
    const std::lock_guard lock(model_mutex_);
    if (model_) model_->probe();
}

void QemuGuest::on_event(GuestEvent event)
{
    if (event.kind == GuestEventKind::device_model_died || event.kind == GuestEventKind::power_off ||
        event.kind == GuestEventKind::panicked)
        running_ = false;
    if (handler_) handler_(std::move(event));
}

// Never `live` for QEMU: on a guest that stands still that gives up its block devices, which nobody takes over here, and a
// second time it ends the device model with an assertion.
Result<void> QemuGuest::save_device_state(const std::string& file, bool /*live*/, Deadline deadline)
{
    const std::string path = std::filesystem::absolute(file).string();
    // QEMU would wait for a reader of a pipe, with everything that it does.
    std::error_code ec;
    if (const auto found = std::filesystem::status(path, ec);
        std::filesystem::exists(found) && !std::filesystem::is_regular_file(found))
        return make_error(Errc::invalid, path + " is not a regular file");
    auto done = run("xen-save-devices-state",
                    fmt::format(R"({{"execute":"xen-save-devices-state","arguments":{{"filename":{},"live":false}}}})", json_quote(path)),
                    deadline);
    if (!done) return done.error();
    return {};
}

Result<void> QemuGuest::load_device_state(const std::string& file, Deadline deadline)
{
    auto bytes = read_state_from(file);
    if (!bytes) return bytes.error();
    return load({std::move(*bytes), {}}, deadline);
}

Result<void> QemuGuest::set_global_dirty_log(bool enable, Deadline deadline)
{
    // QEMU ends with a failed assertion when it is to switch off what is off; on while it is on does nothing.
    if (!enable)
        if (auto r = set_global_dirty_log(true, deadline); !r) return r;
    auto done = run("xen-set-global-dirty-log",
                    fmt::format(R"({{"execute":"xen-set-global-dirty-log","arguments":{{"enable":{}}}}})", enable ? "true" : "false"), deadline);
    if (!done) return done.error();
    return {};
}

// QEMU answers before it resets, and a reset writes RAM (ROMs): a cut must not run into it.
Result<void> QemuGuest::reset(Deadline deadline)
{
    auto control = link();
    if (!control) return with_context("reset", control.error());
    if (auto r = forget_events(); !r) return explain(r.error());
    const auto happened = [this, before = model_->host_resets] { return model_->host_resets != before; };
    if (auto r = run("system_reset", R"({"execute":"system_reset"})", deadline); !r) return r.error();
    if (auto r = (*control)->wait_event("system_reset", happened, deadline); !r) return explain(r.error());
    return {};
}

Result<void> QemuGuest::powerdown(Deadline deadline)
{
    auto done = run("system_powerdown", R"({"execute":"system_powerdown"})", deadline);
    if (!done) return done.error();
    return {};
}

}  // namespace

Result<std::unique_ptr<EmbeddedGuest>> make_embedded_guest(EmbeddedGuestOptions options)
{
    if (auto r = check_options(options); !r) return r.error();
    // QEMU does not run in our working directory.
    for (std::string* path : {&options.kernel, &options.initrd, &options.qemu_binary})
        if (path->find('/') != std::string::npos) *path = std::filesystem::absolute(*path).string();
    return std::unique_ptr<EmbeddedGuest>(std::make_unique<QemuGuest>(std::move(options)));
}

}  // namespace colo::qemu
