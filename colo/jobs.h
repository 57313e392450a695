// SPDX-License-Identifier: Apache-2.0
#pragma once

// The two guest jobs of a checkpoint as straight sequences over the ports: the cut on P, the apply on S (design section
// 3). Shared by the daemon (guest thread) and the simulator, because the order of the steps is where the rules live.

#include "core/clock.h"
#include "core/error.h"
#include "core/types.h"
#include "replication/engine.h"
#include "replication/guest.h"
#include "replication/message.h"

namespace colo {

// The proxy of P as the cut sees it (R5). start_seal: stop feeding input, drain the frame ports of all NICs under the old
// tag, tag everything later `next`; in the first epoch output is protected from here on (`protect`). finish_seal waits
// until every NIC acknowledged.
class PrimarySeal {
public:
    virtual ~PrimarySeal() = default;
    // Just before `stop`: clients' frames wait in the wire, so that few are left unread in the port.
    virtual void prepare() {}
    // The cut ended without a seal: input flows again.
    virtual void cancel() {}
    virtual void start_seal(Epoch next, bool protect) = 0;
    virtual Result<replication::ProxySection> finish_seal(Deadline deadline) = 0;
};

class SecondarySeal {
public:
    virtual ~SecondarySeal() = default;
    virtual Result<void> seal(Deadline deadline) = 0;   // drain, discard unread input
    virtual Result<void> applied(Epoch epoch, const replication::ProxySection& section, bool paused, Deadline deadline) = 0;
};

struct CutOutput {
    replication::DeviceState state;
    replication::ProxySection proxy;
    Duration pause{0};          // stop written to cont answered
    Duration stop{0}, residue{0}, seal{0}, save{0}, rescan{0}, resume{0};
};

// How long a cut may take. `pause`: past it the cut is aborted, Errc::timed_out, and the guest runs (R7, Inv12).
// `answer`: how long the device model may take before it counts as hanging. It is much longer, because a device model
// that did not answer in time is lost for good (guest.h): `cont` cannot overtake the `stop` that is late.
struct CutBounds {
    Duration pause{300'000};
    Duration answer{2'000'000};
};

// Whatever happens, the guest runs again on return unless Errc::guest_died or `power` says that it is off (R9).
Result<CutOutput> run_cut(replication::Guest& guest, replication::CaptureEngine& engine, PrimarySeal& proxy,
                          Epoch epoch, bool first, CutBounds bounds, const Clock& clock,
                          replication::PowerState power = replication::PowerState::running);

// The only guest that could serve is to run again. A refusal gets a second chance: it may have come of what failed before.
Result<void> run_resume(replication::Guest& guest, Deadline deadline);

struct ApplyOutput {
    std::uint64_t own_dirty = 0, pages = 0, touched = 0;
    Duration stop{0}, write{0}, load{0}, resume{0}, total{0};
};

struct ApplyRequest {
    Epoch epoch = 0;
    const replication::Manifest* manifest = nullptr;
    bool load = true;        // false: buffered mode, only stop and keep the shadow
    bool resume = true;
    bool everything = false; // all frames (fresh guest)
    bool track_own = true;   // false until S's dirty log has been started
    Duration bound{5'000'000};
};

// The stager has committed `epoch`. On failure the guest is unusable (half loaded): roll forward or resign (R1).
Result<ApplyOutput> run_apply(replication::Guest& guest, replication::Stager& stager, SecondarySeal& proxy,
                              const ApplyRequest& request, const Clock& clock);
// R1: fresh device model, everything from the shadow, load again.
Result<ApplyOutput> run_roll_forward(replication::Guest& guest, replication::Stager& stager, SecondarySeal& proxy,
                                     ApplyRequest request, const Clock& clock);

}  // namespace colo
