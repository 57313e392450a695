// SPDX-License-Identifier: Apache-2.0
#include "qemu/cut_priority.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <sys/syscall.h>
#include <unistd.h>

namespace colo::qemu {
namespace {

// Above ordinary threads, below whatever the operator made important (heartbeats).
constexpr int kPriority = 1;

pid_t own_thread() { return static_cast<pid_t>(::syscall(SYS_gettid)); }

}  // namespace

std::vector<pid_t> lasting_threads(pid_t qemu)
{
    std::vector<pid_t> threads;
    std::error_code ec;
    std::filesystem::directory_iterator task(fmt::format("/proc/{}/task", qemu), ec);
    for (; !ec && task != std::filesystem::directory_iterator(); task.increment(ec)) {
        std::string name;
        std::ifstream(task->path() / "comm") >> name;
        if (!name.empty() && name != "worker") threads.push_back(std::atoi(task->path().filename().c_str()));
    }
    return threads;
}

void CutPriority::set_threads(std::vector<pid_t> threads)
{
    const std::lock_guard lock(mutex_);
    threads_ = std::move(threads);
}

bool CutPriority::raise()
{
    const std::lock_guard lock(mutex_);
    if (!permitted_ || !saved_.empty()) return permitted_;
    const auto raise_one = [this](pid_t thread) {
        Saved saved{thread, ::sched_getscheduler(thread), {}};
        if (saved.policy < 0) return true;   // gone
        if (const int kind = saved.policy & ~SCHED_RESET_ON_FORK; kind == SCHED_FIFO || kind == SCHED_RR) return true;   // high already
        ::sched_getparam(thread, &saved.parameter);
        sched_param wanted{};
        wanted.sched_priority = kPriority;
        if (::sched_setscheduler(thread, SCHED_FIFO | SCHED_RESET_ON_FORK, &wanted) != 0) return errno != EPERM;
        saved_.push_back(saved);
        return true;
    };
    permitted_ = raise_one(own_thread());
    for (std::size_t i = 0; permitted_ && i < threads_.size(); ++i) raise_one(threads_[i]);
    return permitted_;
}

void lower_what_was_left(pid_t qemu)
{
    for (const pid_t thread : lasting_threads(qemu)) {
        sched_param has{};
        if (::sched_getscheduler(thread) != (SCHED_FIFO | SCHED_RESET_ON_FORK) || ::sched_getparam(thread, &has) != 0) continue;
        if (has.sched_priority != kPriority) continue;   // an operator's
        has.sched_priority = 0;
        ::sched_setscheduler(thread, SCHED_OTHER, &has);
    }
}

void CutPriority::restore() noexcept
{
    const std::lock_guard lock(mutex_);
    for (const Saved& saved : saved_) ::sched_setscheduler(saved.thread, saved.policy, &saved.parameter);
    saved_.clear();
}

}  // namespace colo::qemu
