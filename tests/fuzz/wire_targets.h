// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.h"

#include <string_view>

namespace colo::fuzz {

// What a fuzzer may feed with anything. Each aborts (COLO_CHECK) if a property does not hold, and returns otherwise.
// The first byte is a choice, the rest the input proper. For frame_stream and beat an odd choice corrects the checksums
// first: behind a checksum that only a lucky guess passes, nothing would be reached.
void frame_stream(ByteView input);   // FrameDecoder, in one piece and in small ones, and the payloads of what it yields
void message(ByteView input);        // choice: frame type
void beat(ByteView input);
void chunk(ByteView input);          // Stager::add_chunk; choice: whether the epoch has a base

struct Target {
    std::string_view name;           // also the folder below tests/fuzz/corpus
    void (*run)(ByteView input);
};
inline constexpr Target kWireTargets[] = {
    {"frame_stream", frame_stream}, {"message", message}, {"beat", beat}, {"chunk", chunk}};

}  // namespace colo::fuzz
