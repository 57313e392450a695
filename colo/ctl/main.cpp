// SPDX-License-Identifier: Apache-2.0
#include "colo/ctl/commands.h"

#include <cstdio>
#include <exception>

int main(int argc, char** argv)
{
    using namespace colo::ctl;
    try {
        Options options;
        if (const auto status = parse_options(argc, argv, options)) return *status;
        switch (options.command) {
        case Command::status: return run_status(options);
        case Command::watch: return run_watch(options);
        case Command::precheck: return run_precheck(options);
        case Command::protect: return run_protect(options);
        case Command::failover: return run_failover(options);
        case Command::unprotect: return run_unprotect(options);
        case Command::migrate: return run_migrate(options);
        case Command::capabilities: return run_capabilities(options);
        case Command::parameters: return run_parameters(options);
        case Command::jobs: return run_jobs(options);
        case Command::dirty_rate: return run_dirty_rate(options);
        case Command::qmp: return run_qmp(options);
        case Command::events: return run_events(options);
        }
    } catch (const std::exception& error) {
        std::fprintf(stderr, "coloctl: internal error: %s\n", error.what());
    }
    return kError;
}
