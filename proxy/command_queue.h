// SPDX-License-Identifier: Apache-2.0
#pragma once

// Calls from other threads into the proxy thread, in order, with an eventfd to wake it.

#include "core/clock.h"
#include "core/error.h"
#include "proxy/file_descriptor.h"

#include <sys/eventfd.h>

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

namespace colo::proxy {

class CommandQueue {
public:
    using Command = std::function<void()>;

    CommandQueue() : wake_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}
    int fd() const { return wake_.get(); }

    void post(Command command)
    {
        {
            const std::lock_guard lock(mutex_);
            if (closed_) return;
            commands_.push_back(std::move(command));
        }
        wake();
    }
    void wake() const
    {
        const std::uint64_t one = 1;
        if (::write(wake_.get(), &one, sizeof one) < 0) return;  // full: it is awake already
    }
    // The proxy thread.
    void run()
    {
        std::uint64_t count = 0;
        if (::read(wake_.get(), &count, sizeof count) < 0) count = 0;
        std::vector<Command> commands;
        {
            const std::lock_guard lock(mutex_);
            commands.swap(commands_);
        }
        for (Command& command : commands) command();
    }
    // Nothing runs any more; who waits gets Errc::cancelled.
    void close()
    {
        std::vector<Command> dropped;
        const std::lock_guard lock(mutex_);
        closed_ = true;
        dropped.swap(commands_);
    }

    // Runs `call` in the proxy thread and waits for its result.
    template <class T>
    Result<T> ask(Time deadline, std::function<Result<T>()> call)
    {
        auto answer = std::make_shared<Answer<T>>();
        {
            const auto owner = std::make_shared<Owner<T>>(answer);
            post([owner, call = std::move(call)] { owner->answer->set(call()); });
        }
        std::unique_lock lock(answer->mutex);
        while (!answer->result) {
            const Duration left = deadline - now();
            if (left <= Duration{0}) return make_error(Errc::timed_out, "the proxy thread did not answer in time");
            answer->ready.wait_for(lock, std::min(left, Duration{100'000}));
        }
        return std::move(*answer->result);
    }

private:
    template <class T>
    struct Answer {
        std::mutex mutex;
        std::condition_variable ready;
        std::optional<Result<T>> result;
        void set(Result<T> value)
        {
            const std::lock_guard lock(mutex);
            if (!result) result.emplace(std::move(value));
            ready.notify_all();
        }
    };
    // Goes with the command: one that is dropped unexecuted answers too.
    template <class T>
    struct Owner {
        explicit Owner(std::shared_ptr<Answer<T>> a) : answer(std::move(a)) {}
        ~Owner() { answer->set(make_error(Errc::cancelled, "the proxy thread has ended")); }
        std::shared_ptr<Answer<T>> answer;
    };

    FileDescriptor wake_;
    std::mutex mutex_;
    std::vector<Command> commands_;
    bool closed_ = false;
};

}  // namespace colo::proxy
