// SPDX-License-Identifier: Apache-2.0
#pragma once

// One thread that carries out jobs in order. The guest thread is one (the device model's parent must be a thread that
// lives as long as the process), the slow-storage thread (state file, arbiter) another.

#include "core/types.h"

#include <condition_variable>
#include <deque>
#include <functional>
#include <initializer_list>
#include <mutex>
#include <string>
#include <thread>

namespace colo {

class Worker {
public:
    using Job = std::function<void()>;
    explicit Worker(std::string name);
    ~Worker();   // waits for the job under way, drops the rest
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;

    void post(Job job);
    // Any job: something is waiting. Long work looks here between its steps.
    bool busy() const;
    // Called on the thread whenever no job waits; returns when it wants to be called again (kNever: after the next job).
    void set_idle(std::function<Time()> idle);
    // Stops the thread after the job under way, and waits at most until `deadline`; false: it hangs and was abandoned.
    bool stop(Time deadline);
    const std::string& name() const { return name_; }

private:
    void run();

    std::string name_;
    mutable std::mutex mutex_;
    std::condition_variable wake_, ended_;
    std::deque<Job> jobs_;
    std::function<Time()> idle_;
    bool stopping_ = false, done_ = false;
    std::thread thread_;
};

// The end of the process: all of them stop before one common deadline, or the process ends without them, saying which one
// hangs. Null entries are skipped.
void stop_or_exit(std::initializer_list<Worker*> workers, Time deadline);

}  // namespace colo
