// SPDX-License-Identifier: Apache-2.0
#include "qmp/fd_store.h"

#include "core/log.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <utility>

namespace colo::qmp {
namespace {

Error not_found(const std::string& what)
{
    return make_error(Errc::refused, "File descriptor named '" + what + "' not found");
}

}  // namespace

WaitingFds::WaitingFds(std::shared_ptr<FdStore> store, std::vector<Fd> fds)
    : store_(std::move(store)), fds_(std::move(fds))
{
    store_->waiting_ += fds_.size();
    if (store_->waiting_ <= FdStore::kMaxWaiting) return;
    const std::size_t excess = std::min(store_->waiting_ - FdStore::kMaxWaiting, fds_.size());
    keep(fds_.size() - excess);
    // A client that goes on sending would fill the log.
    if (std::exchange(store_->told_full_, true)) return;
    spdlog::warn("control clients: {} descriptors wait for their requests; {} more, and those that follow, are closed",
                 FdStore::kMaxWaiting, excess);
}

WaitingFds& WaitingFds::operator=(WaitingFds&& other) noexcept
{
    if (this == &other) return *this;
    keep(0);
    store_ = std::move(other.store_);
    fds_ = std::move(other.fds_);
    other.fds_.clear();
    return *this;
}

void WaitingFds::keep(std::size_t count)
{
    if (count >= fds_.size()) return;
    store_->waiting_ -= fds_.size() - count;
    if (store_->waiting_ <= FdStore::kMaxWaiting / 2) store_->told_full_ = false;
    fds_.resize(count);
}

void WaitingFds::append(WaitingFds&& other)
{
    if (!store_) store_ = other.store_;
    std::ranges::move(other.fds_, std::back_inserter(fds_));
    other.fds_.clear();  // counted here now
}

Fd WaitingFds::take_first()
{
    Fd first = fds_.empty() ? Fd() : std::move(fds_.front());
    keep(0);
    return first;
}

void FdStore::drop_unused_sets()
{
    if (monitors_.empty()) std::erase_if(sets_, [](const auto& entry) { return entry.second.token.use_count() == 1; });
}

MonitorId FdStore::open_monitor()
{
    drop_unused_sets();  // uses may have ended since the last monitor left
    monitors_.insert(++last_);
    return last_;
}

void FdStore::close_monitor(MonitorId monitor)
{
    named_.erase(monitor);
    monitors_.erase(monitor);
    drop_unused_sets();
}

std::size_t FdStore::held() const
{
    std::size_t count = 0;
    for (const auto& [monitor, names] : named_) count += names.size();
    for (const auto& [number, set] : sets_) count += set.entries.size();
    return count;
}

Result<void> FdStore::room_for_one() const
{
    if (held() < kMaxHeld) return {};
    return make_error(Errc::limit, "Clients already hold " + std::to_string(kMaxHeld) +
                                       " file descriptors here; close or remove some first");
}

Result<void> FdStore::name(MonitorId monitor, const std::string& name, Fd fd)
{
    if (!name.empty() && name.front() >= '0' && name.front() <= '9')
        return make_error(Errc::invalid, "Parameter 'fdname' expects a name not starting with a digit");
    if (name.size() > kMaxName)
        return make_error(Errc::limit, "Parameter 'fdname' is longer than " + std::to_string(kMaxName) + " bytes");
    auto& names = named_[monitor];
    if (const auto old = names.find(name); old != names.end()) {
        old->second = std::move(fd);
        return {};
    }
    if (auto room = room_for_one(); !room) return room;
    names.emplace(name, std::move(fd));
    return {};
}

Result<void> FdStore::close_named(MonitorId monitor, const std::string& name)
{
    const auto names = named_.find(monitor);
    if (names == named_.end() || names->second.erase(name) == 0) return not_found(name);
    return {};
}

Result<Fd> FdStore::take_named(MonitorId monitor, const std::string& name)
{
    if (const auto names = named_.find(monitor); names != named_.end())
        if (auto node = names->second.extract(name)) return std::move(node.mapped());
    return make_error(Errc::refused, "File descriptor named '" + name + "' has not been found");
}

Result<FdStore::Placed> FdStore::add_to_set(std::optional<std::int64_t> set, std::optional<std::string> opaque, Fd fd)
{
    if (set && *set < 0) return make_error(Errc::invalid, "Parameter 'fdset-id' expects a non-negative value");
    if (opaque && opaque->size() > kMaxOpaque)
        return make_error(Errc::limit, "Parameter 'opaque' is longer than " + std::to_string(kMaxOpaque) + " bytes");
    if (auto room = room_for_one(); !room) return room.error();
    std::int64_t number = set.value_or(0);
    if (!set)
        while (sets_.contains(number)) ++number;
    const int plain = fd.get();
    sets_[number].entries.push_back({std::move(fd), std::move(opaque)});
    return Placed{number, plain};
}

Result<void> FdStore::remove_from_set(std::int64_t set, std::optional<std::int64_t> fd)
{
    std::string what = "fdset-id:" + std::to_string(set);
    if (fd) what += ", fd:" + std::to_string(*fd);
    const auto found = sets_.find(set);
    if (found == sets_.end()) return not_found(what);
    auto& entries = found->second.entries;
    if (fd && std::erase_if(entries, [&](const Entry& entry) { return entry.fd.get() == *fd; }) == 0)
        return not_found(what);
    if (!fd || entries.empty()) sets_.erase(found);
    return {};
}

Result<FdStore::Use> FdStore::use_set(std::int64_t set, int access) const
{
    const auto found = sets_.find(set);
    if (found == sets_.end()) return not_found("fdset-id:" + std::to_string(set));
    for (const Entry& entry : found->second.entries) {
        const int flags = ::fcntl(entry.fd.get(), F_GETFL);
        if (flags < 0 || (flags & O_ACCMODE) != access) continue;
        Fd duplicate(::fcntl(entry.fd.get(), F_DUPFD_CLOEXEC, 0));
        if (!duplicate) return errno_error("duplicate a descriptor of set " + std::to_string(set), errno);
        return Use{std::move(duplicate), found->second.token};
    }
    return make_error(Errc::refused,
                      "No descriptor of fdset-id:" + std::to_string(set) + " has the access that is needed");
}

}  // namespace colo::qmp
