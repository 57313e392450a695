// SPDX-License-Identifier: Apache-2.0
#pragma once

// The one place that knows which kinds of guest there are.

#include "colo/config.h"
#include "proxy/runtime.h"
#include "replication/guest.h"

#include <functional>
#include <memory>
#include <string>

namespace colo {

struct MadeGuest {
    std::unique_ptr<replication::Guest> guest;
    std::function<std::string()> started_as;   // after create(), guest thread: what was chosen, for the log
};

// Nothing is started. `run_directory` exists; `runtime` outlives the guest. Errc::unsupported: this build has no such guest.
Result<MadeGuest> make_configured_guest(const Config& config, const std::string& run_directory, proxy::ProxyRuntime& runtime);

}  // namespace colo
