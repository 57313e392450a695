// SPDX-License-Identifier: Apache-2.0
#include "replication/byte_io.h"
#include "replication/wire.h"

#include <algorithm>

// One put/get pair per message, fields in the order of docs/protocol.md.

namespace colo::replication {
namespace {

// Texts for people are cut, not refused.
void put_text(ByteWriter& out, const std::string& text) { out.text(std::string_view(text).substr(0, kMaxText)); }

// ---- guest description ------------------------------------------------------------------------------------------------

void put(ByteWriter& out, const GuestDescription& guest)
{
    for (const std::string* s : {&guest.kind, &guest.accelerator, &guest.machine, &guest.cpu_policy, &guest.device_model,
                                 &guest.device_list, &guest.boot_digest})
        out.text(*s);
    out.u32(guest.vcpus);
    out.u32(guest.tsc_khz);
    out.count(guest.regions.size());
    for (const MemoryRegion& r : guest.regions) {
        out.u64(r.first);
        out.u64(r.pages);
    }
    out.count(guest.special_frames.size());
    for (const Gfn gfn : guest.special_frames) out.u64(gfn);
    out.count(guest.nics.size());
    for (const NicDescription& nic : guest.nics) {
        out.text(nic.id);
        out.raw(nic.mac);
        out.u32(nic.offload_features);
    }
}

void get(ByteReader& in, GuestDescription& guest)
{
    for (std::string* s : {&guest.kind, &guest.accelerator, &guest.machine, &guest.cpu_policy, &guest.device_model,
                           &guest.device_list, &guest.boot_digest})
        *s = in.text("guest description", kMaxIdentity);
    guest.vcpus = in.u32("vcpus");
    guest.tsc_khz = in.u32("TSC frequency");
    guest.regions.resize(in.count("regions", kMaxRegions, 16));
    for (MemoryRegion& r : guest.regions) {
        r.first = in.u64("region start");
        r.pages = in.u64("region size");
        if (r.first > kMaxGfn || r.pages > kMaxGfn - r.first) in.fail("region", "lies beyond the largest frame number");
    }
    guest.special_frames.resize(in.count("special frames", kMaxSpecialFrames, 8));
    for (Gfn& gfn : guest.special_frames) {
        gfn = in.u64("special frame");
        if (gfn >= kMaxGfn) in.fail("special frame", "lies beyond the largest frame number");
    }
    guest.nics.resize(in.count("nics", kMaxNics, 14));
    for (NicDescription& nic : guest.nics) {
        nic.id = in.text("nic id", 64);
        const ByteView mac = in.raw("mac", nic.mac.size());
        std::copy(mac.begin(), mac.end(), nic.mac.begin());
        nic.offload_features = in.u32("offload features");
    }
}

// ---- greetings --------------------------------------------------------------------------------------------------------

void put(ByteWriter& out, const Hello& m)
{
    out.u16(m.version_min);
    out.u16(m.version_max);
    out.text(m.domain_uuid);
    out.text(m.domain_name);
    out.u64(m.session);
    out.u64(m.generation);
    put(out, m.guest);
    out.u32(m.beat_interval_us);
    out.u32(m.beat_loss_us);
    out.u32(m.lease_us);
    out.text(m.arbiter);
    out.u8(m.page_channels);
    out.u64(m.memory_needed);
}

void get(ByteReader& in, Hello& m)
{
    m.version_min = in.u16("version-min");
    m.version_max = in.u16("version-max");
    m.domain_uuid = in.text("domain uuid", 36);
    m.domain_name = in.text("domain name", 256);
    m.session = in.u64("session");
    m.generation = in.u64("generation");
    get(in, m.guest);
    m.beat_interval_us = in.u32("beat interval");
    m.beat_loss_us = in.u32("beat loss");
    m.lease_us = in.u32("lease");
    m.arbiter = in.text("arbiter", kMaxIdentity);
    m.page_channels = in.u8("page channels");
    m.memory_needed = in.u64("memory needed");
    if (m.version_min == 0 || m.version_min > m.version_max) in.fail("version-min", "is not within 1..version-max");
    if (m.domain_uuid.size() != 36) in.fail("domain uuid", "is not 36 characters long");
    if (m.session == 0) in.fail("session", "is 0");
    if (m.page_channels == 0) in.fail("page channels", "is 0");
}

void put(ByteWriter& out, const HelloAck& m)
{
    out.u16(m.version);
    out.u64(m.session);
    out.u64(m.generation);
    out.u64(m.memory_free);
}

void get(ByteReader& in, HelloAck& m)
{
    m.version = in.u16("version");
    m.session = in.u64("session");
    m.generation = in.u64("generation");
    m.memory_free = in.u64("memory free");
    if (m.session == 0) in.fail("session", "is 0");
}

void put(ByteWriter& out, const Refuse& m) { put_text(out, m.reason); }
void get(ByteReader& in, Refuse& m) { m.reason = in.text("reason", kMaxText); }

// ---- checkpoint -------------------------------------------------------------------------------------------------------

// An epoch that a message is about is never 0.
Epoch get_epoch(ByteReader& in)
{
    const Epoch epoch = in.u64("epoch");
    if (epoch == 0) in.fail("epoch", "is 0");
    return epoch;
}

Epoch get_base(ByteReader& in, Epoch epoch)
{
    const Epoch base = in.u64("base");
    if (base >= epoch) in.fail("base", "is not older than the epoch");
    return base;
}

void put(ByteWriter& out, const Begin& m)
{
    out.u64(m.epoch);
    out.u64(m.base);
    out.u8(static_cast<std::uint8_t>(m.mode));
}

void get(ByteReader& in, Begin& m)
{
    m.epoch = get_epoch(in);
    m.base = get_base(in, m.epoch);
    m.mode = in.enumeration("mode", Mode::lock_step, Mode::migration);
}

void put(ByteWriter& out, const Cut& m)
{
    out.u64(m.epoch);
    out.u8(static_cast<std::uint8_t>(m.reason));
}

void get(ByteReader& in, Cut& m)
{
    m.epoch = get_epoch(in);
    m.reason = in.enumeration("reason", TriggerReason::first, TriggerReason::mode_change);
}

constexpr std::size_t kFlowBytes = 1 + 4 + 4 + 2 + 2 + 4 + 4 + 4 + 4 + 4 + 1;

void put(ByteWriter& out, const FlowState& f)
{
    out.u8(f.nic);
    out.u32(f.guest_ip);
    out.u32(f.peer_ip);
    out.u16(f.guest_port);
    out.u16(f.peer_port);
    out.u32(f.wire_offset);
    out.u32(f.timestamp_offset);
    out.u32(f.covered_seq);
    out.u32(f.acked_seq);
    out.u32(f.highest_timestamp);
    out.u8(f.flags);
}

void get(ByteReader& in, FlowState& f)
{
    f.nic = in.u8("flow nic");
    f.guest_ip = in.u32("flow guest ip");
    f.peer_ip = in.u32("flow peer ip");
    f.guest_port = in.u16("flow guest port");
    f.peer_port = in.u16("flow peer port");
    f.wire_offset = in.u32("flow wire offset");
    f.timestamp_offset = in.u32("flow timestamp offset");
    f.covered_seq = in.u32("flow covered seq");
    f.acked_seq = in.u32("flow acked seq");
    f.highest_timestamp = in.u32("flow highest timestamp");
    f.flags = in.u8("flow flags");
    if (f.nic >= kMaxNics) in.fail("flow nic", "is out of range");
}

void put(ByteWriter& out, const Manifest& m)
{
    out.u64(m.base);
    out.u8(static_cast<std::uint8_t>(m.mode));
    out.count(m.chunks_per_channel.size());
    for (const std::uint64_t n : m.chunks_per_channel) out.u64(n);
    out.u64(m.pages);
    out.u64(m.digest);
    out.count(m.released.size());
    for (const Gfn gfn : m.released) out.u64(gfn);
    out.blob(m.state.devices);
    out.blob(m.state.cpu_context);
    out.count(m.proxy.flows.size());
    for (const FlowState& f : m.proxy.flows) put(out, f);
    out.u64(m.proxy.last_input);
    out.count(m.disks.size());
    for (const DiskCut& d : m.disks) {
        out.text(d.id);
        out.u64(d.last_write);
    }
    out.u8(static_cast<std::uint8_t>(m.power));
}

void get(ByteReader& in, Manifest& m, Epoch epoch)
{
    m.base = get_base(in, epoch);
    m.mode = in.enumeration("mode", Mode::lock_step, Mode::migration);
    m.chunks_per_channel.resize(in.count("chunk counts", kMaxPageChannels, 8));
    for (std::uint64_t& n : m.chunks_per_channel) n = in.u64("chunk count");
    m.pages = in.u64("pages");
    m.digest = in.u64("digest");
    m.released.resize(in.count("released frames", kMaxReleased, 8));
    for (Gfn& gfn : m.released) {
        gfn = in.u64("released frame");
        if (gfn >= kMaxGfn) in.fail("released frame", "lies beyond the largest frame number");
    }
    const ByteView devices = in.blob("device state", kMaxDeviceState);
    m.state.devices.assign(devices.begin(), devices.end());
    const ByteView cpu = in.blob("cpu context", kMaxCpuContext);
    m.state.cpu_context.assign(cpu.begin(), cpu.end());
    m.proxy.flows.resize(in.count("flows", kMaxFlows, kFlowBytes));
    for (FlowState& f : m.proxy.flows) get(in, f);
    m.proxy.last_input = in.u64("last input");
    m.disks.resize(in.count("disks", kMaxDisks, 12));
    for (DiskCut& d : m.disks) {
        d.id = in.text("disk id", 64);
        d.last_write = in.u64("disk last write");
    }
    m.power = in.enumeration("power state", PowerState::running, PowerState::paused);
}

void put(ByteWriter& out, const End& m)
{
    out.u64(m.epoch);
    put(out, m.manifest);
}

void get(ByteReader& in, End& m)
{
    m.epoch = get_epoch(in);
    get(in, m.manifest, m.epoch);
}

template <class M>
concept OnlyEpoch = std::is_same_v<M, Abort> || std::is_same_v<M, AbortOk> || std::is_same_v<M, Staged>;

template <OnlyEpoch M>
void put(ByteWriter& out, const M& m)
{
    out.u64(m.epoch);
}

template <OnlyEpoch M>
void get(ByteReader& in, M& m)
{
    m.epoch = get_epoch(in);
}

void put(ByteWriter& out, const Applied& m)
{
    out.u64(m.epoch);
    out.u32(m.apply_us);
    out.u32(m.own_dirty_pages);
}

void get(ByteReader& in, Applied& m)
{
    m.epoch = get_epoch(in);
    m.apply_us = in.u32("apply-us");
    m.own_dirty_pages = in.u32("own dirty pages");
}

// ---- ends of a session ------------------------------------------------------------------------------------------------

template <class M>
concept OnlyCause = std::is_same_v<M, Resign> || std::is_same_v<M, Abdicate> || std::is_same_v<M, Close>;

template <OnlyCause M>
void put(ByteWriter& out, const M& m)
{
    put_text(out, m.cause);
}

template <OnlyCause M>
void get(ByteReader& in, M& m)
{
    m.cause = in.text("cause", kMaxText);
}

void put(ByteWriter&, const ResignRequest&) {}
void get(ByteReader&, ResignRequest&) {}
void put(ByteWriter&, const Handover&) {}
void get(ByteReader&, Handover&) {}

void put(ByteWriter& out, const TriggerRequest& m) { out.u8(static_cast<std::uint8_t>(m.reason)); }

void get(ByteReader& in, TriggerRequest& m)
{
    m.reason = in.enumeration("reason", TriggerReason::first, TriggerReason::mode_change);
}

// ---- by type ----------------------------------------------------------------------------------------------------------

template <std::size_t Index>
Result<Message> decode_as(std::size_t index, ByteReader& in)
{
    if constexpr (Index == std::variant_size_v<Message>) {
        return make_error(Errc::corrupt, "frame type " + std::to_string(index + 1) + " is not a control message");
    } else {
        if (index != Index) return decode_as<Index + 1>(index, in);
        std::variant_alternative_t<Index, Message> m{};
        get(in, m);
        if (auto r = in.finish(); !r) return r.error();
        return Message(std::in_place_index<Index>, std::move(m));
    }
}

}  // namespace

Bytes encode(const Message& message)
{
    Bytes bytes;
    if (const End* end = std::get_if<End>(&message))
        bytes.reserve(end->manifest.state.devices.size() + end->manifest.state.cpu_context.size() + 4096);
    ByteWriter out(bytes);
    std::visit([&](const auto& m) { put(out, m); }, message);
    return bytes;
}

Result<Message> decode(FrameType type, ByteView payload)
{
    if (payload.size() > max_payload(type)) return make_error(Errc::limit, std::string(to_string(type)) + ": too long");
    ByteReader in(payload, to_string(type));
    return decode_as<0>(static_cast<std::size_t>(type) - 1, in);
}

Result<Message> decode_message(const Frame& frame)
{
    auto message = decode(frame.header.type, frame.payload);
    if (!message) return message;
    const auto differs = [&](const char* what) {
        return make_error(Errc::corrupt, std::string(name_of(*message)) + ": " + what + " differs from the frame's");
    };
    if (epoch_of(*message) != frame.header.epoch) return differs("epoch");
    if (const Hello* hello = std::get_if<Hello>(&*message); hello && hello->session != frame.header.session)
        return differs("session");
    if (const HelloAck* ack = std::get_if<HelloAck>(&*message); ack && ack->session != frame.header.session)
        return differs("session");
    return message;
}

}  // namespace colo::replication
