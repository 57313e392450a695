// SPDX-License-Identifier: Apache-2.0
#pragma once

// Descriptors that clients handed over and nobody has used up yet: named ones, which belong to one monitor and end with
// it, and numbered sets, which all monitors share. No I/O but close(). Control thread only. What a client may make us
// hold is bounded; errors carry the text of the interface.

#include "core/error.h"
#include "qmp/fd.h"

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace colo::qmp {

using MonitorId = std::uint64_t;  // of one connection, never used again

class FdStore;

// Descriptors that came with a request that has not used them yet. Those of all monitors are counted together.
class WaitingFds {
public:
    WaitingFds() = default;
    // Takes as many as there is room for; the others are closed.
    WaitingFds(std::shared_ptr<FdStore> store, std::vector<Fd> fds);
    WaitingFds(WaitingFds&& other) noexcept : store_(std::move(other.store_)), fds_(std::move(other.fds_))
    {
        other.fds_.clear();
    }
    WaitingFds& operator=(WaitingFds&& other) noexcept;
    WaitingFds(const WaitingFds&) = delete;
    WaitingFds& operator=(const WaitingFds&) = delete;
    ~WaitingFds() { keep(0); }

    std::size_t size() const { return fds_.size(); }
    void keep(std::size_t count);     // closes those behind the first `count`
    void append(WaitingFds&& other);  // of the same store
    Fd take_first();                  // closes the others; empty: there was none

private:
    std::shared_ptr<FdStore> store_;
    std::vector<Fd> fds_;
};

class FdStore {
public:
    static constexpr std::size_t kMaxWaiting =
        1024;                                     // with requests that have not used them yet, all monitors together
    static constexpr std::size_t kMaxHeld = 256;  // names and sets of all monitors together
    static constexpr std::size_t kMaxName = 255, kMaxOpaque = 4096;  // bytes

    MonitorId open_monitor();
    // Closes its names, and with the last monitor also the sets that nobody uses.
    void close_monitor(MonitorId monitor);

    // An older descriptor of that name is closed.
    Result<void> name(MonitorId monitor, const std::string& name, Fd fd);
    Result<void> close_named(MonitorId monitor, const std::string& name);
    // For `fd:NAME`: the name is used up.
    Result<Fd> take_named(MonitorId monitor, const std::string& name);

    struct Placed {
        std::int64_t set = 0;
        int fd = -1;
    };
    // Without a set: the lowest number that is not in use.
    Result<Placed> add_to_set(std::optional<std::int64_t> set, std::optional<std::string> opaque, Fd fd);
    // Without fd: the whole set. Who uses the set keeps duplicates.
    Result<void> remove_from_set(std::int64_t set, std::optional<std::int64_t> fd);

    // A duplicate of a descriptor of the set that was opened for `access` (O_RDONLY, O_WRONLY, O_RDWR). As long as a
    // Use lives the set is in use.
    struct Use {
        Fd fd;
        std::shared_ptr<const void> token;
    };
    Result<Use> use_set(std::int64_t set, int access) const;

    struct Entry {
        Fd fd;
        std::optional<std::string> opaque;
    };
    struct Set {
        std::vector<Entry> entries;  // in the order in which they were added
        std::shared_ptr<const void> token = std::make_shared<int>();
    };
    const std::map<std::int64_t, Set>& sets() const { return sets_; }
    std::size_t held() const;
    std::size_t waiting() const { return waiting_; }

private:
    friend class WaitingFds;
    Result<void> room_for_one() const;
    void drop_unused_sets();

    MonitorId last_ = 0;
    std::size_t waiting_ = 0;
    bool told_full_ = false;  // in the log, since less than half of kMaxWaiting waited
    std::set<MonitorId> monitors_;
    std::map<MonitorId, std::map<std::string, Fd>> named_;
    std::map<std::int64_t, Set> sets_;
};

}  // namespace colo::qmp
