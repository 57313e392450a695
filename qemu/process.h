// SPDX-License-Identifier: Apache-2.0
#pragma once

// Child processes that die with us. A child is started by one *spawner thread* of this process, which lives until the
// process ends: PR_SET_PDEATHSIG fires when the parent *thread* ends, not the process, and ptrace wants all its calls from
// one thread. So start() may be called from any thread, short-lived ones included.

#include "core/error.h"
#include "core/types.h"

#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace colo::qemu {

// An owned file descriptor.
class Fd {
public:
    Fd() = default;
    explicit Fd(int fd) : fd_(fd) {}
    ~Fd() { reset(); }
    Fd(Fd&& other) noexcept : fd_(other.release()) {}
    Fd& operator=(Fd&& other) noexcept
    {
        if (this != &other) {
            reset();
            fd_ = other.release();
        }
        return *this;
    }
    int get() const { return fd_; }
    int release()
    {
        const int fd = fd_;
        fd_ = -1;
        return fd;
    }
    void reset();
    explicit operator bool() const { return fd_ >= 0; }

private:
    int fd_ = -1;
};

inline constexpr int kFirstInheritedFd = 3;

struct ProcessOptions {
    std::vector<std::string> argv = {};      // argv[0] is looked up in PATH
    std::string log_file = {};               // stdout and stderr, truncated; empty: /dev/null
    std::string working_directory = "/";
    std::vector<int> inherited_fds = {};     // become 3, 4, 5 ... in the child, which has no other descriptors
    bool inject_userfaultfd = false;    // make one userfaultfd inside the child and fetch it (x86-64, own children)
    bool core_dumps = true;
};

class Process {
public:
    // The program runs when this returns, or an error says why not (also when exec itself failed).
    static Result<std::unique_ptr<Process>> start(const ProcessOptions& options, Deadline deadline);
    ~Process();   // SIGKILL and reap
    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;

    int pid() const { return pid_; }
    int pidfd() const { return pidfd_.get(); }              // readable once the process has ended
    int userfaultfd() const { return userfaultfd_.get(); }  // -1 without injection
    void kill() noexcept;                                   // any thread; by pidfd, so never somebody else
    bool wait_ended(Deadline deadline) const;               // does not reap
    // After wait_ended(): "exited with status 1", "killed by signal 9". Any thread: the watcher and the guest thread
    // both notice an end, at the same time.
    std::string how_ended();

private:
    Process() = default;
    int pid_ = 0;
    Fd pidfd_;
    Fd userfaultfd_;
    std::mutex end_mutex_;  // guards the two below, and that only one of us reaps
    bool reaped_ = false;
    std::string how_ended_;
};

}  // namespace colo::qemu
