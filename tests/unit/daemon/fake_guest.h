// SPDX-License-Identifier: Apache-2.0
#pragma once

// A guest that writes down what is asked of it, in order, and fails where it is told to.

#include "core/clock.h"
#include "replication/guest.h"

#include <algorithm>
#include <string>
#include <vector>

namespace colo::test {

using Trace = std::vector<std::string>;

class FakeClock final : public Clock {
public:
    Time now() const override { return time; }
    mutable Time time{1'000'000};
};

class FakeDirtyLog final : public replication::DirtyLog {
public:
    explicit FakeDirtyLog(Trace& trace) : trace_(trace) {}
    Result<void> start() override
    {
        trace_.push_back("log-start");
        return {};
    }
    Result<void> fetch_and_clear(replication::PageSet& into, bool) override
    {
        trace_.push_back("fetch");
        into.merge(dirty);
        into.merge(again);
        dirty.clear();
        return {};
    }
    void stop() override { trace_.push_back("log-stop"); }
    std::string method() const override { return "fake"; }
    replication::PageSet dirty;
    replication::PageSet again;  // with every fetch, until the guest is stopped

private:
    Trace& trace_;
};

class FakeGuest final : public replication::Guest, private replication::GuestMemory {
public:
    FakeGuest(Trace& trace, FakeClock& clock, std::uint64_t pages = 16) : trace_(trace), clock_(clock), log_(trace), ram_(pages * kPageSize)
    {
        description_.kind = "fake";
        description_.regions = {{0, pages}};
    }
    std::string fail_at;    // name of the step that fails
    Duration cost{0};       // of every step
    Duration after_cont{0};  // between the answer to `cont` and the return of resume()
    replication::CutTimes cut_times;
    bool unusable = false;  // a deadline passed, as with a real device model
    bool is_running = true;
    bool stays_off = false;  // resume() succeeds and nothing runs
    bool is_held = false;     // somebody outside of the service keeps it from running
    Bytes& ram() { return ram_; }
    FakeDirtyLog& log() { return log_; }

    const replication::GuestDescription& description() const override { return description_; }
    replication::GuestMemory& memory() override { return *this; }
    replication::DirtyLog& dirty_log() override { return log_; }
    Result<void> create(replication::StartMode, Deadline deadline) override { return step("create", deadline); }
    Result<void> cut_begin(Deadline deadline) override
    {
        auto r = step("cut-begin", deadline);
        if (r) is_running = false;
        return r;
    }
    Result<replication::DeviceState> cut_save(Deadline deadline) override
    {
        if (auto r = step("cut-save", deadline); !r) return r.error();
        return replication::DeviceState{{1, 2, 3}, {}};
    }
    Result<void> resume(Deadline deadline) override
    {
        auto r = step("resume", deadline);
        if (r) is_running = !stays_off;
        cut_times.cont_done = after_cont.count() > 0 ? clock_.time : Time{};
        clock_.time = clock_.time + after_cont;
        return r;
    }
    replication::CutTimes last_cut_times() const override { return cut_times; }
    Result<void> stop(Deadline deadline) override
    {
        auto r = step("stop", deadline);
        if (r) log_.again.clear();
        if (r) is_running = false;
        return r;
    }
    Result<void> load(const replication::DeviceState&, Deadline deadline) override
    {
        auto r = step("load", deadline);
        if (r) log_.dirty.add(3);  // a load touches memory
        return r;
    }
    Result<void> verify(const replication::DeviceState&) const override { return {}; }
    Result<void> recreate(Deadline deadline) override { return step("recreate", deadline); }
    void kill() noexcept override { trace_.push_back("kill"); }
    Time last_progress() const override { return {}; }
    void probe() override {}
    int device_model_pid() const override { return 0; }
    bool running() const override { return is_running; }
    bool held() const override { return is_held; }
    void set_event_handler(std::function<void(replication::GuestEvent)>) override {}
    Result<void> save_device_state(const std::string&, bool, Deadline) override { return {}; }
    Result<void> load_device_state(const std::string&, Deadline) override { return {}; }
    Result<void> set_global_dirty_log(bool, Deadline) override { return {}; }

private:
    Result<void> step(const std::string& name, Deadline deadline)
    {
        trace_.push_back(name);
        clock_.time = clock_.time + cost;
        if (unusable) return make_error(Errc::guest_died, name + ": the channel is dead");
        unusable = clock_.time > deadline;
        if (unusable) return make_error(Errc::timed_out, name + " was late");
        if (name == fail_at) return make_error(Errc::timed_out, name + " failed");
        return {};
    }
    Result<void> read(std::span<const Gfn> gfns, std::uint8_t* out, std::span<replication::FrameStatus> status) override
    {
        for (std::size_t i = 0; i < gfns.size(); ++i) {
            std::copy_n(ram_.begin() + static_cast<std::ptrdiff_t>(gfns[i] * kPageSize), kPageSize, out + i * kPageSize);
            status[i] = replication::FrameStatus::ok;
        }
        return {};
    }
    Result<void> write(std::span<const replication::PageWrite> pages) override
    {
        trace_.push_back("write");
        for (const auto& page : pages)
            if (page.data)
                std::copy_n(page.data, kPageSize, ram_.begin() + static_cast<std::ptrdiff_t>(page.gfn * kPageSize));
            else
                std::fill_n(ram_.begin() + static_cast<std::ptrdiff_t>(page.gfn * kPageSize), kPageSize, std::uint8_t{0});
        return {};
    }
    std::uint64_t resident_bytes() const override { return 0; }
    const std::uint8_t* view(Gfn gfn) const override { return ram_.data() + gfn * kPageSize; }

    Trace& trace_;
    FakeClock& clock_;
    FakeDirtyLog log_;
    Bytes ram_;
    replication::GuestDescription description_;
};

}  // namespace colo::test
