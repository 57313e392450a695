// SPDX-License-Identifier: Apache-2.0
#include "core/breakage.h"

namespace colo {

#ifdef COLO_WITH_BREAKAGES
Breakage g_breakage = Breakage::none;
#endif

const char* to_string(Breakage which)
{
    switch (which) {
    case Breakage::none: return "none";
    case Breakage::release_before_staged: return "release-before-staged";
    case Breakage::single_carry_over_bitmap: return "single-carry-over-bitmap";
    case Breakage::replay_after_staged: return "replay-after-staged";
    case Breakage::offsets_zeroed_at_apply: return "offsets-zeroed-at-apply";
    case Breakage::ack_on_mirror_receipt: return "ack-on-mirror-receipt";
    case Breakage::journal_forgotten: return "journal-forgotten";
    case Breakage::no_seal: return "no-seal";
    case Breakage::epoch_reused_after_abort: return "epoch-reused-after-abort";
    case Breakage::grant_without_closing: return "grant-without-closing";
    case Breakage::copy_before_clear: return "copy-before-clear";
    case Breakage::outdated_side_runs: return "outdated-side-runs";
    case Breakage::own_dirty_not_reverted: return "own-dirty-not-reverted";
    case Breakage::stale_base_accepted: return "stale-base-accepted";
    case Breakage::lease_ignored: return "lease-ignored";
    case Breakage::unverified_staged: return "unverified-staged";
    case Breakage::release_unmatched: return "release-unmatched";
    case Breakage::power_ignored: return "power-ignored";
    case Breakage::destination_runs_ungranted: return "destination-runs-ungranted";
    case Breakage::migration_judged_early: return "migration-judged-early";
    }
    return "unknown";
}

}  // namespace colo
