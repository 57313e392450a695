// SPDX-License-Identifier: Apache-2.0
#pragma once

// The proxy thread: one thread and one epoll loop that owns the wires, the frame ports, the proxy channel to the peer and
// the core object (PrimaryProxy or SecondaryProxy). A frame is received, decided upon and sent in the same loop turn.
//
// Roles:  none -> primary            become_primary (wire on, output held until set_output says otherwise)
//         none -> secondary          become_secondary (wire off)
//         secondary -> primary       go_live (R2, R3, R4; wire on, output flows, announcements)
//         any -> none                stand_down (wire off, everything dropped)
//
// Threads: every member function may be called from any thread except the proxy thread itself (RuntimeEvents callbacks).
// *Posted* calls return at once and take effect in the order in which they were made, together with the blocking ones.
// *Blocking* calls wait for the proxy thread, never beyond their deadline: Errc::timed_out means that the call may still
// take effect later (the proxy thread hangs: its progress counter stands still), so treat the runtime as lost.
// Errc::invalid: not in this role. Nothing throws.

#include "core/error.h"
#include "core/types.h"
#include "proxy/clients.h"
#include "proxy/port.h"
#include "proxy/proxy.h"
#include "replication/message.h"
#include "replication/wire.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace colo::proxy {

// announce-initial, announce-max, announce-rounds, announce-step: the first at once, then gaps of initial + k * step,
// at most max.
struct AnnounceSchedule {
    Duration initial{50'000};
    Duration max{550'000};
    std::uint32_t rounds = 5;
    Duration step{100'000};
};

struct RuntimeNic {
    std::unique_ptr<FramePort> port;   // guest side
    std::unique_ptr<WirePort> wire;    // client side
};

struct RuntimeOptions {
    ProxyOptions proxy;                                // proxy.nics[i] is the MAC of nic i
    AnnounceSchedule announce;
    // What may wait for the peer to read. Beyond it mirrored input is not sent (it never counts as journalled, so its
    // ACK waits for S's guest or a checkpoint) and S's output is dropped (P's waits for a checkpoint); both are counted.
    std::uint64_t channel_send_bytes_max = 32u << 20;
    // Where the lease lives, if another thread keeps it (lock-free, any thread); the earlier of it and set_lease counts.
    std::function<Time()> lease_source;
    std::function<void()> on_turn;   // every loop turn (see progress()); must be lock-free
    // Real-time priority for the proxy thread where permitted: each of its short turns is on the way of an answer, and of
    // the seal in a pause. Otherwise it waits behind busy guests.
    bool raise_priority = true;
};

// The connected stream socket to the peer's proxy thread, with the state of its two directions: whoever exchanged
// ChannelHello on it hands over the writer and the decoder it used (bytes that were read too far are in the decoder). The
// runtime owns the descriptor from the call on and closes it, also if the call fails; it makes it non-blocking.
struct ProxyChannel {
    int fd = -1;
    replication::FrameWriter writer;
    replication::FrameDecoder decoder;
};

// Called from the proxy thread. Must return quickly and must not call back into the runtime: post to your own loop.
class RuntimeEvents {
public:
    virtual ~RuntimeEvents() = default;
    virtual void trigger(replication::TriggerReason reason, const std::string& detail) = 0;
    // The proxy channel of `session` broke, was closed by the peer, or carried rubbish. Reported once per session; it is
    // not used any more. Nothing else changes: the session goes on as far as the rules allow without it.
    virtual void channel_lost(SessionId session, const Error& why) = 0;
    virtual void own_mac_seen(std::uint8_t nic) = 0;
    // A frame port or wire is unusable from now on (device model gone, interface removed).
    virtual void port_failed(std::uint8_t nic, bool wire, const Error& why) = 0;
};

enum class RuntimeRole : std::uint8_t { none, primary, secondary };

struct RuntimeStats {
    RuntimeRole role = RuntimeRole::none;
    ProxyStats core;                          // since the role began
    std::vector<PortStats> ports, wires;      // by nic
    std::vector<bool> carrier;                // of the wires
    std::uint64_t channel_bytes_sent = 0, channel_bytes_received = 0, channel_backlog_bytes = 0;
    std::uint64_t mirror_dropped = 0, output_dropped = 0;   // the peer did not read
    std::uint64_t lease_stopped = 0;          // frames that were about to be sent when the lease had just run out
    std::uint64_t announcements = 0;
    std::vector<Client> clients;              // who spoke to our guest last
};

class ProxyRuntime {
public:
    virtual ~ProxyRuntime() = default;        // stops the thread; nothing leaves afterwards

    // ---- any time
    virtual std::size_t nics() const = 0;
    // For `-netdev`: see FramePort. The fd stays owned by the runtime.
    virtual int guest_fd(std::uint8_t nic) const = 0;
    virtual std::string netdev_argument(std::uint8_t nic, int fd_in_guest) const = 0;
    // Blocking. The device model (re)started: ports that are connections connect now.
    virtual Result<void> attach_guest(Deadline deadline) = 0;
    // A snapshot at most 100 ms old; never blocks.
    virtual RuntimeStats stats() const = 0;
    // Rises with every loop turn, at least 20 times a second while the thread is alive. For the heartbeat.
    virtual std::uint64_t progress() const = 0;
    // Primary: when a client last sent something to our guest over a wire of this host; at once, never blocks.
    virtual Time last_heard() const = 0;
    // WirePort::host_interface() by NIC.
    virtual std::vector<std::string> host_interfaces() const = 0;
    // At once, also while the proxy thread is busy: not one more frame reaches the wire, until become_primary or
    // go_live, or thaw() and a set_output that lets it. The core follows with Output::frozen.
    virtual void freeze() = 0;
    virtual void thaw() = 0;
    // Blocking. Everything posted before has taken effect.
    virtual Result<void> fence(Deadline deadline) = 0;

    // ---- role edges, blocking
    virtual Result<void> become_primary(Deadline deadline) = 0;
    virtual Result<void> become_secondary(SessionId session, ProxyChannel channel, Deadline deadline) = 0;
    // The guest must be running or about to run, applied() posted before if an epoch was finished. The channel is closed.
    // Returns when the wire is on, output flows and the first announcement has been sent.
    virtual Result<void> go_live(Generation generation, Deadline deadline) = 0;
    virtual Result<void> stand_down(Deadline deadline) = 0;

    // ---- primary: session
    virtual Result<void> begin_session(SessionId session, ProxyChannel channel, Deadline deadline) = 0;
    virtual void end_session() = 0;                                                              // posted; closes the channel
    virtual void set_output(PrimaryProxy::Output output, Generation generation) = 0;             // posted
    virtual void set_mode(replication::Mode mode) = 0;                                           // posted
    // Any thread, as often as a beat is answered; takes effect at once (checked again right before every send).
    virtual void set_lease(Time until) = 0;
    virtual void set_announce(const AnnounceSchedule& schedule) = 0;   // posted; from the next announcement on
    virtual void announce(Generation generation) = 0;   // posted; a whole round by the schedule, reason announcement

    // ---- primary: checkpoint. Guest thread.
    // Just before `stop`: input stays in the wire until seal_primary (or pause_input(false) where no seal follows).
    virtual void pause_input(bool paused) = 0;                                                    // posted
    // R5, after stop returned and before cont: drains every port under the old tag, takes back unread input, seals.
    // start_seal is posted (save and scan may run meanwhile), finish_seal blocks until every NIC is sealed. `protect`:
    // Output::protect from this cut on (first epoch). Input flows again afterwards.
    virtual void start_seal(Epoch next, bool protect) = 0;
    virtual Result<replication::ProxySection> finish_seal(Deadline deadline) = 0;                // blocking
    virtual void staged(Epoch epoch) = 0;                                                        // posted
    // The comparer opens for `epoch`.
    virtual void applied(Epoch epoch) = 0;                                                       // posted
    virtual void aborted(Epoch epoch) = 0;                                                       // posted; both roles

    // ---- secondary: checkpoint
    virtual void peer_cut(Epoch epoch) = 0;                                                      // posted
    virtual Result<void> seal_secondary(Deadline deadline) = 0;                                  // blocking
    // Before the guest is resumed: offsets, journal and replay of `epoch` are in force when it returns (blocking).
    // `paused`: buffered mode, input is kept and not delivered; called again for the same epoch, with false, when the
    // guest is loaded and about to run after all.
    virtual Result<void> applied_secondary(Epoch epoch, const replication::ProxySection& section, bool paused,
                                           Deadline deadline) = 0;
};

// Starts the thread. One RuntimeNic per options.proxy.nics. `events` must outlive the runtime.
Result<std::unique_ptr<ProxyRuntime>> make_proxy_runtime(RuntimeOptions options, std::vector<RuntimeNic> nics,
                                                         RuntimeEvents& events);

}  // namespace colo::proxy
