// SPDX-License-Identifier: Apache-2.0
#include "colo/worker.h"

#include "core/clock.h"

#include <pthread.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>

namespace colo {

Worker::Worker(std::string name) : name_(std::move(name)), thread_([this] { run(); }) {}

Worker::~Worker() { stop(kNever); }

void Worker::post(Job job)
{
    {
        const std::lock_guard lock(mutex_);
        if (stopping_) return;
        jobs_.push_back(std::move(job));
    }
    wake_.notify_one();
}

bool Worker::busy() const
{
    const std::lock_guard lock(mutex_);
    return stopping_ || !jobs_.empty();
}

void Worker::set_idle(std::function<Time()> idle)
{
    post([this, idle = std::move(idle)]() mutable { idle_ = std::move(idle); });
}

bool Worker::stop(Time deadline)
{
    {
        std::unique_lock lock(mutex_);
        stopping_ = true;
        wake_.notify_one();
        const auto finished = [this] { return done_; };
        if (deadline == kNever)
            ended_.wait(lock, finished);
        else if (!ended_.wait_for(lock, std::chrono::microseconds((deadline - now()).count()), finished)) {
            thread_.detach();
            return false;
        }
    }
    if (thread_.joinable()) thread_.join();
    return true;
}

void stop_or_exit(std::initializer_list<Worker*> workers, Time deadline)
{
    bool hangs = false;
    for (Worker* worker : workers) {
        if (worker == nullptr || worker->stop(std::max(deadline, now()))) continue;
        spdlog::error("the {} thread hangs: ending without it", worker->name());
        hangs = true;
    }
    if (!hangs) return;
    // Its job still uses what would be destroyed now, and nothing can make it stop.
    spdlog::shutdown();
    _exit(EXIT_FAILURE);
}

void Worker::run()
{
    pthread_setname_np(pthread_self(), name_.substr(0, 15).c_str());
    std::unique_lock lock(mutex_);
    while (!stopping_) {
        if (!jobs_.empty()) {
            Job job = std::move(jobs_.front());
            jobs_.pop_front();
            lock.unlock();
            job();
            job = nullptr;
            lock.lock();
            continue;
        }
        Time next = kNever;
        if (idle_) {
            lock.unlock();
            next = idle_();
            lock.lock();
        }
        if (stopping_ || !jobs_.empty()) continue;
        if (next == kNever)
            wake_.wait(lock);
        else if (const Time t = now(); next > t)
            wake_.wait_for(lock, std::chrono::microseconds((next - t).count()));
    }
    jobs_.clear();
    done_ = true;
    ended_.notify_all();
}

}  // namespace colo
