// SPDX-License-Identifier: Apache-2.0
#pragma once

// Real-time priority for the few milliseconds of a cut. On a busy host most of a pause is otherwise spent waiting for a
// processor: QEMU's monitor thread reads the command, its main loop obeys it, each vCPU thread must get a turn to notice it,
// and our own thread must wake up for the answers. The raise lasts from before `stop` to after `cont`; a guest never *runs* at that priority
// longer than it takes to stop it. Needs CAP_SYS_NICE or RLIMIT_RTPRIO; without them nothing changes.

#include <mutex>
#include <sched.h>
#include <sys/types.h>
#include <vector>

namespace colo::qemu {

class CutPriority {
public:
    ~CutPriority() { restore(); }
    // Threads of the device model. Forgets the ones before; restores nothing of them.
    void set_threads(std::vector<pid_t> threads);
    // Raises these and the calling thread. False if not permitted (asked once only).
    bool raise();
    // Any thread, idempotent.
    void restore() noexcept;
    bool permitted() const { return permitted_; }

private:
    struct Saved {
        pid_t thread;
        int policy;
        sched_param parameter;
    };
    std::mutex mutex_;
    std::vector<pid_t> threads_;
    std::vector<Saved> saved_;   // not empty: raised
    bool permitted_ = true;
};

// Every thread of QEMU (started with debug-threads=on) that lives as long as it does: all but the pool workers, whose number
// could belong to somebody else later.
std::vector<pid_t> lasting_threads(pid_t qemu);

// A device model that outlived a daemon which died in the middle of a cut: its threads go back to ordinary priority.
void lower_what_was_left(pid_t qemu);

}  // namespace colo::qemu
