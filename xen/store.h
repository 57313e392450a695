// SPDX-License-Identifier: Apache-2.0
#pragma once

// What is read from xenstore, the directory in which toolstack, device models and guests leave notes for each other. Parts of it
// are written by guests: whatever is read is hostile input.

#include "xen/control.h"

#include <optional>
#include <vector>

namespace colo::xen {

// One thread at a time.
class Store {
public:
    virtual ~Store() = default;
    // nullopt: there is no such node. Values are at most 4 KiB long (a bound of xenstore).
    virtual Result<std::optional<std::string>> read(const std::string& path) = 0;
    // Names of the nodes below; empty also if there is no such node.
    virtual Result<std::vector<std::string>> list(const std::string& path) = 0;
};

// The live one. Errc::closed or unsupported: no xenstored.
Result<std::unique_ptr<Store>> open_store();

// The domain with this name, or with this id. dom0 is not meant, and refused. Errc::invalid: there is none; names the
// domains that there are.
Result<DomainId> find_domain(Store& store, const std::string& name_or_id);

// The same by name, where nothing is wrong with there being none.
Result<std::optional<DomainId>> named_domain(Store& store, const std::string& name);

// The process of its QEMU, as the toolstack noted it; 0: it noted none.
Result<int> model_pid(Store& store, DomainId domain);

}  // namespace colo::xen
