// SPDX-License-Identifier: Apache-2.0
#pragma once

// The domain of one side as the toolstack sees it: made from the operator's configuration, known again after a restart of
// the daemon, destroyed. A record in the run directory says which domain is ours: its number alone is given to
// others later, its UUID is not.

#include "xen/domain_config.h"
#include "xen/store.h"
#include "xen/toolstack.h"

#include <functional>
#include <optional>

namespace colo::xen {

struct HvmGuestOptions {
    std::string name;            // of the domain, as operators and the cluster know it
    std::string config_file;     // the operator's, for xl
    std::string run_directory;   // must exist; record, sockets of the device model, log of the toolstack
    std::vector<HvmNic> nics;
    ToolstackCommands commands;
    // How long a new domain runs alone, without network, until its firmware has laid out its memory: it is not the same
    // before and after. 0: the command restores an image, in which that is done.
    Duration warm_up = std::chrono::seconds(2);
};

// The name of a domain that only follows another one. Who has it has no say.
inline std::string incoming_name(const std::string& name) { return name + "--incoming"; }
std::string control_socket(const HvmGuestOptions& options);
std::string probe_socket(const HvmGuestOptions& options);

using OpenDomain = std::function<Result<std::unique_ptr<Control>>(DomainId)>;

// One thread.
class DomainShell {
public:
    DomainShell(const HvmGuestOptions& options, Toolstack& toolstack, OpenDomain open) : options_(options), toolstack_(toolstack), open_(std::move(open)) {}

    struct Own {
        DomainId domain = 0;
        bool live = false;   // the one, not a copy that follows: what a copy contains need not be of one moment
    };
    // Of the record: the domain that this daemon or one before it made, if it still exists.
    std::optional<Own> ours() const;
    // A new one, paused, and recorded. Errc::refused: another domain has the name. After any error there is none.
    Result<DomainId> make(Store& store, const std::string& name, bool live, Deadline deadline);
    // The copy of the record is the one from now on. Any thread, beside no other call.
    Result<void> record_live();
    Result<void> destroy(DomainId domain, Deadline deadline);
    // After make(): the operator's configuration, as far as the other side must have it alike.
    Result<std::string> comparable() const;

private:
    Result<std::string> operators_config() const;
    Result<void> record(DomainId domain, bool live);
    std::string file(const char* name) const { return options_.run_directory + "/" + name; }

    const HvmGuestOptions& options_;
    Toolstack& toolstack_;
    OpenDomain open_;
};

}  // namespace colo::xen
