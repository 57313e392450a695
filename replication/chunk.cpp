// SPDX-License-Identifier: Apache-2.0
#include "replication/chunk.h"

#include "replication/byte_io.h"
#include "replication/wire.h"

#include <string>
#include <xxhash.h>

namespace colo::replication {

#if defined(__x86_64__)
std::uint64_t hash_with_avx2(const std::uint8_t* data, std::size_t size);   // page_hash_avx2.cpp
#endif

namespace {

// Offsets of docs/protocol.md, "Page chunk".
constexpr std::size_t kEpochAt = 0, kBaseAt = 8, kOrderAt = 16, kPagesAt = 20, kRawBytesAt = 24, kCompressionAt = 28,
                      kReservedAt = 29;
constexpr std::size_t kGfnAt = 0, kSizeAt = 8, kKindAt = 10, kRecordReservedAt = 11;
static_assert(kReservedAt + 3 == kChunkHeaderSize && kRecordReservedAt + 1 == kRecordHeaderSize);

Error corrupt(const std::string& what) { return make_error(Errc::corrupt, "page chunk: " + what); }

std::uint64_t avalanche(std::uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdull;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53ull;
    return x ^ x >> 33;
}

bool size_fits(PageKind kind, std::size_t size)
{
    switch (kind) {
    case PageKind::zero:
    case PageKind::unchanged: return size == 0;
    case PageKind::delta: return size > 0 && size < kPageSize;
    case PageKind::full: return size == kPageSize;
    }
    return false;
}

}  // namespace

void store_chunk_header(std::uint8_t* to, const ChunkHeader& header)
{
    store_le(to + kEpochAt, header.epoch);
    store_le(to + kBaseAt, header.base);
    store_le(to + kOrderAt, header.order);
    store_le(to + kPagesAt, header.pages);
    store_le(to + kRawBytesAt, header.raw_bytes);
    to[kCompressionAt] = static_cast<std::uint8_t>(header.compression);
    to[kReservedAt] = to[kReservedAt + 1] = to[kReservedAt + 2] = 0;
}

Result<ChunkHeader> decode_chunk_header(ByteView chunk)
{
    if (chunk.size() < kChunkHeaderSize) return corrupt("shorter than its header");
    const std::uint8_t* const at = chunk.data();
    ChunkHeader header;
    header.epoch = load_le<std::uint64_t>(at + kEpochAt);
    header.base = load_le<std::uint64_t>(at + kBaseAt);
    header.order = load_le<std::uint32_t>(at + kOrderAt);
    header.pages = load_le<std::uint32_t>(at + kPagesAt);
    header.raw_bytes = load_le<std::uint32_t>(at + kRawBytesAt);
    const std::uint8_t compression = at[kCompressionAt];
    if (compression < 1 || compression > static_cast<std::uint8_t>(Compression::zstd))
        return corrupt("unknown compression " + std::to_string(compression));
    header.compression = static_cast<Compression>(compression);
    if (at[kReservedAt] != 0 || at[kReservedAt + 1] != 0 || at[kReservedAt + 2] != 0) return corrupt("reserved bytes are not zero");
    if (header.epoch == 0 || header.base >= header.epoch) return corrupt("base is not older than the epoch");
    if (header.pages == 0 || header.pages > kMaxPagesPerChunk) return corrupt(std::to_string(header.pages) + " pages");
    if (header.raw_bytes < header.pages * kRecordHeaderSize ||
        header.raw_bytes > header.pages * (kRecordHeaderSize + kPageSize))
        return corrupt(std::to_string(header.raw_bytes) + " raw bytes for " + std::to_string(header.pages) + " pages");
    const std::size_t body = chunk.size() - kChunkHeaderSize;
    if (header.compression == Compression::none ? body != header.raw_bytes : body >= header.raw_bytes)
        return corrupt("body of " + std::to_string(body) + " bytes for " + std::to_string(header.raw_bytes) + " raw bytes");
    return header;
}

void store_record_header(std::uint8_t* to, Gfn gfn, PageKind kind, std::size_t data_bytes)
{
    store_le(to + kGfnAt, gfn);
    store_le(to + kSizeAt, static_cast<std::uint16_t>(data_bytes));
    to[kKindAt] = static_cast<std::uint8_t>(kind);
    to[kRecordReservedAt] = 0;
}

Result<PageRecord> RecordReader::next()
{
    if (body_.size() < kRecordHeaderSize) return corrupt("record header is cut off");
    const std::uint8_t* const at = body_.data();
    PageRecord record;
    record.gfn = load_le<std::uint64_t>(at + kGfnAt);
    record.kind = static_cast<PageKind>(at[kKindAt]);
    const std::size_t size = load_le<std::uint16_t>(at + kSizeAt);
    if (record.gfn >= kMaxGfn) return corrupt("frame number beyond the largest");
    if (at[kRecordReservedAt] != 0) return corrupt("reserved byte of a record is not zero");
    if (!size_fits(record.kind, size))
        return corrupt("record of kind " + std::to_string(at[kKindAt]) + " with " + std::to_string(size) + " bytes");
    if (body_.size() - kRecordHeaderSize < size) return corrupt("record is cut off");
    record.data = body_.subspan(kRecordHeaderSize, size);
    body_ = body_.subspan(kRecordHeaderSize + size);
    return record;
}

std::uint64_t content_hash(const std::uint8_t* page)
{
#if defined(__x86_64__)
    static const bool has_avx2 = __builtin_cpu_supports("avx2");
    if (has_avx2) return hash_with_avx2(page, kPageSize);
#endif
    return XXH3_64bits(page, kPageSize);
}

std::uint64_t zero_page_hash()
{
    static const std::uint64_t hash = content_hash(zero_page());
    return hash;
}

std::uint64_t record_digest(Gfn gfn, std::uint32_t order, std::uint64_t hash)
{
    return avalanche(hash + avalanche(gfn + 0x9e3779b97f4a7c15ull * (order + std::uint64_t{1})));
}

const std::uint8_t* zero_page()
{
    alignas(kPageSize) static const std::uint8_t kZero[kPageSize] = {};
    return kZero;
}

}  // namespace colo::replication
