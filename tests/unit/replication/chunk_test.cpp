// SPDX-License-Identifier: Apache-2.0
#include "replication/chunk.h"

#include "replication/byte_io.h"
#include "replication/codec.h"
#include "replication/delta.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <xxhash.h>

namespace colo::replication {
namespace {

// ---- header and records -----------------------------------------------------------------------------------------------

ChunkHeader sample_header() { return {9, 7, 3, 2, 2 * kRecordHeaderSize, Compression::none}; }

Bytes chunk_of(const ChunkHeader& header, std::size_t body_bytes)
{
    Bytes chunk(kChunkHeaderSize + body_bytes);
    store_chunk_header(chunk.data(), header);
    return chunk;
}

TEST(ChunkHeader, RoundTrip)
{
    const ChunkHeader sent = sample_header();
    const auto back = decode_chunk_header(chunk_of(sent, sent.raw_bytes));
    ASSERT_TRUE(back) << back.error().text;
    EXPECT_EQ(back->epoch, 9u);
    EXPECT_EQ(back->base, 7u);
    EXPECT_EQ(back->order, 3u);
    EXPECT_EQ(back->pages, 2u);
    EXPECT_EQ(back->raw_bytes, 2 * kRecordHeaderSize);
    EXPECT_EQ(back->compression, Compression::none);
}

template <class Change>
bool refused(Change&& change)
{
    ChunkHeader header = sample_header();
    std::size_t body = header.raw_bytes;
    change(header, body);
    return !decode_chunk_header(chunk_of(header, body));
}

TEST(ChunkHeader, Bounds)
{
    EXPECT_TRUE(refused([](ChunkHeader& h, std::size_t&) { h.epoch = 0; }));
    EXPECT_TRUE(refused([](ChunkHeader& h, std::size_t&) { h.base = 9; }));
    EXPECT_TRUE(refused([](ChunkHeader& h, std::size_t&) { h.pages = 0; }));
    EXPECT_TRUE(refused([](ChunkHeader& h, std::size_t&) { h.pages = kMaxPagesPerChunk + 1; }));
    EXPECT_TRUE(refused([](ChunkHeader& h, std::size_t&) { h.raw_bytes = 0xffffffff; }));
    EXPECT_TRUE(refused([](ChunkHeader& h, std::size_t&) { h.raw_bytes = 2 * kRecordHeaderSize - 1; }));
    EXPECT_TRUE(refused([](ChunkHeader& h, std::size_t&) { h.compression = static_cast<Compression>(0); }));
    EXPECT_TRUE(refused([](ChunkHeader& h, std::size_t&) { h.compression = static_cast<Compression>(4); }));
    EXPECT_TRUE(refused([](ChunkHeader&, std::size_t& body) { ++body; }));
    EXPECT_TRUE(refused([](ChunkHeader& h, std::size_t&) { h.compression = Compression::zstd; }));   // not smaller than raw
    Bytes chunk = chunk_of(sample_header(), sample_header().raw_bytes);
    chunk[31] = 1;
    EXPECT_FALSE(decode_chunk_header(chunk));
    for (std::size_t n = 0; n < kChunkHeaderSize; ++n) EXPECT_FALSE(decode_chunk_header(ByteView(chunk).first(n)));
}

TEST(RecordReader, KindsAndSizes)
{
    const auto read = [](PageKind kind, std::size_t claimed, std::size_t present) {
        Bytes body(kRecordHeaderSize + present);
        store_record_header(body.data(), 77, kind, claimed);
        const auto record = RecordReader(body).next();
        return record && record->gfn == 77 && record->kind == kind && record->data.size() == claimed;
    };
    EXPECT_TRUE(read(PageKind::zero, 0, 0));
    EXPECT_TRUE(read(PageKind::unchanged, 0, 0));
    EXPECT_TRUE(read(PageKind::delta, 12, 12));
    EXPECT_TRUE(read(PageKind::full, kPageSize, kPageSize));
    EXPECT_FALSE(read(PageKind::zero, 1, 1));
    EXPECT_FALSE(read(PageKind::delta, 0, 0));
    EXPECT_FALSE(read(PageKind::delta, kPageSize, kPageSize));
    EXPECT_FALSE(read(PageKind::full, kPageSize - 1, kPageSize));
    EXPECT_FALSE(read(PageKind::full, kPageSize, kPageSize - 1));
    EXPECT_FALSE(read(static_cast<PageKind>(0), 0, 0));
    EXPECT_FALSE(read(static_cast<PageKind>(5), 0, 0));
}

TEST(ContentHash, IsTheSameOnEveryProcessor)
{
    std::mt19937_64 random(2);
    for (int run = 0; run < 100; ++run) {
        Bytes page(kPageSize);
        for (auto& b : page) b = static_cast<std::uint8_t>(random());
        ASSERT_EQ(content_hash(page.data()), XXH3_64bits(page.data(), kPageSize));
    }
}

TEST(RecordDigest, TellsFrameOrderAndContentApart)
{
    Bytes page(kPageSize, 0);
    EXPECT_EQ(content_hash(page.data()), zero_page_hash());
    const std::uint64_t zero = zero_page_hash();
    page[4000] = 1;
    const std::uint64_t other = content_hash(page.data());
    EXPECT_NE(record_digest(1, 1, zero), record_digest(1, 1, other));
    EXPECT_NE(record_digest(1, 1, zero), record_digest(2, 1, zero));
    EXPECT_NE(record_digest(1, 1, zero), record_digest(1, 2, zero));
    // Two records that exchanged their contents, or their orders, do not cancel out.
    EXPECT_NE(record_digest(1, 1, zero) ^ record_digest(2, 1, other), record_digest(1, 1, other) ^ record_digest(2, 1, zero));
    EXPECT_NE(record_digest(1, 1, zero) ^ record_digest(1, 2, other), record_digest(1, 2, zero) ^ record_digest(1, 1, other));
}

// ---- delta ------------------------------------------------------------------------------------------------------------

TEST(Delta, RandomChangesRoundTrip)
{
    std::mt19937_64 random(11);
    int small = 0;
    for (int run = 0; run < 3000; ++run) {
        Bytes base(kPageSize), page;
        for (auto& b : base) b = static_cast<std::uint8_t>(random() % 3);
        page = base;
        for (std::uint64_t changes = random() % (run % 3 == 0 ? 400 : 20); changes > 0; --changes) {
            const std::size_t at = random() % kPageSize, n = std::min<std::size_t>(random() % 40, kPageSize - at);
            for (std::size_t i = at; i < at + n; ++i) page[i] = static_cast<std::uint8_t>(random());
        }
        Bytes out(kMaxDeltaBytes + 16, 0xee);
        const std::size_t size = encode_delta(base.data(), page.data(), out.data());
        ASSERT_LE(size, kMaxDeltaBytes);
        for (std::size_t i = kMaxDeltaBytes; i < out.size(); ++i) ASSERT_EQ(out[i], 0xee);
        if (size == 0) continue;
        ++small;
        const ByteView delta = ByteView(out).first(size);
        ASSERT_TRUE(is_valid_delta(delta));
        Bytes rebuilt = base;
        apply_delta(delta, rebuilt.data());
        ASSERT_EQ(rebuilt, page);
        for (std::size_t n = 1; n < size; n += 1 + size / 20) {   // a cut is either at a run's end or noticed
            if (!is_valid_delta(delta.first(n))) continue;
            Bytes shorter = base;
            apply_delta(delta.first(n), shorter.data());
        }
    }
    EXPECT_GT(small, 1000);
}

TEST(Delta, NothingDiffersOrEverythingDoes)
{
    const Bytes base(kPageSize, 1), other(kPageSize, 2);
    Bytes out(kMaxDeltaBytes);
    EXPECT_EQ(encode_delta(base.data(), base.data(), out.data()), 0u);
    EXPECT_EQ(encode_delta(base.data(), other.data(), out.data()), 0u);
    Bytes last = base;
    last[kPageSize - 1] = 9;
    EXPECT_EQ(encode_delta(base.data(), last.data(), out.data()), 12u);
}

TEST(Delta, RunsOutsideThePageAreInvalid)
{
    const auto run = [](std::uint16_t skip, std::uint16_t words, std::size_t present) {
        Bytes delta(4 + present * 8);
        store_le(delta.data(), skip);
        store_le(delta.data() + 2, words);
        return is_valid_delta(delta);
    };
    EXPECT_TRUE(run(511, 1, 1));
    EXPECT_TRUE(run(0, 512, 512));
    EXPECT_FALSE(run(512, 1, 1));
    EXPECT_FALSE(run(0, 513, 513));
    EXPECT_FALSE(run(0, 0, 0));
    EXPECT_FALSE(run(0, 2, 1));
    EXPECT_FALSE(run(65535, 65535, 1));
    EXPECT_FALSE(is_valid_delta(Bytes(3)));
}

// ---- codec ------------------------------------------------------------------------------------------------------------

class CodecTest : public testing::TestWithParam<Compression> {};

TEST_P(CodecTest, RoundTripAndEveryWrongSizeOrCut)
{
    std::mt19937 random(5);
    Compressor compressor(GetParam(), 1);
    Decompressor decompressor;
    for (int run = 0; run < 20; ++run) {
        Bytes raw(1000 + random() % 50'000);
        for (auto& b : raw) b = static_cast<std::uint8_t>(random() % 7);
        Bytes packed(raw.size() - 1);
        const std::size_t size = compressor.compress(raw, packed);
        ASSERT_GT(size, 0u);
        ASSERT_LT(size, raw.size());
        const ByteView input = ByteView(packed).first(size);
        Bytes out(raw.size());
        ASSERT_TRUE(decompressor.decompress(GetParam(), input, out));
        EXPECT_EQ(out, raw);
        Bytes longer(raw.size() + 1), shorter(raw.size() - 1);
        EXPECT_FALSE(decompressor.decompress(GetParam(), input, longer));
        EXPECT_FALSE(decompressor.decompress(GetParam(), input, shorter));
        EXPECT_FALSE(decompressor.decompress(GetParam(), input.first(size - 1), out));
        EXPECT_FALSE(decompressor.decompress(GetParam(), {}, out));
        ASSERT_TRUE(decompressor.decompress(GetParam(), input, out));   // none of it did any harm
    }
}

TEST_P(CodecTest, ABombStopsAtTheBound)
{
    const Bytes raw(32u << 20, 0);
    Bytes packed(1u << 20);
    const std::size_t size = Compressor(GetParam(), 9).compress(raw, packed);
    ASSERT_GT(size, 0u);
    Bytes out(4096 + 64, 0xee);
    const auto bombed = Decompressor().decompress(GetParam(), ByteView(packed).first(size), std::span(out).first(4096));
    ASSERT_FALSE(bombed);
    EXPECT_EQ(bombed.error().code, Errc::corrupt);
    for (std::size_t i = 4096; i < out.size(); ++i) ASSERT_EQ(out[i], 0xee);
}

TEST_P(CodecTest, NoiseIsLeftAsItIs)
{
    std::mt19937 random(6);
    Bytes raw(5000);
    for (auto& b : raw) b = static_cast<std::uint8_t>(random());
    Bytes packed(raw.size() - 1);
    EXPECT_EQ(Compressor(GetParam(), 1).compress(raw, packed), 0u);
}

INSTANTIATE_TEST_SUITE_P(Methods, CodecTest, testing::Values(Compression::zlib, Compression::zstd),
                         [](const auto& p) { return p.param == Compression::zlib ? "zlib" : "zstd"; });

}  // namespace
}  // namespace colo::replication
