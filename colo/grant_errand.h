// SPDX-License-Identifier: Apache-2.0
#pragma once

// The question to the arbiter that is under way, and its end when nobody wants the answer any more: a fence command that
// runs after the decision has fallen shoots the host that serves.
//
// Threads: everything from the control thread; `answer` is called on the worker's.

#include "colo/arbiter.h"
#include "colo/worker.h"

#include <atomic>
#include <functional>
#include <memory>

namespace colo {

class GrantErrand {
public:
    using Answer = std::function<void(const GrantResult&)>;
    GrantErrand(Worker& worker, Arbiter& arbiter) : worker_(worker), arbiter_(arbiter) {}

    void want(Generation generation) { wanted_->store(generation); }
    bool wants(Generation generation) const { return wanted_->load() == generation; }
    bool wants_any() const { return wanted_->load() != 0; }
    // No answer comes if it is no longer wanted by then.
    void ask(GrantRequest request, Duration timeout, Answer answer);
    void cancel();

private:
    Worker& worker_;
    Arbiter& arbiter_;
    const std::shared_ptr<std::atomic<Generation>> wanted_ = std::make_shared<std::atomic<Generation>>(0);
};

}  // namespace colo
