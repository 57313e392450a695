// SPDX-License-Identifier: Apache-2.0
#include "colo/jobs.h"
#include "core/failpoint.h"

#include <algorithm>

namespace colo {
namespace {

class Stopwatch {
public:
    explicit Stopwatch(const Clock& clock) : clock_(clock), start_(clock.now()), last_(start_) {}
    Duration lap()
    {
        const Time t = clock_.now();
        const Duration d = t - last_;
        last_ = t;
        return d;
    }
    Duration total() const { return clock_.now() - start_; }
    Time last() const { return last_; }
    Time deadline(Duration bound) const { return start_ + bound; }

private:
    const Clock& clock_;
    Time start_, last_;
};

// The steps between stop and cont. The guest is stopped whenever this returns.
Result<void> paused_part(replication::Guest& guest, replication::CaptureEngine& engine, PrimarySeal& proxy, Epoch epoch,
                         bool first, CutBounds bounds, CutOutput& out, Stopwatch& watch)
{
    const int pid = guest.device_model_pid();
    if (watch.total() > bounds.pause) return make_error(Errc::timed_out, "the guest stopped too slowly");
    if (auto r = failpoint::pass("p-after-stop", pid); !r) return r.error();
    proxy.start_seal(epoch, first);
    // The save runs in the device model meanwhile.
    if (auto r = engine.capture_residue(false); !r) return with_context("copy dirty pages", r.error());
    out.residue = watch.lap();
    auto section = proxy.finish_seal(watch.deadline(bounds.pause));
    if (!section) return with_context("seal", section.error());
    out.proxy = std::move(*section);
    out.seal = watch.lap();
    if (auto r = failpoint::pass("p-after-seal", pid); !r) return r.error();
    auto state = guest.cut_save(watch.deadline(bounds.answer));
    if (!state) return with_context("save device state", state.error());
    out.state = std::move(*state);
    out.save = watch.lap();
    if (auto r = failpoint::pass("p-after-save", pid); !r) return r.error();
    // The save may itself write guest memory (ring indices, clocks).
    if (auto r = engine.capture_residue(true); !r) return with_context("copy pages written by the save", r.error());
    out.rescan = watch.lap();
    return failpoint::pass("p-before-cont", pid);
}

}  // namespace

Result<CutOutput> run_cut(replication::Guest& guest, replication::CaptureEngine& engine, PrimarySeal& proxy,
                          Epoch epoch, bool first, CutBounds bounds, const Clock& clock, replication::PowerState power)
{
    if (auto r = failpoint::pass("p-before-stop", guest.device_model_pid()); !r) return r.error();
    CutOutput out;
    Stopwatch watch(clock);
    bounds.answer = std::max(bounds.answer, bounds.pause);
    proxy.prepare();
    if (auto r = guest.cut_begin(watch.deadline(bounds.answer)); !r) {
        proxy.cancel();
        // Nobody knows whether it stopped: make it run again or find out that it is gone.
        if (power != replication::PowerState::running) return with_context("stop", r.error());
        if (auto again = guest.resume(clock.now() + bounds.answer); !again)
            return make_error(Errc::guest_died, again.error().text);
        return with_context("stop", r.error());
    }
    out.stop = watch.lap();
    const auto paused = paused_part(guest, engine, proxy, epoch, first, bounds, out, watch);
    if (!paused) proxy.cancel();
    if (power == replication::PowerState::running)
        if (auto r = guest.resume(clock.now() + bounds.answer); !r)
            return make_error(Errc::guest_died, "cont: " + r.error().text);
    // Off, and stays so: for the device model the cut has an end all the same.
    if (power != replication::PowerState::running)
        if (auto r = guest.stop(clock.now() + bounds.answer); !r)
            return make_error(Errc::guest_died, "stop: " + r.error().text);
    out.resume = watch.lap();
    out.pause = watch.total();
    // It has run since `cont` was answered: what its port does then, at ordinary priority again, is no pause.
    if (const Time runs_since = guest.last_cut_times().cont_done; runs_since.us != 0) {
        const Duration after = std::clamp(watch.last() - runs_since, Duration{0}, out.resume);
        out.resume -= after;
        out.pause -= after;
    }
    if (auto r = failpoint::pass("p-after-cont", guest.device_model_pid()); !r) return r.error();
    if (!paused) return paused.error();
    if (out.pause > bounds.pause)
        return make_error(Errc::timed_out, "pause took " + std::to_string(out.pause.count() / 1000) +
                                               " ms, the bound is " + std::to_string(bounds.pause.count() / 1000) +
                                               " ms");
    return out;
}

Result<void> run_resume(replication::Guest& guest, Deadline deadline)
{
    const auto first = guest.resume(deadline);
    if (first || first.error().code == Errc::timed_out || first.error().code == Errc::guest_died) return first;
    return guest.resume(deadline);
}

}  // namespace colo
