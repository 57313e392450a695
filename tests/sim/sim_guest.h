// SPDX-License-Identifier: Apache-2.0
#pragma once

// The third implementation of the guest port: deterministic, with injectable faults. Calls take virtual time on the host's
// guest fiber; the virtual CPU runs in events between them.

#include "proxy/frame.h"
#include "scheduler.h"
#include "service.h"

#include <map>
#include <string>

namespace colo::sim {

// What the host gives its guest.
struct GuestSurroundings {
    std::function<Time()> local_now;
    std::function<void(Duration, std::function<void()>)> after;   // forgotten when the host dies, late when it is frozen
    Fiber* fiber = nullptr;
    Random* random = nullptr;
    std::function<void(const std::string&)> on_operation;         // "stop", "save", ... : a step of a job begins
    std::function<void(bool)> transmitted;                        // the port has frames for the proxy
    std::function<std::uint64_t(std::uint32_t, std::uint64_t)> disk_write;
    std::function<std::uint64_t(std::uint32_t)> disk_read;
    std::function<void(const std::string&)> broken;               // an invariant of the guest itself failed
    std::function<void()> cut_state;                              // stopped and complete: what S must get
};

class SimGuest final : public replication::Guest, private ServiceHost {
public:
    enum class State : std::uint8_t { none, loadable, running, stopped, dead };
    struct Fault {
        enum class Kind : std::uint8_t { error, die, slow } kind = Kind::error;
        Duration delay{0};
    };

    SimGuest(std::uint64_t pages, GuestSurroundings surroundings, std::uint32_t dirty_pages_per_run);

    const replication::GuestDescription& description() const override { return description_; }
    replication::GuestMemory& memory() override { return ram_; }
    replication::DirtyLog& dirty_log() override { return ram_; }
    Result<void> create(replication::StartMode mode, Deadline deadline) override;
    Result<void> cut_begin(Deadline deadline) override;
    Result<replication::DeviceState> cut_save(Deadline deadline) override;
    Result<void> resume(Deadline deadline) override;
    replication::CutTimes last_cut_times() const override { return {}; }
    Result<void> stop(Deadline deadline) override;
    Result<void> load(const replication::DeviceState& state, Deadline deadline) override;
    Result<void> verify(const replication::DeviceState& state) const override;
    Result<void> recreate(Deadline deadline) override;
    void kill() noexcept override;
    Time last_progress() const override { return surroundings_.local_now(); }
    void probe() override {}
    int device_model_pid() const override { return 0; }
    bool running() const override { return state_ == State::running; }
    void set_event_handler(std::function<void(replication::GuestEvent)> handler) override { handler_ = std::move(handler); }
    Result<void> save_device_state(const std::string&, bool, Deadline) override { return unsupported(); }
    Result<void> load_device_state(const std::string&, Deadline) override { return unsupported(); }
    Result<void> set_global_dirty_log(bool, Deadline) override { return {}; }

    // ---- the frame port
    void deliver(const proxy::FramePtr& frame);                  // to the guest; unread until it runs
    std::vector<proxy::FramePtr> take_unread();
    std::vector<proxy::FramePtr> drain();                        // from the guest

    // ---- for the simulation
    void inject(const std::string& operation, Fault fault) { faults_[operation] = fault; }
    void forget_faults() { faults_.clear(); }
    void die(const std::string& why);
    void power_off();
    State state() const { return state_; }
    ByteView ram() const { return ram_.bytes(); }
    const Registers& registers() const { return registers_; }
    bool powered_off() const { return registers_.powered_off != 0; }
    std::uint64_t steps() const { return registers_.steps; }

private:
    void transmit(Bytes frame) override;
    std::uint64_t host_chance() override { return surroundings_.random->next(); }
    std::uint64_t disk_write(std::uint32_t sector, std::uint64_t value) override { return surroundings_.disk_write(sector, value); }
    std::uint64_t disk_read(std::uint32_t sector) override { return surroundings_.disk_read(sector); }

    static Error unsupported() { return make_error(Errc::unsupported, "the simulated guest cannot do this"); }
    Result<void> operation(const std::string& name, Duration typical, Deadline deadline);
    std::int64_t clock() const;
    void halt();
    void wake(Duration in);
    void run();

    GuestSurroundings surroundings_;
    replication::GuestDescription description_;
    GuestRam ram_;
    Registers registers_;
    Service service_;
    std::uint32_t dirty_per_run_;
    State state_ = State::none;
    bool cutting_ = false;
    bool unusable_ = false;  // a deadline passed: its answers could no longer be told apart (guest.h)
    Time resumed_at_{};
    Time next_wake_ = kNever;
    std::uint64_t wake_ticket_ = 0;
    std::deque<proxy::FramePtr> unread_, sent_;
    std::map<std::string, Fault> faults_;
    std::function<void(replication::GuestEvent)> handler_;
};

replication::GuestDescription sim_description(std::uint64_t pages);

}  // namespace colo::sim
