// SPDX-License-Identifier: Apache-2.0
#pragma once

// The network between the hosts. A Stream is one direction of a TCP connection: in order, never lost while it lives, late
// when the path is blocked; bytes may be damaged on it (what TCP's own checksum misses) or end in the middle of a frame.

#include "random.h"
#include "scheduler.h"

#include <deque>
#include <functional>
#include <memory>

namespace colo::sim {

// One direction of the path between the hosts, shared by everything that uses it.
struct Path {
    Time blocked_until{};
    Duration delay{120}, jitter{80};
    double datagram_loss = 0, datagram_duplicate = 0, datagram_damage = 0;
    bool reorder = false;
};

class Stream : public std::enable_shared_from_this<Stream> {
public:
    Stream(Scheduler& scheduler, Random random, Path& path) : scheduler_(scheduler), random_(random), path_(path) {}

    std::function<void(ByteView)> deliver;   // the receiving host
    std::function<void()> ended;             // FIN or reset reached the receiver; once

    void send(Bytes bytes);
    void finish();                           // FIN after everything that was sent
    void reset() { end_at_once(); }
    void host_gone();                        // the sender lost power: an unknown part of what is on its way arrives
    void stall(Time until) { stalled_until_ = std::max(stalled_until_, until); }
    void damage_next() { damage_ = true; }
    void truncate_next() { truncate_ = true; }

private:
    struct Piece {
        Bytes bytes;
        bool fin = false;
        Time arrives{};
    };
    void pump();
    void end_at_once();

    Scheduler& scheduler_;
    Random random_;
    Path& path_;
    std::deque<Piece> pieces_;
    Time last_arrival_{}, stalled_until_{};
    bool pumping_ = false, damage_ = false, truncate_ = false, over_ = false, closed_ = false;
};

void send_datagram(Scheduler& scheduler, Random& random, Path& path, Bytes datagram, std::function<void(ByteView)> deliver);

}  // namespace colo::sim
