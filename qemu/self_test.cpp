// SPDX-License-Identifier: Apache-2.0
#include "qemu/self_test.h"

#include "core/clock.h"
#include "core/log.h"
#include "qemu/device_model.h"
#include "qemu/guest_ram.h"
#include "qemu/process.h"
#include "qemu/state_file.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sys/stat.h>
#include <unistd.h>

namespace colo::qemu {
namespace {

constexpr Duration kVersionTime{2'000'000};

constexpr std::string_view kSave = R"({{"execute":"xen-save-devices-state","arguments":{{"filename":"/proc/self/fd/{}","live":false}}}})";
constexpr std::string_view kLoad = R"({{"execute":"xen-load-devices-state","arguments":{{"filename":"/proc/self/fd/{}"}}}})";

// Path, size and time of the binary that would be run.
std::string binary_identity(const std::string& binary)
{
    const auto describe = [](const std::string& path) -> std::string {
        struct stat info {};
        if (::stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return {};
        return fmt::format("{}:{}:{}.{}", path, info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec);
    };
    if (binary.find('/') != std::string::npos) return describe(binary);
    const char* path = std::getenv("PATH");
    std::string rest = path != nullptr ? path : "/usr/bin";
    while (!rest.empty()) {
        const std::size_t colon = rest.find(':');
        if (const std::string found = describe(rest.substr(0, colon) + "/" + binary); !found.empty()) return found;
        rest = colon == std::string::npos ? "" : rest.substr(colon + 1);
    }
    return binary;
}

std::string cache_file(const EmbeddedGuestOptions& options) { return options.run_directory + "/self-test.cache"; }

// The first line that it prints about itself; a program that prints none is only known by its file.
std::string version_of(const EmbeddedGuestOptions& options, Deadline deadline)
{
    const std::string file = options.run_directory + "/self-test.version";
    ProcessOptions start;
    start.argv = {options.qemu_binary, "--version"};
    start.log_file = file;
    std::string line;
    if (const auto process = Process::start(start, deadline); process && (*process)->wait_ended(deadline)) {
        std::ifstream in(file);
        std::getline(in, line);
    }
    std::error_code ignored;
    std::filesystem::remove(file, ignored);
    return line;
}

std::string boot_id()
{
    std::string id;
    std::ifstream("/proc/sys/kernel/random/boot_id") >> id;
    return id;
}

Verdict failed(const Error& error)
{
    return {false, error.text, error.code == Errc::timed_out};
}

struct ThrowAway {
    std::unique_ptr<GuestRam> ram;
    StateFile state;
    SnapshotFile snapshot;
    std::unique_ptr<DeviceModel> model;
};

Result<ThrowAway> start_throw_away(EmbeddedGuestOptions options, const std::string& accelerator, Deadline deadline)
{
    options.nics.clear();
    options.name += "-self-test";
    auto ram = GuestRam::create(options.name, std::uint64_t{options.memory_mib} << 8);
    if (!ram) return ram.error();
    auto state = StateFile::create();
    if (!state) return state.error();
    auto snapshot = SnapshotFile::create();
    if (!snapshot) return snapshot.error();
    DeviceModelOptions start;
    start.process.argv = make_command_line(options, accelerator).argv;
    start.process.log_file = options.run_directory + "/self-test.log";
    start.serial_log = options.run_directory + "/serial.log";
    start.process.inherited_fds = {(*ram)->fd(), state->fd(), snapshot->fd()};
    start.process.core_dumps = false;
    start.channels_at = 1;
    auto model = DeviceModel::start(std::move(start), deadline);
    if (!model) return model.error();
    return ThrowAway{std::move(*ram), std::move(*state), std::move(*snapshot), std::move(*model)};
}

// A directory of its own, because the serial log of the real guest lives in the run directory.
Result<std::string> scratch_directory(const EmbeddedGuestOptions& options)
{
    std::string path = options.run_directory + "/self-test.XXXXXX";
    if (::mkdtemp(path.data()) == nullptr) return errno_error("mkdtemp " + path, errno);
    return path;
}

bool shows_life(const std::string& serial_log, const std::string& sign)
{
    std::ifstream in(serial_log);
    const std::string text((std::istreambuf_iterator<char>(in)), {});
    return sign.empty() ? !text.empty() : text.find(sign) != std::string::npos;
}

Verdict boot_under_kvm(const EmbeddedGuestOptions& scratch)
{
    const Deadline deadline = now() + scratch.kvm_test_time;
    auto machine = start_throw_away(scratch, "kvm", deadline);
    if (!machine) return failed(machine.error());
    if (auto r = machine->model->control().execute("cont", R"({"execute":"cont"})", deadline); !r)
        return failed(r.error());
    while (now() < deadline) {
        if (shows_life(scratch.run_directory + "/serial.log", scratch.life_sign)) return {true, {}};
        if (machine->model->gone()) return {false, machine->model->obituary()};
        auto status = machine->model->control().execute("query-status", R"({"execute":"query-status"})", deadline);
        if (!status) return failed(status.error());
        if (status->find("\"internal-error\"") != std::string::npos) return {false, "the guest ended in a KVM internal error"};
        ::usleep(20000);
    }
    return {false,
            fmt::format("no sign of life on the serial console within {} ms", scratch.kvm_test_time.count() / 1000),
            true};
}

Verdict load_twice(const EmbeddedGuestOptions& scratch, Deadline deadline)
{
    auto machine = start_throw_away(scratch, "tcg", deadline);
    if (!machine) return failed(machine.error());
    const int fd = inherited_fd_numbers().saved_state;
    QmpLink& link = machine->model->control();
    Result<std::string> done = link.execute("xen-save-devices-state", fmt::format(fmt::runtime(kSave), fd), deadline);
    for (int i = 0; i < 2 && done; ++i)
        done = link.execute("xen-load-devices-state", fmt::format(fmt::runtime(kLoad), fd), deadline);
    if (!done)
        return {false, fmt::format("{}; {}", done.error().text, machine->model->obituary()),
                done.error().code == Errc::timed_out};
    return {true, {}};
}

template <class Test>
Result<Verdict> cached(const EmbeddedGuestOptions& options, const std::string& key, Test&& test)
{
    const detail::VerdictCache cache(cache_file(options));
    Verdict verdict;
    if (cache.find(key, verdict)) return verdict;
    auto directory = scratch_directory(options);
    if (!directory) return directory.error();
    EmbeddedGuestOptions scratch = options;
    scratch.run_directory = *directory;
    verdict = test(scratch);
    std::error_code ignored;
    std::filesystem::remove_all(*directory, ignored);
    cache.store(key, verdict);
    return verdict;
}

}  // namespace

Result<Verdict> test_kvm(const EmbeddedGuestOptions& options)
{
    if (::access("/dev/kvm", R_OK | W_OK) != 0) return Verdict{false, errno_error("/dev/kvm", errno).text};
    auto digest = boot_digest(options);
    if (!digest) return digest.error();
    const detail::KvmKey key{binary_identity(options.qemu_binary), version_of(options, now() + kVersionTime),
                             boot_id()};
    return cached(options, detail::kvm_cache_key(options, key, *digest), boot_under_kvm);
}

Result<Verdict> test_xen_load(const EmbeddedGuestOptions& options, Deadline deadline)
{
    const std::string key = text_digest("xen-load|" + binary_identity(options.qemu_binary) + "|" + options.machine);
    EmbeddedGuestOptions small = options;
    small.memory_mib = 64;
    small.vcpus = 1;
    return cached(small, key, [&](const EmbeddedGuestOptions& scratch) { return load_twice(scratch, deadline); });
}

Result<Choice> choose_accelerator(const EmbeddedGuestOptions& options)
{
    if (options.accelerator == "tcg") return Choice{"tcg", {}};
    const Result<Verdict> kvm = test_kvm(options);
    if (!kvm) return kvm.error();
    if (kvm->works) return Choice{"kvm", {}};
    if (options.accelerator == "auto") return Choice{"tcg", "KVM does not run this guest: " + kvm->why_not};
    return make_error(Errc::unsupported,
                      fmt::format("accelerator = \"kvm\": KVM does not run this guest here ({}); use \"tcg\" or \"auto\"", kvm->why_not));
}

Result<Choice> choose_device_load(const EmbeddedGuestOptions& options, Deadline deadline)
{
    const std::string& wanted = options.device_load;
    if (wanted == "snapshot") return Choice{"snapshot", {}};
    if (wanted != "auto" && wanted != "xen-load")
        return make_error(Errc::invalid, fmt::format("device_load = \"{}\": auto, snapshot or xen-load", wanted));
    const Result<Verdict> xen_load = test_xen_load(options, deadline);
    if (!xen_load) return xen_load.error();
    if (xen_load->works) return Choice{"xen-load", {}};
    if (wanted == "auto") {
        spdlog::debug("xen-load-devices-state: {}", xen_load->why_not);
        return Choice{"snapshot", "this QEMU does not survive xen-load-devices-state"};
    }
    return make_error(Errc::unsupported,
                      fmt::format("device_load = \"xen-load\": this QEMU does not survive it ({}); use \"snapshot\" or \"auto\"",
                                  xen_load->why_not));
}

namespace detail {

std::string kvm_cache_key(const EmbeddedGuestOptions& options, const KvmKey& key, const std::string& boot_digest)
{
    return text_digest(fmt::format("kvm|{}|{}|{}|{}|{}|{}|{}|{}", key.binary, key.version, key.boot_id, boot_digest,
                                   options.machine, options.cpu_model, options.vcpus, options.life_sign));
}

bool VerdictCache::find(const std::string& key, Verdict& verdict) const
{
    std::ifstream in(file_);
    std::string line;
    while (std::getline(in, line)) {
        const std::size_t first = line.find('\t');
        const std::size_t second = first == std::string::npos ? first : line.find('\t', first + 1);
        if (second == std::string::npos || line.compare(0, first, key) != 0) continue;
        const std::string word = line.substr(first + 1, second - first - 1);
        if (word != "works" && word != "broken") continue;
        verdict = {word == "works", line.substr(second + 1)};
        return true;
    }
    return false;
}

void VerdictCache::store(const std::string& key, const Verdict& verdict) const
{
    if (verdict.timed_out) return;
    std::string why = verdict.why_not;
    for (char& c : why)
        if (c == '\n' || c == '\t') c = ' ';
    std::ofstream(file_, std::ios::app) << key << '\t' << (verdict.works ? "works" : "broken") << '\t' << why << '\n';
}

}  // namespace detail
}  // namespace colo::qemu
