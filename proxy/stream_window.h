// SPDX-License-Identifier: Apache-2.0
#pragma once

// One side's bytes of one direction of a TCP connection that are not verified yet: pieces of frames, by position,
// without overlap and without copying. Positions are 64-bit; their low 32 bits are the wire sequence number, so the
// circle never shows.

#include "proxy/frame.h"

#include <deque>
#include <optional>

namespace colo::proxy {

using Position = std::int64_t;

// The position nearest to `near` whose low 32 bits are `seq`.
inline Position position_of(std::uint32_t seq, Position near)
{
    return near + static_cast<std::int32_t>(seq - static_cast<std::uint32_t>(near));
}
inline Position first_position(std::uint32_t seq)
{
    return (Position{1} << 40) + seq;
}

class StreamWindow {
public:
    enum class Insert : std::uint8_t { taken, nothing_new, conflict, full };

    // Bytes [start, start + length) of the stream are frame->bytes[offset ...]. Bytes below `floor` are ignored. Bytes
    // already here must be equal: `conflict` otherwise (nothing is taken). `full`: too many pieces.
    Insert insert(Position start, const FramePtr& frame, std::uint32_t offset, std::uint32_t length, Position floor);
    // false: a FIN elsewhere, or data beyond it, is known already.
    bool insert_fin(Position at);

    // The longest contiguous run of bytes of one piece at `at`; empty if there is none.
    ByteView at(Position at) const;
    bool fin_at(Position at) const { return fin_ && *fin_ == at; }
    void discard_below(Position floor);
    void clear();
    bool empty() const { return pieces_.empty() && !fin_; }
    // Memory that is kept alive for the pieces (frames are counted once per piece).
    std::size_t memory() const { return memory_; }

private:
    struct Piece {
        Position start, end;
        FramePtr frame;
        std::uint32_t offset;  // of `start` in the frame
        const std::uint8_t* data() const { return frame->bytes.data() + offset; }
        std::size_t memory() const { return frame->bytes.size() + kOverhead; }
    };
    static constexpr std::size_t kOverhead = 128;
    static constexpr std::size_t kMaxPieces = 8192;
    std::size_t first_reaching(Position position) const;
    bool agrees(Position start, Position end, const std::uint8_t* bytes) const;
    void fill_gaps(Position start, Position end, const FramePtr& frame, std::uint32_t offset);

    std::deque<Piece> pieces_;
    std::optional<Position> fin_;
    std::size_t memory_ = 0;
};

// Verifies bytes that both windows have, from `verified` up to `limit`; moves `verified` and discards below it.
enum class Verdict : std::uint8_t { equal, different };
Verdict verify(StreamWindow& mine, StreamWindow& theirs, Position& verified, Position limit);

}  // namespace colo::proxy
