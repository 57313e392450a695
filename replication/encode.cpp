// SPDX-License-Identifier: Apache-2.0
#include "replication/encode.h"

#include "replication/delta.h"

#include <algorithm>
#include <cstring>

namespace colo::replication {
namespace {

bool equal(const std::uint8_t* a, const std::uint8_t* b) { return std::memcmp(a, b, kPageSize) == 0; }

}  // namespace

void ChunkEncoder::configure(const CaptureOptions& options)
{
    options_ = options;
    options_.pages_per_chunk = std::clamp<std::uint32_t>(options.pages_per_chunk, 1, kMaxPagesPerChunk);
    compressor_.emplace(options.compression, options.level);
    raw_.resize(kChunkHeaderSize + std::size_t{options_.pages_per_chunk} * (kRecordHeaderSize + kPageSize));
    packed_.resize(options.compression == Compression::none ? 0 : raw_.size());
}

void ChunkEncoder::begin_epoch(Epoch epoch, Epoch base)
{
    epoch_ = epoch;
    base_ = base;
    order_ = 1;
    raw_size_ = kChunkHeaderSize;
    chunk_pages_ = 0;
    chunk_digest_ = 0;
    emitted_.clear();
    pages_ = digest_ = 0;
    stats_ = {};
}

Result<void> ChunkEncoder::add(DeltaCache& cache, Gfn gfn, const std::uint8_t* page, const ChunkSink& sink)
{
    classify(cache, gfn, page);
    if (chunk_pages_ == options_.pages_per_chunk) return flush(sink);
    return {};
}

// A record is needed unless S has the content already: it is the base and nothing else was sent for this epoch.
void ChunkEncoder::classify(DeltaCache& cache, Gfn gfn, const std::uint8_t* page)
{
    const bool first = !emitted_.contains(gfn);
    const std::uint8_t* const base = cache.base(gfn);
    if (equal(page, zero_page())) {
        ++stats_.zero;
        if (base == zero_page() && first) {
            ++stats_.not_sent;
            return;
        }
        cache.set_zero(gfn);
        finish_record(gfn, PageKind::zero, 0, zero_page_hash());
    } else if (base != nullptr && equal(page, base)) {
        ++stats_.unchanged;
        if (first) {
            ++stats_.not_sent;
            return;
        }
        const std::uint64_t hash = content_hash(base);
        cache.set_unchanged(gfn);
        finish_record(gfn, PageKind::unchanged, 0, hash);
    } else {
        put_changed(cache, gfn, base, page);
    }
}

void ChunkEncoder::put_changed(DeltaCache& cache, Gfn gfn, const std::uint8_t* base, const std::uint8_t* page)
{
    std::uint8_t* const data = raw_.data() + raw_size_ + kRecordHeaderSize;
    std::memcpy(data, page, kPageSize);   // from here on only the copy counts
    std::uint8_t delta[kMaxDeltaBytes];
    const std::size_t delta_bytes = base != nullptr ? encode_delta(base, data, delta) : 0;
    const std::uint64_t hash = content_hash(data);
    cache.set(gfn, data);
    if (delta_bytes == 0) {
        ++stats_.full;
        finish_record(gfn, PageKind::full, kPageSize, hash);
        return;
    }
    ++stats_.delta;
    std::memcpy(data, delta, delta_bytes);
    finish_record(gfn, PageKind::delta, delta_bytes, hash);
}

void ChunkEncoder::finish_record(Gfn gfn, PageKind kind, std::size_t data_bytes, std::uint64_t hash)
{
    store_record_header(raw_.data() + raw_size_, gfn, kind, data_bytes);
    raw_size_ += kRecordHeaderSize + data_bytes;
    ++chunk_pages_;
    chunk_digest_ ^= record_digest(gfn, order_, hash);
    emitted_.add(gfn);
}

// The chunk lies in raw_ or packed_, whichever is smaller.
ByteView ChunkEncoder::finish_chunk()
{
    const ByteView body = ByteView(raw_).subspan(kChunkHeaderSize, raw_size_ - kChunkHeaderSize);
    ChunkHeader header{epoch_, base_, order_, chunk_pages_, static_cast<std::uint32_t>(body.size()), Compression::none};
    if (compressor_->method() != Compression::none) {
        const std::span<std::uint8_t> out(packed_.data() + kChunkHeaderSize, body.size() - 1);
        if (const std::size_t n = compressor_->compress(body, out); n > 0) {
            header.compression = compressor_->method();
            store_chunk_header(packed_.data(), header);
            return ByteView(packed_).first(kChunkHeaderSize + n);
        }
    }
    store_chunk_header(raw_.data(), header);
    return ByteView(raw_).first(raw_size_);
}

Result<void> ChunkEncoder::flush(const ChunkSink& sink)
{
    if (chunk_pages_ == 0) return {};
    const ByteView chunk = finish_chunk();
    stats_.raw_bytes += raw_size_ - kChunkHeaderSize;
    stats_.sent_bytes += chunk.size();
    pages_ += chunk_pages_;
    digest_ ^= chunk_digest_;
    ++order_;
    raw_size_ = kChunkHeaderSize;
    chunk_pages_ = 0;
    chunk_digest_ = 0;
    return sink(chunk);
}

}  // namespace colo::replication
