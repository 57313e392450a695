// SPDX-License-Identifier: Apache-2.0
#include "loopback.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>

namespace colo::xen {

using replication::DeviceState;
using replication::FrameStatus;
using replication::PageSet;
using replication::PageWrite;

namespace {

// As PrimaryWorker::shrink_residue() does it: rounds while the domain runs, as long as each is much shorter than the one before.
constexpr int kRoundsMax = 8;
constexpr std::size_t kSmallResidue = 64;
// That a pause needs no new memory; it may get it all the same.
constexpr std::size_t kArenaFrames = 4 * Loopback::kBatch;

[[noreturn]] void give_up(std::string text)
{
    must(Result<void>(make_error(Errc::failed, std::move(text))));
    std::abort();
}

}  // namespace

void print(const std::string& line)
{
    std::printf("%s\n", line.c_str());
    std::fflush(stdout);
}

Side::Side(const std::string& name, bool hurry)
{
    const auto store = must(open_store());
    control = must(open_domain(must(find_domain(*store, name))));
    must(refuse(precheck(*control, *store)));
    layout = must(probe_layout(*control));
    model = must(connect_device_model(model_socket(control->domain()), soon()));
    memory = std::make_unique<DomainMemory>(*control, layout);
    log = std::make_unique<LogDirty>(*control, layout);
    cut = std::make_unique<DomainCut>(*control, *model);
    if (hurry) cut->hurry_model(must(model_pid(*store, control->domain())));
    must(model->set_dirty_log(true, soon()));
    must(log->start());
    must(memory->refresh());
}

// A domain that shut down or crashed is still there to be mapped and paused, and dirties nothing.
void Side::must_be_alive(const std::string& role)
{
    const DomainInfo info = must(control->info());
    if (info.dying || info.shut_down)
        give_up(fmt::format("the {} {} (reason {})", role, info.dying ? "was destroyed" : "shut down", info.shutdown_reason));
}

Loopback::Loopback(const std::string& primary, const std::string& secondary) : p_(primary, true), s_(secondary, false), ram_(p_.layout.ram())
{
    if (p_.layout != s_.layout) give_up("the two domains have different memory");
    slot_.resize(p_.layout.regions.back().first + p_.layout.regions.back().pages);
    ram_.for_each([&](Gfn gfn) { slot_[gfn] = frames_++; });
    shadow_.resize(frames_ * kPageSize);
    arena_.resize(kArenaFrames * kPageSize);
}

void Loopback::read(DomainMemory& memory, std::span<const Gfn> gfns, std::uint8_t* out)
{
    std::array<FrameStatus, kBatch> status;
    const auto ours = std::span(status).first(gfns.size());
    must(memory.read(gfns, out, ours));
    if (std::find(ours.begin(), ours.end(), FrameStatus::failed) != ours.end()) give_up("a frame cannot be read");
}

std::vector<Gfn> Loopback::fetch(bool final)
{
    PageSet fetched;
    must(p_.log->fetch_and_clear(fetched, final));
    std::vector<Gfn> gfns;
    fetched.for_each([&](Gfn gfn) {
        if (ram_.contains(gfn)) gfns.push_back(gfn);
    });
    return gfns;
}

// While the domain runs: straight into the shadow.
std::size_t Loopback::copy_ahead()
{
    for (const Gfn gfn : fetch(false)) owed_.add(gfn);
    const auto gfns = owed_.to_vector();
    dirty_.merge(owed_);
    owed_.clear();
    for (std::size_t at = 0; at < gfns.size(); at += kBatch) {
        const auto part = std::span(gfns).subspan(at, std::min(kBatch, gfns.size() - at));
        const Time begin = now();
        read(*p_.memory, part, arena_.data());
        cut_.copying += now() - begin;
        for (std::size_t i = 0; i < part.size(); ++i) std::memcpy(shadow(part[i]), &arena_[i * kPageSize], kPageSize);
    }
    return gfns.size();
}

// Inside the pause: into the arena only.
std::size_t Loopback::copy_residue()
{
    const auto gfns = fetch(true);
    const std::size_t before = residue_.size();
    residue_.insert(residue_.end(), gfns.begin(), gfns.end());
    if (arena_.size() < residue_.size() * kPageSize) arena_.resize(residue_.size() * kPageSize);
    const Time begin = now();
    for (std::size_t at = 0; at < gfns.size(); at += kBatch) {
        const auto part = std::span(gfns).subspan(at, std::min(kBatch, gfns.size() - at));
        read(*p_.memory, part, &arena_[(before + at) * kPageSize]);
    }
    cut_.copying += now() - begin;
    return gfns.size();
}

DeviceState Loopback::make_cut(bool last)
{
    const int repeated = p_.cut->pauses_repeated();
    const HypercallCount calls = hypercalls();
    must(p_.cut->begin(soon()));
    must(p_.memory->refresh());   // as HvmGuest does
    const Time stopped = now();
    cut_.residue_frames = copy_residue();
    const Time copied = now();
    DeviceState state = must(p_.cut->save(soon()));
    const Time saved = now();
    cut_.rescan_frames = copy_residue();   // what the save itself wrote
    const Time rescanned = now();
    if (!last) must(p_.cut->resume(soon()));
    const replication::CutTimes& times = p_.cut->times();
    cut_.resumed = last ? rescanned : times.cont_done;
    cut_.calls_stopped = hypercalls() - calls;
    cut_.stopped = cut_.resumed - times.stop_sent;
    cut_.stop = stopped - times.stop_sent;
    cut_.residue = copied - stopped;
    cut_.save = saved - copied;
    cut_.rescan = rescanned - saved;
    cut_.resume = cut_.resumed - rescanned;
    cut_.pauses_repeated = p_.cut->pauses_repeated() - repeated;
    cut_.device_bytes = state.devices.size();
    cut_.context_bytes = state.cpu_context.size();
    return state;
}

void Loopback::write(const PageSet& frames)
{
    std::vector<PageWrite> writes;
    frames.for_each([&](Gfn gfn) { writes.push_back({gfn, shadow(gfn)}); });
    must(s_.memory->write(writes));
}

void Loopback::apply(bool last, const DeviceState& state)
{
    const Time begin = now();
    must(s_.cut->stop(soon()));
    must(s_.memory->refresh());
    const Time stopped = now();
    PageSet own;
    must(s_.log->fetch_and_clear(own, true));
    own.intersect(ram_);
    apply_.own_frames = own.count();
    own.merge(dirty_);
    apply_.frames = own.count();
    write(own);
    const Time written = now();
    must(s_.cut->load(state, soon()));
    const Time loaded = now();
    PageSet touched;   // by the load
    must(s_.log->fetch_and_clear(touched, true));
    touched.intersect(ram_);
    write(touched);
    apply_.restored_frames = touched.count();
    const Time restored = now();
    if (!last) must(s_.cut->resume(soon()));
    apply_.total = now() - begin;
    apply_.stop = stopped - begin;
    apply_.write = written - stopped;
    apply_.load = loaded - written;
    apply_.restore = restored - loaded;
    apply_.resume = now() - restored;
}

void Loopback::epoch(bool last)
{
    p_.must_be_alive("primary");
    s_.must_be_alive("secondary");
    cut_ = {};
    dirty_.clear();
    residue_.clear();
    const HypercallCount calls = hypercalls();
    std::size_t before = frames_;
    for (int round = 0; round < kRoundsMax; ++round) {
        const std::size_t frames = copy_ahead();
        cut_.ahead_frames += frames;
        if (frames <= kSmallResidue || frames >= before / 4 * 3) break;
        before = frames;
    }
    cut_.calls_ahead = hypercalls() - calls;
    const DeviceState state = make_cut(last);
    for (std::size_t i = 0; i < residue_.size(); ++i) {
        std::memcpy(shadow(residue_[i]), &arena_[i * kPageSize], kPageSize);
        dirty_.add(residue_[i]);
    }
    must(DomainCut::verify(state));
    apply(last, state);
}

void Loopback::go_on(bool primary)
{
    if (primary) must(p_.cut->resume(soon()));
    must(s_.cut->resume(soon()));
}

void Loopback::end_logs()
{
    for (Side* side : {&p_, &s_}) {
        side->log->stop();
        must(side->model->set_dirty_log(false, soon()));
    }
}

std::size_t Loopback::differing()
{
    DomainMemory mine(*p_.control, p_.layout), theirs(*s_.control, s_.layout);
    Bytes other(kBatch * kPageSize);
    const auto gfns = ram_.to_vector();
    std::size_t count = 0;
    for (std::size_t at = 0; at < gfns.size(); at += kBatch) {
        const auto part = std::span(gfns).subspan(at, std::min(kBatch, gfns.size() - at));
        read(mine, part, arena_.data());
        read(theirs, part, other.data());
        for (std::size_t i = 0; i < part.size(); ++i)
            if (std::memcmp(&arena_[i * kPageSize], &other[i * kPageSize], kPageSize) != 0 && count++ < 8)
                print(fmt::format("  frame {:#x} differs", part[i]));
    }
    return count;
}

}  // namespace colo::xen
