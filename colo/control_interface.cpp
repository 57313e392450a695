// SPDX-License-Identifier: Apache-2.0
#include "colo/control_interface.h"

#include "colo/daemon.h"
#include "colo/handlers/control.h"
#include "qmp/server.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <filesystem>

namespace colo {
namespace {

constexpr Duration kLinger{200'000};

replication::Compression compression_of(schema::MultiFDCompression compression)
{
    switch (compression) {
    case schema::MultiFDCompression::zlib: return replication::Compression::zlib;
    case schema::MultiFDCompression::zstd: return replication::Compression::zstd;
    case schema::MultiFDCompression::none: break;
    }
    return replication::Compression::none;
}

// Every change has its effect at once or with the next checkpoint.
void act_on(const MigrationSettings& settings, const schema::MigrateSetParameters& changed, Daemon& daemon)
{
    const schema::MigrationParameters& p = settings.parameters();
    const auto ms = [](std::uint64_t value) { return Duration{static_cast<std::int64_t>(value) * 1000}; };
    if (changed.x_checkpoint_delay) daemon.set_checkpoint_interval(ms(*p.x_checkpoint_delay));
    if (changed.downtime_limit) daemon.set_pause_bound(pause_bound_of(*p.downtime_limit));
    if (changed.xbzrle_cache_size) daemon.set_delta_cache(*p.xbzrle_cache_size);
    if (changed.multifd_channels) daemon.set_page_channels(*p.multifd_channels);
    if (changed.max_bandwidth) daemon.set_bandwidth(*p.max_bandwidth);
    if (changed.multifd_compression || changed.multifd_zstd_level || changed.multifd_zlib_level) {
        const auto compression = compression_of(*p.multifd_compression);
        daemon.set_compression(compression, compression == replication::Compression::zstd ? *p.multifd_zstd_level : *p.multifd_zlib_level);
    }
    if (changed.announce_initial || changed.announce_max || changed.announce_rounds || changed.announce_step) {
        proxy::AnnounceSchedule schedule;
        schedule.initial = ms(*p.announce_initial);
        schedule.max = ms(*p.announce_max);
        schedule.rounds = static_cast<std::uint32_t>(*p.announce_rounds);
        schedule.step = ms(*p.announce_step);
        daemon.set_announce(schedule);
    }
}

// The parameters show what is in force: the configuration file speaks first.
Result<void> seed(MigrationSettings& settings, const Config& config)
{
    schema::MigrateSetParameters p;
    p.x_checkpoint_delay = config.replication.checkpoint_interval_ms;
    p.downtime_limit = config.replication.pause_limit_ms;
    p.multifd_channels = static_cast<std::uint8_t>(config.replication.page_channels);
    if (const std::uint64_t cache = config.replication.delta_cache_mib << 20; std::has_single_bit(cache)) p.xbzrle_cache_size = cache;
    const auto level = static_cast<std::uint8_t>(config.replication.compression_level);
    switch (config.replication.compression) {
    case CompressionSetting::none: p.multifd_compression = schema::MultiFDCompression::none; break;
    case CompressionSetting::zlib:
        p.multifd_compression = schema::MultiFDCompression::zlib;
        p.multifd_zlib_level = level;
        break;
    case CompressionSetting::zstd:
        p.multifd_compression = schema::MultiFDCompression::zstd;
        p.multifd_zstd_level = level;
        break;
    }
    return settings.set_parameters(p);
}

qmp::ServerOptions options_of(const QmpConfig& config)
{
    qmp::ServerOptions options;
    options.path = config.socket;
    for (const ControlAddressConfig& listen : config.listen) options.listen.push_back(listen.address);
    options.allow_remote = config.remote == RemoteSetting::allow;
    options.version = interface_version(COLO_VERSION);
    return options;
}

// Moves `fd` away, so that no child writes into the stream or reads from it.
Result<qmp::Fd> take_standard(int fd)
{
    qmp::Fd taken(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
    if (!taken) return errno_error("standard input and output as a control client", errno);
    const qmp::Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    if (!null || ::dup2(null.get(), fd) < 0) return errno_error("open /dev/null", errno);
    return taken;
}

}  // namespace

Duration pause_bound_of(std::uint64_t downtime_limit_ms)
{
    constexpr std::uint64_t kLeastMs = 5;   // of replication.pause_limit_ms
    return Duration{static_cast<std::int64_t>(std::max(downtime_limit_ms, kLeastMs)) * 1000};
}

struct ControlInterface::Parts {
    Parts(boost::asio::io_context& io, const Config& config, Daemon& daemon)
        : server(io, registry, options_of(config.qmp)), control(daemon, server, registry)
    {
    }
    qmp::Registry registry;
    qmp::Server server;
    Control control;
};

Result<std::unique_ptr<ControlInterface>> ControlInterface::start(boost::asio::io_context& io, const Config& config, Daemon& daemon)
{
    std::error_code error;
    std::filesystem::create_directories(std::filesystem::path(config.qmp.socket).parent_path(), error);
    auto parts = std::make_unique<Parts>(io, config, daemon);
    MigrationSettings& settings = parts->control.settings();
    if (auto r = seed(settings, config); !r) return with_context("[replication]", r.error());
    settings.on_parameters = [&settings, &daemon](const schema::MigrateSetParameters& changed) { act_on(settings, changed, daemon); };
    daemon.set_bandwidth(settings.parameters().max_bandwidth.value_or(0));
    daemon.set_page_channels(settings.parameters().multifd_channels.value_or(1));
    if (auto r = parts->server.start(); !r) return r.error();
    return std::unique_ptr<ControlInterface>(new ControlInterface(std::move(parts)));
}

Result<void> ControlInterface::serve_stdio()
{
    auto in = take_standard(STDIN_FILENO);
    if (!in) return in.error();
    auto out = take_standard(STDOUT_FILENO);
    if (!out) return out.error();
    parts_->server.serve(std::move(*in), std::move(*out));
    return {};
}

ControlInterface::ControlInterface(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
ControlInterface::~ControlInterface() = default;

ServiceObserver& ControlInterface::observer() { return parts_->control; }

void ControlInterface::stop(std::function<void()> done) { parts_->server.stop(kLinger, std::move(done)); }

}  // namespace colo
