// SPDX-License-Identifier: Apache-2.0
// Measures the pause of the embedded guest alone: no secondary, no proxy. Cuts at an interval, pre-captures like the
// service does, and prints the stages. pause_probe --kernel vmlinuz --initrd initrd.gz [--dirty MB/s] [--wset MB]
// [--interval MS] [--cuts N] [--mem MiB] [--vcpus N] [--dirty-log M] [--priority 0|1]

#include "core/clock.h"
#include "qemu/embedded_guest.h"
#include "tests/guest/test_guest.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <unistd.h>

namespace {

using colo::Deadline;
using colo::Result;
using colo::replication::Guest;
using colo::replication::PageSet;

std::map<std::string, std::string> g_options = {{"kernel", ""},      {"initrd", ""},     {"dirty", "0"},      {"wset", "96"},
                                                {"interval", "500"}, {"cuts", "30"},     {"mem", "256"},      {"dirty-log", "auto"},
                                                {"vcpus", "1"},      {"precapture", "1"}, {"append", ""},
                                                {"priority", "1"}};

long number(const std::string& key) { return std::stol(g_options.at(key)); }
Deadline in(long ms) { return colo::now() + std::chrono::milliseconds(ms); }

void must(const char* what, const Result<void>& result)
{
    if (result) return;
    fmt::print(stderr, "{}: {}\n", what, result.error().text);
    std::exit(1);
}

struct Samples {
    std::map<std::string, std::vector<double>> values;
    std::vector<std::string> order;
    void add(const std::string& name, double value)
    {
        if (!values.contains(name)) order.push_back(name);
        values[name].push_back(value);
    }
    void print() const
    {
        fmt::print("{:24} {:>9} {:>9} {:>9} {:>9}\n", "us", "p50", "p90", "p99", "max");
        for (const auto& name : order) {
            auto v = values.at(name);
            std::sort(v.begin(), v.end());
            const auto at = [&](double q) { return v[std::min(v.size() - 1, static_cast<std::size_t>(q * static_cast<double>(v.size())))]; };
            fmt::print("{:24} {:9.0f} {:9.0f} {:9.0f} {:9.0f}\n", name, at(0.5), at(0.9), at(0.99), v.back());
        }
    }
};

std::uint64_t copy_pages(Guest& guest, const PageSet& set, std::vector<std::uint8_t>& arena)
{
    std::uint64_t pages = 0;
    set.for_each([&](colo::Gfn g) {
        std::memcpy(arena.data() + (pages % (arena.size() / 4096)) * 4096, guest.memory().view(g), 4096);
        ++pages;
    });
    return pages;
}

bool wait_ready(const std::string& serial)
{
    const Deadline deadline = in(60000);
    while (colo::now() < deadline) {
        std::ifstream file(serial);
        const std::string text((std::istreambuf_iterator<char>(file)), {});
        if (text.find("COLO-GUEST-READY") != std::string::npos) return true;
        ::usleep(20000);
    }
    return false;
}

double us(colo::Time from, colo::Time to) { return static_cast<double>(to.us - from.us); }

void one_cut(Guest& guest, std::vector<std::uint8_t>& arena, Samples& samples)
{
    const bool can_view = guest.memory().view(0) != nullptr;
    std::uint64_t ahead = 0;
    if (can_view && number("precapture") != 0) {
        for (int round = 0; round < 3; ++round) {
            PageSet set(guest.description().gfn_limit());
            must("fetch", guest.dirty_log().fetch_and_clear(set, false));
            const std::uint64_t pages = copy_pages(guest, set, arena);
            ahead += pages;
            if (pages < 300) break;
        }
    }
    must("cut_begin", guest.cut_begin(in(2000)));
    const colo::Time stopped = colo::now();
    PageSet set(guest.description().gfn_limit());
    must("fetch", guest.dirty_log().fetch_and_clear(set, true));
    const colo::Time scanned = colo::now();
    std::uint64_t pages = can_view ? copy_pages(guest, set, arena) : set.count();
    const colo::Time copied = colo::now();
    const auto state = guest.cut_save(in(2000));
    must("cut_save", state ? Result<void>{} : Result<void>(state.error()));
    const colo::Time saved = colo::now();
    PageSet again(guest.description().gfn_limit());
    must("fetch", guest.dirty_log().fetch_and_clear(again, true));
    const colo::Time rescanned = colo::now();
    must("resume", guest.resume(in(2000)));
    const auto times = guest.last_cut_times();
    samples.add("stop", us(times.stop_sent, times.stopped));
    samples.add("scan", us(stopped, scanned));
    samples.add("copy", us(scanned, copied));
    samples.add("save (from stopped)", us(times.stopped, times.saved));
    samples.add("wait for save", us(copied, saved));
    samples.add("rescan", us(saved, rescanned));
    samples.add("cont", us(times.cont_sent, times.cont_done));
    samples.add("PAUSE", us(times.stop_sent, times.cont_done));
    samples.add("pages ahead", static_cast<double>(ahead));
    samples.add("pages in pause", static_cast<double>(pages));
    samples.add("pages after save", static_cast<double>(again.count()));
    samples.add("state bytes", static_cast<double>(state->devices.size()));
}

}  // namespace

int main(int argc, char** argv)
{
    for (int i = 1; i + 1 < argc; i += 2) {
        const std::string key = std::string(argv[i]).substr(std::string(argv[i]).find_first_not_of('-'));
        if (!g_options.contains(key)) {
            fmt::print(stderr, "unknown option {}\n", argv[i]);
            return 2;
        }
        g_options[key] = argv[i + 1];
    }
    std::string directory = "/tmp/pause_probe.XXXXXX";
    if (::mkdtemp(directory.data()) == nullptr) return 1;
    colo::qemu::EmbeddedGuestOptions options;
    options.name = "pause-probe";
    options.run_directory = directory;
    options.kernel = g_options["kernel"];
    options.initrd = g_options["initrd"];
    options.accelerator = "tcg";
    options.device_load = "snapshot";
    options.dirty_log = g_options["dirty-log"];
    options.memory_mib = static_cast<std::uint32_t>(number("mem"));
    options.vcpus = static_cast<std::uint32_t>(number("vcpus"));
    options.append = colo::test::kernel_command_line(
        fmt::format("colo.dirty={} colo.wset={} {}", number("dirty"), number("wset"), g_options["append"]));
    options.raise_priority = number("priority") != 0;
    colo::qemu::EmbeddedNic nic;
    nic.mac = {0x52, 0x54, 0, 0x12, 0x34, 0x56};
    nic.netdev_argument = [&](int) { return "stream,id=net0,server=on,addr.type=unix,addr.path=" + directory + "/net.sock"; };
    options.nics.push_back(nic);
    {
        auto guest = colo::qemu::make_embedded_guest(options);
        must("options", guest ? Result<void>{} : Result<void>(guest.error()));
        const colo::Time start = colo::now();
        must("create", (*guest)->create(colo::replication::StartMode::boot, in(30000)));
        fmt::print("created in {:.0f} ms; {}\n", us(start, colo::now()) / 1000, (*guest)->choices().dirty_log);
        if (!wait_ready(directory + "/serial.log")) return 1;
        fmt::print("ready in {:.0f} ms\n", us(start, colo::now()) / 1000);
        ::sleep(2);
        must("dirty log", (*guest)->dirty_log().start());
        std::vector<std::uint8_t> arena(128u << 20, 1);
        Samples samples, warm_up;
        for (int i = 0; i < 3; ++i) one_cut(**guest, arena, warm_up);
        for (long i = 0; i < number("cuts"); ++i) {
            ::usleep(static_cast<useconds_t>(number("interval") * 1000));
            one_cut(**guest, arena, samples);
        }
        samples.print();
    }
    std::filesystem::remove_all(directory);
    return 0;
}
