// SPDX-License-Identifier: Apache-2.0
#pragma once

// The embedded guest: a stock QEMU of the distribution, started by us, its RAM in a memfd of ours. See qemu/README.md.

#include "qemu/options.h"
#include "replication/guest.h"

#include <memory>
#include <string>

namespace colo::qemu {

// What was chosen at create(), for status and logs.
struct EmbeddedGuestChoices {
    std::string accelerator, accelerator_why;   // "tcg", "KVM does not run this guest: ..."
    std::string dirty_log, dirty_log_why;
    std::string device_load, device_load_why;
};

class EmbeddedGuest : public replication::Guest {
public:
    virtual const EmbeddedGuestChoices& choices() const = 0;   // after create()
};

// Checks the options; nothing is started before create().
Result<std::unique_ptr<EmbeddedGuest>> make_embedded_guest(EmbeddedGuestOptions options);

}  // namespace colo::qemu
