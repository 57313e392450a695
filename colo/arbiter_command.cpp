// SPDX-License-Identifier: Apache-2.0
#include "colo/arbiter_command.h"

#include "colo/channel.h"
#include "core/clock.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <vector>

extern char** environ;  // NOLINT: POSIX declares it nowhere

namespace colo {
namespace {

constexpr std::size_t kOutputKept = 512;  // the end of what the command says goes into the reason
constexpr int kLookEveryMs = 10;
constexpr Duration kReapWithin{1'000'000};

std::vector<std::string> environment(const ArbiterSettings& settings, const GrantRequest& request)
{
    std::vector<std::string> all;
    for (char** each = environ; *each != nullptr; ++each)
        if (!std::string_view(*each).starts_with("COLO_")) all.emplace_back(*each);
    all.push_back("COLO_DOMAIN=" + settings.domain_name);
    all.push_back("COLO_UUID=" + settings.domain_uuid);
    all.push_back("COLO_GENERATION=" + std::to_string(request.generation));
    all.push_back(std::string("COLO_ROLE=") + (request.role == Role::primary ? "primary" : "secondary"));
    all.push_back("COLO_PEER=" + request.peer);
    return all;
}

std::vector<char*> pointers(std::vector<std::string>& strings)
{
    std::vector<char*> result;
    for (std::string& each : strings) result.push_back(each.data());
    result.push_back(nullptr);
    return result;
}

// Own process group, default signals, /dev/null as input, `output` as both outputs, nothing else of ours open.
int spawn(const std::string& command, std::vector<std::string> variables, int output, pid_t& pid)
{
    std::vector<std::string> words{"/bin/sh", "-c", command};
    const std::vector<char*> argv = pointers(words), envp = pointers(variables);
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, output, 1);
    posix_spawn_file_actions_adddup2(&actions, output, 2);
    posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    const int err = posix_spawn(&pid, "/bin/sh", &actions, &attributes, argv.data(), envp.data());
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    return err;
}

// Reads what is there; keeps the end of it. False at the end of the output.
bool collect(int fd, std::string& output)
{
    std::array<char, 4096> buffer;
    for (int rounds = 0; rounds < 16; ++rounds) {
        const ssize_t got = read(fd, buffer.data(), buffer.size());
        if (got == 0) return false;
        if (got < 0) return errno == EAGAIN || errno == EINTR;
        output.append(buffer.data(), static_cast<std::size_t>(got));
        if (output.size() > kOutputKept) output.erase(0, output.size() - kOutputKept);
    }
    return true;
}

std::string said(std::string output)
{
    while (!output.empty() && (output.back() == '\n' || output.back() == ' ')) output.pop_back();
    for (char& c : output)
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
    return output.empty() ? std::string() : ": " + output;
}

GrantResult verdict(int status, const std::string& output)
{
    if (WIFSIGNALED(status))
        return {GrantOutcome::unknown,
                "the fence command was killed by signal " + std::to_string(WTERMSIG(status)) + said(output)};
    const int code = WEXITSTATUS(status);
    if (code == kFenceExitGranted)
        return {GrantOutcome::granted, "the fence command reports that the peer is dead" + said(output)};
    if (code == kFenceExitRefused)
        return {GrantOutcome::refused, "the fence command reports that the peer is the one to run" + said(output)};
    return {GrantOutcome::unknown, "the fence command failed with exit status " + std::to_string(code) + said(output)};
}

class CommandArbiter final : public Arbiter {
public:
    explicit CommandArbiter(const ArbiterSettings& settings) : settings_(settings) {}
    ~CommandArbiter() override { reap_late(); }

    ArbiterKind kind() const override { return ArbiterKind::command; }
    // The command differs by nature: each host shoots the other.
    Result<std::string> settings_digest(Deadline) override { return std::string("command"); }
    GrantResult request(const GrantRequest& request, Deadline deadline) override;
    Observation observe(Generation, Deadline) override
    {
        return {Observation::State::unknown, "a fence command can only be run, not asked"};
    }
    void cancel() override { cancelled_.store(true); }

private:
    GrantResult wait(pid_t pid, int output_fd, Deadline deadline);
    GrantResult kill_group(pid_t pid, const std::string& why);
    void reap_late();

    const ArbiterSettings settings_;
    std::atomic<bool> cancelled_{false};
    std::vector<pid_t> late_;  // killed, but stuck in the kernel
};

GrantResult CommandArbiter::request(const GrantRequest& request, Deadline deadline)
{
    cancelled_.store(false);
    if (request.wanted && !request.wanted()) return {GrantOutcome::unknown, "not wanted any more"};
    reap_late();
    deadline = std::min(deadline, now() + settings_.timeout);
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return {GrantOutcome::unknown, errno_error("pipe", errno).text};
    const Fd reading(ends[0]);
    Fd writing(ends[1]);
    static_cast<void>(fcntl(reading.get(), F_SETFL, O_NONBLOCK));
    pid_t pid = 0;
    const int err = spawn(settings_.command, environment(settings_, request), writing.get(), pid);
    writing.reset();
    if (err != 0) return {GrantOutcome::unknown, errno_error("start the fence command", err).text};
    return wait(pid, reading.get(), deadline);
}

GrantResult CommandArbiter::wait(pid_t pid, int output_fd, Deadline deadline)
{
    std::string output;
    bool open = true;
    for (;;) {
        // The end of the output usually is the end of the command; who closes it early, or leaves it to a child, is
        // looked after by the clock.
        pollfd one{open ? output_fd : -1, POLLIN, 0};
        poll(&one, 1, std::min(kLookEveryMs, poll_timeout_ms(deadline)));
        if (open) open = collect(output_fd, output);
        int status = 0;
        const pid_t ended = waitpid(pid, &status, WNOHANG);
        if (ended == pid) {
            if (open) collect(output_fd, output);
            return verdict(status, output);
        }
        if (ended < 0 && errno != EINTR)
            return {GrantOutcome::unknown, errno_error("wait for the fence command", errno).text};
        if (cancelled_.load()) return kill_group(pid, "the request was cancelled");
        if (deadline <= now()) return kill_group(pid, "the fence command did not end in time" + said(output));
    }
}

GrantResult CommandArbiter::kill_group(pid_t pid, const std::string& why)
{
    kill(-pid, SIGKILL);  // not reaped yet, so the group cannot be somebody else's
    const Deadline until = now() + kReapWithin;
    while (waitpid(pid, nullptr, WNOHANG) == 0) {
        if (until <= now()) {
            late_.push_back(pid);
            break;
        }
        poll(nullptr, 0, kLookEveryMs);
    }
    return {GrantOutcome::unknown, why};
}

void CommandArbiter::reap_late()
{
    std::erase_if(late_, [](pid_t pid) { return waitpid(pid, nullptr, WNOHANG) != 0; });
}

}  // namespace

Result<std::unique_ptr<Arbiter>> make_command_arbiter(const ArbiterSettings& settings)
{
    if (settings.command.empty()) return make_error(Errc::invalid, "arbiter command: a fence command is needed");
    return std::unique_ptr<Arbiter>(std::make_unique<CommandArbiter>(settings));
}

}  // namespace colo
