// SPDX-License-Identifier: Apache-2.0
#include "proxy/segment.h"

#include "proxy/frame.h"
#include "proxy/packet.h"

#include <algorithm>

namespace colo::proxy {
namespace {

constexpr std::size_t kEthernet = 14, kIpAt = kVnetHeaderSize + kEthernet;
constexpr std::uint8_t kFin = 0x01, kPush = 0x08, kCongestionReduced = 0x80;

std::uint32_t sum(ByteView data, std::uint32_t start)
{
    std::uint32_t total = start;
    std::size_t i = 0;
    for (; i + 1 < data.size(); i += 2) total += load_be16(&data[i]);
    if (i < data.size()) total += std::uint32_t{data[i]} << 8;
    return total;
}

std::uint16_t fold(std::uint32_t total)
{
    while (total >> 16 != 0) total = (total & 0xffff) + (total >> 16);
    return static_cast<std::uint16_t>(~total);
}

struct Shape {
    std::size_t ip_size = 0, tcp_at = 0, headers = 0, payload = 0, segment = 0;
};

// segment 0: not to be split.
Shape shape_of(ByteView frame)
{
    Shape s;
    if (frame.size() < kIpAt + 40 || (frame[1] & 0x7f) != kVnetGsoTcp4) return s;
    if (load_be16(&frame[kVnetHeaderSize + 12]) != 0x0800 || frame[kIpAt] >> 4 != 4 || frame[kIpAt + 9] != 6) return s;
    s.ip_size = (frame[kIpAt] & 15u) * 4u;
    s.tcp_at = kIpAt + s.ip_size;
    if (s.ip_size < 20 || frame.size() < s.tcp_at + 20) return s;
    const std::size_t tcp_size = (frame[s.tcp_at + 12] >> 4) * 4u;
    s.headers = s.tcp_at + tcp_size;
    const std::size_t end = kIpAt + load_be16(&frame[kIpAt + 2]);
    if (tcp_size < 20 || s.headers > frame.size() || end > frame.size() || end < s.headers) return s;
    s.payload = end - s.headers;
    s.segment = frame[4] | std::size_t{frame[5]} << 8;
    return s;
}

Bytes one_segment(ByteView frame, const Shape& s, std::size_t offset, std::size_t size)
{
    Bytes out(frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(s.headers));
    std::fill_n(out.begin(), kVnetHeaderSize, std::uint8_t{0});
    const auto data = frame.subspan(s.headers + offset, size);
    out.insert(out.end(), data.begin(), data.end());
    const bool last = offset + size == s.payload;
    std::uint8_t* ip = &out[kIpAt];
    store_be16(ip + 2, static_cast<std::uint16_t>(out.size() - kIpAt));
    store_be16(ip + 4, static_cast<std::uint16_t>(load_be16(ip + 4) + offset / s.segment));
    store_be16(ip + 10, 0);
    store_be16(ip + 10, fold(sum(ByteView(ip, s.ip_size), 0)));
    std::uint8_t* tcp = &out[s.tcp_at];
    store_be32(tcp + 4, load_be32(tcp + 4) + static_cast<std::uint32_t>(offset));
    if (!last) tcp[13] = static_cast<std::uint8_t>(tcp[13] & ~(kFin | kPush));
    if (offset != 0) tcp[13] = static_cast<std::uint8_t>(tcp[13] & ~kCongestionReduced);
    store_be16(tcp + 16, 0);
    const std::size_t tcp_length = out.size() - s.tcp_at;
    const std::uint32_t pseudo = sum(ByteView(ip + 12, 8), static_cast<std::uint32_t>(6 + tcp_length));
    store_be16(tcp + 16, fold(sum(ByteView(tcp, tcp_length), pseudo)));
    return out;
}

}  // namespace

std::vector<Bytes> segment_tcp4(ByteView frame)
{
    std::vector<Bytes> segments;
    const Shape s = shape_of(frame);
    if (s.segment == 0 || s.payload == 0) return segments;
    segments.reserve(s.payload / s.segment + 1);
    for (std::size_t offset = 0; offset < s.payload; offset += s.segment)
        segments.push_back(one_segment(frame, s, offset, std::min(s.segment, s.payload - offset)));
    return segments;
}

}  // namespace colo::proxy
