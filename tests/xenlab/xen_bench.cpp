// SPDX-License-Identifier: Apache-2.0
// xen_bench PRIMARY SECONDARY [EPOCHS] [MS]: the same checkpoints by two methods, taking turns on the same two domains: ours
// (loopback.h), and the plain one, which does everything while the primary stands still. One JSON object a line for each epoch
// and one for each comparison of all frames. Status 0 only if no frame differed. Both domains run afterwards. Run in dom0 by
// `scripts/xenlab bench`.

#include "loopback.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <thread>

namespace colo::xen {
namespace {

using replication::FrameStatus;
using replication::PageSet;

constexpr const char* kStateFile = "/tmp/xen_bench.state";

struct PlainFigures {
    Duration stopped{}, pause{}, scan{}, map{}, copy{}, unmap{}, context{}, save{}, load{}, resume{};
    Time resumed{};
    std::size_t frames = 0;
    HypercallCount calls;
};

// A straightforward checkpoint: stop the primary, bring all of its state into the other domain, let it go on. Batches are
// mapped, copied from domain to domain, and unmapped. Only vCPUs in the middle of an access to a device are waited for
// as ours does it: the domains would not survive many epochs otherwise.
class Plain {
public:
    explicit Plain(Loopback& loopback) : loopback_(loopback), p_(loopback.primary()), s_(loopback.secondary()) {}

    void epoch(bool last);
    void go_on();   // after the last one
    const PlainFigures& figures() const { return figures_; }

private:
    PageSet scan();
    void add(Side& side, PageSet& into);
    void copy(std::span<const Gfn> gfns);
    void devices();
    void secondary_goes_on();

    Loopback& loopback_;
    Side &p_, &s_;
    PlainFigures figures_;
};

void Plain::add(Side& side, PageSet& into)
{
    const Gfn limit = must(side.control->gfn_limit());
    const LogAnswer answer = must(side.control->read_log(LogOp::clean, true, limit));
    for (std::size_t i = 0; i < answer.bitmap.size(); ++i)
        for (std::uint64_t word = answer.bitmap[i]; word != 0; word &= word - 1) into.add(i * 64 + static_cast<Gfn>(std::countr_zero(word)));
}

PageSet Plain::scan()
{
    PageSet dirty;
    add(p_, dirty);
    add(s_, dirty);
    dirty.intersect(loopback_.ram());
    return dirty;
}

void Plain::copy(std::span<const Gfn> gfns)
{
    std::array<int, Loopback::kBatch> errors{};
    const auto checked = std::span(errors).first(gfns.size());
    const auto map = [&](Side& side, Access access) {
        Mapping mapping = must(side.control->map(gfns, access, checked));
        if (std::any_of(checked.begin(), checked.end(), [](int e) { return e != 0; })) must(Result<void>(make_error(Errc::failed, "a frame cannot be mapped")));
        return mapping;
    };
    const Time begin = now();
    Mapping from = map(p_, Access::read), to = map(s_, Access::read_write);
    const Time mapped = now();
    std::memcpy(to.data(), from.data(), gfns.size() * kPageSize);
    const Time copied = now();
    { const Mapping first = std::move(from), second = std::move(to); }
    figures_.map += mapped - begin;
    figures_.copy += copied - mapped;
    figures_.unmap += now() - copied;
}

void Plain::devices()
{
    const Time begin = now();
    must(s_.control->set_context(must(p_.control->context())));
    const Time context = now();
    // Running, the device model stops for the save and goes on after it.
    must(p_.model->save_to(kStateFile, true, soon()));
    const Time saved = now();
    std::ifstream file(kStateFile, std::ios::binary);
    const Bytes state{std::istreambuf_iterator<char>(file), {}};
    must(s_.model->stop(soon()));
    must(s_.model->load(state, soon()));
    figures_.context = context - begin;
    figures_.save = saved - context;
    figures_.load = now() - saved;
}

void Plain::epoch(bool last)
{
    p_.must_be_alive("primary");
    s_.must_be_alive("secondary");
    figures_ = {};
    const HypercallCount calls = hypercalls();
    const Time begin = now();
    must(pause_between_accesses(*p_.control, soon()));
    must(pause_between_accesses(*s_.control, soon()));
    const Time paused = now();
    const PageSet dirty = scan();
    const Time scanned = now();
    const auto gfns = dirty.to_vector();
    for (std::size_t at = 0; at < gfns.size(); at += Loopback::kBatch)
        copy(std::span(gfns).subspan(at, std::min(Loopback::kBatch, gfns.size() - at)));
    devices();
    const Time loaded = now();
    if (!last) must(p_.control->unpause());
    figures_.resumed = now();
    figures_.calls = hypercalls() - calls;
    figures_.stopped = figures_.resumed - begin;
    figures_.pause = paused - begin;
    figures_.scan = scanned - paused;
    figures_.resume = figures_.resumed - loaded;
    figures_.frames = gfns.size();
    // Nothing of this is measured.
    loopback_.owe(dirty);
    for (Side* side : {&p_, &s_})
        must(side->control->mark_dirty(side->layout.special_frames.front()));   // its log would miss what it put there
    if (!last) secondary_goes_on();
}

void Plain::secondary_goes_on()
{
    must(s_.model->cont(soon()));
    must(s_.control->unpause());
}

void Plain::go_on()
{
    must(p_.control->unpause());
    secondary_goes_on();
}

// What ours pays to get at frames that it keeps mapped: the question whether the mappings hold, and the look-up of every frame,
// once more, by a FrameMap of its own and outside of the pause.
class KeptMappings {
public:
    explicit KeptMappings(Side& side) : frames_(*side.control) {}
    Duration find(const std::vector<Gfn>& gfns)
    {
        const Time begin = now();
        must(frames_.notice_changes());
        for (std::size_t at = 0; at < gfns.size(); at += FrameMap::kMaxFrames) {
            const std::size_t count = std::min(FrameMap::kMaxFrames, gfns.size() - at);
            must(frames_.find(std::span(gfns).subspan(at, count), Access::read, std::span(pages_).first(count), std::span(status_).first(count)));
        }
        return now() - begin;
    }

private:
    FrameMap frames_;
    std::array<std::uint8_t*, FrameMap::kMaxFrames> pages_;
    std::array<FrameStatus, FrameMap::kMaxFrames> status_;
};

void show(const PlainFigures& f)
{
    print(fmt::format(R"({{"method":"plain","stopped_ms":{:.3f},"stages":{{"pause":{:.3f},"scan":{:.3f},"map":{:.3f},"copy":{:.3f},"unmap":{:.3f},)"
                      R"("context":{:.3f},"save":{:.3f},"load":{:.3f},"resume":{:.3f}}},"frames":{},"stopped_frames":{},"copy_ms":{:.3f},)"
                      R"("mapped":{},"map_ms":{:.3f},"calls":{},"stopped_calls":{}}})",
                      ms(f.stopped), ms(f.pause), ms(f.scan), ms(f.map), ms(f.copy), ms(f.unmap), ms(f.context), ms(f.save), ms(f.load), ms(f.resume),
                      f.frames, f.frames, ms(f.map + f.copy + f.unmap), 2 * f.frames, ms(f.map + f.unmap), f.calls.calls, f.calls.calls));
}

void show(const CutFigures& f, std::size_t mapped, Duration find)
{
    const std::size_t frames = f.ahead_frames + f.residue_frames + f.rescan_frames;
    print(fmt::format(R"({{"method":"ours","stopped_ms":{:.3f},"stages":{{"stop":{:.3f},"residue":{:.3f},"save":{:.3f},"rescan":{:.3f},)"
                      R"("resume":{:.3f}}},"frames":{},"stopped_frames":{},"copy_ms":{:.3f},"mapped":{},"map_ms":{:.3f},"calls":{},"stopped_calls":{}}})",
                      ms(f.stopped), ms(f.stop), ms(f.residue), ms(f.save), ms(f.rescan), ms(f.resume), frames, f.residue_frames + f.rescan_frames,
                      ms(f.copying), mapped, ms(find), f.calls_ahead.calls + f.calls_stopped.calls, f.calls_stopped.calls));
}

bool compare(const char* method, Loopback& loopback)
{
    const std::size_t differing = loopback.differing();
    print(fmt::format(R"({{"compared_after":"{}","frames":{},"differing":{}}})", method, loopback.frames(), differing));
    return differing == 0;
}

// The primary runs as long before each cut, whatever the method did meanwhile.
void let_run(Time since, int epoch_ms)
{
    const Duration left = since + std::chrono::milliseconds(epoch_ms) - now();
    if (left > Duration{0}) std::this_thread::sleep_for(left);
}

int bench(const std::string& primary, const std::string& secondary, int epochs, int epoch_ms)
{
    Loopback loopback(primary, secondary);
    Plain plain(loopback);
    KeptMappings kept(loopback.primary());
    // All of memory first; that is no epoch to be measured.
    loopback.epoch(false);
    kept.find(loopback.captured().to_vector());
    Time since = loopback.cut().resumed;
    bool same = true;
    // The last ones are for the comparison and end without going on, so they are not shown.
    for (int i = 0; i <= epochs; ++i) {
        const bool last = i == epochs;
        let_run(since, epoch_ms);
        plain.epoch(last);
        since = plain.figures().resumed;
        if (last) {
            same = compare("plain", loopback);
            plain.go_on();
            since = now();
        } else {
            show(plain.figures());
        }
        let_run(since, epoch_ms);
        loopback.epoch(last);
        since = loopback.cut().resumed;
        if (last) break;
        const auto captured = loopback.captured().to_vector();
        const Duration find = kept.find(captured);
        show(loopback.cut(), captured.size(), find);
    }
    same = compare("ours", loopback) && same;
    loopback.end_logs();
    loopback.go_on(true);
    std::remove(kStateFile);
    return same ? 0 : 1;
}

}  // namespace
}  // namespace colo::xen

int main(int argc, char** argv)
{
    if (argc < 3) {
        std::fputs("usage: xen_bench PRIMARY SECONDARY [EPOCHS] [MS]\n", stderr);
        return 2;
    }
    const auto number = [&](int i, int fallback) { return argc > i ? static_cast<int>(std::strtol(argv[i], nullptr, 10)) : fallback; };
    return colo::xen::bench(argv[1], argv[2], std::max(number(3, 10), 1), number(4, 500));
}
