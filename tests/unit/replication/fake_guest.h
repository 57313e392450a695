// SPDX-License-Identifier: Apache-2.0
#pragma once

// A guest that is nothing but memory with a dirty log, for tests of the memory engine. Writes of the "guest" mark frames
// dirty, writes through the port do not. Faults can be injected into the log.

#include "replication/guest.h"

#include <algorithm>
#include <cstring>
#include <set>

namespace colo::replication::test {

class FakeMemory final : public GuestMemory {
public:
    FakeMemory(Gfn limit, bool has_view) : bytes_(limit * kPageSize), has_view_(has_view) {}

    std::uint8_t* page(Gfn gfn) { return bytes_.data() + gfn * kPageSize; }
    const std::uint8_t* page(Gfn gfn) const { return bytes_.data() + gfn * kPageSize; }

    Result<void> read(std::span<const Gfn> gfns, std::uint8_t* out, std::span<FrameStatus> status) override
    {
        for (std::size_t i = 0; i < gfns.size(); ++i) {
            status[i] = absent.count(gfns[i]) != 0 ? FrameStatus::absent : FrameStatus::ok;
            if (unreadable.count(gfns[i]) != 0) status[i] = FrameStatus::failed;
            std::memcpy(out + i * kPageSize, page(gfns[i]), kPageSize);
        }
        return {};
    }
    Result<void> write(std::span<const PageWrite> pages) override
    {
        for (const PageWrite& w : pages) {
            if (write_error) return make_error(Errc::guest_died, "gone");
            if (w.data != nullptr)
                std::memcpy(page(w.gfn), w.data, kPageSize);
            else
                std::memset(page(w.gfn), 0, kPageSize);
            written.insert(w.gfn);
        }
        return {};
    }
    std::uint64_t resident_bytes() const override { return 0; }
    const std::uint8_t* view(Gfn gfn) const override { return has_view_ ? page(gfn) : nullptr; }

    std::set<Gfn> absent, unreadable, written;
    bool write_error = false;

private:
    Bytes bytes_;
    bool has_view_;
};

class FakeDirtyLog final : public DirtyLog {
public:
    explicit FakeDirtyLog(const std::vector<MemoryRegion>& regions) : regions_(regions) {}

    Result<void> start() override
    {
        for (const MemoryRegion& r : regions_) dirty.add_range(r.first, r.pages);
        ++starts;
        return {};
    }
    Result<void> fetch_and_clear(PageSet& into, bool) override
    {
        ++fetches;
        if (next_error) {
            const Error error = *next_error;
            next_error.reset();
            dirty.clear();   // the worst case: the bits are gone
            return error;
        }
        into.merge(dirty);
        dirty.clear();
        return {};
    }
    Result<void> peek(PageSet& into) override
    {
        into.merge(dirty);
        return {};
    }
    void stop() override { ++stops; }
    std::string method() const override { return "fake"; }

    PageSet dirty;
    std::optional<Error> next_error;
    int starts = 0, stops = 0, fetches = 0;

private:
    std::vector<MemoryRegion> regions_;
};

class FakeGuest final : public Guest {
public:
    FakeGuest(GuestDescription description, bool has_view)
        : description_(std::move(description)), memory_(description_.gfn_limit(), has_view), log_(description_.regions)
    {
    }

    // What the guest itself does.
    std::uint8_t* touch(Gfn gfn)
    {
        log_.dirty.add(gfn);
        memory_.absent.erase(gfn);
        return memory_.page(gfn);
    }
    void balloon_out(Gfn gfn)
    {
        std::memset(touch(gfn), 0, kPageSize);
        memory_.absent.insert(gfn);
    }

    const GuestDescription& description() const override { return description_; }
    FakeMemory& memory() override { return memory_; }
    FakeDirtyLog& dirty_log() override { return log_; }

    Result<void> create(StartMode, Deadline) override { return {}; }
    Result<void> cut_begin(Deadline) override { return {}; }
    Result<DeviceState> cut_save(Deadline) override { return DeviceState{}; }
    Result<void> resume(Deadline) override { return {}; }
    CutTimes last_cut_times() const override { return {}; }
    Result<void> stop(Deadline) override { return {}; }
    Result<void> load(const DeviceState&, Deadline) override { return {}; }
    Result<void> verify(const DeviceState&) const override { return {}; }
    Result<void> recreate(Deadline) override { return {}; }
    void kill() noexcept override {}
    Time last_progress() const override { return {}; }
    void probe() override {}
    int device_model_pid() const override { return 0; }
    bool running() const override { return true; }
    void set_event_handler(std::function<void(GuestEvent)>) override {}
    Result<void> save_device_state(const std::string&, bool, Deadline) override { return {}; }
    Result<void> load_device_state(const std::string&, Deadline) override { return {}; }
    Result<void> set_global_dirty_log(bool, Deadline) override { return {}; }
    bool counts_vcpu_dirty_pages() const override { return !vcpu_pages.empty(); }
    Result<std::vector<std::uint64_t>> vcpu_dirty_pages(Deadline) override
    {
        if (vcpu_pages.empty()) return make_error(Errc::unsupported, "not counted");
        return vcpu_pages;
    }
    std::vector<std::uint64_t> vcpu_pages;

private:
    GuestDescription description_;
    FakeMemory memory_;
    FakeDirtyLog log_;
};

// Two regions with a hole, two special frames.
inline GuestDescription small_guest()
{
    GuestDescription guest;
    guest.kind = "fake";
    guest.regions = {{0, 48}, {70, 66}};
    guest.special_frames = {5, 71};
    return guest;
}

inline bool is_special(const GuestDescription& guest, Gfn gfn)
{
    return std::find(guest.special_frames.begin(), guest.special_frames.end(), gfn) != guest.special_frames.end();
}

template <class Visit>
void for_each_frame(const GuestDescription& guest, Visit&& visit)
{
    for (const MemoryRegion& r : guest.regions)
        for (Gfn g = r.first; g < r.first + r.pages; ++g)
            if (!is_special(guest, g)) visit(g);
}

}  // namespace colo::replication::test
