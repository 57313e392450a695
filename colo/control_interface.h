// SPDX-License-Identifier: Apache-2.0
#pragma once

// The QMP server of the daemon: socket, command handlers, and what a changed setting does. Control thread only.

#include "colo/config.h"
#include "colo/service.h"
#include "core/error.h"
#include "core/types.h"

#include <cstdint>
#include <functional>
#include <memory>

namespace boost::asio {
class io_context;
}

namespace colo {

class Daemon;

// What the parameter downtime-limit does. Any value is stored, but a bound that no cut can keep would end protection: every
// cut would be aborted. So the effect is the least that the configuration takes, too.
Duration pause_bound_of(std::uint64_t downtime_limit_ms);

class ControlInterface {
public:
    static Result<std::unique_ptr<ControlInterface>> start(boost::asio::io_context& io, const Config& config, Daemon& daemon);
    // One client more, on standard input and output, which from then on nobody else uses.
    Result<void> serve_stdio();
    ~ControlInterface();

    ServiceObserver& observer();
    // Lets answers leave, for a short while, then calls `done`.
    void stop(std::function<void()> done);

private:
    struct Parts;
    explicit ControlInterface(std::unique_ptr<Parts> parts);
    std::unique_ptr<Parts> parts_;
};

}  // namespace colo
