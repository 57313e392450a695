// SPDX-License-Identifier: Apache-2.0
#pragma once

// The toolstack of the host (xl), through its command line: it makes, names and destroys domains, so that `xl list`, xenstore and
// the cluster always see what there is. Nothing of this is done behind its back with hypercalls.

#include "xen/control.h"

#include <memory>
#include <string>

namespace colo::xen {

// Words are separated by blanks; there is no shell. In them stand for something: {config} the file with the domain's
// configuration, {pause} -p or nothing, {domain} its number, {name} a name.
struct ToolstackCommands {
    std::string create = "xl create -q -e {pause} {config}";
    std::string destroy = "xl destroy {domain}";
    std::string rename = "xl rename {domain} {name}";
};

// Each call blocks until the command has ended or the deadline has passed (Errc::timed_out; the command is killed then, with
// what it has started). It dies with us, too (qemu/process.h), but not what a script has started: that is to `exec` xl.
// Any other failure is Errc::failed with the last words of the command. Any thread, one call at a time.
class Toolstack {
public:
    virtual ~Toolstack() = default;
    virtual Result<void> create(const std::string& config_file, bool paused, Deadline deadline) = 0;
    virtual Result<void> destroy(DomainId domain, Deadline deadline) = 0;
    virtual Result<void> rename(DomainId domain, const std::string& name, Deadline deadline) = 0;
};

// Errc::invalid: a command that lacks what it is about. `log_file` gets what the last command said.
Result<std::unique_ptr<Toolstack>> make_toolstack(ToolstackCommands commands, std::string log_file);

}  // namespace colo::xen
