// SPDX-License-Identifier: Apache-2.0
#include "sim_guest.h"

#include "core/crc32c.h"

#include <algorithm>

namespace colo::sim {
namespace {

struct Blob {
    std::uint32_t magic = 0x53494d44, size = sizeof(Registers);
    Registers registers;
    std::uint32_t crc = 0, zero = 0;
};

std::uint32_t crc_of(const Blob& blob)
{
    return crc32c({reinterpret_cast<const std::uint8_t*>(&blob.registers), sizeof blob.registers});
}

}  // namespace

replication::GuestDescription sim_description(std::uint64_t pages)
{
    replication::GuestDescription d;
    d.kind = "sim";
    d.machine = "sim-1";
    d.vcpus = 1;
    d.regions = {{0, pages}};
    d.nics = {{"net0", kGuestMac, 0}};
    return d;
}

SimGuest::SimGuest(std::uint64_t pages, GuestSurroundings surroundings, std::uint32_t dirty_pages_per_run)
    : surroundings_(std::move(surroundings)), description_(sim_description(pages)), ram_(pages),
      service_(ram_, registers_, *this), dirty_per_run_(dirty_pages_per_run)
{
    // The guest goes on while a job reads its log and its pages.
    const auto race = [this] {
        if (state_ == State::running) surroundings_.fiber->sleep(surroundings_.random->between(5, 120));
    };
    ram_.on_fetch = race;
    ram_.on_read = [race](std::span<const Gfn>) { race(); };
}

Result<void> SimGuest::operation(const std::string& name, Duration typical, Deadline deadline)
{
    surroundings_.on_operation(name);
    Duration takes{1 + typical.count() / 2 + static_cast<std::int64_t>(surroundings_.random->below(static_cast<std::uint64_t>(typical.count())))};
    const auto fault = faults_.find(name);
    Fault what{};
    const bool injected = fault != faults_.end();
    if (injected) {
        what = fault->second;
        faults_.erase(fault);
        if (what.kind == Fault::Kind::slow) takes = what.delay;
    }
    const Duration allowed = std::max(Duration{1}, deadline - surroundings_.local_now());
    surroundings_.fiber->sleep(std::min(takes, allowed));
    if (injected && what.kind == Fault::Kind::die) die("killed during " + name);
    if (state_ == State::dead || state_ == State::none) return make_error(Errc::guest_died, name + ": no device model");
    if (unusable_) return make_error(Errc::guest_died, name + ": the control channel is dead");
    if (injected && what.kind == Fault::Kind::error)
        return make_error(Errc::failed, name + ": refused by the device model");
    if (takes > allowed) {
        unusable_ = true;
        return make_error(Errc::timed_out, name + ": no answer from the device model");
    }
    return {};
}

std::int64_t SimGuest::clock() const
{
    return registers_.clock_us + (state_ == State::running ? (surroundings_.local_now() - resumed_at_).count() : 0);
}

void SimGuest::halt()
{
    registers_.clock_us = clock();
    state_ = State::stopped;
    ++wake_ticket_;
    next_wake_ = kNever;
}

Result<void> SimGuest::create(replication::StartMode mode, Deadline deadline)
{
    state_ = State::loadable;
    unusable_ = false;
    if (auto r = operation("create", Duration{2000}, deadline); !r) return r;
    ram_.clear();
    registers_ = {};
    unread_.clear();
    sent_.clear();
    if (mode == replication::StartMode::loadable) {
        // Firmware: the memory of a fresh guest is not all zero.
        for (int i = 0; i < 5; ++i) ram_.put(surroundings_.random->below(ram_.pages()) * kPageSize + 64, surroundings_.random->next());
        return {};
    }
    service_.boot();
    state_ = State::stopped;
    return resume(deadline);
}

Result<void> SimGuest::recreate(Deadline deadline)
{
    faults_.clear();
    return create(replication::StartMode::loadable, deadline);
}

Result<void> SimGuest::cut_begin(Deadline deadline)
{
    if (auto r = stop(deadline); !r) return r;
    cutting_ = true;
    return {};
}

Result<void> SimGuest::stop(Deadline deadline)
{
    if (auto r = operation("stop", Duration{150}, deadline); !r) return r;
    if (state_ == State::running) halt();
    return {};
}

Result<replication::DeviceState> SimGuest::cut_save(Deadline deadline)
{
    if (auto r = operation("save", Duration{600}, deadline); !r) return r.error();
    // The save itself writes memory, as real device models do.
    ram_.put(ram_.pages() * kPageSize - 8, surroundings_.random->next());
    Blob blob;
    blob.registers = registers_;
    blob.crc = crc_of(blob);
    const auto* at = reinterpret_cast<const std::uint8_t*>(&blob);
    return replication::DeviceState{Bytes(at, at + sizeof blob), {}};
}

Result<void> SimGuest::resume(Deadline deadline)
{
    if (cutting_) surroundings_.cut_state();
    cutting_ = false;
    if (auto r = operation("cont", Duration{120}, deadline); !r) return r;
    if (state_ == State::running || powered_off()) return {};
    if (!service_.consistent()) surroundings_.broken("Inv07: memory and registers of the guest are of different states");
    state_ = State::running;
    resumed_at_ = surroundings_.local_now();
    wake(surroundings_.random->between(5, 60));
    return {};
}

Result<void> SimGuest::verify(const replication::DeviceState& state) const
{
    Blob blob;
    if (state.devices.size() != sizeof blob) return make_error(Errc::corrupt, "device state has the wrong size");
    std::memcpy(static_cast<void*>(&blob), state.devices.data(), sizeof blob);
    if (blob.magic != Blob{}.magic || blob.crc != crc_of(blob)) return make_error(Errc::corrupt, "device state is damaged");
    return {};
}

Result<void> SimGuest::load(const replication::DeviceState& state, Deadline deadline)
{
    if (auto r = operation("load", Duration{800}, deadline); !r) {
        if (state_ != State::dead) registers_ = {};   // half loaded
        return r;
    }
    if (auto r = verify(state); !r) return r;
    Blob blob;
    std::memcpy(static_cast<void*>(&blob), state.devices.data(), sizeof blob);
    registers_ = blob.registers;
    state_ = State::stopped;
    ram_.put(ram_.pages() * kPageSize - 16, surroundings_.random->next());   // the load itself writes memory
    unread_.clear();
    return {};
}

void SimGuest::kill() noexcept
{
    state_ = State::none;
    ++wake_ticket_;
    next_wake_ = kNever;
    unread_.clear();
    sent_.clear();
}

void SimGuest::die(const std::string& why)
{
    if (state_ == State::none || state_ == State::dead) return;
    kill();
    state_ = State::dead;
    if (handler_) handler_({replication::GuestEventKind::device_model_died, why});
}

void SimGuest::power_off()
{
    if (state_ != State::running) return;
    registers_.powered_off = 1;
    halt();
    if (handler_) handler_({replication::GuestEventKind::power_off, "guest"});
}

// ---- frame port, virtual CPU ------------------------------------------------------------------------------------------

void SimGuest::deliver(const proxy::FramePtr& frame)
{
    if (state_ == State::none || state_ == State::dead || unread_.size() > 4096) return;
    unread_.push_back(frame);
    wake(surroundings_.random->between(10, 150));
}

std::vector<proxy::FramePtr> SimGuest::take_unread()
{
    std::vector<proxy::FramePtr> frames(unread_.begin(), unread_.end());
    unread_.clear();
    return frames;
}

std::vector<proxy::FramePtr> SimGuest::drain()
{
    std::vector<proxy::FramePtr> frames(sent_.begin(), sent_.end());
    sent_.clear();
    return frames;
}

void SimGuest::transmit(Bytes frame)
{
    sent_.push_back(proxy::make_frame(std::move(frame)));
    surroundings_.transmitted(sent_.size() == 1);
}

void SimGuest::wake(Duration in)
{
    if (state_ != State::running) return;
    const Time at = surroundings_.local_now() + in;
    if (at >= next_wake_) return;
    next_wake_ = at;
    surroundings_.after(in, [this, ticket = ++wake_ticket_] {
        if (ticket == wake_ticket_ && state_ == State::running) run();
    });
}

void SimGuest::run()
{
    next_wake_ = kNever;
    const std::int64_t now = clock();
    for (std::size_t n = 1 + surroundings_.random->below(6); n > 0 && !unread_.empty(); --n) {
        const proxy::FramePtr frame = std::move(unread_.front());
        unread_.pop_front();
        if (const auto segment = read_frame(frame->view())) service_.receive(*segment, now);
    }
    const std::uint32_t dirty = surroundings_.random->chance(0.3) ? dirty_per_run_ : 0;
    const std::int64_t next = service_.run(now, dirty);
    wake(unread_.empty() ? Duration{next - now} : surroundings_.random->between(5, 80));
}

}  // namespace colo::sim
