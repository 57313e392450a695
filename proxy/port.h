// SPDX-License-Identifier: Apache-2.0
#pragma once

// Where frames come from and go to. A FramePort is the guest's side of one NIC, a Wire the client's side. Non-blocking;
// used by the proxy thread only, except make_*. Frames carry the vnet header of frame.h in both directions.

#include "core/error.h"
#include "proxy/frame.h"

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace colo::proxy {

// `dropped_full`: there was no link, or no room to wait for the port (SendQueue).
struct PortStats {
    std::uint64_t received = 0, sent = 0, dropped_full = 0, dropped_invalid = 0;
};

// `full`: nothing was taken, the same frame may go a moment later. `dropped`: it never will (malformed, nobody at the
// other end), and is counted.
enum class SendResult : std::uint8_t { sent, full, dropped };

class Port {
public:
    virtual ~Port() = default;
    virtual int poll_fd() const = 0;   // readable when receive() may yield
    // Up to `max` frames; each is passed to `take`. Returns the number; an error means that the port is unusable.
    virtual Result<std::size_t> receive(std::size_t max, const std::function<void(FramePtr)>& take) = 0;
    virtual Result<SendResult> send(ByteView frame) = 0;
    virtual PortStats stats() const = 0;
    virtual std::string name() const = 0;
};

using Wire = Port;

class FramePort : public Port {
public:
    // What the device model needs: the fd to pass with `-netdev tap,fd=` (shared, stays open here), or -1.
    virtual int guest_fd() const = 0;
    // `-netdev` value for the embedded guest, with id `net<nic>`.
    virtual std::string netdev_argument(int fd_in_guest) const = 0;
    // The device model (re)started: reconnect where the port is a connection. Blocking up to the deadline.
    virtual Result<void> attach(Time deadline) = 0;
    // false: a part of a frame that counts as sent has not left; call again soon.
    virtual Result<bool> flush() { return true; }
    // Guest stopped. Input that it never read, in order; the port is empty afterwards. Exact for tap; for a stream it is
    // every frame since the queue was last seen empty (duplicates are harmless, loss is not).
    virtual Result<std::vector<FramePtr>> take_unread() = 0;
};

// A tap in a private network namespace, PACKET_VNET_HDR on our side. Needs CAP_NET_ADMIN and CAP_SYS_ADMIN.
Result<std::unique_ptr<FramePort>> make_tap_port(const std::string& name, std::uint8_t nic);
// `-netdev stream,server=on` at `socket_path`: no privileges, no vnet header on the socket (an empty one is added), no GSO.
Result<std::unique_ptr<FramePort>> make_stream_port(const std::string& socket_path, std::uint8_t nic);

// "packet:IFNAME" (AF_PACKET, promiscuous, PACKET_VNET_HDR) or "tap:NAME[@BRIDGE]" (vnet header, offloads on; joined to
// the bridge if given). The wire starts *off*: it receives and sends nothing until set_up(true).
class WirePort : public Port {
public:
    virtual Result<void> set_up(bool up) = 0;
    virtual bool carrier() const = 0;
    // The host's interface on which the clients can be asked something in the host's own name; empty: there is none.
    virtual std::string host_interface() const = 0;
};
// `macs`: if not empty, only frames for these and for groups are received (the kernel drops the others); sources count
// nothing, so that a frame with our guest's own source MAC is still seen.
Result<std::unique_ptr<WirePort>> make_wire(const std::string& spec,
                                            const std::vector<std::array<std::uint8_t, 6>>& macs = {});

}  // namespace colo::proxy
