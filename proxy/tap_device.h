// SPDX-License-Identifier: Apache-2.0
#pragma once

// A tap device with vnet header, and the few interface settings that the ports need. All in the network namespace of
// the calling thread.

#include "core/error.h"
#include "proxy/file_descriptor.h"

#include <string>

namespace colo::proxy {

// IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, non-blocking, close-on-exec.
Result<FileDescriptor> open_tap(const std::string& name);
Result<void> set_interface_up(const std::string& name, bool up, bool no_arp);
Result<void> set_interface_mtu(const std::string& name, int mtu);
Result<void> set_transmit_queue(const std::string& name, int frames);
Result<void> join_bridge(const std::string& name, const std::string& bridge);
// Writes a per-namespace setting below /proc/sys/net.
Result<void> write_setting(const std::string& path, const std::string& value);

}  // namespace colo::proxy
