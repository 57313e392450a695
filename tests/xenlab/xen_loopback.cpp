// SPDX-License-Identifier: Apache-2.0
// xen_loopback PRIMARY SECONDARY [EPOCHS] [MS]: checkpoints of one running HVM domain into another one that runs, too, on the
// same host: all that xen/ has, in the order of a real epoch, without a network between. At the end both stand still and every
// frame is compared; then the primary stays stopped and the secondary goes on. Status 0 only if nothing differed. Run in
// dom0 by `scripts/xenlab test loopback`.

#include "core/clock.h"
#include "xen/dirty_log.h"
#include "xen/domain_cut.h"
#include "xen/guest_memory.h"
#include "xen/precheck.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <type_traits>

namespace colo::xen {
namespace {

using replication::DeviceState;
using replication::FrameStatus;
using replication::PageSet;
using replication::PageWrite;

void print(const std::string& line)
{
    std::printf("%s\n", line.c_str());
    std::fflush(stdout);
}

template <class T>
T must(Result<T> result)
{
    if (!result) {
        print("FAILED " + result.error().text);
        std::exit(1);
    }
    if constexpr (!std::is_void_v<T>) return std::move(*result);
}

Deadline soon() { return now() + std::chrono::seconds(20); }
double ms(Time from, Time to) { return static_cast<double>((to - from).count()) / 1000; }

// One domain and all that belongs to it.
struct Side {
    explicit Side(const std::string& name)
    {
        const auto store = must(open_store());
        control = must(open_domain(must(find_domain(*store, name))));
        must(refuse(precheck(*control, *store)));
        layout = must(probe_layout(*control));
        model = must(connect_device_model(model_socket(control->domain()), soon()));
        memory = std::make_unique<DomainMemory>(*control, layout);
        log = std::make_unique<LogDirty>(*control, layout);
        cut = std::make_unique<DomainCut>(*control, *model);
        must(model->set_dirty_log(true, soon()));
        must(log->start());
        must(memory->refresh());
    }
    std::unique_ptr<Control> control;
    std::unique_ptr<DeviceModel> model;
    MemoryLayout layout;
    std::unique_ptr<DomainMemory> memory;
    std::unique_ptr<LogDirty> log;
    std::unique_ptr<DomainCut> cut;
};

constexpr std::size_t kBatch = 512;

// dom0 is small: all of a domain is never in memory twice.
void read(DomainMemory& memory, std::span<const Gfn> gfns, Bytes& out)
{
    std::array<FrameStatus, kBatch> status;
    must(memory.read(gfns, out.data(), std::span(status).first(gfns.size())));
    const auto bad = std::find(status.begin(), status.begin() + static_cast<std::ptrdiff_t>(gfns.size()), FrameStatus::failed);
    if (bad != status.begin() + static_cast<std::ptrdiff_t>(gfns.size())) must(Result<void>(make_error(Errc::failed, "a frame cannot be read")));
}

class Loopback {
public:
    Loopback(const std::string& primary, const std::string& secondary) : p_(primary), s_(secondary), ram_(p_.layout.ram())
    {
        slot_.resize(p_.layout.regions.back().first + p_.layout.regions.back().pages);
        ram_.for_each([&](Gfn gfn) { slot_[gfn] = frames_++; });
        shadow_.resize(frames_ * kPageSize);
    }
    int run(int epochs, int epoch_ms);

private:
    void epoch(int number, bool last);
    DeviceState cut(int number, bool last, PageSet& dirty);
    void apply(bool last, const DeviceState& state, const PageSet& dirty);
    std::size_t capture(PageSet& dirty);
    void write(const PageSet& frames);
    std::size_t differing();
    std::uint8_t* shadow(Gfn gfn) { return &shadow_[slot_[gfn] * kPageSize]; }

    Side p_, s_;
    PageSet ram_;
    std::vector<std::uint64_t> slot_;   // by gfn: its place in the shadow
    std::uint64_t frames_ = 0;
    Bytes shadow_;                      // what the secondary's memory is to be
    Bytes arena_ = Bytes(kBatch * kPageSize);
};

// Copies what is dirty into the shadow; returns how many frames.
std::size_t Loopback::capture(PageSet& dirty)
{
    PageSet fetched;
    must(p_.log->fetch_and_clear(fetched, true));
    fetched.intersect(ram_);
    const auto gfns = fetched.to_vector();
    for (std::size_t at = 0; at < gfns.size(); at += kBatch) {
        const auto part = std::span(gfns).subspan(at, std::min(kBatch, gfns.size() - at));
        read(*p_.memory, part, arena_);
        for (std::size_t i = 0; i < part.size(); ++i) std::memcpy(shadow(part[i]), &arena_[i * kPageSize], kPageSize);
    }
    dirty.merge(fetched);
    return gfns.size();
}

DeviceState Loopback::cut(int number, bool last, PageSet& dirty)
{
    const int repeated = p_.cut->pauses_repeated();
    const Time begin = now();
    must(p_.cut->begin(soon()));
    const Time stopped = now();
    const std::size_t first = capture(dirty);
    const Time copied = now();
    DeviceState state = must(p_.cut->save(soon()));
    const Time saved = now();
    const std::size_t second = capture(dirty);   // what the save itself wrote
    const Time rescanned = now();
    if (!last) must(p_.cut->resume(soon()));
    const Time running = now();
    print(fmt::format("epoch={} stopped_ms={:.1f}: stop {:.1f} capture {:.1f} ({} frames) save {:.1f} ({} + {} bytes) rescan {:.1f} ({}) resume {:.1f} "
                      "pauses_repeated={} map_calls={}",
                      number, ms(begin, running), ms(begin, stopped), ms(stopped, copied), first, ms(copied, saved), state.devices.size(),
                      state.cpu_context.size(), ms(saved, rescanned), second, ms(rescanned, running), p_.cut->pauses_repeated() - repeated,
                      p_.memory->stats().map_calls));
    return state;
}

void Loopback::write(const PageSet& frames)
{
    std::vector<PageWrite> writes;
    frames.for_each([&](Gfn gfn) { writes.push_back({gfn, shadow(gfn)}); });
    must(s_.memory->write(writes));
}

void Loopback::apply(bool last, const DeviceState& state, const PageSet& dirty)
{
    const Time begin = now();
    must(s_.cut->stop(soon()));
    const Time stopped = now();
    PageSet own;
    must(s_.log->fetch_and_clear(own, true));
    own.intersect(ram_);
    const std::size_t own_frames = own.count();
    own.merge(dirty);
    write(own);
    const Time written = now();
    must(s_.cut->load(state, soon()));
    const Time loaded = now();
    PageSet touched;   // by the load
    must(s_.log->fetch_and_clear(touched, true));
    touched.intersect(ram_);
    write(touched);
    const Time restored = now();
    if (!last) must(s_.cut->resume(soon()));
    print(fmt::format("        applied_ms={:.1f}: stop {:.1f} write {:.1f} ({} frames, {} of its own) load {:.1f} restore {:.1f} ({}) resume {:.1f}",
                      ms(begin, now()), ms(begin, stopped), ms(stopped, written), own.count(), own_frames, ms(written, loaded), ms(loaded, restored),
                      touched.count(), ms(restored, now())));
}

// A domain that shut down or crashed is still there to be mapped and paused, and dirties nothing.
void alive(Side& side, const std::string& name)
{
    const DomainInfo info = must(side.control->info());
    if (info.dying || info.shut_down)
        must(Result<void>(make_error(Errc::guest_died, fmt::format("the {} {} (reason {})", name, info.dying ? "was destroyed" : "shut down", info.shutdown_reason))));
}

void Loopback::epoch(int number, bool last)
{
    alive(p_, "primary");
    alive(s_, "secondary");
    must(p_.memory->refresh());
    must(s_.memory->refresh());
    PageSet dirty;
    const DeviceState state = cut(number, last, dirty);
    must(DomainCut::verify(state));
    apply(last, state, dirty);
}

// Through mappings made for this, so that a stale one would show.
std::size_t Loopback::differing()
{
    DomainMemory mine(*p_.control, p_.layout), theirs(*s_.control, s_.layout);
    Bytes other(kBatch * kPageSize);
    const auto gfns = ram_.to_vector();
    std::size_t count = 0;
    for (std::size_t at = 0; at < gfns.size(); at += kBatch) {
        const auto part = std::span(gfns).subspan(at, std::min(kBatch, gfns.size() - at));
        read(mine, part, arena_);
        read(theirs, part, other);
        for (std::size_t i = 0; i < part.size(); ++i)
            if (std::memcmp(&arena_[i * kPageSize], &other[i * kPageSize], kPageSize) != 0 && count++ < 8)
                print(fmt::format("  frame {:#x} differs", part[i]));
    }
    return count;
}

int Loopback::run(int epochs, int epoch_ms)
{
    if (p_.layout != s_.layout) {
        print("FAILED the two domains have different memory");
        return 1;
    }
    for (int i = 1; i <= epochs; ++i) {
        epoch(i, i == epochs);
        if (i < epochs) std::this_thread::sleep_for(std::chrono::milliseconds(epoch_ms));
    }
    const std::size_t count = differing();
    print(fmt::format("compared={} differing={}", frames_, count));
    p_.log->stop();
    s_.log->stop();
    must(p_.model->set_dirty_log(false, soon()));
    must(s_.model->set_dirty_log(false, soon()));
    const Time begin = now();
    must(s_.cut->resume(soon()));
    print(fmt::format("takeover_ms={:.1f}", ms(begin, now())));
    return count == 0 ? 0 : 1;
}

}  // namespace

int loopback(int argc, char** argv)
{
    const auto number = [&](int i, int fallback) { return argc > i ? static_cast<int>(std::strtol(argv[i], nullptr, 10)) : fallback; };
    return Loopback(argv[1], argv[2]).run(std::max(number(3, 6), 1), number(4, 300));
}

}  // namespace colo::xen

int main(int argc, char** argv)
{
    if (argc < 3) {
        std::fputs("usage: xen_loopback PRIMARY SECONDARY [EPOCHS] [MS]\n", stderr);
        return 2;
    }
    return colo::xen::loopback(argc, argv);
}
