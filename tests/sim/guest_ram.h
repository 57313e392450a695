// SPDX-License-Identifier: Apache-2.0
#pragma once

// The simulated guest's memory with the semantics of a real dirty log: fetch is destructive, writes by the service are not
// logged, everything counts as dirty after start().

#include "replication/guest.h"

#include <cstring>

namespace colo::sim {

class GuestRam final : public replication::GuestMemory, public replication::DirtyLog {
public:
    explicit GuestRam(std::uint64_t pages) : bytes_(pages * kPageSize, 0), pages_(pages) {}

    // ---- the guest's own accesses
    template <class T>
    T get(std::size_t at) const
    {
        T value;
        std::memcpy(&value, bytes_.data() + at, sizeof(T));
        return value;
    }
    template <class T>
    void put(std::size_t at, const T& value) { write_bytes(at, {reinterpret_cast<const std::uint8_t*>(&value), sizeof(T)}); }
    void write_bytes(std::size_t at, ByteView data)
    {
        std::memcpy(bytes_.data() + at, data.data(), data.size());
        for (Gfn g = at / kPageSize; g <= (at + data.size() - 1) / kPageSize; ++g) mark(g);
    }
    ByteView bytes() const { return bytes_; }
    std::uint64_t pages() const { return pages_; }
    void clear()
    {
        std::fill(bytes_.begin(), bytes_.end(), std::uint8_t{0});
        stop();
    }

    // ---- GuestMemory
    Result<void> read(std::span<const Gfn> gfns, std::uint8_t* out, std::span<replication::FrameStatus> status) override
    {
        for (std::size_t i = 0; i < gfns.size(); ++i) {
            std::memcpy(out + i * kPageSize, bytes_.data() + gfns[i] * kPageSize, kPageSize);
            status[i] = replication::FrameStatus::ok;
        }
        if (on_read) on_read(gfns);
        return {};
    }
    Result<void> write(std::span<const replication::PageWrite> writes) override
    {
        for (const auto& w : writes) {
            if (w.data == nullptr) std::memset(bytes_.data() + w.gfn * kPageSize, 0, kPageSize);
            else std::memcpy(bytes_.data() + w.gfn * kPageSize, w.data, kPageSize);
        }
        return {};
    }
    std::uint64_t resident_bytes() const override { return 0; }
    const std::uint8_t* view(Gfn) const override { return nullptr; }   // read() only, so that reads can race (on_read)

    // ---- DirtyLog
    Result<void> start() override
    {
        logging_ = true;
        dirty_.clear();
        dirty_.add_range(0, pages_);
        return {};
    }
    Result<void> fetch_and_clear(replication::PageSet& into, bool) override
    {
        if (!logging_) return make_error(Errc::invalid, "dirty log is off");
        into.merge(dirty_);
        dirty_.clear();
        if (on_fetch) on_fetch();
        return {};
    }
    void stop() override { logging_ = false; }
    std::string method() const override { return "sim"; }

    // The guest runs while pages are read and logs are fetched: what it writes in between. Called inside a job.
    std::function<void(std::span<const Gfn>)> on_read;
    std::function<void()> on_fetch;

private:
    void mark(Gfn gfn)
    {
        if (logging_) dirty_.add(gfn);
    }
    Bytes bytes_;
    std::uint64_t pages_;
    bool logging_ = false;
    replication::PageSet dirty_;
};

}  // namespace colo::sim
