// SPDX-License-Identifier: Apache-2.0
#include "frames.h"

#include <cstring>

namespace colo::sim {
namespace {

constexpr std::size_t kEthernet = proxy::kVnetHeaderSize, kIp = kEthernet + 14, kL4 = kIp + 20;

void put16(std::uint8_t* to, std::uint32_t v)
{
    to[0] = static_cast<std::uint8_t>(v >> 8);
    to[1] = static_cast<std::uint8_t>(v);
}
void put32(std::uint8_t* to, std::uint32_t v)
{
    put16(to, v >> 16);
    put16(to + 2, v & 0xffff);
}
std::uint32_t get16(const std::uint8_t* p) { return static_cast<std::uint32_t>(p[0] << 8 | p[1]); }
std::uint32_t get32(const std::uint8_t* p) { return get16(p) << 16 | get16(p + 2); }

std::uint32_t sum(const std::uint8_t* p, std::size_t n, std::uint32_t s = 0)
{
    for (std::size_t i = 0; i + 1 < n; i += 2) s += get16(p + i);
    if (n % 2 != 0) s += static_cast<std::uint32_t>(p[n - 1] << 8);
    return s;
}
std::uint32_t fold(std::uint32_t s)
{
    while (s >> 16 != 0) s = (s & 0xffff) + (s >> 16);
    return s;
}

std::uint32_t l4_sum(const std::uint8_t* frame, std::size_t size)
{
    const std::uint32_t pseudo = sum(frame + kIp + 12, 8) + frame[kIp + 9] + static_cast<std::uint32_t>(size - kL4);
    return fold(sum(frame + kL4, size - kL4, pseudo));
}

}  // namespace

Bytes make_frame(const Segment& s, bool from_guest)
{
    const std::size_t header = s.udp ? 8 : 32;
    Bytes b(kL4 + header + s.payload.size(), 0);
    std::uint8_t* f = b.data();
    const Mac& source = from_guest ? kGuestMac : kClientMac;
    const Mac& target = from_guest ? kClientMac : kGuestMac;
    std::memcpy(f + kEthernet, target.data(), 6);
    std::memcpy(f + kEthernet + 6, source.data(), 6);
    put16(f + kEthernet + 12, 0x0800);
    f[kIp] = 0x45;
    put16(f + kIp + 2, static_cast<std::uint32_t>(b.size() - kIp));
    f[kIp + 8] = 64;
    f[kIp + 9] = s.udp ? 17 : 6;
    put32(f + kIp + 12, from_guest ? kGuestIp : kClientIp);
    put32(f + kIp + 16, from_guest ? kClientIp : kGuestIp);
    put16(f + kIp + 10, ~fold(sum(f + kIp, 20)) & 0xffff);
    put16(f + kL4, s.source_port);
    put16(f + kL4 + 2, s.target_port);
    if (s.udp) {
        put16(f + kL4 + 4, static_cast<std::uint32_t>(8 + s.payload.size()));
    } else {
        put32(f + kL4 + 4, s.seq);
        put32(f + kL4 + 8, s.ack);
        f[kL4 + 12] = 0x80;   // 32 bytes: with timestamps
        f[kL4 + 13] = s.flags;
        put16(f + kL4 + 14, 0xffff);
        f[kL4 + 20] = f[kL4 + 21] = 1;
        f[kL4 + 22] = 8;
        f[kL4 + 23] = 10;
        put32(f + kL4 + 24, s.tsval);
        put32(f + kL4 + 28, s.tsecr);
    }
    if (!s.payload.empty()) std::memcpy(f + kL4 + header, s.payload.data(), s.payload.size());
    put16(f + kL4 + (s.udp ? 6 : 16), ~l4_sum(f, b.size()) & 0xffff);
    return b;
}

std::optional<Segment> read_frame(ByteView frame, bool* damaged)
{
    const std::uint8_t* f = frame.data();
    if (frame.size() < kL4 + 8 || get16(f + kEthernet + 12) != 0x0800 || f[kIp] != 0x45) return std::nullopt;
    const std::size_t end = kIp + get16(f + kIp + 2);
    const bool udp = f[kIp + 9] == 17;
    if ((!udp && f[kIp + 9] != 6) || end > frame.size() || end < kL4 + (udp ? 8u : 20u)) return std::nullopt;
    if (fold(sum(f + kIp, 20)) != 0xffff || l4_sum(f, end) != 0xffff) {
        if (damaged != nullptr) *damaged = true;
        return std::nullopt;
    }
    Segment s;
    s.udp = udp;
    s.source_port = static_cast<std::uint16_t>(get16(f + kL4));
    s.target_port = static_cast<std::uint16_t>(get16(f + kL4 + 2));
    std::size_t header = 8;
    if (!udp) {
        s.seq = get32(f + kL4 + 4);
        s.ack = get32(f + kL4 + 8);
        s.flags = f[kL4 + 13];
        header = static_cast<std::size_t>(f[kL4 + 12] >> 4) * 4;
        if (kL4 + header > end) return std::nullopt;
        if (header == 32 && f[kL4 + 22] == 8) {
            s.tsval = get32(f + kL4 + 24);
            s.tsecr = get32(f + kL4 + 28);
        }
    }
    s.payload.assign(f + kL4 + header, f + end);
    return s;
}

std::string describe(ByteView frame)
{
    const auto s = read_frame(frame);
    if (!s) return "other frame of " + std::to_string(frame.size()) + " bytes";
    std::string text = std::to_string(s->source_port) + " > " + std::to_string(s->target_port);
    if (s->udp) return text + " udp";
    static constexpr const char kFlags[] = "FSRPA";
    text += ' ';
    for (int i = 0; i < 5; ++i)
        if ((s->flags >> i & 1) != 0) text += kFlags[i];
    return text + " seq " + std::to_string(s->seq) + "+" + std::to_string(s->payload.size()) + " ack " + std::to_string(s->ack) +
           " ts " + std::to_string(s->tsval) + "/" + std::to_string(s->tsecr);
}

Mac target_mac(ByteView frame)
{
    Mac mac{};
    std::memcpy(mac.data(), frame.data() + kEthernet, 6);
    return mac;
}

Mac source_mac(ByteView frame)
{
    Mac mac{};
    std::memcpy(mac.data(), frame.data() + kEthernet + 6, 6);
    return mac;
}

}  // namespace colo::sim
