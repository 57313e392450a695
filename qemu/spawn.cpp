// SPDX-License-Identifier: Apache-2.0
#include "qemu/spawn.h"

#include "core/clock.h"

#include <fmt/format.h>

#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __x86_64__
#include <linux/userfaultfd.h>
#include <sys/user.h>
#endif

namespace colo::qemu::detail {
namespace {

// Everything the child needs, prepared before fork: between fork and exec only async-signal-safe calls are allowed.
struct ChildPlan {
    std::vector<char*> argv;
    std::vector<int> fds;
    int null = -1, log = -1, error_pipe = -1;
    const char* directory = "/";
    pid_t parent = 0;
    bool trace = false, core_dumps = true;
};

[[noreturn]] void fail_child(int pipe, int err)
{
    if (::write(pipe, &err, sizeof err) != static_cast<ssize_t>(sizeof err)) ::_exit(126);
    ::_exit(127);
}

void arrange_descriptors(ChildPlan& plan)
{
    // First out of the way of the final numbers, then down to them.
    const int base = kFirstInheritedFd + static_cast<int>(plan.fds.size()) + 8;
    plan.error_pipe = ::fcntl(plan.error_pipe, F_DUPFD_CLOEXEC, base);
    plan.null = ::fcntl(plan.null, F_DUPFD_CLOEXEC, base);
    plan.log = ::fcntl(plan.log, F_DUPFD_CLOEXEC, base);
    if (plan.error_pipe < 0) ::_exit(127);
    for (int& fd : plan.fds) {
        fd = ::fcntl(fd, F_DUPFD, base);
        if (fd < 0) fail_child(plan.error_pipe, errno);
    }
    int target = kFirstInheritedFd;
    for (const int fd : plan.fds) ::dup2(fd, target++);
    ::dup2(plan.null, 0);
    ::dup2(plan.log, 1);
    ::dup2(plan.log, 2);
    // The error pipe goes right behind the inherited ones; everything above it is closed.
    const int pipe = target;
    if (::dup3(plan.error_pipe, pipe, O_CLOEXEC) < 0) ::_exit(127);
    plan.error_pipe = pipe;
    ::syscall(SYS_close_range, static_cast<unsigned>(pipe + 1), ~0u, 0u);
}

[[noreturn]] void child(ChildPlan& plan)
{
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != plan.parent) ::_exit(127);   // the parent died before the line above
    ::setsid();
    struct sigaction action {};
    action.sa_handler = SIG_DFL;
    for (int signal = 1; signal < 32; ++signal) ::sigaction(signal, &action, nullptr);
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    arrange_descriptors(plan);
    if (::chdir(plan.directory) != 0) fail_child(plan.error_pipe, errno);
    if (!plan.core_dumps) {
        const rlimit no_core{0, 0};
        ::setrlimit(RLIMIT_CORE, &no_core);
    }
    if (plan.trace && ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) fail_child(plan.error_pipe, errno);
    ::execvp(plan.argv[0], plan.argv.data());
    fail_child(plan.error_pipe, errno);
}

void kill_and_reap(pid_t pid)
{
    ::kill(pid, SIGKILL);
    int status = 0;
    ::waitpid(pid, &status, __WALL);
}

// exec closes the pipe: end of file means success.
Result<void> wait_exec(int pipe, Deadline deadline)
{
    pollfd p{pipe, POLLIN, 0};
    do {
        if (::poll(&p, 1, poll_timeout_ms(deadline)) != 1) continue;
        int err = 0;
        const ssize_t n = ::read(pipe, &err, sizeof err);
        if (n == 0) return {};
        if (n == static_cast<ssize_t>(sizeof err)) return errno_error("start", err);
    } while (poll_timeout_ms(deadline) > 0);
    return make_error(Errc::timed_out, "start: no exec within the deadline");
}

Result<Fd> open_pidfd(pid_t pid)
{
    Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    if (!pidfd) return errno_error("pidfd_open", errno);
    return pidfd;
}

// Not after the detach: a wrapper script may have become another program by then, whose descriptors are others.
Result<Fd> inject(pid_t pid, const Fd& pidfd, Deadline deadline)
{
    const Result<int> stopped = wait_for_stop(pid, deadline);
    if (!stopped) return stopped.error();
    const Result<int> theirs = make_userfaultfd_in_tracee(pid, deadline);
    if (!theirs) return theirs.error();
    Fd ours(static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd.get(), *theirs, 0)));
    if (!ours) return errno_error("pidfd_getfd of the injected userfaultfd", errno);
    if (::ptrace(PTRACE_DETACH, pid, nullptr, nullptr) != 0) return errno_error("ptrace detach", errno);
    return ours;
}

}  // namespace

Result<int> wait_for_stop(pid_t pid, Deadline deadline)
{
    for (;;) {
        int status = 0;
        const pid_t r = ::waitpid(pid, &status, WNOHANG | __WALL);
        if (r < 0) return errno_error("waitpid", errno);
        if (r == pid && WIFSTOPPED(status)) return WSTOPSIG(status);
        if (r == pid) return make_error(Errc::guest_died, "the program ended while it was being started");
        if (poll_timeout_ms(deadline) == 0) return make_error(Errc::timed_out, "no exec stop within the deadline");
        ::usleep(50);
    }
}

#ifdef __x86_64__
Result<int> make_userfaultfd_in_tracee(pid_t pid, Deadline deadline)
{
    user_regs_struct saved{};
    if (::ptrace(PTRACE_GETREGS, pid, nullptr, &saved) != 0) return errno_error("ptrace registers", errno);
    auto* const code = reinterpret_cast<void*>(saved.rip);
    errno = 0;
    const long original = ::ptrace(PTRACE_PEEKTEXT, pid, code, nullptr);
    if (original == -1 && errno != 0) return errno_error("ptrace read", errno);
    constexpr long kSyscall = 0x050f;   // little endian bytes 0f 05
    if (::ptrace(PTRACE_POKETEXT, pid, code, reinterpret_cast<void*>((original & ~0xffffL) | kSyscall)) != 0)
        return errno_error("ptrace write", errno);
    user_regs_struct call = saved;
    call.rax = SYS_userfaultfd;
    call.rdi = O_CLOEXEC | UFFD_USER_MODE_ONLY;   // enough: asynchronous write protection never reaches user space
    call.orig_rax = ~0ull;
    if (::ptrace(PTRACE_SETREGS, pid, nullptr, &call) != 0 || ::ptrace(PTRACE_SINGLESTEP, pid, nullptr, nullptr) != 0)
        return errno_error("ptrace step", errno);
    if (const Result<int> stopped = wait_for_stop(pid, deadline); !stopped) return stopped.error();
    if (::ptrace(PTRACE_GETREGS, pid, nullptr, &call) != 0) return errno_error("ptrace registers", errno);
    const long result = static_cast<long>(call.rax);
    if (::ptrace(PTRACE_POKETEXT, pid, code, reinterpret_cast<void*>(original)) != 0 ||
        ::ptrace(PTRACE_SETREGS, pid, nullptr, &saved) != 0)
        return errno_error("ptrace restore", errno);
    if (result < 0) return errno_error("userfaultfd in the child", static_cast<int>(-result));
    return static_cast<int>(result);
}
#else
Result<int> make_userfaultfd_in_tracee(pid_t, Deadline)
{
    return make_error(Errc::unsupported, "userfaultfd injection exists for x86-64 only");
}
#endif

Result<Spawned> spawn(const ProcessOptions& options, Deadline deadline)
{
    ChildPlan plan;
    for (const std::string& argument : options.argv) plan.argv.push_back(const_cast<char*>(argument.c_str()));
    plan.argv.push_back(nullptr);
    plan.fds = options.inherited_fds;
    plan.directory = options.working_directory.c_str();
    plan.parent = ::getpid();
    plan.trace = options.inject_userfaultfd;
    plan.core_dumps = options.core_dumps;
    const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    const std::string log_file = options.log_file.empty() ? "/dev/null" : options.log_file;
    const Fd log(::open(log_file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0640));
    if (!log) return errno_error("open " + log_file, errno);
    int pipe[2];
    if (!null || ::pipe2(pipe, O_CLOEXEC) != 0) return errno_error("pipe", errno);
    const Fd read_end(pipe[0]);
    Fd write_end(pipe[1]);
    plan.null = null.get();
    plan.log = log.get();
    plan.error_pipe = write_end.get();

    const pid_t pid = ::fork();
    if (pid < 0) return errno_error("fork", errno);
    if (pid == 0) child(plan);
    write_end.reset();
    Result<Fd> pidfd = open_pidfd(pid);
    if (!pidfd) {
        kill_and_reap(pid);
        return pidfd.error();
    }
    if (!options.inject_userfaultfd) {
        const Result<void> started = wait_exec(read_end.get(), deadline);
        if (started) return Spawned{pid, std::move(*pidfd), Fd()};
        kill_and_reap(pid);
        return started.error();
    }
    Result<Fd> fd = inject(pid, *pidfd, deadline);
    if (fd) return Spawned{pid, std::move(*pidfd), std::move(*fd)};
    if (fd.error().code != Errc::guest_died) kill_and_reap(pid);
    // An exec that fails ends the child before its stop; the pipe then knows better why.
    const Result<void> started = wait_exec(read_end.get(), now());
    return started || started.error().code == Errc::timed_out ? fd.error() : started.error();
}

}  // namespace colo::qemu::detail
