// SPDX-License-Identifier: Apache-2.0
#include "scheduler.h"

namespace colo::sim {

bool Scheduler::step(Time end)
{
    if (events_.empty() || events_.top().at > end) {
        now_ = std::max(now_, end);
        return false;
    }
    // The top is const only to protect the order, which is not touched.
    std::function<void()> run = std::move(const_cast<Event&>(events_.top()).run);
    now_ = events_.top().at;
    events_.pop();
    run();
    return true;
}

Fiber::Fiber(std::function<void(Duration, std::function<void()>)> wake_after)
    : wake_after_(std::move(wake_after)), thread_([this] { loop(); })
{
}

Fiber::~Fiber()
{
    kill_all();
    quit_ = true;
    go_.release();
    thread_.join();
}

void Fiber::loop()
{
    for (;;) {
        go_.acquire();
        if (quit_) return;
        try {
            if (!killed_) job_();
        } catch (const Killed&) {
        }
        job_ = nullptr;
        running_ = false;
        back_.release();
    }
}

void Fiber::resume()
{
    go_.release();
    back_.acquire();
    if (!running_) run_next();
}

void Fiber::run_next()
{
    if (running_ || jobs_.empty() || killed_) return;
    job_ = std::move(jobs_.front());
    jobs_.pop_front();
    running_ = true;
    const std::uint64_t ticket = ticket_;
    wake_after_(Duration{1}, [this, ticket] {
        if (ticket == ticket_ && running_) resume();
    });
}

void Fiber::post(std::function<void()> job)
{
    jobs_.push_back(std::move(job));
    run_next();
}

void Fiber::sleep(Duration d)
{
    if (killed_) throw Killed{};
    const std::uint64_t ticket = ticket_;
    wake_after_(d, [this, ticket] {
        if (ticket == ticket_ && running_) resume();
    });
    back_.release();
    go_.acquire();
    if (killed_) throw Killed{};
}

void Fiber::kill_all()
{
    jobs_.clear();
    ++ticket_;
    if (!running_) return;
    killed_ = true;
    go_.release();
    back_.acquire();
    killed_ = false;
    running_ = false;
}

}  // namespace colo::sim
