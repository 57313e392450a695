// SPDX-License-Identifier: Apache-2.0
#pragma once

// The messages of the replication protocol, as typed values. docs/protocol.md has the sequence diagrams, the byte layout
// and the versioning rule; replication/wire.h encodes and decodes. Value 0 of every wire enum is invalid.
//
// One session has: one *control* channel (this variant, in order), N *page* channels (PageChunk frames), one *proxy*
// channel (frames of the guest's NICs), all TCP, opened by the primary. Heartbeats travel apart, as datagrams.
//
//   P                                S
//   Hello            ->
//                    <-   HelloAck | Refuse
//   Begin(n, base)   ->              opens staging for epoch n (pre-captured chunks follow on the page channels)
//   Cut(n)           ->              P has cut and runs in n (informative: clock lag)
//   End(n, manifest) ->              every byte of n was handed to the channels
//                    <-   Staged(n)  every byte verified; irrevocable (R1)
//                    <-   Applied(n) S runs in n (lock-step) or keeps it ready (buffered)
//   Abort(n)         ->              only before End(n) (R7)
//                    <-   AbortOk(n)
//                    <-   TriggerRequest
//   either: Resign / Abdicate / Handover / Close

#include "core/types.h"
#include "replication/guest.h"

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace colo::replication {

// migration: S keeps the epoch loaded and stands still until P has given its guest away (Abdicate).
enum class Mode : std::uint8_t { lock_step = 1, buffered = 2, migration = 3 };
const char* to_string(Mode mode);

enum class TriggerReason : std::uint8_t {
    first = 1, period, mismatch, late_output, no_comparison, staging_full, operator_request, power_event, buffered_output,
    mode_change,
};
inline constexpr std::size_t kTriggerReasons = 11;  // array size for counters indexed by TriggerReason
const char* to_string(TriggerReason reason);

struct Hello {
    std::uint16_t version_min = 1, version_max = 1;
    std::string domain_uuid;        // 36 characters, lower case
    std::string domain_name;
    SessionId session = 0;          // chosen by P
    Generation generation = 0;      // P's persisted generation
    GuestDescription guest;
    std::uint32_t beat_interval_us = 0, beat_loss_us = 0, lease_us = 0;  // must be equal on both sides
    std::string arbiter;            // kind and digest of its settings; must be equal
    std::uint8_t page_channels = 1;
    std::uint64_t memory_needed = 0;  // RAM + shadow + staging of a copy, by P's settings; 0: not known
};
struct HelloAck {
    std::uint16_t version = 1;
    SessionId session = 0;
    Generation generation = 0;      // S's; the session runs with the higher one, both persist it
    std::uint64_t memory_free = 0;  // that S can give to its copy, what that has already included; 0: not known
};
struct Refuse { std::string reason; };
struct Begin { Epoch epoch = 0, base = 0; Mode mode = Mode::lock_step; };
struct Cut { Epoch epoch = 0; TriggerReason reason = TriggerReason::period; };

// One flow of the proxy section (R3): everything S needs to go on in the client's numbers.
struct FlowState {
    std::uint8_t nic = 0;
    std::uint32_t guest_ip = 0, peer_ip = 0;       // host order
    std::uint16_t guest_port = 0, peer_port = 0;
    std::uint32_t wire_offset = 0;                  // guest_seq + wire_offset = wire_seq (mod 2^32)
    std::uint32_t timestamp_offset = 0;             // guest TSval + offset = wire TSval
    std::uint32_t covered_seq = 0;                  // wire numbers: bytes before it are contained in this epoch
    std::uint32_t acked_seq = 0;                    // highest ACK of the guest contained in this epoch
    std::uint32_t highest_timestamp = 0;            // highest TSval released or contained
    std::uint8_t flags = 0;                         // bit 0: has timestamps, 1: guest FIN contained, 2: client FIN contained, 3: half open, 4: opened
    bool operator==(const FlowState&) const = default;
};
struct ProxySection {
    std::vector<FlowState> flows;    // bounded: kMaxFlows
    std::uint64_t last_input = 0;    // number of the last mirrored input frame that the cut contains
    bool operator==(const ProxySection&) const = default;
};
inline constexpr std::size_t kMaxFlows = 65536;

struct DiskCut { std::string id; std::uint64_t last_write = 0; };

// paused: by an operator, until an operator lets it run again; whoever takes over leaves it paused.
enum class PowerState : std::uint8_t { running = 1, powered_off, panicked, paused };

struct Manifest {
    Epoch base = 0;
    Mode mode = Mode::lock_step;
    std::vector<std::uint64_t> chunks_per_channel;   // chunks of this epoch on each page channel
    std::uint64_t pages = 0;                         // page records in them, superseded ones included
    std::uint64_t digest = 0;                        // xor over all page records of record_digest() (chunk.h)
    std::vector<Gfn> released;                       // frames P gave up (balloon)
    DeviceState state;                               // blob and CPU context travel inside End; CRC like every frame
    ProxySection proxy;
    std::vector<DiskCut> disks;                      // empty until the disks issue
    PowerState power = PowerState::running;
};
struct End { Epoch epoch = 0; Manifest manifest; };
struct Abort { Epoch epoch = 0; };
struct AbortOk { Epoch epoch = 0; };
struct Staged { Epoch epoch = 0; };
struct Applied { Epoch epoch = 0; std::uint32_t apply_us = 0; std::uint32_t own_dirty_pages = 0; };
struct Resign { std::string cause; };      // S: never runs again in this session; P may go on alone without a grant
struct ResignRequest {};                   // P: operator fails over on P, or planned unprotect
struct Handover {};                        // S: operator fails over on S; P freezes and abdicates
struct Abdicate { std::string cause; };    // P: guest is stopped for good, S may ask for the grant at once
struct Close { std::string cause; };
// S: a checkpoint is wanted; its guest did something that P cannot see in the output (power event, R9).
struct TriggerRequest { TriggerReason reason = TriggerReason::power_event; };

using Message = std::variant<Hello, HelloAck, Refuse, Begin, Cut, End, Abort, AbortOk, Staged, Applied, Resign,
                             ResignRequest, Handover, Abdicate, Close, TriggerRequest>;

// Epoch the message is about, 0 if none.
Epoch epoch_of(const Message& message);
const char* name_of(const Message& message);

}  // namespace colo::replication
