// SPDX-License-Identifier: Apache-2.0
#pragma once

// Virtual time. Events run in order of time, then of creation. A Fiber is a thread of its own that runs only while the
// scheduler waits for it, so that straight blocking code (run_cut, run_apply) takes virtual time and other events happen
// meanwhile; exactly one of all threads runs at any moment, which keeps a run a function of its seed.

#include "core/types.h"

#include <deque>
#include <functional>
#include <memory>
#include <queue>
#include <semaphore>
#include <thread>
#include <vector>

namespace colo::sim {

class Scheduler {
public:
    Time now() const { return now_; }
    void at(Time t, std::function<void()> run) { events_.push({std::max(t, now_), next_++, std::move(run)}); }
    void after(Duration d, std::function<void()> run) { at(now_ + d, std::move(run)); }
    bool step(Time end);   // false: nothing left before `end`; time is `end` then
    std::uint64_t events() const { return next_; }

private:
    struct Event {
        Time at;
        std::uint64_t order;
        std::function<void()> run;
        bool operator<(const Event& other) const { return at > other.at || (at == other.at && order > other.order); }
    };
    Time now_{1'000'000'000};
    std::uint64_t next_ = 0;
    std::priority_queue<Event> events_;
};

struct Killed {};   // thrown out of Fiber::sleep when the host died

class Fiber {
public:
    explicit Fiber(std::function<void(Duration, std::function<void()>)> wake_after);
    ~Fiber();
    Fiber(const Fiber&) = delete;
    Fiber& operator=(const Fiber&) = delete;

    void post(std::function<void()> job);   // jobs run one at a time, in order
    void sleep(Duration d);                 // inside a job only
    void kill_all();                        // unwinds the running job, forgets the others; not from inside a job
    bool busy() const { return running_; }

private:
    void loop();
    void run_next();
    void resume();

    std::function<void(Duration, std::function<void()>)> wake_after_;
    std::deque<std::function<void()>> jobs_;
    std::function<void()> job_;
    bool running_ = false, killed_ = false, quit_ = false;
    std::uint64_t ticket_ = 0;
    std::binary_semaphore go_{0}, back_{0};
    std::thread thread_;
};

}  // namespace colo::sim
