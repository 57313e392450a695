// SPDX-License-Identifier: Apache-2.0
// Single rules of the engine by example; engine_property_test has them all at random.
#include "replication/engine.h"

#include "fake_guest.h"
#include "replication/chunk.h"

#include <gtest/gtest.h>

namespace colo::replication::test {
namespace {

struct Fixture : testing::Test {
    FakeGuest guest{small_guest(), true};
    CaptureOptions options;
    std::unique_ptr<CaptureEngine> engine;
    std::unique_ptr<Stager> stager;
    std::vector<Bytes> chunks;
    ChunkSink sink = [this](ByteView chunk) -> Result<void> {
        chunks.emplace_back(chunk.begin(), chunk.end());
        return {};
    };

    void SetUp() override
    {
        options.arena_pages = 128;
        engine = make_capture_engine(guest, options);
        stager = *make_stager(guest.description(), {});
    }
    void fill(Gfn gfn, int value) { std::memset(guest.touch(gfn), value, kPageSize); }

    Manifest end_of_epoch(Epoch base)
    {
        EXPECT_TRUE(engine->precapture(sink, 0));
        EXPECT_TRUE(engine->capture_residue(false));
        EXPECT_TRUE(engine->capture_residue(true));
        EXPECT_TRUE(engine->flush_residue(sink));
        Manifest manifest;
        manifest.base = base;
        manifest.pages = engine->totals().pages;
        manifest.digest = engine->totals().digest;
        manifest.released = engine->totals().released;
        manifest.chunks_per_channel = {chunks.size()};
        return manifest;
    }
    // A first epoch that nobody needs to receive.
    void checkpoint_on(CaptureEngine& e)
    {
        ASSERT_TRUE(e.begin_epoch(1, 0));
        ASSERT_TRUE(e.precapture(sink, 0));
        ASSERT_TRUE(e.capture_residue(false));
        ASSERT_TRUE(e.capture_residue(true));
        ASSERT_TRUE(e.flush_residue(sink));
        e.staged(1);
    }
    void stage_all(Epoch epoch, Epoch base)
    {
        ASSERT_TRUE(stager->begin(epoch, base, 1));
        for (const Bytes& c : chunks) ASSERT_TRUE(stager->add_chunk(0, c));
    }
    // A whole epoch that goes well.
    void checkpoint(Epoch epoch, Epoch base)
    {
        chunks.clear();
        ASSERT_TRUE(engine->begin_epoch(epoch, base));
        const Manifest manifest = end_of_epoch(base);
        stage_all(epoch, base);
        ASSERT_TRUE(stager->complete(manifest));
        const auto verified = stager->verify(epoch, manifest);
        ASSERT_TRUE(verified) << verified.error().text;
        stager->commit(epoch);
        engine->staged(epoch);
    }
};
using CaptureTest = Fixture;
using StagerTest = Fixture;

// ---- memory that grows
// ------------------------------------------------------------------------------------------------

TEST_F(CaptureTest, R6_AFrameOutsideOfTheDescribedMemoryEndsTheSession)
{
    for (const Gfn strange : {Gfn{60}, Gfn{136}, Gfn{100'000}}) {  // in the hole, just behind the end, far behind it
        for (const bool in_pause : {false, true}) {
            engine = make_capture_engine(guest, options);
            guest.dirty_log().dirty.clear();
            checkpoint_on(*engine);
            ASSERT_TRUE(engine->begin_epoch(2, 1));
            guest.dirty_log().dirty.add(strange);
            const auto failed = [&]() -> Error {
                if (in_pause) return engine->capture_residue(false).error();
                return engine->precapture(sink, 0).error();
            }();
            EXPECT_EQ(failed.code, Errc::unsupported);
            EXPECT_NE(failed.text.find("frame " + std::to_string(strange) + " "), std::string::npos) << failed.text;
            // An abort does not heal it: the bit is gone.
            engine->aborted(2);
            const auto again = engine->begin_epoch(3, 1);
            ASSERT_FALSE(again);
            EXPECT_EQ(again.error().code, Errc::unsupported);
        }
    }
}

TEST_F(CaptureTest, SpecialFramesInTheLogAreNoGrowth)
{
    checkpoint_on(*engine);
    ASSERT_TRUE(engine->begin_epoch(2, 1));
    guest.dirty_log().dirty.add(5);
    EXPECT_TRUE(engine->precapture(sink, 0));
    EXPECT_EQ(engine->stats().fetched, 0u);
}

// ---- first copy ahead -------------------------------------------------------------------------------------------------

TEST_F(StagerTest, WhatWasWrittenAheadIsNotWrittenAgainAndWhatCameLaterIs)
{
    fill(1, 0x11);
    fill(80, 0x22);
    FakeGuest target{small_guest(), true};
    std::memset(target.memory().page(3), 0x77, kPageSize);   // firmware: not zero although P never sends it
    ASSERT_TRUE(engine->begin_epoch(1, 0));
    ASSERT_TRUE(engine->precapture(sink, 0));
    ASSERT_TRUE(stager->begin(1, 0, 1));
    for (const Bytes& c : chunks) ASSERT_TRUE(stager->add_chunk(0, c));
    const auto ahead = stager->prefill(target.memory());
    ASSERT_TRUE(ahead);
    EXPECT_EQ(*ahead, 112u);
    EXPECT_EQ(target.memory().page(80)[0], 0x22);
    EXPECT_EQ(target.memory().page(3)[0], 0);
    fill(80, 0x33);   // again, after it was written ahead
    const std::size_t sent = chunks.size();
    const Manifest manifest = end_of_epoch(0);
    for (std::size_t i = sent; i < chunks.size(); ++i) ASSERT_TRUE(stager->add_chunk(0, chunks[i]));
    ASSERT_TRUE(stager->verify(1, manifest));
    stager->commit(1);
    EXPECT_EQ(stager->stale().count(), 1u);
    ASSERT_TRUE(stager->write_guest(target.memory(), PageSet{}, false));
    EXPECT_EQ(target.memory().page(80)[0], 0x33);
    EXPECT_EQ(target.memory().page(1)[0], 0x11);
    EXPECT_EQ(*stager->prefill(target.memory()), 0u) << "nothing is written ahead once something was committed";
}

TEST_F(StagerTest, ADroppedFirstEpochForgetsWhatItWroteAhead)
{
    fill(1, 0x11);
    FakeGuest target{small_guest(), true};
    ASSERT_TRUE(engine->begin_epoch(1, 0));
    ASSERT_TRUE(engine->precapture(sink, 0));
    ASSERT_TRUE(stager->begin(1, 0, 1));
    for (const Bytes& c : chunks) ASSERT_TRUE(stager->add_chunk(0, c));
    ASSERT_TRUE(stager->prefill(target.memory()));
    stager->drop(1);
    ASSERT_TRUE(stager->begin(2, 0, 1));
    stager->commit(2);
    ASSERT_TRUE(stager->write_guest(target.memory(), PageSet{}, false));
    EXPECT_EQ(target.memory().page(1)[0], 0);
}

// ---- capture ----------------------------------------------------------------------------------------------------------

TEST_F(CaptureTest, FirstEpochSendsOnlyWhatIsNotZero)
{
    fill(1, 0x11);
    fill(80, 0x22);
    checkpoint(1, 0);
    const auto stats = engine->stats();
    EXPECT_EQ(guest.dirty_log().starts, 1);
    EXPECT_EQ(engine->totals().pages, 2u);
    EXPECT_EQ(stats.zero, 110u);   // 114 frames, 2 special
    EXPECT_EQ(stats.not_sent, 110u);
    EXPECT_TRUE(engine->owned().empty());
}

TEST_F(CaptureTest, FramesAreClassifiedAgainstTheLastStagedContent)
{
    for (Gfn g = 1; g <= 4; ++g) fill(g, static_cast<int>(g));
    checkpoint(1, 0);
    guest.touch(1);                 // same content
    guest.touch(2)[100] = 0xff;     // a little
    fill(3, 0);                     // zero
    for (int i = 0; i < 4096; ++i) guest.touch(4)[i] = static_cast<std::uint8_t>(i * 7);   // everything
    checkpoint(2, 1);
    const auto stats = engine->stats();
    EXPECT_EQ(stats.unchanged, 1u);
    EXPECT_EQ(stats.not_sent, 1u);
    EXPECT_EQ(stats.delta, 1u);
    EXPECT_EQ(stats.zero, 1u);
    EXPECT_EQ(stats.full, 1u);
    EXPECT_EQ(engine->totals().pages, 3u);
    EXPECT_EQ(std::memcmp(stager->shadow(2), guest.memory().page(2), kPageSize), 0);
}

TEST_F(CaptureTest, BackToTheBaseWithinAnEpochIsSent)
{
    fill(1, 1);
    checkpoint(1, 0);
    chunks.clear();
    ASSERT_TRUE(engine->begin_epoch(2, 1));
    fill(1, 2);
    ASSERT_TRUE(engine->precapture(sink, 0));   // S stages 2...
    fill(1, 1);
    const Manifest manifest = end_of_epoch(1);  // ...and must learn that it is 1 again
    EXPECT_EQ(engine->stats().unchanged, 1u);
    EXPECT_EQ(engine->totals().pages, 2u);
    stage_all(2, 1);
    ASSERT_TRUE(stager->verify(2, manifest));
    stager->commit(2);
    EXPECT_EQ(stager->shadow(1)[0], 1);
}

TEST_F(CaptureTest, Inv05_EpochNumbersAndBasesAreChecked)
{
    EXPECT_FALSE(engine->begin_epoch(0, 0));
    EXPECT_FALSE(engine->begin_epoch(2, 1));    // nothing is staged
    checkpoint(1, 0);
    EXPECT_FALSE(engine->begin_epoch(1, 1));    // R7: never reused
    EXPECT_FALSE(engine->begin_epoch(2, 0));    // S has something now
    ASSERT_TRUE(engine->begin_epoch(2, 1));
    EXPECT_FALSE(engine->begin_epoch(3, 1));    // 2 is open
    engine->aborted(2);
    EXPECT_FALSE(engine->begin_epoch(2, 1));
    EXPECT_FALSE(engine->begin_epoch(3, 2));    // 2 was never staged
    EXPECT_TRUE(engine->begin_epoch(3, 1));
}

TEST_F(CaptureTest, StepsOutOfOrderAreRefused)
{
    EXPECT_FALSE(engine->precapture(sink, 0));
    EXPECT_FALSE(engine->capture_residue(false));
    EXPECT_FALSE(engine->flush_residue(sink));
    ASSERT_TRUE(engine->begin_epoch(1, 0));
    EXPECT_FALSE(engine->capture_residue(true));
    EXPECT_FALSE(engine->flush_residue(sink));
    ASSERT_TRUE(engine->precapture(sink, 0));
    ASSERT_TRUE(engine->capture_residue(false));
    EXPECT_FALSE(engine->precapture(sink, 0));
    ASSERT_TRUE(engine->flush_residue(sink));
    EXPECT_FALSE(engine->capture_residue(true));
}

TEST_F(CaptureTest, AResidueLargerThanTheArenaIsRefusedAndNothingIsLost)
{
    options.arena_pages = 10;
    engine = make_capture_engine(guest, options);
    ASSERT_TRUE(engine->begin_epoch(1, 0));
    EXPECT_EQ(engine->backlog(), 112u);
    const auto r = engine->capture_residue(false);
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, Errc::limit);
    engine->aborted(1);
    EXPECT_EQ(engine->owned().count(), 112u);
    ASSERT_TRUE(engine->begin_epoch(2, 0));
    ASSERT_TRUE(engine->precapture(sink, 105));
    EXPECT_EQ(engine->backlog(), 7u);
    EXPECT_TRUE(engine->capture_residue(false));
}

TEST_F(CaptureTest, PrecaptureTakesItsShareInTurn)
{
    checkpoint(1, 0);
    ASSERT_TRUE(engine->begin_epoch(2, 1));
    std::set<Gfn> sent;
    const ChunkSink record = [&](ByteView chunk) -> Result<void> {
        RecordReader reader(chunk.subspan(kChunkHeaderSize));
        while (!reader.at_end()) sent.insert(reader.next()->gfn);
        return {};
    };
    for (Gfn g = 10; g < 30; ++g) fill(g, 1);
    for (int round = 0; round < 4; ++round) {
        EXPECT_EQ(*engine->precapture(record, 5), 5u);
        fill(10, 100 + round);   // a hot low frame does not keep the others from their turn
    }
    EXPECT_EQ(sent.size(), 20u);
}

TEST_F(CaptureTest, ARescanReplacesWhatTheSaveWrote)
{
    for (const bool has_view : {true, false}) {
        FakeGuest other(small_guest(), has_view);
        auto capture = make_capture_engine(other, options);
        auto receiver = *make_stager(other.description(), {});
        chunks.clear();
        ASSERT_TRUE(capture->begin_epoch(1, 0));
        std::memset(other.touch(9), 1, kPageSize);
        ASSERT_TRUE(capture->capture_residue(false));
        std::memset(other.touch(9), 2, kPageSize);
        std::memset(other.touch(10), 3, kPageSize);
        ASSERT_TRUE(capture->capture_residue(true));
        std::memset(other.touch(9), 4, kPageSize);   // runs again: not part of the cut
        ASSERT_TRUE(capture->flush_residue(sink));
        EXPECT_EQ(capture->totals().pages, 2u);
        ASSERT_TRUE(receiver->begin(1, 0, 1));
        for (const Bytes& c : chunks) ASSERT_TRUE(receiver->add_chunk(0, c));
        receiver->commit(1);
        EXPECT_EQ(receiver->shadow(9)[0], 2);
        EXPECT_EQ(receiver->shadow(10)[0], 3);
    }
}

TEST_F(CaptureTest, GivenUpAndUnreadableFrames)
{
    FakeGuest other(small_guest(), false);
    auto capture = make_capture_engine(other, options);
    std::memset(other.touch(9), 1, kPageSize);
    other.balloon_out(20);
    ASSERT_TRUE(capture->begin_epoch(1, 0));
    ASSERT_TRUE(capture->precapture(sink, 0));
    EXPECT_EQ(capture->totals().released, std::vector<Gfn>{20});
    std::memset(other.touch(20), 1, kPageSize);   // taken back
    ASSERT_TRUE(capture->precapture(sink, 0));
    EXPECT_TRUE(capture->totals().released.empty());
    other.touch(30);
    other.memory().unreadable.insert(30);
    EXPECT_FALSE(capture->precapture(sink, 0));
    EXPECT_FALSE(capture->capture_residue(false));   // only abort is left
    capture->aborted(1);
    EXPECT_TRUE(capture->owned().contains(30));
}

TEST_F(CaptureTest, ASinkThatFailsCostsTheEpochAndNoBit)
{
    checkpoint(1, 0);
    fill(3, 3);
    ASSERT_TRUE(engine->begin_epoch(2, 1));
    const auto r = engine->precapture([](ByteView) -> Result<void> { return make_error(Errc::closed, "peer"); }, 0);
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, Errc::closed);
    EXPECT_FALSE(engine->capture_residue(false));
    engine->aborted(2);
    EXPECT_TRUE(engine->owned().contains(3));
    checkpoint(3, 1);
    EXPECT_EQ(stager->shadow(3)[0], 3);
}

TEST_F(CaptureTest, Inv08_BitsFetchedAfterTheCutSurviveItsStaged)
{
    checkpoint(1, 0);
    fill(3, 3);
    chunks.clear();
    ASSERT_TRUE(engine->begin_epoch(2, 1));
    const Manifest manifest = end_of_epoch(1);
    ASSERT_TRUE(engine->begin_epoch(3, 2));              // before the answer
    fill(4, 4);
    const std::size_t sent = chunks.size();
    EXPECT_EQ(*engine->precapture(sink, 0), 0u);         // fetched, but its base is not staged
    EXPECT_EQ(chunks.size(), sent);
    EXPECT_FALSE(engine->capture_residue(false));
    stage_all(2, 1);
    ASSERT_TRUE(stager->verify(2, manifest));
    stager->commit(2);
    engine->staged(2);
    EXPECT_EQ(engine->owned().to_vector(), std::vector<Gfn>{4});
    EXPECT_EQ(*engine->precapture(sink, 0), 1u);
}

TEST_F(CaptureTest, NewOptionsTakeEffectWithTheNextEpoch)
{
    fill(1, 1);
    checkpoint(1, 0);
    options.compression = Compression::zstd;
    options.delta_cache_bytes = 0;
    engine->set_options(options);
    fill(1, 2);
    checkpoint(2, 1);
    EXPECT_EQ(decode_chunk_header(chunks.back())->compression, Compression::zstd);
    EXPECT_EQ(engine->stats().full, 1u);   // the old cache is gone, no delta against it
    EXPECT_EQ(stager->shadow(1)[0], 2);
    EXPECT_LT(engine->stats().sent_bytes, engine->stats().raw_bytes);
}

// Fetching is destructive: bits that were not reported are gone.
TEST_F(CaptureTest, AnIncompleteLogMakesEveryFrameDirty)
{
    checkpoint(1, 0);
    ASSERT_TRUE(engine->begin_epoch(2, 1));
    guest.dirty_log().next_error = make_error(Errc::limit, "ENOMEM");
    ASSERT_TRUE(engine->precapture(sink, 0));
    EXPECT_EQ(engine->owned().count(), 112u);
    EXPECT_EQ(engine->stats().fetched, 112u);
}

// ---- stager -----------------------------------------------------------------------------------------------------------

// A chunk with full pages {gfn, fill byte}.
Bytes full_chunk(Epoch epoch, Epoch base, std::uint32_t order, std::vector<std::pair<Gfn, int>> pages)
{
    ChunkHeader header{epoch, base, order, static_cast<std::uint32_t>(pages.size()), 0, Compression::none};
    const std::size_t record = kRecordHeaderSize + kPageSize;
    Bytes chunk(kChunkHeaderSize + pages.size() * record);
    header.raw_bytes = static_cast<std::uint32_t>(chunk.size() - kChunkHeaderSize);
    store_chunk_header(chunk.data(), header);
    for (std::size_t i = 0; i < pages.size(); ++i) {
        std::uint8_t* const at = chunk.data() + kChunkHeaderSize + i * record;
        store_record_header(at, pages[i].first, PageKind::full, kPageSize);
        std::memset(at + kRecordHeaderSize, pages[i].second, kPageSize);
    }
    return chunk;
}

TEST_F(StagerTest, TheHigherOrderWinsWhateverArrivesFirst)
{
    ASSERT_TRUE(stager->begin(1, 0, 2));
    ASSERT_TRUE(stager->add_chunk(0, full_chunk(1, 0, 5, {{3, 0x55}})));
    ASSERT_TRUE(stager->add_chunk(1, full_chunk(1, 0, 4, {{3, 0x44}, {4, 0x44}})));
    ASSERT_TRUE(stager->add_chunk(1, full_chunk(1, 0, 6, {{4, 0x66}})));
    EXPECT_EQ(stager->staged_pages(), 2u);
    EXPECT_EQ(stager->shadow(3)[0], 0);   // nothing counts before the commit
    stager->commit(1);
    EXPECT_EQ(stager->shadow(3)[0], 0x55);
    EXPECT_EQ(stager->shadow(4)[0], 0x66);
}

TEST_F(StagerTest, ChunksOfOtherEpochsAndBasesAreDroppedAndCounted)
{
    ASSERT_TRUE(stager->begin(1, 0, 1));
    stager->commit(1);
    ASSERT_TRUE(stager->begin(3, 1, 1));
    EXPECT_TRUE(stager->add_chunk(0, full_chunk(2, 1, 1, {{3, 1}})));
    EXPECT_TRUE(stager->add_chunk(0, full_chunk(4, 1, 1, {{3, 1}})));
    EXPECT_TRUE(stager->add_chunk(0, full_chunk(3, 0, 1, {{3, 1}})));   // R6: based on what S no longer is
    EXPECT_EQ(stager->dropped_chunks(), 3u);
    EXPECT_EQ(stager->staged_pages(), 0u);
    stager->drop(3);
    EXPECT_TRUE(stager->add_chunk(0, full_chunk(3, 1, 1, {{3, 1}})));   // late
    EXPECT_EQ(stager->dropped_chunks(), 4u);
    EXPECT_EQ(stager->open_epoch(), 3u);
}

TEST_F(StagerTest, Inv05_BeginChecksNumberAndBase)
{
    EXPECT_FALSE(stager->begin(0, 0, 1));
    EXPECT_FALSE(stager->begin(2, 1, 1));
    EXPECT_FALSE(stager->begin(1, 0, 0));
    ASSERT_TRUE(stager->begin(2, 0, 1));
    EXPECT_FALSE(stager->begin(3, 0, 1));   // still open
    stager->drop(2);
    EXPECT_FALSE(stager->begin(2, 0, 1));   // R7
    ASSERT_TRUE(stager->begin(3, 0, 1));
    stager->commit(3);
    EXPECT_FALSE(stager->begin(4, 0, 1));   // would forget what S may have to run
    EXPECT_TRUE(stager->begin(4, 3, 1));
}

TEST_F(StagerTest, ABadChunkChangesNothing)
{
    ASSERT_TRUE(stager->begin(1, 0, 1));
    Bytes outside = full_chunk(1, 0, 1, {{3, 1}, {60, 1}});    // the second lies in the hole
    EXPECT_FALSE(stager->add_chunk(0, outside));
    Bytes special = full_chunk(1, 0, 1, {{3, 1}, {5, 1}});
    EXPECT_FALSE(stager->add_chunk(0, special));
    EXPECT_FALSE(stager->add_chunk(0, full_chunk(1, 0, 0, {{3, 1}})));
    EXPECT_FALSE(stager->add_chunk(7, full_chunk(1, 0, 1, {{3, 1}})));
    Bytes cut = full_chunk(1, 0, 1, {{3, 1}});
    cut.pop_back();
    EXPECT_FALSE(stager->add_chunk(0, cut));
    EXPECT_EQ(stager->staged_pages(), 0u);
    EXPECT_EQ(stager->fill(), 0.0);
}

TEST_F(StagerTest, Inv06_VerifyNamesWhatDiffers)
{
    fill(1, 1);
    ASSERT_TRUE(engine->begin_epoch(1, 0));
    const Manifest good = end_of_epoch(0);
    stage_all(1, 0);
    EXPECT_TRUE(stager->verify(1, good));
    const auto refused = [&](const char* what, auto&& change) {
        Manifest bad = good;
        change(bad);
        const auto r = stager->verify(1, bad);
        ASSERT_FALSE(r) << what;
        EXPECT_NE(r.error().text.find(what), std::string::npos) << r.error().text;
    };
    refused("digest", [](Manifest& m) { m.digest ^= 1; });
    refused("page records", [](Manifest& m) { ++m.pages; });
    refused("base", [](Manifest& m) { m.base = 7; });
    refused("channel 0", [](Manifest& m) { --m.chunks_per_channel[0]; });
    refused("channels", [](Manifest& m) { m.chunks_per_channel.push_back(0); });
    refused("released", [](Manifest& m) { m.released = {60}; });
    EXPECT_FALSE(stager->verify(2, good));
    Manifest more = good;
    ++more.chunks_per_channel[0];
    EXPECT_FALSE(stager->complete(more));
}

TEST_F(StagerTest, StagingIsBounded)
{
    stager = *make_stager(guest.description(), {10 * kPageSize});
    ASSERT_TRUE(stager->begin(1, 0, 1));
    std::vector<std::pair<Gfn, int>> all;
    for_each_frame(guest.description(), [&](Gfn g) { all.emplace_back(g, 7); });
    ASSERT_TRUE(stager->add_chunk(0, full_chunk(1, 0, 1, all)));   // the first epoch may be as large as RAM
    EXPECT_EQ(stager->fill(), 0.0);
    stager->commit(1);
    all.resize(10);
    for (Epoch epoch = 2; epoch < 6; ++epoch) {
        ASSERT_TRUE(stager->begin(epoch, epoch - 1, 1));
        ASSERT_TRUE(stager->add_chunk(0, full_chunk(epoch, epoch - 1, 1, all)));
        EXPECT_EQ(stager->fill(), 1.0);
        ASSERT_TRUE(stager->add_chunk(0, full_chunk(epoch, epoch - 1, 2, all)));   // the same frames again
        const auto r = stager->add_chunk(0, full_chunk(epoch, epoch - 1, 3, {{100, 1}}));
        ASSERT_FALSE(r);
        EXPECT_EQ(r.error().code, Errc::limit);
        stager->commit(epoch);
    }
}

TEST_F(StagerTest, TheGuestIsWrittenWhereItMayDiffer)
{
    FakeGuest secondary(small_guest(), true);
    fill(1, 1);
    checkpoint(1, 0);
    EXPECT_EQ(*stager->write_guest(secondary.memory(), PageSet(), false), 112u);   // a fresh guest is not all zero
    EXPECT_TRUE(stager->stale().empty());
    fill(2, 2);
    checkpoint(2, 1);
    fill(3, 3);
    checkpoint(3, 2);   // buffered: two epochs before the guest is written
    secondary.memory().written.clear();
    PageSet own;
    for (const Gfn g : {Gfn{2}, Gfn{9}, Gfn{5}, Gfn{60}}) own.add(g);   // 5 is special, 60 in the hole
    std::memset(secondary.memory().page(9), 0xee, kPageSize);
    EXPECT_EQ(*stager->write_guest(secondary.memory(), own, false), 3u);
    EXPECT_EQ(secondary.memory().written, (std::set<Gfn>{2, 3, 9}));
    EXPECT_EQ(secondary.memory().page(9)[0], 0);   // Inv09
    EXPECT_EQ(secondary.memory().page(2)[0], 2);
}

TEST_F(StagerTest, AFailedWriteLeavesEverythingStale)
{
    FakeGuest secondary(small_guest(), true);
    checkpoint(1, 0);
    secondary.memory().write_error = true;
    EXPECT_FALSE(stager->write_guest(secondary.memory(), PageSet(), false));
    EXPECT_EQ(stager->stale().count(), 112u);
    secondary.memory().write_error = false;
    EXPECT_EQ(*stager->write_guest(secondary.memory(), PageSet(), false), 112u);
}

TEST(StagerLimit, MemoryThatIsNotThereIsRefusedAtOnce)
{
    GuestDescription guest;
    guest.regions = {{0, std::uint64_t{1} << 31}};   // 8 TiB
    const auto stager = make_stager(guest, {});
    ASSERT_FALSE(stager);
    EXPECT_TRUE(stager.error().code == Errc::limit || stager.error().code == Errc::unsupported) << stager.error().text;
    guest.regions = {{std::uint64_t{1} << 40, 1}};
    EXPECT_EQ(make_stager(guest, {}).error().code, Errc::unsupported);
}

}  // namespace
}  // namespace colo::replication::test
