// SPDX-License-Identifier: Apache-2.0
#pragma once

// The heartbeat datagram: one UDP datagram of exactly kBeatSize bytes, both ways, on every path. Layout in
// docs/protocol.md. It carries the domain, because a survivor beats for ever and may outlive what used to listen on the
// port: a beat of another domain must never freeze this one. Encoding and decoding allocate nothing on success.

#include "core/error.h"
#include "core/types.h"

#include <array>
#include <string>
#include <string_view>

namespace colo::replication {

inline constexpr std::uint32_t kBeatMagic = 0x424c4f43;   // "COLB" in byte order of the wire
inline constexpr std::uint16_t kBeatVersion = 1;
inline constexpr std::size_t kBeatSize = 128;

enum class BeatRole : std::uint8_t { primary = 1, secondary, none };

namespace beat_flag {
inline constexpr std::uint8_t kClosed = 1;        // the session is closed for good: this side may ask for a grant
inline constexpr std::uint8_t kHoldsGrant = 2;    // the generation was granted to this side
inline constexpr std::uint8_t kEligible = 4;      // secondary: may ask for a grant
inline constexpr std::uint8_t kOutdated = 8;      // was refused or overtaken; does not run
inline constexpr std::uint8_t kAnswer = 16;       // sent at once because a beat arrived, not by the timer
inline constexpr std::uint8_t kAll = 31;
}  // namespace beat_flag

using DomainId = std::array<std::uint8_t, 16>;    // the domain's UUID, bytes in order of its text
// "01234567-89ab-cdef-0123-456789abcdef", either case. Errc::invalid otherwise.
Result<DomainId> parse_domain_id(std::string_view uuid);
std::string to_string(const DomainId& id);        // lower case

struct Beat {
    DomainId domain{};
    SessionId session = 0;             // 0: none
    Generation generation = 0;
    BeatRole role = BeatRole::none;
    std::uint8_t flags = 0;            // beat_flag::*
    Epoch epoch = 0;                   // that the sender runs in
    std::uint64_t number = 0;          // rises by one per beat of the sender, answers included; first is 1
    std::int64_t sent_at_us = 0;       // sender's clock
    std::uint64_t echo_number = 0;     // newest beat of the peer that this one answers; 0 answers nothing
    std::int64_t echo_sent_at_us = 0;  // its sent_at_us, the peer's own clock
    std::array<std::uint64_t, 3> progress{};   // control loop, proxy, guest; 0 is not judged
    bool operator==(const Beat&) const = default;
};

using BeatBytes = std::array<std::uint8_t, kBeatSize>;
BeatBytes encode(const Beat& beat);
// Errc::corrupt: size, magic, checksum or a field. Errc::unsupported: another version.
Result<Beat> decode_beat(ByteView datagram);

}  // namespace colo::replication
