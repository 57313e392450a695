// SPDX-License-Identifier: Apache-2.0
// colo_sim --seeds N [--first F] [--jobs J] [--breakage NAME]     runs seeds F..F+N-1, prints the coverage
//          [--cells TEXT]                                         only those whose cell's name has this in it
// colo_sim --seed N [--trace]                                     one run again, with everything that happened
// colo_sim --replay N                                             runs a seed twice and compares the traces
//
// Exit status 0: no violation and no empty cell. With --breakage: 0 if the rule breakage was caught.

#include "core/breakage.h"
#include "world.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>

using namespace colo;
using namespace colo::sim;

namespace {

struct Arguments {
    std::uint64_t first = 1, seeds = 200, seed = 0, replay = 0;
    int jobs = 2;
    bool trace = false;
    Breakage breakage = Breakage::none;
    std::string cells;
};

struct Totals {
    std::uint64_t runs = 0, epochs = 0, answers = 0, events = 0, sessions = 0, faults = 0, takeovers = 0, violations = 0, migrations = 0;
};

Breakage breakage_named(const std::string& name)
{
    for (int i = 1; i < 64; ++i)
        if (name == to_string(static_cast<Breakage>(i))) return static_cast<Breakage>(i);
    std::fprintf(stderr, "no breakage is called %s\n", name.c_str());
    std::exit(2);
}

std::string self = "colo_sim";  // as it was started

Arguments parse(int argc, char** argv)
{
    Arguments a;
    for (int i = 1; i < argc; ++i) {
        const std::string option = argv[i];
        const auto value = [&] {
            if (++i >= argc) {
                std::fprintf(stderr, "%s needs a value\n", option.c_str());
                std::exit(2);
            }
            return std::string(argv[i]);
        };
        if (option == "--seeds") a.seeds = std::stoull(value());
        else if (option == "--first") a.first = std::stoull(value());
        else if (option == "--seed") a.seed = std::stoull(value());
        else if (option == "--replay") a.replay = std::stoull(value());
        else if (option == "--jobs") a.jobs = std::stoi(value());
        else if (option == "--trace") a.trace = true;
        else if (option == "--cells") a.cells = value();
        else if (option == "--breakage") a.breakage = breakage_named(value());
        else {
            std::fprintf(stderr, "unknown option %s\n", option.c_str());
            std::exit(2);
        }
    }
    return a;
}

Outcome run(std::uint64_t seed, bool trace)
{
    World world({seed, trace});
    return world.run();
}

// Shared by the workers: with a breakage the first violation ends the search of all of them.
std::atomic<bool>* shared_flag()
{
    void* const memory = ::mmap(nullptr, sizeof(std::atomic<bool>), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        std::perror("mmap");
        std::exit(2);
    }
    static_assert(std::atomic<bool>::is_always_lock_free);
    return new (memory) std::atomic<bool>(false);
}

// One worker: every `jobs`-th seed; one line per run into the pipe.
void work(const Arguments& a, int worker, int fd, std::atomic<bool>& caught)
{
    std::FILE* out = ::fdopen(fd, "w");
    for (std::uint64_t seed = a.first + static_cast<std::uint64_t>(worker); seed < a.first + a.seeds && !caught;
         seed += static_cast<std::uint64_t>(a.jobs)) {
        if (all_cells()[seed % all_cells().size()].name().find(a.cells) == std::string::npos) continue;
        std::fprintf(out, "begin %llu\n", static_cast<unsigned long long>(seed));
        std::fflush(out);
        const Outcome o = run(seed, false);
        std::fprintf(out, "end %llu %zu %d %llu %llu %llu %llu %llu %llu %llu %s\n", static_cast<unsigned long long>(seed), o.cell, o.cell_hit,
                     static_cast<unsigned long long>(o.epochs), static_cast<unsigned long long>(o.answers),
                     static_cast<unsigned long long>(o.events), static_cast<unsigned long long>(o.sessions),
                     static_cast<unsigned long long>(o.faults), static_cast<unsigned long long>(o.takeovers),
                     static_cast<unsigned long long>(o.migrations), o.violations.empty() ? "ok" : o.violations[0].c_str());
        std::fflush(out);
        if (a.breakage != Breakage::none && !o.violations.empty()) caught = true;
    }
    std::fclose(out);
}

std::string breakage_option()
{
    return g_breakage == Breakage::none ? "" : std::string(" --breakage ") + to_string(g_breakage);
}

struct Collector {
    Totals totals;
    std::vector<std::uint64_t> hits = std::vector<std::uint64_t>(all_cells().size(), 0);
    std::uint64_t failed_seed = 0;

    void fail(std::uint64_t seed, const std::string& why)
    {
        ++totals.violations;
        if (failed_seed == 0) failed_seed = seed;
        if (totals.violations <= 40)
            std::printf("seed %llu (%s): %s\n    again: %s --seed %llu --trace%s\n", static_cast<unsigned long long>(seed),
                        all_cells()[seed % all_cells().size()].name().c_str(), why.c_str(), self.c_str(),
                        static_cast<unsigned long long>(seed), breakage_option().c_str());
    }

    void line(const char* text, std::uint64_t& open)
    {
        unsigned long long v[8] = {};
        std::size_t cell = 0;
        int hit = 0, used = 0;
        if (std::sscanf(text, "begin %llu", &v[0]) == 1) {
            open = v[0];
            return;
        }
        if (std::sscanf(text, "end %llu %zu %d %llu %llu %llu %llu %llu %llu %llu %n", &v[0], &cell, &hit, &v[1], &v[2], &v[3],
                        &v[4], &v[5], &v[6], &v[7], &used) < 10)
            return;
        open = 0;
        ++totals.runs;
        totals.epochs += v[1];
        totals.answers += v[2];
        totals.events += v[3];
        totals.sessions += v[4];
        totals.faults += v[5];
        totals.takeovers += v[6];
        totals.migrations += v[7];
        if (hit != 0) ++hits[cell];
        std::string result(text + used);
        while (!result.empty() && result.back() == '\n') result.pop_back();
        if (result != "ok") fail(v[0], result);
        else if (v[1] < 20 || v[5] == 0) fail(v[0], "a run with " + std::to_string(v[1]) + " checkpoints and " + std::to_string(v[5]) + " faults");
    }
};

void read_worker(Collector& collector, std::FILE* in, pid_t pid)
{
    char* text = nullptr;
    std::size_t size = 0;
    std::uint64_t open = 0;
    while (::getline(&text, &size, in) > 0) collector.line(text, open);
    std::free(text);
    std::fclose(in);
    int status = 0;
    ::waitpid(pid, &status, 0);
    if (status != 0) collector.fail(open, "the run itself broke (signal or assertion, see above)");
}

std::size_t print_coverage(const Collector& c)
{
    std::size_t empty = 0;
    std::map<std::string, std::pair<std::size_t, std::size_t>> by_step;   // filled, all
    std::vector<std::string> missing;
    for (std::size_t i = 0; i < all_cells().size(); ++i) {
        const Cell& cell = all_cells()[i];
        auto& [filled, all] = by_step[std::string(cell.primary ? "P " : "S ") + cell.step +
                                      (cell.approach == Approach::migration ? " (migration)" : "")];
        ++all;
        if (c.hits[i] != 0) ++filled;
        else {
            ++empty;
            missing.push_back(cell.name());
        }
    }
    std::printf("coverage (protocol step x kind of fault x side):\n");
    for (const auto& [step, count] : by_step) std::printf("  %-28s %3zu of %3zu kinds\n", step.c_str(), count.first, count.second);
    for (std::size_t i = 0; i < missing.size() && i < 30; ++i) std::printf("  empty: %s\n", missing[i].c_str());
    return empty;
}

Collector run_all(const Arguments& a)
{
    Collector collector;
    std::vector<std::pair<std::FILE*, pid_t>> workers;
    std::atomic<bool>& caught = *shared_flag();
    std::fflush(stdout);
    for (int w = 0; w < a.jobs; ++w) {
        int ends[2];
        if (::pipe(ends) != 0) std::exit(2);
        const pid_t pid = ::fork();
        if (pid == 0) {
            ::close(ends[0]);
            work(a, w, ends[1], caught);
            std::exit(0);
        }
        ::close(ends[1]);
        workers.emplace_back(::fdopen(ends[0], "r"), pid);
    }
    for (const auto& [in, pid] : workers) read_worker(collector, in, pid);
    return collector;
}

int run_seeds(const Arguments& a)
{
    const auto start = std::chrono::steady_clock::now();
    const Collector c = run_all(a);
    const Totals& t = c.totals;
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    std::printf("%llu runs in %.1f s: %llu sessions, %llu checkpoints, %llu faults, %llu take-overs, %llu migrations, %llu answers checked, %llu events, %llu violations\n",
                static_cast<unsigned long long>(t.runs), seconds, static_cast<unsigned long long>(t.sessions),
                static_cast<unsigned long long>(t.epochs), static_cast<unsigned long long>(t.faults),
                static_cast<unsigned long long>(t.takeovers), static_cast<unsigned long long>(t.migrations),
                static_cast<unsigned long long>(t.answers), static_cast<unsigned long long>(t.events), static_cast<unsigned long long>(t.violations));
    if (a.breakage != Breakage::none) {
        std::printf("%s: %s\n", to_string(a.breakage), t.violations != 0 ? "caught" : "NOT CAUGHT");
        return t.violations != 0 ? 0 : 1;
    }
    if (t.runs == 0) {
        std::printf("no cell of these seeds has \"%s\" in its name\n", a.cells.c_str());
        return 2;
    }
    std::size_t empty = 0;
    if (a.seeds >= 2 * all_cells().size() && a.cells.empty()) {
        empty = print_coverage(c);
        std::printf("cells: %zu, empty: %zu\n", all_cells().size(), empty);
    }
    return t.violations == 0 && empty == 0 ? 0 : 1;
}

int run_one(const Arguments& a)
{
    const Outcome o = run(a.seed, a.trace);
    std::printf("seed %llu (%s%s): %llu checkpoints, %llu sessions, %llu take-overs, %llu answers, trace %016llx\n",
                static_cast<unsigned long long>(a.seed), all_cells()[o.cell].name().c_str(), o.cell_hit ? "" : ", not reached",
                static_cast<unsigned long long>(o.epochs), static_cast<unsigned long long>(o.sessions),
                static_cast<unsigned long long>(o.takeovers), static_cast<unsigned long long>(o.answers),
                static_cast<unsigned long long>(o.trace_hash));
    for (const std::string& v : o.violations) std::printf("  %s\n", v.c_str());
    return o.violations.empty() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv)
{
    const Arguments a = parse(argc, argv);
    self = argv[0];
    g_breakage = a.breakage;
    std::setvbuf(stdout, nullptr, _IOLBF, 0);
    if (a.seed != 0) return run_one(a);
    if (a.replay != 0) {
        const Outcome first = run(a.replay, false), second = run(a.replay, false);
        std::printf("seed %llu: trace %016llx and %016llx\n", static_cast<unsigned long long>(a.replay),
                    static_cast<unsigned long long>(first.trace_hash), static_cast<unsigned long long>(second.trace_hash));
        return first.trace_hash == second.trace_hash && first.events == second.events ? 0 : 1;
    }
    return run_seeds(a);
}
