// SPDX-License-Identifier: Apache-2.0
// The same hash with AVX2, chosen at run time (chunk.cpp). Compiled with -mavx2, so nothing but static functions may come in
// here: an inline function of the standard library would be shared with code that must run anywhere.
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstddef>
#include <cstdint>

namespace colo::replication {

std::uint64_t hash_with_avx2(const std::uint8_t* data, std::size_t size);   // declared again where it is used

std::uint64_t hash_with_avx2(const std::uint8_t* data, std::size_t size) { return XXH3_64bits(data, size); }

}  // namespace colo::replication
