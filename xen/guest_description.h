// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a domain is, as far as both sides must have it alike.

#include "replication/guest.h"
#include "xen/control.h"
#include "xen/domain_config.h"

#include <string>
#include <vector>

namespace colo::xen {

// `model_version` and `config` (comparable_config) are what the domain was made with.
Result<replication::GuestDescription> describe(Control& control, const std::string& model_version, const std::string& config,
                                               const std::vector<HvmNic>& nics);

// A domain that was made in place of another one must be what the other side agreed to. Errc::failed names the first
// difference, with both values and what may have caused it.
Result<void> check_same(const replication::GuestDescription& agreed, const replication::GuestDescription& made);

}  // namespace colo::xen
