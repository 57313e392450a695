// SPDX-License-Identifier: Apache-2.0
#include "qemu/process.h"

#include "core/clock.h"
#include "qemu/options.h"
#include "qemu/self_test.h"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <set>
#include <thread>
#include <vector>

namespace colo::qemu {
namespace {

Deadline soon() { return now() + std::chrono::seconds(10); }

std::string temporary_directory()
{
    std::string path = "/tmp/qemu-unit.XXXXXX";
    return ::mkdtemp(path.data()) != nullptr ? path : std::string();
}

std::string slurp(const std::string& path)
{
    std::ifstream in(path);
    return {std::istreambuf_iterator<char>(in), {}};
}

TEST(ProcessTest, RunsAndReportsItsEnd)
{
    auto process = Process::start({.argv = {"sh", "-c", "exit 7"}}, soon());
    ASSERT_TRUE(process) << process.error().text;
    ASSERT_TRUE((*process)->wait_ended(soon()));
    EXPECT_EQ((*process)->how_ended(), "exited with status 7");
}

// The watcher and the guest thread both write an obituary: one reaps, both must know how it ended.
TEST(ProcessTest, TwoThreadsMayAskHowItEndedAtOnce)
{
    for (int round = 0; round < 50; ++round) {
        auto process = Process::start({.argv = {"sh", "-c", "exit 7"}}, soon());
        ASSERT_TRUE(process) << process.error().text;
        ASSERT_TRUE((*process)->wait_ended(soon()));
        std::atomic<int> ready = 0;
        std::array<std::string, 2> answers;
        const auto ask = [&](std::string& answer) {
            for (++ready; ready < 2;) std::this_thread::yield();
            answer = (*process)->how_ended();
        };
        std::thread other(ask, std::ref(answers[0]));
        ask(answers[1]);
        other.join();
        for (const std::string& answer : answers) ASSERT_EQ(answer, "exited with status 7") << "round " << round;
    }
}

TEST(ProcessTest, AProgramThatDoesNotExistIsAnError)
{
    for (const bool inject : {false, true}) {
        const auto process = Process::start({.argv = {"/no/such/program"}, .inject_userfaultfd = inject}, soon());
        ASSERT_FALSE(process);
        EXPECT_NE(process.error().text.find("No such file"), std::string::npos) << process.error().text;
    }
}

// A wrapper script becomes the real program at once, and the exec closes what was made in the script.
TEST(ProcessTest, TheUserfaultfdIsFetchedBeforeAnotherExecClosesIt)
{
    const Fd ours(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY)));
    if (!ours) GTEST_SKIP() << "no userfaultfd on this host: " << std::strerror(errno);
    for (int round = 0; round < 100; ++round) {
        const auto process = Process::start({.argv = {"sh", "-c", "exec sleep 1000"}, .inject_userfaultfd = true}, soon());
        ASSERT_TRUE(process) << process.error().text;
        ASSERT_GE((*process)->userfaultfd(), 0);
    }
}

TEST(ProcessTest, HasTheInheritedDescriptorsAndNoOthers)
{
    const std::string directory = temporary_directory();
    const Fd a(::open("/dev/null", O_RDWR | O_CLOEXEC)), b(::open("/dev/zero", O_RDWR | O_CLOEXEC));
    const int leak = ::open("/dev/full", O_RDWR);   // not CLOEXEC
    ProcessOptions options;
    options.argv = {"sh", "-c", "for n in /proc/self/fd/*; do readlink $n; done"};
    options.log_file = directory + "/log";
    options.inherited_fds = {b.get(), a.get()};
    auto process = Process::start(options, soon());
    ASSERT_TRUE(process) << process.error().text;
    ASSERT_TRUE((*process)->wait_ended(soon()));
    ::close(leak);
    const std::string seen = slurp(options.log_file);
    EXPECT_NE(seen.find("/dev/zero\n"), std::string::npos) << seen;
    EXPECT_EQ(seen.find("/dev/full"), std::string::npos) << seen;
    EXPECT_EQ(seen.find("socket"), std::string::npos) << seen;
    std::filesystem::remove_all(directory);
}

TEST(ProcessTest, KillEndsAStoppedProcess)
{
    auto process = Process::start({.argv = {"sleep", "1000"}}, soon());
    ASSERT_TRUE(process);
    ::kill((*process)->pid(), SIGSTOP);
    (*process)->kill();
    ASSERT_TRUE((*process)->wait_ended(soon()));
    EXPECT_EQ((*process)->how_ended(), "killed by signal 9");
}

TEST(ProcessTest, LivesOnWhenTheThreadThatStartedItEnds)
{
    std::unique_ptr<Process> process;
    std::thread([&] { process = *Process::start({.argv = {"sleep", "1000"}}, soon()); }).join();
    EXPECT_FALSE(process->wait_ended(now() + std::chrono::milliseconds(100)));
}

// A process that starts a child and is killed. A program of its own: a fork of this one would have lost its threads.
constexpr const char* kDyingParent = "COLO_TEST_DYING_PARENT";

const bool g_not_the_dying_parent = [] {
    const char* const pipe = std::getenv(kDyingParent);
    if (pipe == nullptr) return true;
    auto process = Process::start({.argv = {"sleep", "1000"}}, soon());
    const int pid = process ? (*process)->pid() : 0;
    if (::write(std::atoi(pipe), &pid, sizeof pid) < 0) ::_exit(1);
    ::raise(SIGKILL);
    return false;
}();

pid_t start_dying_parent(int pipe)
{
    const std::string variable = std::string(kDyingParent) + "=" + std::to_string(pipe);
    std::vector<char*> environment = {const_cast<char*>(variable.c_str())};
    for (char** each = environ; *each != nullptr; ++each) environment.push_back(*each);
    environment.push_back(nullptr);
    char name[] = "dying-parent";
    char* const arguments[] = {name, nullptr};
    const pid_t parent = ::fork();
    if (parent == 0) {
        ::execve("/proc/self/exe", arguments, environment.data());
        ::_exit(127);
    }
    return parent;
}

TEST(ProcessTest, DiesWithItsParentProcess)
{
    int pipe[2];
    ASSERT_EQ(::pipe(pipe), 0);
    const pid_t parent = start_dying_parent(pipe[1]);
    ::close(pipe[1]);   // so that a parent that failed is an end of file
    int pid = 0;
    ASSERT_EQ(::read(pipe[0], &pid, sizeof pid), static_cast<ssize_t>(sizeof pid));
    ASSERT_GT(pid, 0);
    ::waitpid(parent, nullptr, 0);
    const Deadline deadline = soon();
    // An orphan is reaped by init; until then it is a zombie.
    const auto alive = [&] {
        const std::string status = slurp("/proc/" + std::to_string(pid) + "/status");
        return !status.empty() && status.find("State:\tZ") == std::string::npos;
    };
    while (alive() && now() < deadline) ::usleep(1000);
    EXPECT_FALSE(alive());
    ::close(pipe[0]);
}

TEST(VerdictCacheTest, RemembersAndSurvivesDamage)
{
    const std::string directory = temporary_directory();
    const detail::VerdictCache cache(directory + "/cache");
    Verdict verdict;
    EXPECT_FALSE(cache.find("a", verdict));
    cache.store("a", {false, "line\none\ttwo"});
    std::ofstream(directory + "/cache", std::ios::app) << "rubbish\na\tmaybe\tx\n";
    cache.store("b", {true, ""});
    ASSERT_TRUE(cache.find("a", verdict));
    EXPECT_FALSE(verdict.works);
    EXPECT_EQ(verdict.why_not, "line one two");
    ASSERT_TRUE(cache.find("b", verdict));
    EXPECT_TRUE(verdict.works);
    std::filesystem::remove_all(directory);
}

TEST(VerdictCacheTest, TimeThatRanOutIsNoAnswer)
{
    const std::string directory = temporary_directory();
    const detail::VerdictCache cache(directory + "/cache");
    cache.store("a", {false, "no sign of life", true});
    Verdict verdict;
    EXPECT_FALSE(cache.find("a", verdict));
    std::filesystem::remove_all(directory);
}

EmbeddedGuestOptions good_options()
{
    EmbeddedGuestOptions options;
    options.name = "unit";
    options.run_directory = "/tmp";
    options.kernel = "/dev/null";
    options.nics.push_back({.id = "net0", .mac = {0x52, 0x54, 0, 0, 0, 1}, .netdev_argument = [](int fd) {
                                return "tap,id=net0,fd=" + std::to_string(fd);
                            }, .fd = 0});
    return options;
}

TEST(Options, BadOnesAreRefusedByName)
{
    EXPECT_TRUE(check_options(good_options()));
    const auto refused = [](auto change) {
        auto options = good_options();
        change(options);
        const auto r = check_options(options);
        return r ? std::string("accepted") : r.error().text;
    };
    EXPECT_EQ(refused([](auto& o) { o.name = "a,b"; }).substr(0, 4), "name");
    EXPECT_EQ(refused([](auto& o) { o.run_directory = "here"; }).substr(0, 13), "run_directory");
    EXPECT_EQ(refused([](auto& o) { o.machine = "pc"; }).substr(0, 7), "machine");
    EXPECT_EQ(refused([](auto& o) { o.cpu_model = "host"; }).substr(0, 9), "cpu_model");
    EXPECT_EQ(refused([](auto& o) { o.memory_mib = 0; }).substr(0, 10), "memory_mib");
    EXPECT_EQ(refused([](auto& o) { o.vcpus = 0; }).substr(0, 5), "vcpus");
    EXPECT_EQ(refused([](auto& o) { o.accelerator = "xen"; }).substr(0, 11), "accelerator");
    EXPECT_EQ(refused([](auto& o) { o.nics[0].mac[0] = 1; }).substr(0, 4), "nics");
    EXPECT_EQ(refused([](auto& o) { o.nics[0].netdev_argument = nullptr; }).substr(0, 4), "nics");
}

TEST(VerdictCacheTest, TheKeyOfTheKvmAnswerNamesAllItDependsOn)
{
    const EmbeddedGuestOptions options = good_options();
    const detail::KvmKey key{"qemu:1:2", "QEMU 9.1", "boot"};
    std::set<std::string> keys = {detail::kvm_cache_key(options, key, "digest")};
    EXPECT_EQ(detail::kvm_cache_key(options, key, "digest"), *keys.begin());
    keys.insert(detail::kvm_cache_key(options, key, "other"));
    for (std::string detail::KvmKey::*member :
         {&detail::KvmKey::binary, &detail::KvmKey::version, &detail::KvmKey::boot_id}) {
        detail::KvmKey changed = key;
        changed.*member = "other";
        keys.insert(detail::kvm_cache_key(options, changed, "digest"));
    }
    const std::function<void(EmbeddedGuestOptions&)> changes[] = {
        [](auto& o) { o.machine = "pc-i440fx-8.0"; }, [](auto& o) { o.vcpus = 2; },
        [](auto& o) { o.cpu_model = "Nehalem"; }, [](auto& o) { o.life_sign = "login:"; }};
    for (const auto& change : changes) {
        EmbeddedGuestOptions changed = options;
        change(changed);
        keys.insert(detail::kvm_cache_key(changed, key, "digest"));
    }
    EXPECT_EQ(keys.size(), 9u);
}

// A port names its netdev by its place, whatever the operator calls the NIC.
TEST(Options, DeviceAndNetdevAgreeUnderAnyId)
{
    auto options = good_options();
    options.nics[0].id = "lan";
    options.nics.push_back({.id = "net0", .mac = {0x52, 0x54, 0, 0, 0, 2}, .netdev_argument = [](int fd) {
                                return "tap,id=net1,fd=" + std::to_string(fd);
                            }, .fd = 1});
    const CommandLine line = make_command_line(options, "tcg");
    const auto follows = [&](const std::string& option, const std::string& begin) {
        for (std::size_t i = 0; i + 1 < line.argv.size(); ++i)
            if (line.argv[i] == option && line.argv[i + 1].starts_with(begin)) return true;
        return false;
    };
    EXPECT_TRUE(follows("-device", "virtio-net-pci,id=nic-lan,netdev=net0,mac=52:54:00:00:00:01,"));
    EXPECT_TRUE(follows("-netdev", "tap,id=net0,"));
    EXPECT_TRUE(follows("-device", "virtio-net-pci,id=nic-net0,netdev=net1,mac=52:54:00:00:00:02,"));
    EXPECT_TRUE(follows("-netdev", "tap,id=net1,"));
}

TEST(Options, TheDeviceListDependsOnWhatTheGuestSeesOnly)
{
    auto options = good_options();
    const CommandLine line = make_command_line(options, "tcg");
    options.run_directory = "/elsewhere";
    options.name = "other";
    options.nics[0].fd = -1;
    EXPECT_EQ(make_command_line(options, "tcg").device_list, line.device_list);
    options.nics[0].mac[5] = 9;
    EXPECT_NE(make_command_line(options, "tcg").device_list, line.device_list);
    EXPECT_NE(std::find(line.argv.begin(), line.argv.end(), "tap,id=net0,fd=10"), line.argv.end());
}

TEST(Options, TheGuestWritesIntoNoFileOfQemus)
{
    for (const std::string& word : make_command_line(good_options(), "tcg").argv)
        EXPECT_EQ(word.find("file:"), std::string::npos) << word;
}

TEST(Options, TheBootDigestCoversFilesAndCommandLine)
{
    auto options = good_options();
    const auto digest = boot_digest(options);
    ASSERT_TRUE(digest);
    options.append = "quiet";
    EXPECT_NE(*boot_digest(options), *digest);
    options.kernel = "/no/such/kernel";
    EXPECT_NE(boot_digest(options).error().text.find("/no/such/kernel"), std::string::npos);
}

}  // namespace
}  // namespace colo::qemu
