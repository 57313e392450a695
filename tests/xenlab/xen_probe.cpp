// SPDX-License-Identifier: Apache-2.0
// xen_probe NAME|ID [ROUNDS] [MS]: what the binding of xen/ costs and finds on a live HVM domain, and whether it keeps its promises
// there. Run in dom0 by `scripts/xenlab test probe`. Status 0 only if every check held; "key=value" lines for scripts.
// --precheck NAME|ID: only whether it can be protected. --log NAME|ID: only whether its dirty log is on.

#include "core/clock.h"
#include "xen/dirty_log.h"
#include "xen/guest_memory.h"
#include "xen/precheck.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

namespace colo::xen {
namespace {

using replication::FrameStatus;
using replication::PageSet;

int g_broken = 0;

void print(const std::string& line)
{
    std::printf("%s\n", line.c_str());
    std::fflush(stdout);
}

void check(bool holds, const std::string& what)
{
    if (holds) return;
    ++g_broken;
    print("BROKEN " + what);
}

[[noreturn]] void give_up(const Error& error)
{
    print("FAILED " + error.text);
    std::exit(1);
}

template <class T>
T must(Result<T> result)
{
    if (!result) give_up(result.error());
    return std::move(*result);
}
void must(const Result<void>& result)
{
    if (!result) give_up(result.error());
}

// Milliseconds that `what` takes.
template <class Function>
double timed(Function&& what)
{
    const Time began = now();
    what();
    return static_cast<double>((now() - began).count()) / 1000;
}

bool show_prechecks(Control& control, Store& store)
{
    const auto findings = precheck(control, store);
    for (const Finding& finding : findings) print(fmt::format("  precheck {:12} {:3} {}", finding.check, finding.ok ? "ok" : "NO", finding.text));
    return refuse(findings).has_value();
}

class Probe {
public:
    Probe(Control& control, Store& store, int rounds, int round_ms)
        : control_(control), store_(store), rounds_(rounds), round_ms_(round_ms)
    {
    }
    void run();

private:
    void look();
    void first_copy();
    void rounds();
    void round(int number);
    void pictures_agree();
    void own_writes();
    void accesses();
    void other_tools();
    void cpu_context();
    double copy(const std::vector<Gfn>& gfns);

    Control& control_;
    Store& store_;
    int rounds_, round_ms_;
    MemoryLayout layout_;
    std::unique_ptr<DomainMemory> memory_;
    std::unique_ptr<LogDirty> log_;
    Bytes out_;
    std::vector<FrameStatus> status_;
};

void Probe::look()
{
    const DomainInfo info = must(control_.info());
    check(info.hvm && info.hap, "an HVM domain with hardware assisted paging");
    const Gfn limit = must(control_.gfn_limit());
    const double ms = timed([&] { layout_ = must(probe_layout(control_)); });
    print(fmt::format("domain={} total_pages={} gfn_limit={:#x} vcpus={}", control_.domain(), info.total_pages, limit, info.vcpus));
    print(fmt::format("layout_ms={:.1f} regions={} ram_frames={} special_frames={}", ms, layout_.regions.size(), layout_.ram().count(),
                      layout_.special_frames.size()));
    for (const auto& region : layout_.regions) print(fmt::format("  region {:#x}..{:#x}", region.first, region.first + region.pages - 1));
    for (const Gfn gfn : layout_.special_frames) print(fmt::format("  special {:#x}", gfn));
    check(layout_.special_frames.size() >= 2, "store and console rings are known");
    memory_ = std::make_unique<DomainMemory>(control_, layout_);
    log_ = std::make_unique<LogDirty>(control_, layout_);
    must(memory_->refresh());
}

double Probe::copy(const std::vector<Gfn>& gfns)
{
    out_.resize(gfns.size() * kPageSize);
    status_.assign(gfns.size(), FrameStatus::failed);
    const double ms = timed([&] { must(memory_->read(gfns, out_.data(), status_)); });
    const auto bad = std::count_if(status_.begin(), status_.end(), [](FrameStatus s) { return s != FrameStatus::ok; });
    check(bad == 0, fmt::format("{} of {} frames could not be read", bad, gfns.size()));
    return ms;
}

void Probe::first_copy()
{
    const std::vector<Gfn> all = layout_.ram().to_vector();
    const double cold = copy(all), warm = copy(all);
    const FrameMapStats& stats = memory_->stats();
    print(fmt::format("all_frames={} first_copy_ms={:.1f} second_copy_ms={:.1f} map_calls={} frames_mapped={}", all.size(), cold, warm,
                      stats.map_calls, stats.frames_mapped));
}

// One epoch as a primary has it: the domain runs, is paused, and what it dirtied is copied.
void Probe::round(int number)
{
    std::this_thread::sleep_for(std::chrono::milliseconds(round_ms_));
    const double pause = timed([&] { must(control_.pause()); });
    PageSet dirty;
    const double clean = timed([&] { must(log_->fetch_and_clear(dirty, true)); });
    PageSet known = layout_.ram();
    for (const Gfn gfn : layout_.special_frames) known.add(gfn);
    if (const auto strange = dirty.first_outside(known)) check(false, fmt::format("frame {:#x} is dirty and not memory of the guest", *strange));
    dirty.intersect(layout_.ram());
    const std::vector<Gfn> gfns = dirty.to_vector();
    const std::uint64_t maps = memory_->stats().map_calls;
    const double ms = copy(gfns);
    must(memory_->refresh());
    PageSet rest;
    must(log_->fetch_and_clear(rest, true));
    const double unpause = timed([&] { must(control_.unpause()); });
    print(fmt::format("round={} pause_ms={:.2f} clean_ms={:.2f} dirty={} copy_ms={:.2f} map_calls={} rest={} unpause_ms={:.2f}", number, pause,
                      clean, gfns.size(), ms, memory_->stats().map_calls - maps, rest.count(), unpause));
    if (number == 0) check(gfns.size() == layout_.ram().count(), "the first fetch reports every frame");
    else check(!gfns.empty() && gfns.size() < layout_.ram().count() / 2, "a later fetch reports what was written");
}

void Probe::rounds()
{
    const double ms = timed([&] { must(log_->start()); });
    print(fmt::format("log_start_ms={:.2f} taken_over={}", ms, log_->taken_over()));
    PageSet everything;
    must(log_->peek(everything));
    check(everything.count() >= layout_.ram().count(), "before the first fetch every frame is dirty");
    for (int i = 0; i <= rounds_; ++i) round(i);
    PageSet seen;
    const double peek = timed([&] { must(log_->peek(seen)); });
    print(fmt::format("peek_ms={:.2f} dirty={}", peek, seen.count()));
}

// What the dirty log says is all that changed: a copy kept up to date by it equals the domain.
void Probe::pictures_agree()
{
    const std::vector<Gfn> all = layout_.ram().to_vector();
    must(control_.pause());
    PageSet dirty;
    must(log_->fetch_and_clear(dirty, true));
    copy(all);
    const Bytes before = out_;
    must(control_.unpause());
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    must(control_.pause());
    dirty = PageSet();
    must(log_->fetch_and_clear(dirty, true));
    copy(all);
    std::uint64_t changed = 0, missed = 0;
    for (std::size_t i = 0; i < all.size(); ++i) {
        if (std::memcmp(&before[i * kPageSize], &out_[i * kPageSize], kPageSize) == 0) continue;
        ++changed;
        missed += !dirty.contains(all[i]);
    }
    // The long-lived mappings show what fresh ones show.
    DomainMemory fresh(control_, layout_);
    Bytes again(all.size() * kPageSize);
    must(fresh.read(all, again.data(), status_));
    const bool same = again == out_;
    must(control_.unpause());
    print(fmt::format("changed={} reported={} missed={} stale_mappings={}", changed, dirty.count(), missed, same ? 0 : 1));
    check(changed > 0 && missed == 0, "every frame that changed was reported");
    check(same, "kept mappings show the frames of the domain");
}

// GuestMemory promises that our own writes are not in the dirty log. What is written is what is there already.
void Probe::own_writes()
{
    must(control_.pause());
    PageSet dirty;
    must(log_->fetch_and_clear(dirty, true));
    std::vector<Gfn> gfns = layout_.ram().to_vector();
    gfns.resize(std::min<std::size_t>(gfns.size(), 256));
    copy(gfns);
    std::vector<replication::PageWrite> writes;
    for (std::size_t i = 0; i < gfns.size(); ++i) writes.push_back({gfns[i], &out_[i * kPageSize]});
    const double first = timed([&] { must(memory_->write(writes)); });
    const double second = timed([&] { must(memory_->write(writes)); });
    PageSet own;
    must(log_->fetch_and_clear(own, true));
    must(control_.unpause());
    print(fmt::format("own_writes={} first_ms={:.2f} second_ms={:.2f} in_log={}", writes.size(), first, second, own.count()));
}

// How often a pause finds a vCPU in the middle of an access to a device: what a cut has to look out for.
void Probe::accesses()
{
    constexpr int kPauses = 200;
    int waiting = 0, answered = 0;
    for (int i = 0; i < kPauses; ++i) {
        must(control_.pause());
        const InFlight found = must(control_.in_flight());
        waiting += found.waiting > 0;
        answered += found.answered > 0;
        must(control_.unpause());
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    print(fmt::format("pauses={} access_waiting={} access_answered={}", kPauses, waiting, answered));
}

// There is one log, and a tool that takes bits out of it or switches it off does not ask us.
void Probe::other_tools()
{
    const auto told = [&](const std::string& what) {
        PageSet dirty;
        const auto r = log_->fetch_and_clear(dirty, false);
        check(!r && r.error().code == Errc::limit, what + " is noticed");
        must(log_->fetch_and_clear(dirty, false));
    };
    must(control_.read_log(LogOp::clean, false, 1 << 20));
    told("a log that somebody else cleared");
    must(control_.disable_log());
    told("a log that somebody else switched off");
    must(control_.disable_log());
    must(control_.enable_log());
    told("a log that somebody else switched off and on");
    print("other_tools=noticed");
}

// The CPU's registers in a context: its record of type 2 without clocks.
Bytes registers(const Bytes& context)
{
    constexpr std::size_t kHead = 8, kRegisters = 512 + 18 * 8;   // floating point; the general ones, rip and rflags
    for (std::size_t at = 0; at + kHead <= context.size();) {
        std::uint16_t type = 0;
        std::uint32_t length = 0;
        std::memcpy(&type, &context[at], sizeof type);
        std::memcpy(&length, &context[at + 4], sizeof length);
        if (length > context.size() - at - kHead) return {};
        const auto first = context.begin() + static_cast<std::ptrdiff_t>(at + kHead);
        if (type == 2 && length >= kRegisters) return Bytes(first, first + kRegisters);
        at += kHead + length;
    }
    return {};
}

void Probe::cpu_context()
{
    must(control_.pause());
    Bytes context;
    const double get = timed([&] { context = must(control_.context()); });
    const double set = timed([&] { must(control_.set_context(context)); });
    const Bytes again = must(control_.context());
    check(!registers(context).empty() && registers(again) == registers(context), "the CPU is as it was set");
    Bytes damaged = context;
    for (std::size_t i = 0; i < 8 && i < damaged.size(); ++i) damaged[i] ^= 0xff;
    const auto refused = control_.set_context(damaged);
    const bool unharmed = registers(must(control_.context())) == registers(context);
    must(control_.unpause());
    print(fmt::format("context_bytes={} get_ms={:.2f} set_ms={:.2f} damaged={}", context.size(), get, set,
                      refused ? "accepted" : refused.error().text));
    check(again.size() == context.size(), "the context has the same size when it was set");
    check(!refused && unharmed, "a damaged context is refused and changes nothing");
}

void Probe::run()
{
    check(show_prechecks(control_, store_), "the domain can be protected");
    look();
    first_copy();
    rounds();
    pictures_agree();
    own_writes();
    accesses();
    other_tools();
    cpu_context();
    const double off = timed([&] { log_->stop(); });
    PageSet dirty;
    check(!log_->fetch_and_clear(dirty, false), "a log that is off is not read");
    must(control_.enable_log());   // refused if it were on
    must(control_.disable_log());
    const FrameMapStats stats = memory_->stats();
    const double unmap = timed([&] { memory_->unmap_all(); });
    print(fmt::format("off_ms={:.2f} unmap_all_ms={:.2f} map_calls={} unmap_calls={} broken={}", off, unmap, stats.map_calls,
                      memory_->stats().unmap_calls, g_broken));
}

int number(const char* text, int fallback) { return text != nullptr ? static_cast<int>(std::strtol(text, nullptr, 10)) : fallback; }

}  // namespace

// Switched on twice, it is refused; one that was off is off again afterwards.
bool log_is_on(Control& control)
{
    const auto enabled = control.enable_log();
    if (enabled) must(control.disable_log());
    else if (enabled.error().code != Errc::invalid) give_up(enabled.error());
    return !enabled;
}

int probe(char** arguments)
{
    const bool only_log = std::strcmp(arguments[0], "--log") == 0 && arguments[1] != nullptr;
    if (only_log) ++arguments;
    const bool only_precheck = std::strcmp(arguments[0], "--precheck") == 0 && arguments[1] != nullptr;
    if (only_precheck) ++arguments;
    const auto store = must(open_store());
    const auto control = must(open_domain(must(find_domain(*store, arguments[0]))));
    if (only_precheck) return show_prechecks(*control, *store) ? 0 : 1;
    if (only_log) {
        print(log_is_on(*control) ? "log=on" : "log=off");
        return 0;
    }
    const int rounds = number(arguments[1], 5);
    Probe(*control, *store, rounds, number(arguments[1] != nullptr ? arguments[2] : nullptr, 100)).run();
    return g_broken == 0 ? 0 : 1;
}

}  // namespace colo::xen

int main(int argc, char** argv)
{
    if (argc < 2) {
        std::fputs("usage: xen_probe NAME|ID [ROUNDS] [MS]\n       xen_probe --precheck NAME|ID\n       xen_probe --log NAME|ID\n", stderr);
        return 2;
    }
    return colo::xen::probe(argv + 1);
}
