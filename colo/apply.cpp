// SPDX-License-Identifier: Apache-2.0
#include "colo/jobs.h"
#include "core/breakage.h"
#include "core/failpoint.h"

namespace colo {
namespace {

Result<void> stop_and_seal(replication::Guest& guest, SecondarySeal& proxy, const ApplyRequest& request, Deadline deadline)
{
    if (auto r = guest.stop(deadline); !r) return with_context("stop", r.error());
    if (auto r = failpoint::pass("s-after-stop", guest.device_model_pid()); !r) return r.error();
    (void)request;
    if (broken(Breakage::no_seal)) return {};
    if (auto r = proxy.seal(deadline); !r) return with_context("seal", r.error());
    return {};
}

// Pages, then devices (virtio reads ring indices from RAM while it loads), then what the load itself touched.
Result<void> write_and_load(replication::Guest& guest, replication::Stager& stager, const ApplyRequest& request,
                            Deadline deadline, ApplyOutput& out, const Clock& clock)
{
    const Time start = clock.now();
    replication::PageSet own;
    if (request.track_own && !request.everything)
        if (auto r = guest.dirty_log().fetch_and_clear(own, true); !r) return with_context("read own dirty log", r.error());
    out.own_dirty = own.count();
    if (broken(Breakage::own_dirty_not_reverted)) own.clear();
    if (auto r = failpoint::pass("s-mid-apply", guest.device_model_pid()); !r) return r.error();
    auto pages = stager.write_guest(guest.memory(), own, request.everything);
    if (!pages) return with_context("write pages", pages.error());
    out.pages = *pages;
    const Time written = clock.now();
    out.write = written - start;
    if (auto r = failpoint::pass("s-before-load", guest.device_model_pid()); !r) return r.error();
    if (auto r = guest.load(request.manifest->state, deadline); !r) return with_context("load device state", r.error());
    if (auto r = failpoint::pass("s-after-load", guest.device_model_pid()); !r) return r.error();
    if (request.track_own) {
        replication::PageSet touched;
        if (auto r = guest.dirty_log().fetch_and_clear(touched, true); !r) return with_context("read own dirty log", r.error());
        out.touched = touched.count();
        if (auto r = stager.rewrite(guest.memory(), touched); !r) return with_context("restore pages the load wrote", r.error());
    }
    out.load = clock.now() - written;
    return {};
}

Result<void> finish(replication::Guest& guest, SecondarySeal& proxy, const ApplyRequest& request, Deadline deadline,
                    ApplyOutput& out, const Clock& clock, bool fresh)
{
    if (auto r = proxy.applied(request.epoch, request.manifest->proxy, !request.load, deadline); !r)
        return with_context("proxy", r.error());
    const bool stands_still = request.manifest->power != replication::PowerState::running && !broken(Breakage::power_ignored);
    if (!request.resume || stands_still) return {};
    if (auto r = failpoint::pass("s-before-cont", guest.device_model_pid()); !r) return r.error();
    const Time before = clock.now();
    if (auto r = guest.resume(deadline); !r) return with_context("cont", r.error());
    // A device model can be in a state of its own guest that no load ends, and apply for ever without running. A fresh one
    // cannot: what is off there was off in the primary's state.
    if (!fresh && !guest.running() && !guest.held()) return make_error(Errc::guest_died, "the guest does not run after the load");
    out.resume = clock.now() - before;
    return {};
}

}  // namespace

Result<ApplyOutput> run_apply(replication::Guest& guest, replication::Stager& stager, SecondarySeal& proxy,
                              const ApplyRequest& request, const Clock& clock)
{
    ApplyOutput out;
    const Time start = clock.now();
    const Deadline deadline = start + request.bound;
    if (auto r = stop_and_seal(guest, proxy, request, deadline); !r) return r.error();
    out.stop = clock.now() - start;
    if (request.load)
        if (auto r = write_and_load(guest, stager, request, deadline, out, clock); !r) return r.error();
    if (auto r = finish(guest, proxy, request, deadline, out, clock, false); !r) return r.error();
    out.total = clock.now() - start;
    return out;
}

Result<ApplyOutput> run_roll_forward(replication::Guest& guest, replication::Stager& stager, SecondarySeal& proxy,
                                     ApplyRequest request, const Clock& clock)
{
    ApplyOutput out;
    const Time start = clock.now();
    const Deadline deadline = start + request.bound;
    guest.kill();
    if (auto r = guest.recreate(deadline); !r) return with_context("new device model", r.error());
    if (auto r = proxy.seal(deadline); !r) return with_context("seal", r.error());
    // A fresh log reports every frame once; fetching it here makes the next one mean "since the load".
    if (auto r = guest.dirty_log().start(); !r) return with_context("start dirty log", r.error());
    request.everything = true;
    request.track_own = true;
    replication::PageSet all;
    if (auto r = guest.dirty_log().fetch_and_clear(all, true); !r) return with_context("read own dirty log", r.error());
    if (auto r = write_and_load(guest, stager, request, deadline, out, clock); !r) return r.error();
    if (auto r = finish(guest, proxy, request, deadline, out, clock, true); !r) return r.error();
    out.total = clock.now() - start;
    return out;
}

}  // namespace colo
