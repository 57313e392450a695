// SPDX-License-Identifier: Apache-2.0
#pragma once

// The dirty log that the guest hands out: it stays when the device model behind it is replaced.

#include "qemu/dirty_log.h"

namespace colo::qemu {

class SwitchedDirtyLog : public replication::DirtyLog {
public:
    // A log that was started is started again: everything is dirty then.
    Result<void> attach(std::unique_ptr<replication::DirtyLog> log)
    {
        log_ = std::move(log);
        return started_ ? log_->start() : Result<void>{};
    }
    void detach() { log_.reset(); }

    Result<void> start() override
    {
        if (!log_) return make_error(Errc::guest_died, "dirty log: there is no device model");
        auto started = log_->start();
        started_ = started_ || started.has_value();
        return started;
    }
    Result<void> fetch_and_clear(replication::PageSet& into, bool final) override
    {
        if (!log_) return make_error(Errc::guest_died, "dirty log: there is no device model");
        return log_->fetch_and_clear(into, final);
    }
    Result<void> peek(replication::PageSet& into) override
    {
        if (!log_) return make_error(Errc::guest_died, "dirty log: there is no device model");
        return log_->peek(into);
    }
    void stop() override
    {
        started_ = false;
        if (log_) log_->stop();
    }
    std::string method() const override { return log_ ? log_->method() : "none"; }

private:
    std::unique_ptr<replication::DirtyLog> log_;
    bool started_ = false;
};

}  // namespace colo::qemu
