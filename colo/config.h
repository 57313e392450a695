// SPDX-License-Identifier: Apache-2.0
#pragma once

// The configuration of one domain on one host: a TOML file plus `--set section.key=value` on top. Every setting, its
// default, its bounds and its explanation stand once, in config_fields.h; the reader, the printer of the effective
// configuration and docs/config.md are made from that one description. docs/config.md is the reference for operators.
//
// Pure values: no thread, no I/O except load_config. Durations are in the unit the key names.

#include "colo/node.h"
#include "core/error.h"
#include "core/types.h"

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace colo {

enum class GuestType : std::uint8_t { qemu, xen };
enum class AcceleratorSetting : std::uint8_t { automatic, tcg, kvm };
enum class DirtyLogSetting : std::uint8_t { automatic, uffd_wp, soft_dirty, compare };
enum class DeviceLoadSetting : std::uint8_t { automatic, snapshot_load, xen_load };
enum class FramePortSetting : std::uint8_t { tap, stream };
enum class ModeSetting : std::uint8_t { automatic, lock_step, buffered };
enum class CompressionSetting : std::uint8_t { none, zlib, zstd };
enum class RemoteSetting : std::uint8_t { refuse, allow };

struct DomainConfig {
    std::string name;
    std::string uuid;  // 36 characters, lower case
};

struct GuestConfig {
    GuestType type = GuestType::qemu;
    std::uint64_t memory_mib = 256;
    std::uint32_t vcpus = 1;
    std::string kernel, initrd, append;
    std::string machine = "pc-i440fx-7.2";
    std::string cpu = "qemu64";
    AcceleratorSetting accelerator = AcceleratorSetting::automatic;
    DirtyLogSetting dirty_log = DirtyLogSetting::automatic;
    DeviceLoadSetting device_load = DeviceLoadSetting::automatic;
    std::string qemu_binary = "qemu-system-x86_64";
    std::uint32_t start_timeout_ms = 60'000;
    std::string xl_config;
    std::string xl_create = "xl create -q -e {pause} {config}";
    std::string xl_destroy = "xl destroy {domain}";
    std::string xl_rename = "xl rename {domain} {name}";
    std::uint32_t xl_warm_up_ms = 30'000;
};

struct NicConfig {
    std::string id;
    std::string mac_text;
    std::array<std::uint8_t, 6> mac{};  // of mac_text
    std::string wire;                   // "packet:IF" or "tap:NAME[@BRIDGE]", as proxy::make_wire takes it
    FramePortSetting frame_port = FramePortSetting::tap;
};

struct PeerConfig {
    std::string address;  // "tcp:HOST:PORT" or empty
};

struct ReplicationConfig {
    std::string listen;  // "tcp:HOST:PORT" or empty
    std::uint32_t page_channels = 2;
    ModeSetting mode = ModeSetting::automatic;
    std::uint32_t checkpoint_interval_ms = 500;
    std::uint32_t checkpoint_interval_min_ms = 20;
    std::uint32_t pause_limit_ms = 300;
    std::uint32_t transfer_deadline_ms = 5'000;
    std::uint32_t staged_deadline_ms = 5'000;
    std::uint32_t apply_deadline_ms = 5'000;
    std::uint32_t first_copy_deadline_ms = 600'000;
    std::uint64_t staging_limit_mib = 0;  // 0: as much as RAM
    std::uint64_t delta_cache_mib = 256;
    CompressionSetting compression = CompressionSetting::none;
    std::uint32_t compression_level = 1;
};

struct ProxyConfig {
    std::uint32_t hold_min_ms = 20;
    std::uint32_t hold_max_ms = 200;
    std::uint64_t hold_limit_mib = 64;
    std::uint64_t compare_limit_mib = 64;
    std::uint64_t journal_limit_mib = 64;
    std::uint64_t replay_limit_mib = 8;
    std::uint32_t flows_max = 16'384;
};

struct HeartbeatPathConfig {
    std::string local, peer;  // "IP:PORT", "[IP6]:PORT"
};

struct HeartbeatConfig {
    std::uint32_t interval_ms = 10;
    std::uint32_t loss_ms = 100;
    std::uint32_t lease_ms = 90;
    std::uint32_t progress_timeout_ms = 1000;
    std::vector<HeartbeatPathConfig> paths;  // 1 to 4
};

struct ArbiterConfig {
    ArbiterKind kind = ArbiterKind::manual;
    std::string directory;  // lock
    std::string command;    // command
    std::uint32_t fence_delay_ms = 2'000;
    std::uint32_t timeout_ms = 5'000;
    std::uint32_t link_penalty_ms = 0;
    std::uint32_t unreached_delay_ms = 200;
};

struct ControlAddressConfig {
    std::string address;  // tcp:HOST:PORT
};
struct QmpConfig {
    std::string socket;  // default /run/colo/<name>/qmp.sock
    RemoteSetting remote = RemoteSetting::refuse;
    std::vector<ControlAddressConfig> listen;
};
struct StateConfig {
    std::string directory;  // default /var/lib/colo/<name>
};
struct LogConfig {
    std::string level = "info";
    std::string file;
};

struct Config {
    DomainConfig domain;
    GuestConfig guest;
    std::vector<NicConfig> nics;
    PeerConfig peer;
    ReplicationConfig replication;
    ProxyConfig proxy;
    HeartbeatConfig heartbeat;
    ArbiterConfig arbiter;
    QmpConfig qmp;
    StateConfig state;
    LogConfig log;
};

struct ConfigProblem {
    std::string source;      // file name, or "--set section.key=value"
    std::uint32_t line = 0;  // 0: the source has no lines
    std::uint32_t column = 0;
    std::string reason;  // names the key

    std::string text() const;  // "file:line:column: reason"
};

// Reads `toml`, puts `overrides` ("section.key=value"; arrays by index: "nic.0.wire=...", "heartbeat.path.0.peer=...")
// on top and checks everything. On refusal `problems` has every problem of the file in the order of their lines (a
// syntax error alone if it is not TOML) and the returned value must not be used.
Config parse_config(std::string_view toml, const std::string& file, const std::vector<std::string>& overrides,
                    std::vector<ConfigProblem>& problems);

// Errc::invalid with one line for each problem; errno_error if the file cannot be read. At most 1 MiB.
Result<Config> load_config(const std::string& path, const std::vector<std::string>& overrides);

// The effective configuration, defaults included; parses back to an equal configuration.
std::string to_toml(const Config& config);

// The reference of all settings as Markdown, for docs/config.md.
std::string config_reference();

// A digest of everything in the heartbeat and arbiter sections that both sides must have alike is in Hello itself;
// these helpers convert. Settings that NodeConfig has and the file does not keep NodeConfig's defaults.
NodeConfig node_config(const Config& config);

}  // namespace colo
