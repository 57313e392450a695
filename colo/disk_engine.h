// SPDX-License-Identifier: Apache-2.0
#pragma once

// The disks of a guest that has some, as the control interface sees them. Service::disks() gives it; a guest without
// disks has none, and every node that a client names is unknown.
//
// Threads and `Done` as in colo/service.h.

#include "core/error.h"
#include "schema/types.h"

#include <functional>
#include <string>
#include <vector>

namespace colo {

struct SnapshotRequest {
    std::string tag;
    std::string vmstate;               // node that takes memory and devices; one of `devices`. Empty for deleting
    std::vector<std::string> devices;  // node names, not empty, known
};

class DiskEngine {
public:
    virtual ~DiskEngine() = default;

    virtual std::vector<schema::BlockInfo> drives() const = 0;
    // Nodes that have a name. `flat`: without what is behind a backing image.
    virtual std::vector<schema::BlockDeviceInfo> nodes(bool flat) const = 0;
    virtual bool takes_snapshots(const std::string& node) const = 0;

    // The guest is stopped. All devices or none; a tag is new when it is saved and known when it is loaded.
    virtual void save_snapshot(const SnapshotRequest& request, std::function<void(Result<void>)> done) = 0;
    virtual void load_snapshot(const SnapshotRequest& request, std::function<void(Result<void>)> done) = 0;
    // The guest may run. Devices without the tag are left as they are.
    virtual void delete_snapshot(const SnapshotRequest& request, std::function<void(Result<void>)> done) = 0;
};

}  // namespace colo
