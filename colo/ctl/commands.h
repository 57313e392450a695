// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "colo/ctl/options.h"

namespace colo::ctl {

// Each returns the exit status and writes to standard output and error.
int run_status(const Options& options);
int run_watch(const Options& options);
int run_precheck(const Options& options);
int run_protect(const Options& options);
int run_failover(const Options& options);
int run_unprotect(const Options& options);
int run_migrate(const Options& options);
int run_capabilities(const Options& options);
int run_parameters(const Options& options);
int run_jobs(const Options& options);
int run_dirty_rate(const Options& options);
int run_qmp(const Options& options);
int run_events(const Options& options);

}  // namespace colo::ctl
