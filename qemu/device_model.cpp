// SPDX-License-Identifier: Apache-2.0
#include "qemu/device_model.h"

#include "core/check.h"
#include "core/clock.h"

#include <boost/json.hpp>
#include <fmt/format.h>

#include <cerrno>
#include <fstream>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

namespace colo::qemu {
namespace {

using replication::GuestEventKind;

std::string text_of(const boost::json::object& data, std::string_view key)
{
    const boost::json::value* value = data.if_contains(key);
    return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
}

bool asked_by_guest(const boost::json::object& data)
{
    const boost::json::value* guest = data.if_contains("guest");
    return guest != nullptr && guest->is_bool() && guest->get_bool();
}

constexpr std::string_view kHostReset = "host-qmp-system-reset";

Result<std::pair<Fd, Fd>> channel()
{
    int fds[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) return errno_error("socketpair", errno);
    return std::pair<Fd, Fd>(Fd(fds[0]), Fd(fds[1]));
}

}  // namespace

std::string last_words(const std::string& log_file)
{
    std::ifstream in(log_file);
    std::string text((std::istreambuf_iterator<char>(in)), {});
    while (!text.empty() && text.back() == '\n') text.pop_back();
    if (text.size() > 300) text = "..." + text.substr(text.size() - 300);
    for (char& c : text)
        if (c == '\n') c = ' ';
    return text;
}

Result<std::unique_ptr<DeviceModel>> DeviceModel::start(DeviceModelOptions options, Deadline deadline)
{
    auto control = channel(), state = channel(), watched = channel(), serial = channel();
    for (const auto* made : {&control, &state, &watched, &serial})
        if (!*made) return made->error();
    std::unique_ptr<DeviceModel> model(new DeviceModel);
    auto& fds = options.process.inherited_fds;
    const int theirs[] = {control->second.get(), state->second.get(), watched->second.get(), serial->second.get()};
    fds.insert(fds.begin() + static_cast<std::ptrdiff_t>(options.channels_at), std::begin(theirs), std::end(theirs));
    model->options_ = std::move(options);
    model->wake_ = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!model->wake_) return errno_error("eventfd", errno);

    auto log = SerialLog::start(std::move(serial->first), model->options_.serial_log);
    if (!log) return with_context("serial console", log.error());
    model->serial_ = std::move(*log);
    auto process = Process::start(model->options_.process, deadline);
    if (!process) return process.error();
    model->process_ = std::move(*process);
    for (auto* made : {&control, &state, &watched, &serial})
        (*made)->second.reset();  // so that we see the end of file when QEMU dies
    DeviceModel* const self = model.get();
    model->control_ = std::make_unique<QmpLink>(
        control->first.release(), "QEMU control channel",
        [self](std::string_view name, const boost::json::object& data) { self->on_control_event(name, data); });
    model->state_ = std::make_unique<QmpLink>(state->first.release(), "QEMU state channel", nullptr);
    model->watched_ = std::make_unique<QmpLink>(
        watched->first.release(), "QEMU probe channel",
        [self](std::string_view name, const boost::json::object& data) { self->on_watched_event(name, data); });
    for (QmpLink* link : {model->control_.get(), model->state_.get(), model->watched_.get()}) {
        auto version = link->negotiate(deadline);
        if (!version) return with_context(model->obituary(), version.error());
        model->version_ = *version;
    }
    model->touch();
    model->watcher_ = std::thread([self] { self->watch(); });
    return model;
}

DeviceModel::~DeviceModel()
{
    closing_ = true;
    if (process_) process_->kill();
    const std::uint64_t one = 1;
    if (wake_ && ::write(wake_.get(), &one, sizeof one) < 0) { /* the watcher also sees the process end */ }
    if (watcher_.joinable()) watcher_.join();
}

Result<void> DeviceModel::prepare(std::string_view command, Deadline deadline)
{
    COLO_CHECK(prepared_.empty() && command.size() > 1);
    prepared_ = command;
    return state_->send(command.substr(0, command.size() - 1), 0, deadline);
}

Result<void> DeviceModel::launch(Deadline deadline)
{
    COLO_CHECK(!prepared_.empty());
    const char last = prepared_.back();
    prepared_.clear();
    return state_->send({&last, 1}, 1, deadline);
}

std::string DeviceModel::obituary()
{
    // A channel ends a moment before the process can be reaped.
    const bool ended = process_->wait_ended(now() + std::chrono::milliseconds(200));
    const std::string words = last_words(options_.process.log_file);
    return fmt::format("QEMU {}{}", ended ? process_->how_ended() : "is still there",
                       words.empty() ? "" : "; its last words: " + words);
}

void DeviceModel::touch()
{
    if (options_.progress_us != nullptr) options_.progress_us->store(now().us, std::memory_order_relaxed);
}

void DeviceModel::probe()
{
    probe_wanted_ = true;
    const std::uint64_t one = 1;
    if (::write(wake_.get(), &one, sizeof one) < 0) { /* full counter: it wakes up anyway */ }
}

void DeviceModel::report(replication::GuestEvent event)
{
    if (options_.on_event) options_.on_event(std::move(event));
}

void DeviceModel::on_control_event(std::string_view name, const boost::json::object& data)
{
    if (name == "JOB_STATUS_CHANGE" && text_of(data, "status") == "concluded") job_concluded = true;
    if (name == "SHUTDOWN" && asked_by_guest(data)) went_off = true;
    if (name == "GUEST_PANICKED") went_off = true;
    if (name != "RESET") return;
    went_off = false;
    if (text_of(data, "reason") == kHostReset) ++host_resets;
}

void DeviceModel::on_watched_event(std::string_view name, const boost::json::object& data)
{
    if (name == "SHUTDOWN" || name == "RESET") {
        const std::string reason = text_of(data, "reason");
        if (name == "RESET" && reason == kHostReset) return report({GuestEventKind::reset, reason, true});
        if (!asked_by_guest(data)) return;     // ours
        if (reason == "guest-panic") return;   // reported as what it is below
        report(
            {name == "RESET" || reason == "guest-reset" ? GuestEventKind::reset : GuestEventKind::power_off, reason});
    } else if (name == "GUEST_PANICKED") {
        report({GuestEventKind::panicked, text_of(data, "action")});
    } else if (name == "POWERDOWN") {
        report({GuestEventKind::power_button, "power button"});
    } else if (name == "SUSPEND") {
        report({GuestEventKind::suspended, "suspended"});
    } else if (name == "WAKEUP") {
        report({GuestEventKind::woken, "woken up"});
    }
}

bool DeviceModel::watch_once(QmpLink& link)
{
    pollfd p[] = {{process_->pidfd(), POLLIN, 0}, {wake_.get(), POLLIN, 0}, {link.fd(), POLLIN, 0}};
    ::poll(p, 3, -1);
    if (closing_) return false;
    if (p[0].revents != 0) {
        gone_ = true;
        link.drain();   // events that it still sent, e.g. SHUTDOWN
        report({GuestEventKind::device_model_died, obituary()});
        return false;
    }
    std::uint64_t count = 0;
    if (p[1].revents != 0 && ::read(wake_.get(), &count, sizeof count) < 0) return true;
    Result<void> done;
    if (p[2].revents != 0) {
        done = link.drain();
        if (done) touch();
    }
    if (done && probe_wanted_.exchange(false) && link.outstanding() == 0)
        done = link.send(R"({"execute":"query-status"})", 1, now() + std::chrono::milliseconds(100));
    if (done) return true;
    gone_ = true;
    report({GuestEventKind::device_model_died, fmt::format("{}; {}", done.error().text, obituary())});
    return false;
}

void DeviceModel::watch()
{
    while (watch_once(*watched_)) {}
}

}  // namespace colo::qemu
