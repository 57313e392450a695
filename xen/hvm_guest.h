// SPDX-License-Identifier: Apache-2.0
#pragma once

// The guest port for an HVM domain of Xen. The domain is made by the toolstack of this host from the operator's
// configuration (DomainShell), its device model serves us on two sockets of our own, so that the one of xl stays free.
// See xen/README.md for what is done in which order and why.

#include "replication/guest.h"
#include "xen/device_model.h"
#include "xen/domain_shell.h"
#include "xen/patient_store.h"
#include "xen/precheck.h"

#include <memory>

namespace colo::xen {

// All that it does to the world.
struct HvmPorts {
    OpenDomain open_domain = xen::open_domain;
    ListDomains list_domains = xen::list_domains;
    OpenStore open_store = [] { return open_patient_store(xen::open_store, std::chrono::seconds(5)); };
    std::function<Result<std::unique_ptr<DeviceModel>>(const std::string&, Deadline)> connect_model = connect_device_model;
    std::function<Result<std::unique_ptr<qemu::QmpLink>>(const std::string&, Deadline)> connect_probe = connect_monitor;
    // Whether it can be protected as it is now.
    std::function<Result<void>(Control&, Store&)> may_protect = [](Control& control, Store& store) { return refuse(precheck(control, store)); };
    std::shared_ptr<Toolstack> toolstack;   // of the options, if it is empty
};

// Checks the options; nothing is started before create().
Result<std::unique_ptr<replication::Guest>> make_hvm_guest(HvmGuestOptions options, HvmPorts ports = {});

}  // namespace colo::xen
