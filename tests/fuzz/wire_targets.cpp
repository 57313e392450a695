// SPDX-License-Identifier: Apache-2.0
#include "wire_targets.h"

#include "core/check.h"
#include "core/crc32c.h"
#include "replication/beat.h"
#include "replication/byte_io.h"
#include "replication/chunk.h"
#include "replication/wire.h"

#include <algorithm>
#include <memory>

namespace colo::fuzz {
namespace {

using namespace replication;

void open_payload(const Frame& frame)
{
    switch (frame.header.type) {
    case FrameType::channel_hello: (void)decode_channel_hello(frame); break;
    case FrameType::page_chunk: (void)decode_chunk_header(frame.payload); break;
    case FrameType::input: (void)decode_input(frame); break;
    case FrameType::output: (void)decode_output(frame); break;
    case FrameType::journalled: (void)decode_journalled(frame); break;
    default: (void)decode_message(frame);
    }
}

void correct_crc(std::uint8_t* at, std::size_t size, std::size_t crc_at)
{
    store_le(at + crc_at, std::uint32_t{0});
    store_le(at + crc_at, crc32c({at, size}));
}

void correct_frames(Bytes& stream)
{
    for (std::size_t at = 0; stream.size() - at >= kFrameHeaderSize;) {
        const std::size_t size = kFrameHeaderSize + load_le<std::uint32_t>(stream.data() + at + 8);
        if (size > stream.size() - at) return;
        correct_crc(stream.data() + at, size, 12);
        at += size;
    }
}

// Number of frames before the end or the first error.
std::size_t feed(ByteView input, std::size_t piece)
{
    FrameDecoder decoder;
    std::size_t frames = 0;
    while (!input.empty()) {
        const std::size_t n = std::min(piece, input.size());
        decoder.push(input.first(n));
        input = input.subspan(n);
        for (;;) {
            const auto next = decoder.next();
            if (!next) return frames;
            if (!*next) break;
            ++frames;
            open_payload(**next);
        }
    }
    return frames;
}

GuestDescription fuzz_guest()
{
    GuestDescription guest;
    guest.regions = {{0, 16}, {32, 16}};
    guest.special_frames = {3};
    return guest;
}

std::unique_ptr<Stager> open_stager(bool with_base)
{
    auto stager = *make_stager(fuzz_guest(), {});
    COLO_CHECK(stager->begin(1, 0, 1));
    if (with_base) {
        stager->commit(1);
        COLO_CHECK(stager->begin(2, 1, 1));
    }
    return stager;
}

}  // namespace

void frame_stream(ByteView input)
{
    if (input.empty()) return;
    Bytes stream(input.begin() + 1, input.end());
    if ((input[0] & 1) != 0) correct_frames(stream);
    COLO_CHECK(feed(stream, stream.size()) == feed(stream, 7));
}

void message(ByteView input)
{
    if (input.empty()) return;
    const auto type = static_cast<FrameType>(input[0]);
    const auto decoded = decode(type, input.subspan(1));
    if (!decoded) return;
    // The encoding is canonical: what was understood is written the same way.
    COLO_CHECK(type_of(*decoded) == type);
    const Bytes again = encode(*decoded);
    COLO_CHECK(std::equal(again.begin(), again.end(), input.begin() + 1, input.end()));
}

void beat(ByteView input)
{
    if (input.empty()) return;
    Bytes datagram(input.begin() + 1, input.end());
    if ((input[0] & 1) != 0 && datagram.size() == kBeatSize) correct_crc(datagram.data(), kBeatSize, 8);
    const auto decoded = decode_beat(datagram);
    if (!decoded) return;
    const BeatBytes again = encode(*decoded);
    COLO_CHECK(std::equal(again.begin(), again.end(), datagram.begin(), datagram.end()));
}

void chunk(ByteView input)
{
    if (input.empty()) return;
    const auto stager = open_stager((input[0] & 1) != 0);
    const auto added = stager->add_chunk(0, input.subspan(1));
    if (!added || stager->dropped_chunks() != 0) COLO_CHECK(stager->staged_pages() == 0);
    COLO_CHECK(stager->fill() <= 1.0);
    // Twice the same chunk is twice the same content.
    if (added) COLO_CHECK(stager->add_chunk(0, input.subspan(1)));
    for (Gfn g = 0; g < 48; ++g) COLO_CHECK((stager->shadow(g) != nullptr) == ((g < 16 && g != 3) || g >= 32));
}

}  // namespace colo::fuzz
