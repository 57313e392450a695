// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.h"

namespace colo::replication {

// What changed in a page, as runs of 8-byte words: {u16 words to skip, u16 words that follow, the words}, repeated, little
// endian. The rest of the page is as in the base.

inline constexpr std::size_t kMaxDeltaBytes = kPageSize * 3 / 4;   // beyond it a page goes in full

// Size of the delta written to out (kMaxDeltaBytes long); 0 if it would be longer or if nothing differs.
std::size_t encode_delta(const std::uint8_t* base, const std::uint8_t* page, std::uint8_t* out);

// Every run lies within a page, holds at least one word, and the last ends with the input.
bool is_valid_delta(ByteView delta);

// `page` holds the base and becomes the new content. The delta must be valid.
void apply_delta(ByteView delta, std::uint8_t* page);

}  // namespace colo::replication
