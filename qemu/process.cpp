// SPDX-License-Identifier: Apache-2.0
#include "qemu/process.h"

#include "core/clock.h"
#include "qemu/spawn.h"

#include <fmt/format.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <deque>
#include <functional>
#include <future>
#include <mutex>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace colo::qemu {
namespace {

// Never destroyed: its thread must not end before the process does.
class Spawner {
public:
    static Spawner& instance()
    {
        static std::atomic<Spawner*> spawner = new Spawner;
        // Threads do not survive fork(): a forked copy of us needs a spawner of its own.
        if (spawner.load()->owner_ != ::getpid()) spawner = new Spawner;
        return *spawner.load();
    }

    std::future<Result<detail::Spawned>> submit(const ProcessOptions& options, Deadline deadline)
    {
        auto task = std::make_shared<std::packaged_task<Result<detail::Spawned>()>>(
            [options, deadline] { return detail::spawn(options, deadline); });
        auto future = task->get_future();
        const std::lock_guard lock(mutex_);
        jobs_.emplace_back([task] { (*task)(); });
        wake_.notify_one();
        return future;
    }

private:
    Spawner() { std::thread([this] { run(); }).detach(); }

    void run()
    {
        sigset_t all;   // signals are for the threads that expect them
        sigfillset(&all);
        pthread_sigmask(SIG_BLOCK, &all, nullptr);
        for (;;) {
            std::unique_lock lock(mutex_);
            wake_.wait(lock, [this] { return !jobs_.empty(); });
            auto job = std::move(jobs_.front());
            jobs_.pop_front();
            lock.unlock();
            job();
        }
    }

    std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<std::function<void()>> jobs_;   // callers wait, so at most one per thread of ours
    const pid_t owner_ = ::getpid();
};

}  // namespace

void Fd::reset()
{
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
}

Result<std::unique_ptr<Process>> Process::start(const ProcessOptions& options, Deadline deadline)
{
    if (options.argv.empty()) return make_error(Errc::invalid, "no program to start");
    Result<detail::Spawned> spawned = Spawner::instance().submit(options, deadline).get();
    if (!spawned) return with_context(options.argv[0], spawned.error());
    std::unique_ptr<Process> process(new Process);
    process->pid_ = spawned->pid;
    process->pidfd_ = std::move(spawned->pidfd);
    process->userfaultfd_ = std::move(spawned->userfaultfd);
    return process;
}

Process::~Process()
{
    if (pid_ == 0) return;
    kill();
    wait_ended(now() + std::chrono::seconds(5));
    how_ended();
}

void Process::kill() noexcept
{
    if (pidfd_) ::syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0);
}

bool Process::wait_ended(Deadline deadline) const
{
    pollfd p{pidfd_.get(), POLLIN, 0};
    do {
        if (::poll(&p, 1, poll_timeout_ms(deadline)) == 1) return true;
    } while (poll_timeout_ms(deadline) > 0);
    return false;
}

std::string Process::how_ended()
{
    const std::lock_guard lock(end_mutex_);
    if (reaped_) return how_ended_;
    int status = 0;
    const pid_t r = ::waitpid(pid_, &status, WNOHANG);
    if (r == 0) return "still there";
    reaped_ = true;
    if (r < 0) how_ended_ = "ended";
    else if (WIFSIGNALED(status)) how_ended_ = fmt::format("killed by signal {}", WTERMSIG(status));
    else how_ended_ = fmt::format("exited with status {}", WEXITSTATUS(status));
    return how_ended_;
}

}  // namespace colo::qemu
