// SPDX-License-Identifier: Apache-2.0
#pragma once

// Can this domain be protected? Every question is asked, and asked without touching the domain, so that an operator gets
// the whole list at once. What only a comparison of both hosts can tell (versions, CPU policy) is compared at hello from
// the guest's description.

#include "xen/store.h"

#include <functional>

namespace colo::xen {

struct Finding {
    std::string check;   // "type", "paging", ...: stable, for scripts
    bool ok = false;
    std::string text;    // what was found; if it is not ok, also why that matters and what to do
};

// One Finding for each check, in a fixed order. `exists` tells whether a file is there (the device model's socket).
std::vector<Finding> precheck(Control& control, Store& store, const std::function<bool(const std::string&)>& exists);
std::vector<Finding> precheck(Control& control, Store& store);

// The first few that are not ok, in one Errc::unsupported.
Result<void> refuse(const std::vector<Finding>& findings);

// Socket of the device model's control channel that the toolstack uses.
std::string model_socket(DomainId domain);

}  // namespace colo::xen
