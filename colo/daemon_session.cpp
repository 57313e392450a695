// SPDX-License-Identifier: Apache-2.0
// Sessions: dialling, arriving, the channels' life, and what arrives on them.
#include "colo/control_interface.h"
#include "colo/copy_memory.h"
#include "colo/daemon.h"
#include "core/clock.h"
#include "core/log.h"
#include "replication/host_memory.h"
#include "replication/wire.h"

#include <algorithm>
#include <random>

namespace colo {
namespace {

constexpr Duration kDial{5'000'000};
constexpr Duration kRuntimeCall{300'000};
constexpr Duration kPageStall{5'000'000};
constexpr Duration kCutProgress{25'000};   // transfer_deadline_ms may be 100
constexpr Duration kPortOrModel{500'000};  // after it, a device model that died has been noticed
constexpr std::uint64_t kPageQueueBytes = 8u << 20;

SessionId random_session()
{
    std::random_device device;
    SessionId id = 0;
    while (id == 0) id = (static_cast<SessionId>(device()) << 32) | device();
    return id;
}

// Without the port that the caller happened to get, which nobody could call back.
std::string host_of(const std::string& address) { return address.substr(0, address.rfind(':')); }

}  // namespace

void Daemon::migrate(const std::string& uri, const SessionPlan& plan, Done done)
{
    const std::string address = uri.empty() ? config_.peer.address : uri;
    if (address.empty()) return done(make_error(Errc::invalid, "no peer given and [peer] address is not configured"));
    if (auto usable = check_session_uri(address); !usable) return done(usable.error());
    const NodeStatus status = node_->status();
    if (status.protection == Protection::idle)
        return done(make_error(Errc::refused, "this side is still starting: " + protection_reason_ + "; try again in a moment"));
    if (status.role != Role::primary || status.protection != Protection::unprotected)
        return done(make_error(Errc::refused, std::string("this side is ") + to_string(status.protection) +
                                                  (protection_reason_.empty() ? "" : ": " + protection_reason_)));
    if (session_ != 0) return done(make_error(Errc::refused, "a session is being set up already"));
    // The first cut would make it run behind the operator's back.
    if (run_state() == schema::RunState::prelaunch)
        return done(make_error(Errc::refused, "the guest was reset and waits; let it run with `cont` first"));
    peer_ = address;
    session_ = random_session();
    session_begun_ = now();
    node_->plan_session(plan);
    check_arbiter(address, session_);
    done({});
}

// A stale lock would be noticed in the worst moment: when the failover that the protection is for is refused.
void Daemon::check_arbiter(const std::string& uri, SessionId session)
{
    if (config_.arbiter.kind != ArbiterKind::lock) return dial(uri, session);
    arbiter_worker_->post([this, uri, session, next = stored_.generation + 1] {
        const auto possible = failover_possible(*arbiter_, next, now() + kDial);
        post([this, uri, session, possible] {
            if (session_ != session) return;   // cancelled meanwhile
            possible ? dial(uri, session) : dialled(possible.error(), session);
        });
    });
}

// How long the other side may be busy with an epoch, and read nothing meanwhile.
Duration Daemon::longest_epoch() const
{
    const auto& r = config_.replication;
    return std::chrono::milliseconds(std::max({r.transfer_deadline_ms, r.staged_deadline_ms, r.apply_deadline_ms}));
}

void Daemon::dial(const std::string& uri, SessionId session)
{
    const std::uint8_t count = page_channels_;
    dial_worker_->post([this, uri, session, count] {
        auto channels = std::make_shared<Result<SessionChannels>>(dial_session(uri, session, count, now() + kDial, session_sockets(longest_epoch())));
        post([this, channels, session] { dialled(std::move(*channels), session); });
    });
}

void Daemon::dialled(Result<SessionChannels> channels, SessionId session)
{
    if (session_ != session) return;   // cancelled meanwhile
    if (!channels) {
        session_ = 0;
        spdlog::warn("no session with the secondary: {}", channels.error().text);
        control_->observer().outgoing(TransferPhase::failed, channels.error().text);
        return;
    }
    channels_ = std::move(*channels);
    // The control channel speaks before the session is open: Hello goes over it.
    open_link(session);
    feed([&](Node& node) {
        // Hello says what was dialled, also if the setting has changed since then.
        node.set_page_channels(static_cast<std::uint8_t>(channels_.pages.size()));
        node.copy_memory(memory_for_copy());
        node.open_primary_session(session, guest_->description(), now());
    });
}

// What an old session's link still had to say, when it was posted already, is not about the next one.
void Daemon::open_link(SessionId session)
{
    const auto post_here = [this, session](std::function<void()> job) {
        post([this, session, job = std::move(job)] {
            if (session_ == session) job();
        });
    };
    link_ = std::make_unique<ControlLink>(
        channels_.control.release(), session,
        ControlLink::Callbacks{
            [this, post_here](replication::Message m) { post_here([this, m = std::move(m)]() mutable { message(std::move(m)); }); },
            [this, post_here](const Error& e) { post_here([this, e] { feed([&](Node& node) { node.channel_lost(e.text, now()); }); }); },
            [this, post_here](const Error& e) { post_here([this, e] { feed([&](Node& node) { node.protocol_error(e, now()); }); }); }});
}

void Daemon::arrived(SessionChannels channels)
{
    const NodeStatus status = node_->status();
    const bool free = status.protection == Protection::standby && session_ == 0;
    if (!free && session_ == 0 && status.protection == Protection::idle && options_.intent == StartIntent::secondary) {
        early_ = std::make_shared<SessionChannels>(std::move(channels));   // the latest caller waits until the guest is made
        return;
    }
    if (!free) {
        // Say why before hanging up: the other operator sees this text.
        const std::string why = session_ != 0 ? "this secondary already has a session"
                                              : std::string("this side is ") + to_string(status.protection) + " and takes no session";
        spdlog::warn("session from {} refused: {}", channels.peer, why);
        ControlLink link(channels.control.release(), channels.session, {[](replication::Message) {}, [](const Error&) {}, [](const Error&) {}});
        (void)link.send(replication::Refuse{why});
        link.shut_down(now() + Duration{50'000});
        return;
    }
    session_ = channels.session;
    peer_ = host_of(channels.peer);
    session_begun_ = now();
    channels_ = std::move(channels);
    feed([&](Node& node) {
        node.copy_memory(memory_for_copy());
        node.open_secondary_session(guest_->description(), now());
    });
    open_link(session_);
}

void Daemon::message(replication::Message message)
{
    if (const auto* cut = std::get_if<replication::Cut>(&message)) runtime_->peer_cut(cut->epoch);
    if (const auto* resign = std::get_if<replication::Resign>(&message)) last_peer_text_ = "resigned: " + resign->cause;
    if (const auto* abdicate = std::get_if<replication::Abdicate>(&message)) last_peer_text_ = "abdicated: " + abdicate->cause;
    const auto* hello = std::get_if<replication::Hello>(&message);
    const std::size_t came = channels_.pages.size();
    if (hello != nullptr && node_->status().role == Role::secondary && hello->page_channels != came) {
        const Error error = make_error(Errc::corrupt, "Hello names " + std::to_string(hello->page_channels) +
                                                          " page channels, but " + std::to_string(came) + " came");
        return feed([&](Node& node) { node.protocol_error(error, now()); });
    }
    feed([&](Node& node) { node.message(message, now()); });
}

// OpenSession: both sides agreed. Pages, proxy and workers take the connections over.
void Daemon::adopt_channels(SessionChannels channels)
{
    std::vector<int> pages;
    for (Fd& fd : channels.pages) pages.push_back(fd.release());
    proxy_duplicate_ = Fd(::dup(channels.proxy.get()));
    const SessionId session = session_;
    // The numbering of frames starts anew behind ChannelHello (see session_setup.h).
    proxy::ProxyChannel proxy{channels.proxy.release(), replication::FrameWriter(replication::ChannelKind::proxy, session),
                              replication::FrameDecoder(replication::ChannelKind::proxy)};
    const auto fail = [this](const Error& e) {
        post([this, e] { feed([&](Node& node) { node.channel_lost(e.text, now()); }); });
    };
    if (node_->status().role == Role::primary) {
        page_sender_ = std::make_shared<PageSender>(std::move(pages), session, kPageQueueBytes, kPageStall + longest_epoch());
        page_sender_->set_bandwidth(bandwidth_);
        primary_->open(capture_options(), page_sender_);
        if (auto r = runtime_->begin_session(session, std::move(proxy), now() + kRuntimeCall); !r) fail(with_context("proxy", r.error()));
        return;
    }
    secondary_->open(stager_limits(), pages.size());
    if (auto r = runtime_->become_secondary(session, std::move(proxy), now() + kRuntimeCall); !r) fail(with_context("proxy", r.error()));
    page_session_ = session;
    page_receiver_ = std::make_unique<PageReceiver>(
        std::move(pages), session,
        [this, session](std::size_t channel, ByteView bytes) -> Result<void> {
            if (page_session_.load() != session) return make_error(Errc::closed, "the session is over");
            return secondary_->chunk(channel, bytes);
        },
        [this, session](const Error& e) {
            post([this, e, session] {
                if (session_ != session) return;
                const bool rubbish = e.code == Errc::corrupt || e.code == Errc::limit;
                feed([&](Node& node) { rubbish ? node.protocol_error(e, now()) : node.channel_lost(e.text, now()); });
            });
        });
}

void Daemon::drop_channels(Duration flush)
{
    if (link_) link_->shut_down(now() + flush);
    link_.reset();
    if (proxy_duplicate_.valid()) shutdown_socket(proxy_duplicate_.get());
    proxy_duplicate_.reset();
    if (page_sender_) page_sender_->shut_down();
    page_sender_.reset();
    page_session_ = 0;
    if (secondary_) secondary_->close();   // wakes a page channel that waits for its epoch
    // A page thread may wait for the guest thread's apply: joining it is not the control thread's business.
    if (page_receiver_) {
        page_receiver_->shut_down();
        dial_worker_->post([old = std::shared_ptr<PageReceiver>(std::move(page_receiver_))]() mutable { old.reset(); });
    }
    channels_ = {};
    session_ = 0;
    log::set_peer("");
}

replication::CaptureOptions Daemon::capture_options() const
{
    replication::CaptureOptions options;
    options.compression = compression_;
    options.level = compression_level_;
    options.delta_cache_bytes = std::min(delta_cache_, config_.guest.memory_mib << 20);
    return options;
}

replication::StagerLimits Daemon::stager_limits() const
{
    replication::StagerLimits limits;
    limits.staging_bytes = config_.replication.staging_limit_mib << 20;
    return limits;
}

CopyMemory Daemon::memory_for_copy() const
{
    return copy_memory(guest_->description(), stager_limits(), replication::available_memory_bytes(),
                       guest_->memory().resident_bytes());
}

PrimaryWorker::Callbacks Daemon::primary_callbacks()
{
    PrimaryWorker::Callbacks callbacks;
    callbacks.initial_copy_converged = [this](Epoch epoch) {
        post([this, epoch] { feed([&](Node& node) { node.initial_copy_converged(epoch, now()); }); });
    };
    // Everything may have to be sent again, and there are thousands of slices in that.
    callbacks.cut_progress = [this, next = Time{}](Epoch epoch) mutable {
        if (now() < next) return;
        next = now() + kCutProgress;
        post([this, epoch] { feed([&](Node& node) { node.cut_progress(epoch, now()); }); });
    };
    callbacks.cut_begun = [this](Epoch epoch) {
        post([this, epoch] { feed([&](Node& node) { node.cut_begun(epoch, now()); }); });
    };
    callbacks.cut_done = [this](Epoch epoch, Result<void> result) {
        post([this, epoch, result] {
            if (!result) spdlog::warn("cut {} failed: {}", epoch, result.error().text);
            feed([&](Node& node) { node.cut_done(epoch, result, now()); });
        });
    };
    callbacks.transfer_done = [this](Epoch epoch, Result<replication::Manifest> manifest) {
        auto shared = std::make_shared<Result<replication::Manifest>>(std::move(manifest));
        post([this, epoch, shared] { feed([&](Node& node) { node.transfer_done(epoch, std::move(*shared), now()); }); });
    };
    callbacks.captured = [this](CheckpointRecord record) {
        post([this, record = std::move(record)]() mutable { checkpoints_.captured(std::move(record)); });
    };
    callbacks.failed = [this](const Error& e) {
        post([this, e] { feed([&](Node& node) { node.channel_lost(e.text, now()); }); });
    };
    callbacks.progress = [this](const CopyProgress& progress) {
        post([this, progress] { copy_ = progress; });
    };
    callbacks.round_begun = [this] {
        post([this] { next_pass(); });
    };
    return callbacks;
}

void Daemon::next_pass()
{
    ++passes_;
    if (control_) control_->observer().outgoing_pass(passes_);
}

SecondaryWorker::Callbacks Daemon::secondary_callbacks()
{
    SecondaryWorker::Callbacks callbacks;
    callbacks.standby_ready = [this](Result<void> result) {
        post([this, result] { feed([&](Node& node) { node.standby_ready(result, now()); }); });
    };
    callbacks.staging_full = [this](Epoch epoch) {
        post([this, epoch] {
            spdlog::debug("staging of epoch {} is nearly full", epoch);
            feed([&](Node& node) { node.staging_full(epoch, now()); });
        });
    };
    callbacks.stage_complete = [this](Epoch epoch, Result<void> result) {
        post([this, epoch, result] {
            if (!result) spdlog::error("epoch {} does not verify: {}", epoch, result.error().text);
            feed([&](Node& node) { node.stage_complete(epoch, result, now()); });
        });
    };
    callbacks.apply_done = [this](Epoch epoch, Result<void> result, const ApplyOutput& out) {
        post([this, epoch, result, out] {
            if (!result) spdlog::error("epoch {} does not apply: {}", epoch, result.error().text);
            else spdlog::debug("epoch {} applied in {} us: {} pages, {} own, write {} load {} us", epoch, out.total.count(),
                               out.pages, out.own_dirty, out.write.count(), out.load.count());
            feed([&](Node& node) {
                node.apply_done(epoch, result, out.total, static_cast<std::uint32_t>(out.own_dirty), now());
            });
        });
    };
    callbacks.failed = [this](const Error& e) {
        post([this, e] { feed([&](Node& node) { node.protocol_error(e, now()); }); });
    };
    return callbacks;
}

void Daemon::beat_progress()
{
    heartbeat_->progressed(ProgressCounter::control);
    if (const std::uint64_t p = runtime_->progress(); p != last_proxy_progress_) {
        last_proxy_progress_ = p;
        heartbeat_->progressed(ProgressCounter::proxy);
        own_health_.moved(ProgressCounter::proxy, now());
    }
    bool carrier = false;
    for (const bool up : runtime_->stats().carrier) carrier = carrier || up;
    if (carrier != carrier_) {
        carrier_ = carrier;
        feed([&](Node& node) { node.carrier(carrier, now()); });
    }
    const bool guest_matters = guest_->device_model_pid() != 0 && !powered_off_;
    if (!guest_matters) {
        heartbeat_->not_judged(ProgressCounter::guest);
        own_health_.not_judged(ProgressCounter::guest);
    } else {
        if (const Time t = guest_->last_progress(); t != last_guest_progress_) {
            last_guest_progress_ = t;
            heartbeat_->progressed(ProgressCounter::guest);
            own_health_.moved(ProgressCounter::guest, now());
        }
        if (now() >= next_probe_) {
            guest_->probe();
            next_probe_ = now() + std::max(kProgressInterval, Duration(std::chrono::milliseconds(config_.heartbeat.progress_timeout_ms)) / kProbesOfATimeout);
        }
    }
    if (const auto health = own_health_.judge(now())) {
        health->ok ? spdlog::info("own parts move again") : spdlog::warn("{}", health->why);
        feed([&](Node& node) { node.own_health(health->ok, health->why, now()); });
    }
    progress_timer_.expires_after(std::chrono::microseconds(kProgressInterval.count()));
    progress_timer_.async_wait([this](const boost::system::error_code& error) {
        if (!error) beat_progress();
    });
}

void Daemon::trigger(replication::TriggerReason reason, const std::string& detail)
{
    post([this, reason, detail] {
        spdlog::debug("checkpoint wanted ({}): {}", replication::to_string(reason), detail);
        feed([&](Node& node) { node.trigger(reason, now()); });
    });
}

void Daemon::channel_lost(SessionId session, const Error& why)
{
    post([this, session, why] {
        if (session != session_) return;
        const bool rubbish = why.code == Errc::corrupt || why.code == Errc::limit;
        feed([&](Node& node) {
            rubbish ? node.protocol_error(why, now()) : node.channel_lost("proxy channel: " + why.text, now());
        });
    });
}

void Daemon::own_mac_seen(std::uint8_t nic)
{
    post([this, nic] {
        const AddressClash clash = address_clash(protection_, nic);
        spdlog::error("{}", clash.text);
        if (warnings_.size() < 8 && (warnings_.empty() || warnings_.back() != clash.text)) warnings_.push_back(clash.text);
        if (clash.answer) runtime_->announce(stored_.generation);
    });
}

void Daemon::port_failed(std::uint8_t nic, bool wire, const Error& why)
{
    post([this, nic, wire, why, attached = attached_.load()] {
        const std::string fault = "NIC " + config_.nics.at(nic).id + ": " + (wire ? "the wire" : "the guest port") +
                                  " is unusable: " + why.text;
        spdlog::error("{}", fault);
        warnings_.push_back(fault);
        if (warnings_.size() > 8) warnings_.erase(warnings_.begin());
        if (!wire) return judge_frame_port(attached, guest_->device_model_pid(), fault);
        wire_fault_ = fault;
        tell_ports();
    });
}

// A frame port also ends with its device model, which is somebody else's news and brings a new port. It is the port's
// own failure if the same device model is still there when the news would have come.
void Daemon::judge_frame_port(std::uint64_t attached, int pid, const std::string& fault)
{
    auto timer = std::make_shared<boost::asio::steady_timer>(io_, std::chrono::microseconds(kPortOrModel.count()));
    timer->async_wait([this, timer, attached, pid, fault](const boost::system::error_code& error) {
        const bool same =
            attached == attached_ && attached != died_attached_ && pid != 0 && pid == guest_->device_model_pid();
        if (error || !same) return;
        frame_fault_ = fault;
        tell_ports();
    });
}

void Daemon::tell_ports()
{
    feed([&](Node& node) { node.ports(wire_fault_.empty() ? frame_fault_ : wire_fault_, now()); });
}

}  // namespace colo
