// SPDX-License-Identifier: Apache-2.0
#include "link.h"

#include <algorithm>
#include <utility>

namespace colo::sim {

void Stream::send(Bytes bytes)
{
    if (closed_ || over_ || bytes.empty()) return;
    if (std::exchange(damage_, false)) bytes[random_.below(bytes.size())] ^= static_cast<std::uint8_t>(1u << random_.below(8));
    const bool cut = std::exchange(truncate_, false);
    if (cut) bytes.resize(random_.below(bytes.size()));
    // TCP does not keep the sender's boundaries.
    const std::size_t split = random_.chance(0.2) ? random_.below(bytes.size() + 1) : bytes.size();
    const Bytes rest(bytes.begin() + static_cast<std::ptrdiff_t>(split), bytes.end());
    bytes.resize(split);
    for (Bytes part : {bytes, rest}) {
        if (part.empty()) continue;
        last_arrival_ = std::max(last_arrival_, scheduler_.now() + path_.delay + random_.between(0, path_.jitter.count()));
        pieces_.push_back({std::move(part), false, last_arrival_});
    }
    if (cut) finish();
    pump();
}

void Stream::finish()
{
    if (closed_ || over_) return;
    closed_ = true;
    last_arrival_ = std::max(last_arrival_, scheduler_.now() + path_.delay);
    pieces_.push_back({{}, true, last_arrival_});
    pump();
}

void Stream::end_at_once()
{
    if (over_) return;
    over_ = true;
    pieces_.clear();
    scheduler_.after(path_.delay, [self = shared_from_this()] {
        if (self->ended) std::exchange(self->ended, nullptr)();
    });
}

void Stream::host_gone()
{
    closed_ = true;
    pieces_.resize(random_.below(pieces_.size() + 1));
    std::erase_if(pieces_, [](const Piece& p) { return p.fin; });
}

void Stream::pump()
{
    if (pumping_ || pieces_.empty() || over_) return;
    pumping_ = true;
    const Time at = std::max({pieces_.front().arrives, path_.blocked_until, stalled_until_});
    scheduler_.at(at, [self = shared_from_this()] {
        self->pumping_ = false;
        if (self->over_ || self->pieces_.empty()) return;
        if (self->scheduler_.now() < std::max(self->path_.blocked_until, self->stalled_until_)) return self->pump();
        const Piece piece = std::move(self->pieces_.front());
        self->pieces_.pop_front();
        if (piece.fin) {
            self->over_ = true;
            if (self->ended) std::exchange(self->ended, nullptr)();
            return;
        }
        if (self->deliver) self->deliver(piece.bytes);
        self->pump();
    });
}

void send_datagram(Scheduler& scheduler, Random& random, Path& path, Bytes datagram, std::function<void(ByteView)> deliver)
{
    if (scheduler.now() < path.blocked_until || random.chance(path.datagram_loss)) return;
    if (random.chance(path.datagram_damage)) datagram[random.below(datagram.size())] ^= static_cast<std::uint8_t>(1u << random.below(8));
    const int copies = random.chance(path.datagram_duplicate) ? 2 : 1;
    for (int i = 0; i < copies; ++i) {
        Duration delay = path.delay + random.between(0, path.jitter.count());
        if (path.reorder) delay += random.between(0, 15'000);
        scheduler.after(delay, [&scheduler, &path, datagram, deliver] {
            if (scheduler.now() >= path.blocked_until) deliver(datagram);
        });
    }
}

}  // namespace colo::sim
