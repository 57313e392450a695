// SPDX-License-Identifier: Apache-2.0
// Start-up and the end of the daemon.
#include "colo/control_interface.h"
#include "colo/daemon.h"
#include "colo/guest_factory.h"
#include "colo/seals.h"
#include "core/clock.h"
#include "core/failpoint.h"
#include "core/log.h"

#include <csignal>
#include <filesystem>

namespace colo {
namespace {

constexpr Duration kEnd{10'000'000};
constexpr Duration kDigest{5'000'000};

Duration ms(std::uint32_t value) { return Duration{static_cast<std::int64_t>(value) * 1000}; }

replication::Compression compression_of(CompressionSetting setting)
{
    switch (setting) {
    case CompressionSetting::zlib: return replication::Compression::zlib;
    case CompressionSetting::zstd: return replication::Compression::zstd;
    case CompressionSetting::none: break;
    }
    return replication::Compression::none;
}

std::string guest_directory(const Config& config) { return config.state.directory + "/guest"; }

}  // namespace

Daemon::Daemon(DaemonOptions options)
    : options_(std::move(options)), config_(options_.config), node_timer_(io_), progress_timer_(io_), end_timer_(io_), operator_timer_(io_),
      signals_(io_), own_health_(ms(config_.heartbeat.progress_timeout_ms), kProgressInterval)
{
}

Daemon::~Daemon()
{
    // Nothing may call back from here on: stop the sources first, then what they used.
    listener_.reset();
    heartbeat_.reset();
    if (guest_) guest_->kill();
    if (errand_) errand_->cancel();
    stop_or_exit({guest_worker_.get(), dial_worker_.get(), storage_worker_.get(), arbiter_worker_.get()}, now() + kEnd);
    if (dirty_rate_) dirty_rate_->end();
    drop_channels(Duration{0});
    runtime_.reset();
}

Result<void> Daemon::start()
{
    make_workers();
    if (auto r = open_state(); !r) return r;
    if (auto r = make_runtime(); !r) return r;
    if (auto r = make_guest(); !r) return r;
    if (auto r = start_heartbeat(); !r) return r;
    if (auto r = start_control(); !r) return r;
    if (options_.intent == StartIntent::secondary && !config_.replication.listen.empty()) {
        Result<void> listening;
        migrate_incoming(config_.replication.listen, std::nullopt, [&](Result<void> r) { listening = r; });
        if (!listening) return with_context("[replication] listen", listening.error());
    }
    watch_signals();
    protection_since_ = now();
    feed([&](Node& node) { node.start(stored_, options_.intent, now()); });
    beat_progress();
    return {};
}

int Daemon::run()
{
    // An exception here is a bug of ours or memory running out: die at once, the other copy goes on.
    io_.run();
    spdlog::info("ended");
    return exit_status_;
}

void Daemon::make_workers()
{
    guest_worker_ = std::make_unique<Worker>("guest");
    storage_worker_ = std::make_unique<Worker>("storage");
    arbiter_worker_ = std::make_unique<Worker>("arbiter");
    dial_worker_ = std::make_unique<Worker>("dial");
}

Result<void> Daemon::open_state()
{
    auto directory = StateDirectory::open(config_.state.directory, config_.domain.uuid);
    if (!directory) return with_context("state directory", directory.error());
    state_directory_ = std::move(*directory);
    auto state = state_directory_->load();
    if (!state) return with_context("state directory", state.error());
    stored_ = std::move(*state);

    ArbiterSettings settings;
    settings.kind = config_.arbiter.kind;
    settings.directory = config_.arbiter.directory;
    settings.command = config_.arbiter.command;
    settings.timeout = ms(config_.arbiter.timeout_ms);
    settings.domain_name = config_.domain.name;
    settings.domain_uuid = config_.domain.uuid;
    settings.host_id = state_directory_->host_id();
    auto arbiter = make_arbiter(settings);
    if (!arbiter) return with_context("arbiter", arbiter.error());
    arbiter_ = std::move(*arbiter);
    errand_ = std::make_unique<GrantErrand>(*arbiter_worker_, *arbiter_);

    NodeConfig node = node_config(config_);
    auto digest = arbiter_->settings_digest(now() + kDigest);
    if (!digest) return with_context("arbiter", digest.error());
    node.arbiter_digest = *digest;
    // The order of asking holds only if both sides wait by the same measure.
    if (config_.arbiter.kind != ArbiterKind::manual)
        node.arbiter_digest += ", unreached_delay_ms " + std::to_string(config_.arbiter.unreached_delay_ms);
    node_ = make_node(node);
    return {};
}

Result<void> Daemon::make_runtime()
{
    proxy::RuntimeOptions options;
    auto& p = options.proxy;
    p.hold_bytes_max = config_.proxy.hold_limit_mib << 20;
    p.compare_bytes_max = config_.proxy.compare_limit_mib << 20;
    p.journal_bytes_max = config_.proxy.journal_limit_mib << 20;
    p.replay_bytes_max = config_.proxy.replay_limit_mib << 20;
    p.flows_max = config_.proxy.flows_max;
    p.hold_deadline_min = ms(config_.proxy.hold_min_ms);
    p.hold_deadline_max = ms(config_.proxy.hold_max_ms);
    std::error_code ignored;
    std::filesystem::create_directories(guest_directory(config_), ignored);
    std::vector<proxy::RuntimeNic> nics;
    for (std::size_t i = 0; i < config_.nics.size(); ++i) {
        const NicConfig& nic = config_.nics[i];
        const auto index = static_cast<std::uint8_t>(i);
        proxy::RuntimeNic made;
        auto port = nic.frame_port == FramePortSetting::tap
                        ? proxy::make_tap_port("colo" + std::to_string(i), index)
                        : proxy::make_stream_port(guest_directory(config_) + "/" + nic.id + ".sock", index);
        if (!port) return with_context("NIC " + nic.id + ": frame port", port.error());
        made.port = std::move(*port);
        auto wire = proxy::make_wire(nic.wire);
        if (!wire) return with_context("NIC " + nic.id + ": wire " + nic.wire, wire.error());
        made.wire = std::move(*wire);
        nics.push_back(std::move(made));
        p.nics.push_back(nic.mac);
    }
    auto runtime = proxy::make_proxy_runtime(std::move(options), std::move(nics), *this);
    if (!runtime) return with_context("proxy", runtime.error());
    runtime_ = std::move(*runtime);
    primary_seal_ = std::make_unique<RuntimePrimarySeal>(*runtime_);
    secondary_seal_ = std::make_unique<RuntimeSecondarySeal>(*runtime_);
    return {};
}

Result<void> Daemon::make_guest()
{
    auto guest = make_configured_guest(config_, guest_directory(config_), *runtime_);
    if (!guest) return with_context("guest", guest.error());
    ObservedGuest::Hooks hooks;
    hooks.started = [this, started_as = std::move(guest->started_as)](Deadline deadline) -> Result<void> {
        spdlog::info("device model started: {}", started_as());
        if (auto r = runtime_->attach_guest(deadline); !r) return r;
        ++attached_;
        post([this] {
            if (!guest_->held()) {   // whoever held it held the one before
                held_.clear();
                seized_ = false;
            }
            if (!std::exchange(frame_fault_, "").empty()) tell_ports();
        });
        return {};
    };
    hooks.execution = [this](bool running) {
        post([this, running] {
            guest_running_ = running;
            if (!running && node_->status().switching && switch_begun_.us == 0) {
                switch_begun_ = now();
                switch_sent_ = bytes_sent();
            }
            if (running) stopped_as_.resumed();
            if (running) reset_while_stopped_ = false;
            if (!control_) return;
            running ? control_->observer().guest_resumed() : control_->observer().guest_stopped();
        });
    };
    guest_ = std::make_unique<ObservedGuest>(std::move(guest->guest), std::move(hooks));
    guest_->set_event_handler([this](replication::GuestEvent event) {
        post([this, event] { guest_event(event); });
    });
    primary_ = std::make_unique<PrimaryWorker>(*guest_worker_, *guest_, *primary_seal_, primary_callbacks());
    secondary_ = std::make_unique<SecondaryWorker>(*guest_worker_, *guest_, *secondary_seal_, secondary_callbacks());
    dirty_rate_ = std::make_unique<DirtyRateJob>(io_, *guest_worker_, *guest_, guest_->dirty_log_tap(),
                                                 [this] { return session_ != 0; });
    compression_ = compression_of(config_.replication.compression);
    compression_level_ = static_cast<int>(config_.replication.compression_level);
    delta_cache_ = config_.replication.delta_cache_mib << 20;
    primary_->set_downtime_limit(Duration{static_cast<std::int64_t>(config_.replication.pause_limit_ms) * 1000});
    return {};
}

Result<void> Daemon::start_heartbeat()
{
    HeartbeatSetup setup;
    for (const auto& path : config_.heartbeat.paths) setup.paths.push_back({path.local, path.peer});
    setup.times.interval = ms(config_.heartbeat.interval_ms);
    setup.times.loss = ms(config_.heartbeat.loss_ms);
    setup.times.lease = ms(config_.heartbeat.lease_ms);
    setup.times.progress_timeout = ms(config_.heartbeat.progress_timeout_ms);
    setup.domain_uuid = config_.domain.uuid;
    setup.peer_lost = [this](const PeerLost& lost) {
        post([this, text = lost.text()] { feed([&](Node& node) { node.peer_lost(text, now()); }); });
    };
    setup.higher_generation = [this](Generation generation) {
        // Freeze first, think afterwards.
        frozen_for_.store(generation);
        runtime_->freeze();
        post([this, generation] { feed([&](Node& node) { node.higher_generation(generation, now()); }); });
    };
    setup.conflict = [this](Generation generation) {
        frozen_for_.store(generation + 1);
        runtime_->freeze();
        post([this, generation] { feed([&](Node& node) { node.generation_conflict(generation, now()); }); });
    };
    setup.lease = [this](Time until) { runtime_->set_lease(until); };
    auto heartbeat = HeartbeatThread::start(std::move(setup));
    if (!heartbeat) return with_context("heartbeat", heartbeat.error());
    heartbeat_ = std::move(*heartbeat);
    return {};
}

Result<void> Daemon::start_control()
{
    auto control = ControlInterface::start(io_, config_, *this);
    if (!control) return with_context("control socket", control.error());
    control_ = std::move(*control);
    return options_.qmp_stdio ? control_->serve_stdio() : Result<void>();
}

void Daemon::watch_signals()
{
    signals_.add(SIGTERM);
    signals_.add(SIGINT);
    signals_.async_wait([this](const boost::system::error_code& error, int number) {
        if (error) return;
        spdlog::info("signal {}: ending", number);
        if (control_) control_->observer().shutdown(false, schema::ShutdownCause::host_signal);
        end_in_order();
    });
}

// A primary with a complete copy hands over, so that the service goes on without a decision to wait for; a secondary
// resigns, so that the primary need not ask whether it may go on alone.
void Daemon::end_in_order()
{
    ending_ = true;
    Result<void> accepted = make_error(Errc::refused, "");
    if (node_->status().role == Role::primary)
        feed([&](Node& node) { accepted = node.hand_over(now()); });
    else
        feed([&](Node& node) { accepted = node.unprotect(now()); });
    if (!accepted) return finish();
    end_timer_.expires_after(std::chrono::seconds(3));
    end_timer_.async_wait([this](const boost::system::error_code& error) {
        if (!error) finish();
    });
}

void Daemon::finish()
{
    if (std::exchange(quitting_, true)) return;
    if (!control_) return io_.stop();
    control_->stop([this] { io_.stop(); });
}

}  // namespace colo
