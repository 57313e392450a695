// SPDX-License-Identifier: Apache-2.0
#pragma once

// Inner parts of process.cpp: what happens on the spawner thread and in the child.

#include "qemu/process.h"

#include <sys/types.h>

namespace colo::qemu::detail {

struct Spawned {
    pid_t pid = 0;
    Fd pidfd;
    Fd userfaultfd;   // ours; fetched while the child still stood at its exec, because its next exec would close it
};

// fork + exec; returns once exec succeeded. With injection, the child has been stopped at its exec, made one userfaultfd
// and was let go again. On failure no child is left.
Result<Spawned> spawn(const ProcessOptions& options, Deadline deadline);

// The child stands at its exec stop (PTRACE_TRACEME). Runs one userfaultfd(2) inside it and restores every register and
// code byte. Returns the descriptor's number in the child. The tracee stays stopped.
Result<int> make_userfaultfd_in_tracee(pid_t pid, Deadline deadline);

// waitpid with a deadline, for ptrace stops (a pidfd does not report them).
Result<int> wait_for_stop(pid_t pid, Deadline deadline);

}  // namespace colo::qemu::detail
