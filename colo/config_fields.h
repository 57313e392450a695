// SPDX-License-Identifier: Apache-2.0
#pragma once

// Internal to colo/config*.cpp: every setting once. A visitor has section, text, number, choice and array; the reader,
// the printer and the reference are three visitors over this one description, so that they cannot drift apart.

#include "colo/config.h"

#include <cstdint>
#include <span>
#include <string_view>

namespace colo::config {

enum class TextKind : std::uint8_t { free, name, uuid, mac, wire, tcp_uri, udp_endpoint, path, socket_path, log_level };

struct TextSpec {
    std::string_view key;
    TextKind kind = TextKind::free;
    bool required = false;
    std::string_view meaning;
};
struct NumberSpec {
    std::string_view key;
    std::uint64_t min = 0, max = 0;
    std::string_view meaning;
};
struct ChoiceSpec {
    std::string_view key;
    bool required = false;
    std::string_view meaning;
};
struct ArraySpec {
    std::string_view key;
    std::size_t min = 0, max = 0;
    std::string_view meaning;
};

template <class E>
struct Name {
    std::string_view text;
    E value;
};

inline constexpr Name<GuestType> kGuestTypes[] = {{"qemu", GuestType::qemu}, {"xen", GuestType::xen}};
inline constexpr Name<AcceleratorSetting> kAccelerators[] = {
    {"auto", AcceleratorSetting::automatic}, {"tcg", AcceleratorSetting::tcg}, {"kvm", AcceleratorSetting::kvm}};
inline constexpr Name<DirtyLogSetting> kDirtyLogs[] = {{"auto", DirtyLogSetting::automatic},
                                                       {"uffd-wp", DirtyLogSetting::uffd_wp},
                                                       {"soft-dirty", DirtyLogSetting::soft_dirty},
                                                       {"compare", DirtyLogSetting::compare}};
inline constexpr Name<DeviceLoadSetting> kDeviceLoads[] = {{"auto", DeviceLoadSetting::automatic},
                                                           {"snapshot-load", DeviceLoadSetting::snapshot_load},
                                                           {"xen-load", DeviceLoadSetting::xen_load}};
inline constexpr Name<FramePortSetting> kFramePorts[] = {{"tap", FramePortSetting::tap},
                                                         {"stream", FramePortSetting::stream}};
inline constexpr Name<ModeSetting> kModes[] = {
    {"auto", ModeSetting::automatic}, {"lock-step", ModeSetting::lock_step}, {"buffered", ModeSetting::buffered}};
inline constexpr Name<CompressionSetting> kCompressions[] = {
    {"none", CompressionSetting::none}, {"zlib", CompressionSetting::zlib}, {"zstd", CompressionSetting::zstd}};
inline constexpr Name<RemoteSetting> kRemotes[] = {{"refuse", RemoteSetting::refuse}, {"allow", RemoteSetting::allow}};
inline constexpr Name<ArbiterKind> kArbiters[] = {
    {"manual", ArbiterKind::manual}, {"command", ArbiterKind::command}, {"lock", ArbiterKind::lock}};

// What the embedded guest takes as well (qemu/options.cpp): less holds no kernel with its initrd.
inline constexpr std::uint64_t kGuestMemoryMinMib = 32;

inline constexpr std::string_view kDisksComeLater =
    "disks come later: this version replicates memory, CPU and devices only";

template <class Visitor, class Target>
void visit_guest(Visitor& v, Target& guest)
{
    v.section("guest", "The virtual machine. Both hosts must describe the same one.");
    v.choice(ChoiceSpec{"type", false, "What runs the guest: `qemu`, a QEMU that is started here; `xen`, an HVM domain of this Xen host (docs/xen.md). Of the settings below those that begin with `xl_` are for `xen`, `start_timeout_ms` is for both, the rest for `qemu`."}, guest.type, std::span(kGuestTypes));
    v.number(NumberSpec{"memory_mib", kGuestMemoryMinMib, 1u << 20, "Guest RAM. A secondary needs about three times as much free."},
             guest.memory_mib);
    v.number(NumberSpec{"vcpus", 1, 64, "Virtual CPUs."}, guest.vcpus);
    v.text(TextSpec{"kernel", TextKind::path, guest.type == GuestType::qemu, "Linux kernel image, the same content on both hosts."},
           guest.kernel);
    v.text(TextSpec{"initrd", TextKind::path, false, "Initial RAM disk, the same content on both hosts."},
           guest.initrd);
    v.text(TextSpec{"append", TextKind::free, false, "Kernel command line."}, guest.append);
    v.text(TextSpec{"machine", TextKind::name, true, "QEMU machine type, `pc-i440fx-VERSION`; versioned, so that both hosts agree."},
           guest.machine);
    v.text(TextSpec{"cpu", TextKind::free, true, "QEMU CPU model by name; not `host` or `max`, which differ between hosts."}, guest.cpu);
    v.choice(ChoiceSpec{"accelerator", false, "`auto`: KVM where a self-test proves that it runs the guest, else TCG."},
             guest.accelerator, std::span(kAccelerators));
    v.choice(
        ChoiceSpec{"dirty_log", false, "How dirty pages are found; `auto`: the best one that passes its self-test."},
        guest.dirty_log, std::span(kDirtyLogs));
    v.choice(ChoiceSpec{"device_load", false,
                        "How device state is loaded; `auto`: the one that this device model survives."},
             guest.device_load, std::span(kDeviceLoads));
    v.text(TextSpec{"qemu_binary", TextKind::free, true, "QEMU program, a path or a name looked up in PATH."},
           guest.qemu_binary);
    v.number(NumberSpec{"start_timeout_ms", 1'000, 600'000, "Longest start of the guest, until it runs or waits for its content."},
             guest.start_timeout_ms);
    v.text(TextSpec{"xl_config", TextKind::path, guest.type == GuestType::xen,
                    "The domain's configuration for xl, the same content on both hosts. Required for `xen`."},
           guest.xl_config);
    v.text(TextSpec{"xl_create", TextKind::free, true,
                    "Command that makes the domain; no shell. `{config}`: a file with `xl_config` and what colod adds; `{pause}`: `-p`."},
           guest.xl_create);
    v.text(TextSpec{"xl_destroy", TextKind::free, true, "Command that destroys it; `{domain}`: its number."}, guest.xl_destroy);
    v.text(TextSpec{"xl_rename", TextKind::free, true, "Command that gives it the name `{name}` at a failover."}, guest.xl_rename);
    v.number(NumberSpec{"xl_warm_up_ms", 0, 600'000,
                        "A new domain runs alone, without network, until a kernel runs in it or its memory map has not changed for this long: its "
                        "firmware lays it out. 0: `xl_create` restores an image."},
             guest.xl_warm_up_ms);
}

template <class Visitor, class Target>
void visit_nics(Visitor& v, Target& nics)
{
    v.array(
        ArraySpec{"nic", 0, 8, "A network interface of the guest; repeat the section for more. The order counts."},
        nics, [](Visitor& each, auto& nic) {
            each.text(TextSpec{"id", TextKind::name, true, "Name, equal on both hosts, for example `net0`."}, nic.id);
            each.text(TextSpec{"mac", TextKind::mac, true, "Unicast address, equal on both hosts."}, nic.mac_text);
            each.text(TextSpec{"wire", TextKind::wire, true,
                               "Where the clients are: `packet:INTERFACE` (AF_PACKET on an existing interface) or "
                               "`tap:NAME[@BRIDGE]` (a tap made here, joined to the bridge)."},
                      nic.wire);
            each.choice(
                ChoiceSpec{"frame_port", false,
                           "How frames reach the guest: `tap` (offloads, needs privileges) or `stream` (none)."},
                nic.frame_port, std::span(kFramePorts));
        });
}

template <class Visitor, class Target>
void visit_replication(Visitor& v, Target& replication)
{
    v.section("replication", "Checkpoints and the channels that carry them.");
    v.text(TextSpec{"listen", TextKind::tcp_uri, false,
                    "`tcp:HOST:PORT` on which this host accepts a primary. Empty: only `migrate-incoming` opens one."},
           replication.listen);
    v.number(
        NumberSpec{
            "page_channels", 1, 16,
            "Connections for pages, if this host is the primary. `multifd-channels` changes it for the next session."},
        replication.page_channels);
    v.choice(
        ChoiceSpec{"mode", false,
                   "`lock-step`: both copies run and are compared; `buffered`: output waits for the next checkpoint; "
                   "`auto`: lock-step while the copies agree."},
        replication.mode, std::span(kModes));
    v.number(NumberSpec{"checkpoint_interval_ms", 5, 3'600'000, "Longest time between two checkpoints."},
             replication.checkpoint_interval_ms);
    v.number(NumberSpec{"checkpoint_interval_min_ms", 1, 60'000, "Shortest time between two checkpoints in lock-step."},
             replication.checkpoint_interval_min_ms);
    v.number(
        NumberSpec{"pause_limit_ms", 5, 60'000, "A cut that holds the guest longer is aborted and the guest resumed. Below `heartbeat.progress_timeout_ms`."},
        replication.pause_limit_ms);
    v.number(NumberSpec{"transfer_deadline_ms", 100, 600'000, "From the cut until every byte was sent. What goes ahead of it may take longer, as long as it moves."},
             replication.transfer_deadline_ms);
    v.number(
        NumberSpec{"staged_deadline_ms", 100, 600'000, "From the last byte sent until the secondary has verified it."},
        replication.staged_deadline_ms);
    v.number(NumberSpec{"apply_deadline_ms", 100, 600'000,
                        "From verified until the secondary runs it; later it counts as lost."},
             replication.apply_deadline_ms);
    v.number(NumberSpec{"first_copy_deadline_ms", 1'000, 86'400'000, "For the first copy of the whole guest."},
             replication.first_copy_deadline_ms);
    v.number(NumberSpec{"staging_limit_mib", 0, 1u << 20,
                        "Memory for a checkpoint that is not verified yet; 0: as much as RAM."},
             replication.staging_limit_mib);
    v.number(NumberSpec{"delta_cache_mib", 0, 1u << 20,
                        "Memory on the primary for old page contents, from which deltas are made."},
             replication.delta_cache_mib);
    v.choice(ChoiceSpec{"compression", false, "Of page contents."}, replication.compression, std::span(kCompressions));
    v.number(NumberSpec{"compression_level", 0, 20, "zlib 0 to 9, zstd 1 to 20."}, replication.compression_level);
}

template <class Visitor, class Target>
void visit_proxy(Visitor& v, Target& proxy)
{
    v.section("proxy", "The guest's network traffic.");
    v.number(
        NumberSpec{"hold_min_ms", 1, 10'000, "Output that waits this long for its counterpart may force a checkpoint."},
        proxy.hold_min_ms);
    v.number(NumberSpec{"hold_max_ms", 1, 10'000, "Output that waits this long always forces a checkpoint."},
             proxy.hold_max_ms);
    v.number(NumberSpec{"hold_limit_mib", 1, 65'536, "Output that the primary holds."}, proxy.hold_limit_mib);
    v.number(NumberSpec{"compare_limit_mib", 1, 65'536, "Output of the secondary that waits for the primary's."},
             proxy.compare_limit_mib);
    v.number(NumberSpec{"journal_limit_mib", 1, 65'536, "Input that the secondary's guest has not acknowledged."},
             proxy.journal_limit_mib);
    v.number(NumberSpec{"replay_limit_mib", 1, 65'536, "Output of the secondary that is sent again at take-over."},
             proxy.replay_limit_mib);
    v.number(NumberSpec{"flows_max", 64, 65'536, "Connections; beyond it idle ones are forgotten first."},
             proxy.flows_max);
}

template <class Visitor, class Target>
void visit_heartbeat(Visitor& v, Target& heartbeat)
{
    v.section("heartbeat", "How the loss of the other host is noticed. The times must be equal on both hosts.");
    v.number(NumberSpec{"interval_ms", 1, 10'000, "Between two beats."}, heartbeat.interval_ms);
    v.number(
        NumberSpec{"loss_ms", 5, 60'000, "Silence on all paths for so long: the peer is lost. At least 3 intervals."},
        heartbeat.loss_ms);
    v.number(
        NumberSpec{"lease_ms", 4, 60'000,
                   "The primary stops sending that long after its last answered beat was sent. The secondary waits 3 % "
                   "longer before it asks to take over, hence `lease_ms` x 1.03 <= `loss_ms`; at least 3 intervals."},
        heartbeat.lease_ms);
    v.number(
        NumberSpec{
            "progress_timeout_ms", 20, 600'000,
            "A peer that beats but whose control loop, proxy or guest stands still for so long is lost. At least "
            "`loss_ms`."},
        heartbeat.progress_timeout_ms);
    v.array(
        ArraySpec{
            "heartbeat.path", 1, 4,
            "A network path between the hosts; repeat the section for more. Independent networks make a false alarm "
            "unlikely."},
        heartbeat.paths, [](Visitor& each, auto& path) {
            each.text(TextSpec{"local", TextKind::udp_endpoint, true, "`IP:PORT` or `[IP6]:PORT` of this host (UDP)."},
                      path.local);
            each.text(TextSpec{"peer", TextKind::udp_endpoint, true, "The same of the other host."}, path.peer);
        });
}

template <class Visitor, class Target>
void visit_arbiter(Visitor& v, Target& arbiter)
{
    v.section("arbiter", "Who may go on alone when the hosts lose each other. Equal on both hosts.");
    v.choice(
        ChoiceSpec{
            "kind", true,
            "`lock`: the first to make a file in a directory that both hosts share; `command`: a fence command that "
            "kills the other host; `manual`: the operator decides (`x-colo-lost-heartbeat`)."},
        arbiter.kind, std::span(kArbiters));
    v.text(TextSpec{"directory", TextKind::path, false, "`lock`: the shared directory (NFS, cluster file system)."},
           arbiter.directory);
    v.text(
        TextSpec{"command", TextKind::free, false,
                 "`command`: run by /bin/sh. Exit 0: the peer is dead and cannot resume by itself; 10: the peer is the "
                 "one to "
                 "run; anything else: not known, asked again. Gets COLO_DOMAIN, COLO_UUID, COLO_GENERATION, COLO_ROLE, "
                 "COLO_PEER."},
        arbiter.command);
    v.number(NumberSpec{"fence_delay_ms", 0, 60'000, "`command` alone: head start of the primary, so that not both shoot."},
             arbiter.fence_delay_ms);
    v.number(NumberSpec{"timeout_ms", 100, 600'000, "Longest single request; then the answer counts as not known."},
             arbiter.timeout_ms);
    v.number(NumberSpec{"link_penalty_ms", 0, 60'000,
                        "A side whose client interface has no carrier waits so long before it asks."},
             arbiter.link_penalty_ms);
    v.number(NumberSpec{"unreached_delay_ms", 0, 10'000,
                        "`lock` and `command`: a primary that hears none of the clients it knows, nor an answer to ARP "
                        "probes, waits so long before it asks (`command`: after `fence_delay_ms`), so that a host that is "
                        "cut off does not win. A secondary waits a tenth. 0: no probes."},
             arbiter.unreached_delay_ms);
}

template <class Visitor, class Target>
void visit_config(Visitor& v, Target& config)
{
    v.section("domain", "Which domain this is. Equal on both hosts.");
    v.text(TextSpec{"name", TextKind::name, true, "Name for people, logs and default paths."}, config.domain.name);
    v.text(TextSpec{"uuid", TextKind::uuid, true, "Identity of the domain, for example from `uuidgen`."},
           config.domain.uuid);
    visit_guest(v, config.guest);
    visit_nics(v, config.nics);
    v.section("peer", "The other host.");
    v.text(TextSpec{"address", TextKind::tcp_uri, false,
                    "`tcp:HOST:PORT` of the peer's `replication.listen`, not of our own. Empty: `coloctl protect` names it."},
           config.peer.address);
    visit_replication(v, config.replication);
    visit_proxy(v, config.proxy);
    visit_heartbeat(v, config.heartbeat);
    visit_arbiter(v, config.arbiter);
    v.section("qmp", "The control socket.");
    v.text(
        TextSpec{"socket", TextKind::socket_path, false, "Path of the Unix socket. Empty: `/run/colo/NAME/qmp.sock`."},
        config.qmp.socket);
    v.choice(ChoiceSpec{"remote", false,
                        "Whether `qmp.listen` may name other addresses than those of the loopback interface. There is neither "
                        "password nor encryption: whoever can connect has the guest and this host's files in his hands."},
             config.qmp.remote, std::span(kRemotes));
    v.array(ArraySpec{"qmp.listen", 0, 8, "A further address of the control interface; repeat the section for more."}, config.qmp.listen,
            [](Visitor& each, auto& listen) {
                each.text(TextSpec{"address", TextKind::tcp_uri, true, "`tcp:IP:PORT`, `tcp:[IP6]:PORT` or `tcp:localhost:PORT`."},
                          listen.address);
            });
    v.section("state", "What must survive a restart.");
    v.text(TextSpec{"directory", TextKind::path, false,
                    "On storage of this host alone, never shared. Empty: `/var/lib/colo/NAME`."},
           config.state.directory);
    v.section("log", "One line per event, with the fields domain, role, epoch and peer.");
    v.text(TextSpec{"level", TextKind::log_level, true, "trace, debug, info, warn or error."}, config.log.level);
    v.text(TextSpec{"file", TextKind::path, false, "Empty: standard error."}, config.log.file);
}

}  // namespace colo::config
