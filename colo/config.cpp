// SPDX-License-Identifier: Apache-2.0
#include "colo/config.h"

#include "colo/config_fields.h"
#include "colo/config_reader.h"
#include "colo/config_text.h"
#include "core/run_directory.h"
#include "qmp/listen_socket.h"

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <iterator>

namespace colo {
namespace {

using config::Reader;

void check_times(const Config& c, Reader& reader)
{
    const HeartbeatConfig& h = c.heartbeat;
    const auto text = [](const char* key, std::uint64_t value) {
        return std::string(key) + " (" + std::to_string(value) + ")";
    };
    if (std::uint64_t{h.lease_ms} * 103 > std::uint64_t{h.loss_ms} * 100)
        reader.complain(
            "heartbeat.lease_ms",
            text("heartbeat.lease_ms", h.lease_ms) + " must end before " + text("heartbeat.loss_ms", h.loss_ms) +
                ": lease_ms x 1.03 <= loss_ms, or the secondary could take over while the primary still sends");
    if (std::uint64_t{h.interval_ms} * 3 > h.loss_ms)
        reader.complain("heartbeat.loss_ms", text("heartbeat.loss_ms", h.loss_ms) + " must be at least 3 x " +
                                                 text("heartbeat.interval_ms", h.interval_ms) +
                                                 ", or one lost datagram is an outage");
    if (std::uint64_t{h.interval_ms} * 3 > h.lease_ms)
        reader.complain("heartbeat.lease_ms", text("heartbeat.lease_ms", h.lease_ms) + " must be at least 3 x " +
                                                  text("heartbeat.interval_ms", h.interval_ms) +
                                                  ", or output stalls between beats");
    if (h.progress_timeout_ms < h.loss_ms)
        reader.complain("heartbeat.progress_timeout_ms", text("heartbeat.progress_timeout_ms", h.progress_timeout_ms) +
                                                             " must not be less than " +
                                                             text("heartbeat.loss_ms", h.loss_ms));
    else if (c.replication.pause_limit_ms >= h.progress_timeout_ms)
        reader.complain("replication.pause_limit_ms",
                        text("replication.pause_limit_ms", c.replication.pause_limit_ms) + " must be less than " +
                            text("heartbeat.progress_timeout_ms", h.progress_timeout_ms) +
                            ", or a guest that is paused for long is taken for one that stands still");
    if (c.proxy.hold_min_ms > c.proxy.hold_max_ms)
        reader.complain("proxy.hold_min_ms", text("proxy.hold_min_ms", c.proxy.hold_min_ms) + " must not exceed " +
                                                 text("proxy.hold_max_ms", c.proxy.hold_max_ms));
    if (c.replication.checkpoint_interval_min_ms > c.replication.checkpoint_interval_ms)
        reader.complain("replication.checkpoint_interval_min_ms",
                        text("replication.checkpoint_interval_min_ms", c.replication.checkpoint_interval_min_ms) +
                            " must not exceed " +
                            text("replication.checkpoint_interval_ms", c.replication.checkpoint_interval_ms));
}

void check_compression(const ReplicationConfig& r, Reader& reader)
{
    const std::string key = "replication.compression_level";
    if (r.compression == CompressionSetting::zlib && r.compression_level > 9)
        reader.complain(key, key + " (" + std::to_string(r.compression_level) + ") must be from 0 to 9 for zlib");
    if (r.compression == CompressionSetting::zstd && r.compression_level < 1)
        reader.complain(key, key + " (0) must be from 1 to 20 for zstd");
}

void check_nics(std::vector<NicConfig>& nics, Reader& reader)
{
    for (std::size_t i = 0; i < nics.size(); ++i) {
        if (const auto mac = config::parse_mac(nics[i].mac_text)) nics[i].mac = *mac;
        const std::string at = "nic." + std::to_string(i) + ".";
        for (std::size_t k = 0; k < i; ++k) {
            const std::string other = " is already used by nic." + std::to_string(k);
            if (!nics[i].id.empty() && nics[i].id == nics[k].id)
                reader.complain(at + "id", at + "id = \"" + nics[i].id + "\"" + other);
            if (!nics[i].mac_text.empty() && nics[i].mac_text == nics[k].mac_text)
                reader.complain(at + "mac", at + "mac = \"" + nics[i].mac_text + "\"" + other);
            const auto interface = [](const std::string& wire) { return wire.substr(0, wire.find('@')); };
            if (!nics[i].wire.empty() && interface(nics[i].wire) == interface(nics[k].wire))
                reader.complain(at + "wire", at + "wire = \"" + nics[i].wire + "\"" + other);
        }
    }
}

void check_frame_ports(const Config& c, Reader& reader)
{
    for (std::size_t i = 0; i < c.nics.size() && c.guest.type == GuestType::xen; ++i)
        if (const std::string key = "nic." + std::to_string(i) + ".frame_port"; c.nics[i].frame_port != FramePortSetting::tap)
            reader.complain(key, key + " must be \"tap\" with guest.type = \"xen\": the device model (QEMU 7.2) crashes when a guest sends "
                                      "into a stream to which nobody is connected");
}

void check_paths(const std::vector<HeartbeatPathConfig>& paths, Reader& reader)
{
    for (std::size_t i = 0; i < paths.size(); ++i) {
        const std::string at = "heartbeat.path." + std::to_string(i) + ".";
        const HeartbeatPathConfig& path = paths[i];
        if (path.local.empty() || path.peer.empty()) continue;
        if (path.local == path.peer)
            reader.complain(at + "peer", at + "peer is the same as " + at + "local (" + path.local + ")");
        if ((path.local.front() == '[') != (path.peer.front() == '['))
            reader.complain(at + "peer", at + "local and peer must both be IPv4 or both be IPv6");
        for (std::size_t k = 0; k < i; ++k)
            if (path.local == paths[k].local)
                reader.complain(at + "local", at + "local = \"" + path.local + "\" is already used by heartbeat.path." +
                                                  std::to_string(k));
    }
}

void check_arbiter(const Config& c, Reader& reader)
{
    const ArbiterConfig& a = c.arbiter;
    const auto needs = [&](bool chosen, const std::string& kind, const std::string& key, const std::string& value) {
        if (chosen && value.empty())
            reader.complain("arbiter.kind", "arbiter.kind = \"" + kind + "\" needs arbiter." + key);
        if (!chosen && !value.empty())
            reader.complain("arbiter." + key,
                            "arbiter." + key + " contradicts arbiter.kind: only kind = \"" + kind + "\" uses it");
    };
    needs(a.kind == ArbiterKind::lock, "lock", "directory", a.directory);
    needs(a.kind == ArbiterKind::command, "command", "command", a.command);
    if (a.kind == ArbiterKind::lock && !a.directory.empty() && a.directory == c.state.directory)
        reader.complain(
            "arbiter.directory",
            "arbiter.directory must not be state.directory: the one is shared by both hosts, the other must not be");
    // The default is not a contradiction: the printed configuration has every setting, this one included.
    if (a.kind != ArbiterKind::command && a.fence_delay_ms != ArbiterConfig{}.fence_delay_ms)
        reader.complain("arbiter.fence_delay_ms", "arbiter.fence_delay_ms (" + std::to_string(a.fence_delay_ms) +
                                                      ") contradicts arbiter.kind: only kind = \"command\" waits for it");
}

void check_control(const QmpConfig& qmp, Reader& reader)
{
    for (std::size_t i = 0; i < qmp.listen.size(); ++i) {
        const auto good = qmp::check_tcp_listen_uri(qmp.listen[i].address, qmp.remote == RemoteSetting::allow);
        const std::string key = "qmp.listen." + std::to_string(i) + ".address";
        if (!good) reader.complain(key, key + ": " + good.error().text);
    }
}

void check_peer(const Config& c, Reader& reader)
{
    if (!c.peer.address.empty() && c.peer.address == c.replication.listen)
        reader.complain("peer.address", "peer.address is this host's own replication.listen (" + c.peer.address +
                                            "): it names the other host");
}

void check_guest_type(const GuestConfig& g, Reader& reader)
{
    const bool xen = g.type == GuestType::xen;
    const auto only = [&](const char* key, const std::string& value, bool for_xen) {
        if (xen != for_xen && !value.empty())
            reader.complain(std::string("guest.") + key, std::string("guest.") + key + " contradicts guest.type: only type = \"" +
                                                             (for_xen ? "xen" : "qemu") + "\" uses it");
    };
    only("kernel", g.kernel, false);
    only("initrd", g.initrd, false);
    only("append", g.append, false);
    only("xl_config", g.xl_config, true);
    const auto lacks = [&](const char* key, const std::string& command, const char* part) {
        if (command.find(part) == std::string::npos) reader.complain(std::string("guest.") + key, std::string("guest.") + key + " has no " + part);
    };
    if (xen && g.xl_warm_up_ms >= g.start_timeout_ms)
        reader.complain("guest.xl_warm_up_ms", "guest.xl_warm_up_ms (" + std::to_string(g.xl_warm_up_ms) + ") must be below guest.start_timeout_ms (" +
                                                   std::to_string(g.start_timeout_ms) + "), of which it is a part");
    lacks("xl_create", g.xl_create, "{config}");
    lacks("xl_create", g.xl_create, "{pause}");
    lacks("xl_destroy", g.xl_destroy, "{domain}");
    lacks("xl_rename", g.xl_rename, "{domain}");
    lacks("xl_rename", g.xl_rename, "{name}");
}

// What the daemon would refuse when it makes the guest (qemu/options.cpp), said with file and line.
void check_guest(const GuestConfig& g, Reader& reader)
{
    check_guest_type(g, reader);
    constexpr std::string_view kMachines = "pc-i440fx-";
    if (!g.machine.starts_with(kMachines) || g.machine.size() == kMachines.size())
        reader.complain("guest.machine", "guest.machine = \"" + g.machine +
                                             "\" must be a versioned pc-i440fx-... (\"pc\" differs between QEMU versions)");
    // Features may follow: "host,-avx".
    const std::string model = g.cpu.substr(0, g.cpu.find(','));
    if (model == "host" || model == "max")
        reader.complain("guest.cpu", "guest.cpu = \"" + g.cpu +
                                         "\" must be a named model: \"host\" and \"max\" differ between hosts");
    constexpr std::size_t kKernelCommandLineMax = 2047;
    if (g.append.size() > kKernelCommandLineMax)
        reader.complain("guest.append", "guest.append is longer than the 2047 characters that Linux takes");
}

void fill_defaults(Config& c)
{
    if (c.qmp.socket.empty()) c.qmp.socket = control_socket(kRunDirectory, c.domain.name);
    if (c.state.directory.empty()) c.state.directory = "/var/lib/colo/" + c.domain.name;
}

// Overrides come last, the file's problems in the order of its lines.
void sort_problems(std::vector<ConfigProblem>& problems)
{
    std::stable_sort(problems.begin(), problems.end(), [](const ConfigProblem& a, const ConfigProblem& b) {
        const bool a_file = !a.source.starts_with("--set "), b_file = !b.source.starts_with("--set ");
        if (a_file != b_file) return a_file;
        return a_file && std::pair(a.line, a.column) < std::pair(b.line, b.column);
    });
}

}  // namespace

std::string ConfigProblem::text() const
{
    if (line == 0) return source + ": " + reason;
    return source + ":" + std::to_string(line) + ":" + std::to_string(column) + ": " + reason;
}

Config parse_config(std::string_view toml, const std::string& file, const std::vector<std::string>& overrides,
                    std::vector<ConfigProblem>& problems)
{
    Config result;
    Reader reader(file, overrides, problems);
    if (!reader.parse(toml)) return result;
    config::visit_config(reader, result);
    reader.finish();
    fill_defaults(result);
    check_times(result, reader);
    check_compression(result.replication, reader);
    check_nics(result.nics, reader);
    check_frame_ports(result, reader);
    check_paths(result.heartbeat.paths, reader);
    check_arbiter(result, reader);
    check_control(result.qmp, reader);
    check_peer(result, reader);
    check_guest(result.guest, reader);
    sort_problems(problems);
    return result;
}

Result<Config> load_config(const std::string& path, const std::vector<std::string>& overrides)
{
    constexpr std::size_t kLongest = 1u << 20;
    std::ifstream file(path, std::ios::binary);
    if (!file) return errno_error("open " + path, errno);
    std::string text(kLongest + 1, '\0');
    file.read(text.data(), static_cast<std::streamsize>(text.size()));
    if (file.bad()) return errno_error("read " + path, errno);
    text.resize(static_cast<std::size_t>(file.gcount()));
    if (text.size() > kLongest) return make_error(Errc::limit, path + " is longer than 1 MiB; is it a configuration?");

    std::vector<ConfigProblem> problems;
    Config result = parse_config(text, path, overrides, problems);
    if (problems.empty()) return result;
    std::string all;
    for (const ConfigProblem& problem : problems) all += (all.empty() ? "" : "\n") + problem.text();
    return make_error(Errc::invalid, std::move(all));
}

NodeConfig node_config(const Config& c)
{
    const auto ms = [](std::uint64_t value) { return Duration{static_cast<std::int64_t>(value) * 1000}; };
    NodeConfig n;
    n.domain_uuid = c.domain.uuid;
    n.domain_name = c.domain.name;
    n.arbiter = c.arbiter.kind;
    n.page_channels = static_cast<std::uint8_t>(c.replication.page_channels);
    n.checkpoint_interval = ms(c.replication.checkpoint_interval_ms);
    n.checkpoint_interval_min = ms(c.replication.checkpoint_interval_min_ms);
    n.pause_bound = ms(c.replication.pause_limit_ms);
    n.first_copy_deadline = ms(c.replication.first_copy_deadline_ms);
    n.transfer_deadline = ms(c.replication.transfer_deadline_ms);
    n.staged_deadline = ms(c.replication.staged_deadline_ms);
    n.apply_deadline = ms(c.replication.apply_deadline_ms);
    n.beat_interval = ms(c.heartbeat.interval_ms);
    n.beat_loss = ms(c.heartbeat.loss_ms);
    n.lease = ms(c.heartbeat.lease_ms);
    n.fence_delay = ms(c.arbiter.fence_delay_ms);
    n.link_penalty = ms(c.arbiter.link_penalty_ms);
    n.allow_buffered = c.replication.mode != ModeSetting::lock_step;
    n.always_buffered = c.replication.mode == ModeSetting::buffered;
    return n;
}

}  // namespace colo
