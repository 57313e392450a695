// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/error.h"
#include "core/types.h"
#include "replication/chunk.h"
#include "replication/codec.h"
#include "replication/delta_cache.h"
#include "replication/engine.h"
#include "replication/page_set.h"

#include <optional>

namespace colo::replication {

// Pages in, chunks out: classifies each page against the delta cache, collects records, compresses and hands over whole
// chunks. No allocation per page. A page given to add() may be written by the guest meanwhile: what is digested and cached
// is exactly what is sent, and a torn page has its dirty bit set again, because it was cleared before.
class ChunkEncoder {
public:
    explicit ChunkEncoder(Gfn gfn_limit) : emitted_(gfn_limit) {}

    void configure(const CaptureOptions& options);   // between epochs
    void begin_epoch(Epoch epoch, Epoch base);

    // Hands a chunk to the sink when one is full.
    Result<void> add(DeltaCache& cache, Gfn gfn, const std::uint8_t* page, const ChunkSink& sink);
    Result<void> flush(const ChunkSink& sink);       // what has been collected

    std::uint64_t pages() const { return pages_; }   // records handed over in this epoch
    std::uint64_t digest() const { return digest_; }
    CaptureStats& stats() { return stats_; }
    const CaptureStats& stats() const { return stats_; }

private:
    void classify(DeltaCache& cache, Gfn gfn, const std::uint8_t* page);
    void put_changed(DeltaCache& cache, Gfn gfn, const std::uint8_t* base, const std::uint8_t* page);
    void finish_record(Gfn gfn, PageKind kind, std::size_t data_bytes, std::uint64_t hash);
    ByteView finish_chunk();

    CaptureOptions options_;
    std::optional<Compressor> compressor_;
    Epoch epoch_ = 0, base_ = 0;
    std::uint32_t order_ = 0;         // of the chunk being collected
    Bytes raw_;                       // chunk header, then records
    Bytes packed_;                    // chunk header, then the compressed body
    std::size_t raw_size_ = 0;        // used part of raw_
    std::uint32_t chunk_pages_ = 0;
    std::uint64_t chunk_digest_ = 0;
    PageSet emitted_;                 // frames with a record in this epoch
    std::uint64_t pages_ = 0, digest_ = 0;
    CaptureStats stats_;
};

}  // namespace colo::replication
