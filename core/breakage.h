// SPDX-License-Identifier: Apache-2.0
#pragma once

// Deliberate rule breakages. The simulator must catch every one of them, or it is blind. They are compiled in only with
// COLO_WITH_BREAKAGES (the sim_* variants of the libraries); in the product `broken()` is a constant false.

#include <cstdint>

namespace colo {

enum class Breakage : std::uint8_t {
    none = 0,
    release_before_staged,        // R5/8: output of epoch e leaves at END instead of STAGED
    single_carry_over_bitmap,     // R6: STAGED drops every dirty bit, also those fetched after its cut
    replay_after_staged,          // R2: output of an older epoch is replayed although a STAGED epoch was finished
    offsets_zeroed_at_apply,      // R3: translation offsets := 0 at apply, as QEMU does
    ack_on_mirror_receipt,        // R4: P's ACK leaves when the mirror was sent, not when S's journal has it
    journal_forgotten,            // R4: S never re-injects what its guest has not acknowledged
    no_seal,                      // R5: frames in the port at the cut get the new tag
    epoch_reused_after_abort,     // R7
    grant_without_closing,        // section 4: a side asks for a grant and goes on honouring the session
    copy_before_clear,            // R6: page copied first, dirty bit cleared afterwards
    outdated_side_runs,           // section 4: a refused side runs on
    own_dirty_not_reverted,       // R3/invariant 9: S forgets pages that only its own guest wrote
    stale_base_accepted,          // R6: a pre-captured page with another base epoch is staged
    lease_ignored,                // section 4: P releases after its lease ran out
    unverified_staged,            // R1: STAGED sent before every byte was verified
    release_unmatched,            // R8: a frame leaves without a reason in which S took part
    power_ignored,                // R9: a copy of a domain that stands still is let run
    destination_runs_ungranted,   // migration: the source's Abdicate counts as the grant although the source may ask for it
    migration_judged_early,       // migration: the source says failed before it knows who goes on
};

#ifdef COLO_WITH_BREAKAGES
extern Breakage g_breakage;
inline bool broken(Breakage which) { return g_breakage == which; }
#else
constexpr bool broken(Breakage) { return false; }
#endif

const char* to_string(Breakage which);

}  // namespace colo
