// SPDX-License-Identifier: Apache-2.0
// Two emissions of one byte stream, cut, repeated, overlapped and shuffled differently: they must match, never early,
// and a single different byte must never pass.
#include "primary_harness.h"

#include <algorithm>
#include <set>

namespace colo::proxy::test {
namespace {

struct Piece {
    std::uint32_t at;
    std::string data;
    bool fin;
};

// Every byte at least once, in random pieces; some repeated with other borders; order disturbed within `disorder`
// pieces.
std::vector<Piece> emission(Random& random, const std::string& stream, std::uint32_t disorder, bool fin)
{
    std::vector<Piece> pieces;
    const auto size = static_cast<std::uint32_t>(stream.size());
    for (std::uint32_t at = 0; at < size;) {
        const std::uint32_t n = std::min(size - at, 1 + random.below(random.chance(20) ? 4000 : 60));
        pieces.push_back({at, stream.substr(at, n), fin && at + n == size});
        at += n;
        if (random.chance(15) && at > 0) {
            const std::uint32_t from = random.below(at);
            pieces.push_back({from, stream.substr(from, 1 + random.below(at - from)), false});
        }
    }
    for (std::size_t i = 0; i + 1 < pieces.size(); ++i)
        if (random.chance(20))
            std::swap(pieces[i], pieces[std::min<std::size_t>(pieces.size() - 1, i + 1 + random.below(disorder))]);
    return pieces;
}

class StreamFuzz : public PrimaryHarness {
protected:
    FramePtr frame(const Piece& piece) const
    {
        return tcp({.seq = isn + piece.at,
                    .ack = 1,
                    .flags = static_cast<std::uint8_t>(kTcpAck | (piece.fin ? kTcpFin : 0)),
                    .data = piece.data});
    }
    void feed(Random& random, const std::vector<Piece>& ours, const std::vector<Piece>& theirs)
    {
        // The first segment tells the proxy where the stream begins; the guest's first one is never out of order.
        std::size_t i = 0, k = 0;
        while (i < ours.size() || k < theirs.size()) {
            const bool own = k == theirs.size() || (i < ours.size() && random.chance(50));
            const Piece& piece = own ? ours[i++] : theirs[k++];
            if (own)
                guest(frame(piece));
            else {
                for (std::uint32_t b = 0; b < piece.data.size(); ++b) seen.insert(piece.at + b);
                if (piece.fin) fin_seen = true;
                peer(frame(piece));
            }
            check_releases();
        }
    }
    void check_releases()
    {
        for (; checked < sink.wire.size(); ++checked) {
            const Decoded out = decode_tcp(sink.wire[checked].frame);
            for (std::uint32_t b = 0; b < out.data.size(); ++b)
                ASSERT_TRUE(seen.contains(out.seq - isn + b)) << "byte before S had it";
            if ((out.flags & kTcpFin) != 0) {
                ASSERT_TRUE(fin_seen);
            }
        }
    }
    std::uint32_t isn = 0;
    std::set<std::uint32_t> seen;
    bool fin_seen = false;
    std::size_t checked = 0;
};

std::string random_stream(Random& random)
{
    std::string stream(200 + random.below(6000), ' ');
    for (char& c : stream) c = static_cast<char>(random.below(256));
    return stream;
}

TEST_F(StreamFuzz, Inv01_Inv26_TwoSegmentationsOfOneStreamMatch)
{
    for (std::uint64_t seed = 1; seed <= 300; ++seed) {
        Random random(seed);
        make(ProxyOptions{});
        protect();
        seen.clear();
        fin_seen = false;
        checked = 0;
        const std::string stream = random_stream(random);
        isn = random.chance(50) ? 0u - random.below(static_cast<std::uint32_t>(stream.size())) : random();
        const bool fin = random.chance(50);
        auto ours = emission(random, stream, 1 + random.below(6), fin);
        ours.insert(ours.begin(), Piece{0, stream.substr(0, 1), false});
        const auto theirs = emission(random, stream, 1 + random.below(6), fin);
        feed(random, ours, theirs);
        ASSERT_EQ(sink.wire.size(), ours.size()) << "seed " << seed;
        ASSERT_TRUE(sink.triggers.empty()) << "seed " << seed << ": " << sink.last_detail;
        ASSERT_EQ(proxy->stats().held_bytes, 0u);
        if (HasFatalFailure()) return;
    }
}

TEST_F(StreamFuzz, Inv01_OneDifferentByteNeverPasses)
{
    for (std::uint64_t seed = 1; seed <= 300; ++seed) {
        Random random(seed);
        make(ProxyOptions{});
        protect();
        seen.clear();
        checked = 0;
        const std::string stream = random_stream(random);
        const auto bad = random.below(static_cast<std::uint32_t>(stream.size()));
        std::string other = stream;
        other[bad] = static_cast<char>(other[bad] ^ (1 << random.below(8)));
        isn = random();
        auto ours = emission(random, stream, 1 + random.below(4), false);
        ours.insert(ours.begin(), Piece{0, stream.substr(0, 1), false});
        feed(random, ours, emission(random, other, 1 + random.below(4), false));
        ASSERT_EQ(sink.triggers.size(), 1u) << "seed " << seed;
        ASSERT_EQ(sink.triggers[0], replication::TriggerReason::mismatch);
        for (const auto& out : sink.wire) {
            const Decoded d = decode_tcp(out.frame);
            ASSERT_TRUE(bad < d.seq - isn || bad >= d.seq - isn + d.data.size()) << "seed " << seed;
        }
        checkpoint(2);
        ASSERT_EQ(sink.wire.size(), ours.size()) << "the checkpoint frees the rest, each frame once";
    }
}

// Whatever arrives from either side, the proxy keeps its bounds and its books.
TEST_F(StreamFuzz, Inv29_RubbishFromBothSidesKeepsTheBooks)
{
    make(ProxyOptions{.nics = {}, .hold_bytes_max = 100'000, .compare_bytes_max = 100'000, .flows_max = 32});
    protect();
    Random random(5);
    Epoch epoch = 1;
    for (int i = 0; i < 60'000; ++i) {
        Segment s;
        s.from_guest = true;
        s.guest_port = static_cast<std::uint16_t>(1 + random.below(8));
        s.peer_port = static_cast<std::uint16_t>(1 + random.below(8));
        s.seq = random.chance(80) ? random.below(3000) : random();
        s.ack = random.below(3000);
        s.flags = static_cast<std::uint8_t>(random.chance(85) ? kTcpAck : random.below(64));
        s.data = std::string(random.below(200), static_cast<char>('a' + random.below(2)));
        Bytes bytes = tcp(s)->bytes;
        if (random.chance(10))
            bytes[random.below(static_cast<std::uint32_t>(bytes.size()))] = static_cast<std::uint8_t>(random());
        const FramePtr frame = make_frame(bytes);
        switch (random.below(4)) {
        case 0: guest(frame); break;
        case 1: peer(frame, epoch - random.below(2) + random.below(2)); break;
        case 2: client(frame); break;
        default: s.from_guest = false; client(tcp(s));
        }
        now = now + Duration{50};
        if (now >= proxy->next_deadline()) proxy->tick(now);
        const ProxyStats stats = proxy->stats();
        ASSERT_LE(stats.held_bytes, 100'000u);
        ASSERT_LE(stats.flows, 32u);
        if (i % 500 == 499) checkpoint(++epoch);
        if (i % 700 == 699) {
            proxy->seal(++epoch, {}, now);
            proxy->aborted(epoch, now);
        }
        sink.wire.clear();
        sink.guest.clear();
        sink.mirrored.clear();
    }
    proxy->set_output(PrimaryProxy::Output::flow, 2, now);
    EXPECT_EQ(proxy->stats().held_bytes, 0u);
    EXPECT_EQ(proxy->stats().held_frames, 0u);
}

}  // namespace
}  // namespace colo::proxy::test
