// SPDX-License-Identifier: Apache-2.0
#pragma once

// The content of a PageChunk frame: a fixed header (ChunkHeader of engine.h) and a body of page records, compressed as a
// whole. docs/protocol.md has the layout. Nothing here has state or allocates.

#include "core/error.h"
#include "core/types.h"
#include "replication/engine.h"

namespace colo::replication {

inline constexpr std::size_t kChunkHeaderSize = 32;
inline constexpr std::size_t kRecordHeaderSize = 12;
inline constexpr std::size_t kMaxPagesPerChunk = 1024;
inline constexpr std::size_t kMaxChunkRawBytes = kMaxPagesPerChunk * (kRecordHeaderSize + kPageSize);

enum class PageKind : std::uint8_t {
    zero = 1,    // all bytes zero; no data
    unchanged,   // content of the base epoch; no data
    delta,       // words that differ from the content of the base epoch (delta.h)
    full,        // kPageSize bytes
};

struct PageRecord {
    Gfn gfn = 0;
    PageKind kind = PageKind::zero;
    ByteView data;
};

void store_chunk_header(std::uint8_t* to, const ChunkHeader& header);
// Reads and checks the header at the start of a chunk: bounds, reserved bytes, base older than the epoch. Does not look at
// the body; what is after the header is chunk.subspan(kChunkHeaderSize).
Result<ChunkHeader> decode_chunk_header(ByteView chunk);

void store_record_header(std::uint8_t* to, Gfn gfn, PageKind kind, std::size_t data_bytes);

// Walks the records of a raw (decompressed) body.
class RecordReader {
public:
    explicit RecordReader(ByteView body) : body_(body) {}
    bool at_end() const { return body_.empty(); }
    // Errc::corrupt: cut off, unknown kind, wrong size for the kind.
    Result<PageRecord> next();

private:
    ByteView body_;
};

// Digest of one record: what the manifest's digest is the xor of. Depends on the frame, the order of its chunk and the
// content after decoding, so that a lost, doubled, swapped or misplaced record changes the sum.
std::uint64_t content_hash(const std::uint8_t* page);
std::uint64_t zero_page_hash();
std::uint64_t record_digest(Gfn gfn, std::uint32_t order, std::uint64_t content_hash);

const std::uint8_t* zero_page();   // kPageSize zero bytes, page-aligned

}  // namespace colo::replication
