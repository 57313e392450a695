// SPDX-License-Identifier: Apache-2.0
// The frame parser and the rewriting that trusts it.
#include "core/check.h"
#include "proxy/packet.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
{
    using namespace colo;
    Bytes bytes(data, data + size);
    const proxy::Packet packet = proxy::parse_packet(bytes);
    if (packet.kind == proxy::PacketKind::opaque) return 0;
    COLO_CHECK(packet.l4 <= packet.payload && packet.payload <= packet.end && packet.end <= bytes.size());
    if (packet.kind == proxy::PacketKind::tcp) {
        proxy::rewrite_tcp(bytes, packet, {1, 0xffffffff, 2, 3});
        proxy::rewrite_tcp(bytes, packet, {0xffffffff, 1, 0xfffffffe, 0xfffffffd});
        const proxy::Packet again = proxy::parse_packet(bytes);
        COLO_CHECK(again.seq == packet.seq && again.ack == packet.ack && again.options.tsval == packet.options.tsval);
    }
    proxy::finish_checksum(bytes);
    return 0;
}
