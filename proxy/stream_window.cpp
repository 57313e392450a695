// SPDX-License-Identifier: Apache-2.0
#include "proxy/stream_window.h"

#include <algorithm>
#include <cstring>

namespace colo::proxy {

std::size_t StreamWindow::first_reaching(Position position) const
{
    const auto it = std::partition_point(pieces_.begin(), pieces_.end(),
                                         [position](const Piece& piece) { return piece.end <= position; });
    return static_cast<std::size_t>(it - pieces_.begin());
}

bool StreamWindow::agrees(Position start, Position end, const std::uint8_t* bytes) const
{
    for (std::size_t i = first_reaching(start); i < pieces_.size() && pieces_[i].start < end; ++i) {
        const Piece& piece = pieces_[i];
        const Position from = std::max(start, piece.start), to = std::min(end, piece.end);
        if (std::memcmp(bytes + (from - start), piece.data() + (from - piece.start),
                        static_cast<std::size_t>(to - from)) != 0)
            return false;
    }
    return true;
}

void StreamWindow::fill_gaps(Position start, Position end, const FramePtr& frame, std::uint32_t offset)
{
    std::size_t i = first_reaching(start);
    Position at = start;
    while (at < end) {
        const bool more = i < pieces_.size() && pieces_[i].start < end;
        const Position gap_end = more ? std::max(at, pieces_[i].start) : end;
        if (at < gap_end) {
            const Piece piece{at, gap_end, frame, offset + static_cast<std::uint32_t>(at - start)};
            memory_ += piece.memory();
            pieces_.insert(pieces_.begin() + static_cast<std::ptrdiff_t>(i), piece);
            ++i;
        }
        if (!more) return;
        at = pieces_[i].end;
        ++i;
    }
}

StreamWindow::Insert StreamWindow::insert(Position start, const FramePtr& frame, std::uint32_t offset,
                                          std::uint32_t length, Position floor)
{
    const Position end = start + length;
    if (start < floor) {
        if (end <= floor) return Insert::nothing_new;
        offset += static_cast<std::uint32_t>(floor - start);
        start = floor;
    }
    if (start >= end) return Insert::nothing_new;
    if (fin_ && end > *fin_) return Insert::conflict;
    if (pieces_.size() >= kMaxPieces) return Insert::full;
    if (pieces_.empty() || start >= pieces_.back().end) {  // the usual case: in order
        pieces_.push_back({start, end, frame, offset});
        memory_ += pieces_.back().memory();
        return Insert::taken;
    }
    if (!agrees(start, end, frame->bytes.data() + offset)) return Insert::conflict;
    const std::size_t before = memory_;
    fill_gaps(start, end, frame, offset);
    return memory_ == before ? Insert::nothing_new : Insert::taken;
}

bool StreamWindow::insert_fin(Position at)
{
    if (fin_ && *fin_ != at) return false;
    if (!pieces_.empty() && pieces_.back().end > at) return false;
    fin_ = at;
    return true;
}

ByteView StreamWindow::at(Position at) const
{
    const std::size_t i = pieces_.empty() || pieces_.front().end > at ? 0 : first_reaching(at);
    if (i >= pieces_.size() || pieces_[i].start > at) return {};
    const Piece& piece = pieces_[i];
    return {piece.data() + (at - piece.start), static_cast<std::size_t>(piece.end - at)};
}

void StreamWindow::discard_below(Position floor)
{
    while (!pieces_.empty() && pieces_.front().end <= floor) {
        memory_ -= pieces_.front().memory();
        pieces_.pop_front();
    }
    if (!pieces_.empty() && pieces_.front().start < floor) {
        Piece& front = pieces_.front();
        front.offset += static_cast<std::uint32_t>(floor - front.start);
        front.start = floor;
    }
    if (fin_ && *fin_ < floor) fin_.reset();
}

void StreamWindow::clear()
{
    pieces_.clear();
    fin_.reset();
    memory_ = 0;
}

Verdict verify(StreamWindow& mine, StreamWindow& theirs, Position& verified, Position limit)
{
    Verdict verdict = Verdict::equal;
    while (verified < limit) {
        const ByteView a = mine.at(verified), b = theirs.at(verified);
        const bool fin_a = mine.fin_at(verified), fin_b = theirs.fin_at(verified);
        if ((fin_a && !b.empty()) || (fin_b && !a.empty())) {
            verdict = Verdict::different;
            break;
        }
        if (fin_a && fin_b) {
            ++verified;
            break;
        }
        if (a.empty() || b.empty()) break;
        const auto room = static_cast<std::size_t>(limit - verified);
        const std::size_t n = std::min({a.size(), b.size(), room});
        if (std::memcmp(a.data(), b.data(), n) != 0) {
            verified +=
                std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(n), b.begin()).first - a.begin();
            verdict = Verdict::different;
            break;
        }
        verified += static_cast<Position>(n);
    }
    mine.discard_below(verified);
    theirs.discard_below(verified);
    return verdict;
}

}  // namespace colo::proxy
