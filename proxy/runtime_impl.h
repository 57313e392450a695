// SPDX-License-Identifier: Apache-2.0
#pragma once

// runtime.cpp: calls from other threads and role edges. runtime_loop.cpp: the loop, frames and sinks.

#include "proxy/channel.h"
#include "proxy/command_queue.h"
#include "proxy/runtime.h"
#include "proxy/send_queue.h"

#include <atomic>
#include <thread>

namespace colo::proxy {

class RuntimeImpl final : public ProxyRuntime, private PrimarySink, private SecondarySink {
public:
    RuntimeImpl(RuntimeOptions options, std::vector<RuntimeNic> nics, RuntimeEvents& events);
    ~RuntimeImpl() override;
    Result<void> start();

    std::size_t nics() const override { return nics_.size(); }
    int guest_fd(std::uint8_t nic) const override;
    std::string netdev_argument(std::uint8_t nic, int fd_in_guest) const override;
    Result<void> attach_guest(Deadline deadline) override;
    RuntimeStats stats() const override;
    std::uint64_t progress() const override { return progress_.load(std::memory_order_relaxed); }
    Time last_heard() const override { return Time{last_heard_us_.load(std::memory_order_relaxed)}; }
    std::vector<std::string> host_interfaces() const override;
    void freeze() override;
    void thaw() override { frozen_.store(false); }
    Result<void> fence(Deadline deadline) override;

    Result<void> become_primary(Deadline deadline) override;
    Result<void> become_secondary(SessionId session, ProxyChannel channel, Deadline deadline) override;
    Result<void> go_live(Generation generation, Deadline deadline) override;
    Result<void> stand_down(Deadline deadline) override;

    Result<void> begin_session(SessionId session, ProxyChannel channel, Deadline deadline) override;
    void end_session() override;
    void set_output(PrimaryProxy::Output output, Generation generation) override;
    void set_mode(replication::Mode mode) override;
    void set_lease(Time until) override;
    void set_announce(const AnnounceSchedule& schedule) override;
    void announce(Generation generation) override;

    void pause_input(bool paused) override;
    void start_seal(Epoch next, bool protect) override;
    Result<replication::ProxySection> finish_seal(Deadline deadline) override;
    void staged(Epoch epoch) override;
    void applied(Epoch epoch) override;
    void aborted(Epoch epoch) override;

    void peer_cut(Epoch epoch) override;
    Result<void> seal_secondary(Deadline deadline) override;
    Result<void> applied_secondary(Epoch epoch, const replication::ProxySection& section, bool paused,
                                   Deadline deadline) override;

private:
    // A guest that does not read is as patient as its ring; on the wire a checkpoint's worth of output may wait.
    static constexpr SendQueue::Limits kForGuest{4096, 8u << 20, Duration::max()};
    static constexpr SendQueue::Limits kForWire{16384, 32u << 20, Duration{10'000}};
    struct Nic {
        std::unique_ptr<FramePort> port;
        std::unique_ptr<WirePort> wire;
        SendQueue guest_queue{kForGuest}, wire_queue{kForWire};
        bool flushed = true;       // the port has no rest of a frame
        int port_registered = -1;  // descriptor in the epoll set
        bool wire_registered = false, wire_failed = false;
        StationMac host_mac{};     // of the interface behind the wire
    };

    // Sinks. to_guest serves both cores.
    void to_guest(std::uint8_t nic, const FramePtr& frame) override;
    void to_wire(std::uint8_t nic, const FramePtr& frame, const ReleaseReason& reason) override;
    void mirror(std::uint8_t nic, Epoch epoch, std::uint64_t number, const FramePtr& frame) override;
    void trigger(replication::TriggerReason reason, const std::string& detail) override
    {
        events_.trigger(reason, detail);
    }
    void own_mac_seen(std::uint8_t nic) override { events_.own_mac_seen(nic); }
    void output(std::uint8_t nic, Epoch epoch, const FramePtr& frame) override;
    void journalled(Epoch epoch, std::uint64_t number) override;

    // Proxy thread.
    void loop();
    Duration wait(Time now) const;
    void handle(std::uint64_t source, std::uint32_t ready);
    void read_port(std::size_t nic, std::size_t max);
    void read_wire(std::size_t nic);
    void note_client(std::size_t nic, ByteView frame);
    void give_to_guest(std::uint8_t nic, const FramePtr& frame);
    Result<SendResult> put_on_wire(Nic& nic, const SendQueue::Entry& entry);
    void send_waiting(Time now);
    void drop_released();
    void read_channel();
    void flush_channel();
    void watch_channel();
    void drop_channel();
    void lose_channel(const Error& why);
    void port_failed(std::size_t nic, bool wire, const Error& why);
    void register_port(std::size_t nic);
    void register_wire(std::size_t nic);
    void watch(int fd, std::uint64_t source, std::uint32_t events, bool add);
    void forget(int fd);
    void turn(Time now);
    void update_lease(Time now);
    void announce_due(Time now);
    void publish_stats(Time now);
    Time lease() const;

    Result<void> wires(bool up);
    void drop_cores();
    void open_channel(SessionId session, ProxyChannel channel);
    void drain_ports();
    Result<replication::ProxySection> seal_now(Epoch next, bool protect);
    Result<void> go_live_now(Generation generation);
    void start_announcing(Generation generation);
    void send_announcements();
    void guest_frame(std::size_t nic, const FramePtr& frame);

    RuntimeOptions options_;
    std::vector<Nic> nics_;
    RuntimeEvents& events_;
    CommandQueue commands_;
    FileDescriptor epoll_;
    std::thread thread_;
    std::atomic<bool> stop_{false}, frozen_{false};
    std::atomic<std::uint64_t> progress_{0};
    std::atomic<std::int64_t> lease_us_;
    std::atomic<std::int64_t> last_heard_us_{0};

    // Everything below belongs to the proxy thread.
    RuntimeRole role_ = RuntimeRole::none;
    std::unique_ptr<PrimaryProxy> primary_;
    std::unique_ptr<SecondaryProxy> secondary_;
    std::unique_ptr<PeerChannel> channel_;
    std::uint32_t channel_watched_ = 0;
    Time now_;
    Time lease_told_ = kNever;
    // Input of one reading of a wire. S has the longer way to its answer, so the mirror goes first.
    bool mirror_first_ = false;
    std::vector<TakeOver::Input> for_guest_;
    bool input_paused_ = false;
    bool protected_ = false;
    Result<replication::ProxySection> sealed_ = make_error(Errc::invalid, "no seal was started");
    struct Announcing {
        Generation generation = 0;
        std::uint32_t rounds_left = 0, round = 0;
        Time next = kNever;
    } announcing_;
    RecentClients clients_;
    RuntimeStats counters_;  // the runtime's own figures
    Time stats_due_;
    std::uint64_t sent_before_ = 0, received_before_ = 0;  // of earlier channels

    mutable std::mutex stats_mutex_;
    RuntimeStats published_;
};

}  // namespace colo::proxy
