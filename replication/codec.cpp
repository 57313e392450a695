// SPDX-License-Identifier: Apache-2.0
#include "replication/codec.h"

#include "core/check.h"

#include <algorithm>
#include <zlib.h>
#include <zstd.h>

namespace colo::replication {
namespace {

// zlib's interface takes non-const input and 32-bit sizes; chunks are far smaller than 4 GiB.
void set_buffers(z_stream& stream, ByteView in, std::span<std::uint8_t> out)
{
    stream.next_in = const_cast<Bytef*>(in.data());
    stream.avail_in = static_cast<uInt>(in.size());
    stream.next_out = out.data();
    stream.avail_out = static_cast<uInt>(out.size());
}

struct FreeCompress {
    void operator()(ZSTD_CCtx* c) const { ZSTD_freeCCtx(c); }
};
struct FreeDecompress {
    void operator()(ZSTD_DCtx* c) const { ZSTD_freeDCtx(c); }
};

}  // namespace

// ---- Compressor -------------------------------------------------------------------------------------------------------

struct Compressor::Context {
    std::unique_ptr<ZSTD_CCtx, FreeCompress> zstd;
    z_stream zlib{};
    bool zlib_ready = false;
    ~Context()
    {
        if (zlib_ready) deflateEnd(&zlib);
    }
};

Compressor::Compressor(Compression method, int level)
    : method_(method), level_(level), context_(std::make_unique<Context>())
{
    if (method_ == Compression::zstd) {
        level_ = std::clamp(level, 1, ZSTD_maxCLevel());
        context_->zstd.reset(ZSTD_createCCtx());
        COLO_CHECK(context_->zstd != nullptr);
    } else if (method_ == Compression::zlib) {
        level_ = std::clamp(level, 1, 9);
        context_->zlib_ready = deflateInit(&context_->zlib, level_) == Z_OK;
        COLO_CHECK(context_->zlib_ready);
    }
}

Compressor::~Compressor() = default;
Compressor::Compressor(Compressor&&) noexcept = default;
Compressor& Compressor::operator=(Compressor&&) noexcept = default;

std::size_t Compressor::compress(ByteView in, std::span<std::uint8_t> out)
{
    if (method_ == Compression::zstd) {
        const std::size_t n = ZSTD_compressCCtx(context_->zstd.get(), out.data(), out.size(), in.data(), in.size(), level_);
        return ZSTD_isError(n) ? 0 : n;
    }
    if (method_ == Compression::zlib) {
        z_stream& stream = context_->zlib;
        if (deflateReset(&stream) != Z_OK) return 0;
        set_buffers(stream, in, out);
        return deflate(&stream, Z_FINISH) == Z_STREAM_END ? out.size() - stream.avail_out : 0;
    }
    return 0;
}

// ---- Decompressor -----------------------------------------------------------------------------------------------------

struct Decompressor::Context {
    std::unique_ptr<ZSTD_DCtx, FreeDecompress> zstd;
    z_stream zlib{};
    bool zlib_ready = false;
    ~Context()
    {
        if (zlib_ready) inflateEnd(&zlib);
    }
};

Decompressor::Decompressor() : context_(std::make_unique<Context>()) {}
Decompressor::~Decompressor() = default;

Result<void> Decompressor::decompress(Compression method, ByteView in, std::span<std::uint8_t> out)
{
    const auto corrupt = [](const std::string& why) { return make_error(Errc::corrupt, "decompress: " + why); };
    if (method == Compression::zstd) {
        if (!context_->zstd) context_->zstd.reset(ZSTD_createDCtx());
        COLO_CHECK(context_->zstd != nullptr);
        const std::size_t n = ZSTD_decompressDCtx(context_->zstd.get(), out.data(), out.size(), in.data(), in.size());
        if (ZSTD_isError(n)) return corrupt(ZSTD_getErrorName(n));
        if (n != out.size()) return corrupt("shorter than announced");
        return {};
    }
    if (method == Compression::zlib) {
        z_stream& stream = context_->zlib;
        if (!context_->zlib_ready) context_->zlib_ready = inflateInit(&stream) == Z_OK;
        if (!context_->zlib_ready || inflateReset(&stream) != Z_OK) return make_error(Errc::failed, "decompress: zlib has no memory");
        set_buffers(stream, in, out);
        if (inflate(&stream, Z_FINISH) != Z_STREAM_END) return corrupt("not a zlib stream of the announced size");
        if (stream.avail_in != 0 || stream.avail_out != 0) return corrupt("not of the announced size");
        return {};
    }
    return corrupt("unknown method");
}

}  // namespace colo::replication
