// SPDX-License-Identifier: Apache-2.0
#include "colo/node_hello.h"

#include "replication/wire.h"

#include <algorithm>

namespace colo {
namespace {

using replication::GuestDescription;
using replication::Hello;
using replication::NicDescription;

std::string differs(const char* what, const std::string& primary, const std::string& own, const char* remedy)
{
    return std::string(what) + " differs: the primary has \"" + primary + "\", this host \"" + own + "\"; " + remedy;
}

std::string mac_text(const std::array<std::uint8_t, 6>& mac)
{
    static constexpr char kHex[] = "0123456789abcdef";
    std::string text;
    for (const std::uint8_t byte : mac) {
        if (!text.empty()) text += ':';
        text += kHex[byte >> 4];
        text += kHex[byte & 15];
    }
    return text;
}

std::string regions_text(const std::vector<replication::MemoryRegion>& regions)
{
    std::string text;
    for (const auto& r : regions) {
        if (!text.empty()) text += ", ";
        text += std::to_string(r.pages * kPageSize / 1024) + " KiB at frame " + std::to_string(r.first);
    }
    return text.empty() ? "none" : text;
}

std::string nic_difference(const NicDescription& a, const NicDescription& b)
{
    static constexpr const char* kRemedy = "make the [[nic]] sections alike";
    if (a.id != b.id) return differs("the name of a NIC", a.id, b.id, kRemedy);
    if (a.mac != b.mac) return differs(("the MAC address of NIC " + a.id).c_str(), mac_text(a.mac), mac_text(b.mac), kRemedy);
    if (a.offload_features != b.offload_features)
        return differs(("what NIC " + a.id + " offers to the guest (offloads)").c_str(), std::to_string(a.offload_features),
                       std::to_string(b.offload_features), "use the same kind of frame port on both hosts");
    return {};
}

std::string timing(std::uint32_t primary_us, Duration own, const char* what)
{
    if (primary_us == own.count()) return {};
    return differs(what, std::to_string(primary_us) + " us", std::to_string(own.count()) + " us",
                   "set it alike in the [heartbeat] sections");
}

std::string first_setting_difference(const NodeConfig& config, const Hello& hello)
{
    if (hello.domain_uuid != config.domain_uuid)
        return differs("the domain's UUID", hello.domain_uuid, config.domain_uuid,
                       "this peer belongs to another domain: check the addresses");
    if (auto t = timing(hello.beat_interval_us, config.beat_interval, "the heartbeat interval"); !t.empty()) return t;
    if (auto t = timing(hello.beat_loss_us, config.beat_loss, "the heartbeat loss time"); !t.empty()) return t;
    if (auto t = timing(hello.lease_us, config.lease, "the lease"); !t.empty()) return t;
    if (hello.arbiter != config.arbiter_digest)
        return differs("the arbiter", hello.arbiter, config.arbiter_digest,
                       "both sides must ask the same one: compare the [arbiter] sections and, for lock, the directory itself");
    return {};
}

std::string mib(std::uint64_t bytes)
{
    return std::to_string((bytes + (1u << 20) - 1) >> 20) + " MiB";
}

// Staging is this host's own setting, so its own figure counts; the primary's is all there is where that is not known.
std::string memory_lack(const CopyMemory& memory, const Hello& hello)
{
    const std::uint64_t needed = memory.needed != 0 ? memory.needed : hello.memory_needed;
    if (memory.free == 0 || needed <= memory.free) return {};
    return "not enough memory: a copy needs " + mib(needed) + " (RAM, shadow and staging), this host has " +
           std::to_string(memory.free >> 20) + " MiB for it, " + mib(needed - memory.free) +
           " too little; free some, raise the limit of the control group or lower replication.staging_limit_mib";
}

// What a guest's time service can make up for is a twentieth of a percent.
constexpr std::uint64_t kTscPpm = 500;

std::string tsc_difference(std::uint32_t primary, std::uint32_t own)
{
    if (primary == 0 || own == 0) return {};
    const std::uint64_t apart = primary > own ? primary - own : own - primary;
    if (apart * 1'000'000 <= own * kTscPpm) return {};
    return differs("the frequency of the time stamp counter", std::to_string(primary) + " kHz", std::to_string(own) + " kHz",
                   "the guest's clock would go wrong after a failover. Use hosts with processors of the same model, or tsc_mode = \"always_emulate\" "
                   "if both hosts show the same frequency then");
}

}  // namespace

std::string first_difference(const GuestDescription& primary, const GuestDescription& own)
{
    struct Field {
        const char* what;
        std::string GuestDescription::*member;
        const char* remedy;
        const char* xen;   // the remedy for a domain of Xen, of which [guest] says little
    };
    static const Field kFields[] = {
        {"the kind of guest", &GuestDescription::kind, "set guest.type alike", "set guest.type alike"},
        {"the accelerator", &GuestDescription::accelerator, "set guest.accelerator to one that both hosts have", "set guest.type alike"},
        {"the machine type", &GuestDescription::machine, "set guest.machine alike",
         "compare viridian, acpi, tsc_mode and the like in the files of guest.xl_config, and the version of Xen"},
        {"the CPU", &GuestDescription::cpu_policy, "set guest.cpu to a model that both hosts offer",
         "compare `xl info` of both hosts (hw_caps, microcode, Xen's command line); cpuid in the file of guest.xl_config can hide what only "
         "one of them has"},
        {"the device model", &GuestDescription::device_model, "install the same version on both hosts",
         "install the same version of qemu-system-xen on both hosts"},
        {"the device list", &GuestDescription::device_list, "configure the same devices in the same order",
         "compare the files of guest.xl_config: everything but name, comments and blanks must be alike, in the same order. A daemon goes on with the file "
         "as it was when it started"},
        {"what the guest boots from", &GuestDescription::boot_digest, "use identical kernel, initrd and command line on both hosts",
         "use identical kernel, ramdisk and cmdline on both hosts"},
    };
    const bool xen = own.kind == "xen-hvm";
    for (const Field& f : kFields)
        if (primary.*f.member != own.*f.member) return differs(f.what, primary.*f.member, own.*f.member, xen ? f.xen : f.remedy);
    if (primary.vcpus != own.vcpus)
        return differs("the number of virtual CPUs", std::to_string(primary.vcpus), std::to_string(own.vcpus),
                       xen ? "set vcpus (and maxvcpus) alike in the files of guest.xl_config" : "set guest.vcpus alike");
    if (auto t = tsc_difference(primary.tsc_khz, own.tsc_khz); !t.empty()) return t;
    if (primary.regions != own.regions)
        return differs("the guest's memory", regions_text(primary.regions), regions_text(own.regions),
                       xen ? "set memory alike in the files of guest.xl_config; if it is, set guest.xl_warm_up_ms higher on both hosts, or restore the same image"
                           : "set guest.memory_mib alike");
    if (primary.special_frames != own.special_frames)
        return "the frames that belong to the host differ (" + std::to_string(primary.special_frames.size()) + " and " +
               std::to_string(own.special_frames.size()) + "); use the same hypervisor version on both hosts";
    if (primary.nics.size() != own.nics.size())
        return differs("the number of NICs", std::to_string(primary.nics.size()), std::to_string(own.nics.size()),
                       "make the [[nic]] sections alike");
    for (std::size_t i = 0; i < own.nics.size(); ++i)
        if (auto t = nic_difference(primary.nics[i], own.nics[i]); !t.empty()) return t;
    return {};
}

Hello make_hello(const NodeConfig& config, const PersistentState& state, SessionId session,
                 const GuestDescription& guest, const CopyMemory& memory)
{
    Hello hello;
    hello.version_min = replication::kProtocolMin;
    hello.version_max = replication::kProtocolMax;
    hello.domain_uuid = config.domain_uuid;
    hello.domain_name = config.domain_name;
    hello.session = session;
    hello.generation = state.generation;
    hello.guest = guest;
    hello.beat_interval_us = static_cast<std::uint32_t>(config.beat_interval.count());
    hello.beat_loss_us = static_cast<std::uint32_t>(config.beat_loss.count());
    hello.lease_us = static_cast<std::uint32_t>(config.lease.count());
    hello.arbiter = config.arbiter_digest;
    hello.page_channels = config.page_channels;
    hello.memory_needed = memory.needed;
    return hello;
}

Result<std::uint16_t> check_hello(const NodeConfig& config, const GuestDescription& own, const CopyMemory& memory,
                                  const Hello& hello)
{
    if (hello.version_min > replication::kProtocolMax || hello.version_max < replication::kProtocolMin)
        return make_error(Errc::refused, "the primary speaks protocol versions " + std::to_string(hello.version_min) + " to " +
                                             std::to_string(hello.version_max) + ", this host " +
                                             std::to_string(replication::kProtocolMin) + " to " +
                                             std::to_string(replication::kProtocolMax) + "; install the same release on both hosts");
    if (hello.session == 0) return make_error(Errc::refused, "the primary sent no session id");
    if (hello.page_channels == 0) return make_error(Errc::refused, "the primary offers no page channel");
    if (auto t = first_setting_difference(config, hello); !t.empty()) return make_error(Errc::refused, std::move(t));
    if (auto t = first_difference(hello.guest, own); !t.empty()) return make_error(Errc::refused, std::move(t));
    if (auto t = memory_lack(memory, hello); !t.empty()) return make_error(Errc::refused, std::move(t));
    return std::min(hello.version_max, replication::kProtocolMax);
}

Result<void> check_hello_ack(SessionId session, const replication::HelloAck& ack)
{
    if (ack.session != session) return make_error(Errc::refused, "the secondary answered for another session");
    if (ack.version < replication::kProtocolMin || ack.version > replication::kProtocolMax)
        return make_error(Errc::refused, "the secondary chose protocol version " + std::to_string(ack.version) +
                                             ", which was not offered");
    return {};
}

}  // namespace colo
