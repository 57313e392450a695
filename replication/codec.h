// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/error.h"
#include "core/types.h"
#include "replication/engine.h"

#include <memory>

namespace colo::replication {

// Compression of chunk bodies. Each object keeps its library context; not thread-safe.

class Compressor {
public:
    Compressor(Compression method, int level);   // a level beyond the library's range becomes the nearest one
    ~Compressor();
    Compressor(Compressor&&) noexcept;
    Compressor& operator=(Compressor&&) noexcept;

    Compression method() const { return method_; }
    // Bytes written to out, or 0 if they would not fit (then the caller sends the input as it is).
    std::size_t compress(ByteView in, std::span<std::uint8_t> out);

private:
    struct Context;
    Compression method_;
    int level_;
    std::unique_ptr<Context> context_;
};

class Decompressor {
public:
    Decompressor();
    ~Decompressor();
    // Never writes beyond out. Errc::corrupt unless the input is one whole stream that fills out exactly.
    Result<void> decompress(Compression method, ByteView in, std::span<std::uint8_t> out);

private:
    struct Context;
    std::unique_ptr<Context> context_;
};

}  // namespace colo::replication
