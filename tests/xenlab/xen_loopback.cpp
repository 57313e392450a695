// SPDX-License-Identifier: Apache-2.0
// xen_loopback PRIMARY SECONDARY [EPOCHS] [MS]: checkpoints of one running HVM domain into another one that runs, too
// (loopback.h). At the end both stand still and every frame is compared; then the primary stays stopped and the secondary goes
// on. Status 0 only if nothing differed. Run in dom0 by `scripts/xenlab test loopback`.

#include "loopback.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <thread>

namespace colo::xen {
namespace {

void show(int number, Loopback& loopback)
{
    const CutFigures& cut = loopback.cut();
    print(fmt::format("epoch={} ahead {} frames, stopped_ms={:.1f}: stop {:.1f} residue {:.1f} ({} frames) save {:.1f} ({} + {} bytes) rescan {:.1f} ({}) "
                      "resume {:.1f} pauses_repeated={} hypercalls={}+{} map_calls={}",
                      number, cut.ahead_frames, ms(cut.stopped), ms(cut.stop), ms(cut.residue), cut.residue_frames, ms(cut.save), cut.device_bytes,
                      cut.context_bytes, ms(cut.rescan), cut.rescan_frames, ms(cut.resume), cut.pauses_repeated, cut.calls_ahead.calls,
                      cut.calls_stopped.calls, loopback.primary().memory->stats().map_calls));
    const ApplyFigures& apply = loopback.applied();
    print(fmt::format("        applied_ms={:.1f}: stop {:.1f} write {:.1f} ({} frames, {} of its own) load {:.1f} restore {:.1f} ({}) resume {:.1f}",
                      ms(apply.total), ms(apply.stop), ms(apply.write), apply.frames, apply.own_frames, ms(apply.load), ms(apply.restore),
                      apply.restored_frames, ms(apply.resume)));
}

int loopback(const std::string& primary, const std::string& secondary, int epochs, int epoch_ms)
{
    Loopback loopback(primary, secondary);
    for (int i = 1; i <= epochs; ++i) {
        loopback.epoch(i == epochs);
        show(i, loopback);
        if (i < epochs) std::this_thread::sleep_for(std::chrono::milliseconds(epoch_ms));
    }
    const std::size_t count = loopback.differing();
    print(fmt::format("compared={} differing={}", loopback.frames(), count));
    loopback.end_logs();
    const Time begin = now();
    loopback.go_on(false);
    print(fmt::format("takeover_ms={:.1f}", ms(now() - begin)));
    return count == 0 ? 0 : 1;
}

}  // namespace
}  // namespace colo::xen

int main(int argc, char** argv)
{
    if (argc < 3) {
        std::fputs("usage: xen_loopback PRIMARY SECONDARY [EPOCHS] [MS]\n", stderr);
        return 2;
    }
    const auto number = [&](int i, int fallback) { return argc > i ? static_cast<int>(std::strtol(argv[i], nullptr, 10)) : fallback; };
    return colo::xen::loopback(argv[1], argv[2], std::max(number(3, 6), 1), number(4, 300));
}
