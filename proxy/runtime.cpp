// SPDX-License-Identifier: Apache-2.0
#include "proxy/runtime_impl.h"

#include <sys/epoll.h>

#include <random>

namespace colo::proxy {
namespace {

Error wrong_role(const char* call)
{
    return make_error(Errc::invalid, std::string(call) + ": not in this role");
}

// Closes the descriptor of a channel that nobody takes over.
struct ChannelOwner {
    explicit ChannelOwner(ProxyChannel c) : channel(std::move(c)) {}
    ~ChannelOwner()
    {
        if (channel.fd >= 0) ::close(channel.fd);
    }
    ChannelOwner(const ChannelOwner&) = delete;
    ChannelOwner& operator=(const ChannelOwner&) = delete;
    ProxyChannel take()
    {
        ProxyChannel taken = std::move(channel);
        channel.fd = -1;
        return taken;
    }
    ProxyChannel channel;
};

}  // namespace

RuntimeImpl::RuntimeImpl(RuntimeOptions options, std::vector<RuntimeNic> nics, RuntimeEvents& events)
    : options_(std::move(options)), events_(events), lease_us_(kNever.us)
{
    std::random_device random;
    options_.proxy.hash_seed = std::uint64_t{random()} << 32 | random();
    for (RuntimeNic& nic : nics) {
        nics_.emplace_back();
        nics_.back().port = std::move(nic.port);
        nics_.back().wire = std::move(nic.wire);
        nics_.back().host_mac = interface_mac(nics_.back().wire->host_interface());
    }
}

RuntimeImpl::~RuntimeImpl()
{
    frozen_ = true;
    stop_ = true;
    commands_.wake();
    if (thread_.joinable()) thread_.join();
    commands_.close();
}

Result<void> RuntimeImpl::start()
{
    epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
    if (!epoll_.valid() || commands_.fd() < 0) return errno_error("proxy event loop", errno);
    thread_ = std::thread([this] { loop(); });
    return {};
}

int RuntimeImpl::guest_fd(std::uint8_t nic) const
{
    return nic < nics_.size() ? nics_[nic].port->guest_fd() : -1;
}

std::string RuntimeImpl::netdev_argument(std::uint8_t nic, int fd_in_guest) const
{
    return nic < nics_.size() ? nics_[nic].port->netdev_argument(fd_in_guest) : std::string();
}

Result<void> RuntimeImpl::attach_guest(Deadline deadline)
{
    return commands_.ask<void>(deadline, [this, deadline]() -> Result<void> {
        for (std::size_t i = 0; i < nics_.size(); ++i) {
            if (nics_[i].port_registered >= 0) forget(nics_[i].port_registered);
            nics_[i].port_registered = -1;
            nics_[i].guest_queue.clear();
            if (auto r = nics_[i].port->attach(deadline); !r) return r.error();
            register_port(i);
        }
        return {};
    });
}

std::vector<std::string> RuntimeImpl::host_interfaces() const
{
    std::vector<std::string> names;
    for (const Nic& nic : nics_) names.push_back(nic.wire->host_interface());
    return names;
}

RuntimeStats RuntimeImpl::stats() const
{
    const std::lock_guard lock(stats_mutex_);
    return published_;
}

void RuntimeImpl::freeze()
{
    frozen_.store(true);
    set_output(PrimaryProxy::Output::frozen, 0);
}

Result<void> RuntimeImpl::fence(Deadline deadline)
{
    return commands_.ask<void>(deadline, []() -> Result<void> { return {}; });
}

Result<void> RuntimeImpl::become_primary(Deadline deadline)
{
    return commands_.ask<void>(deadline, [this]() -> Result<void> {
        if (role_ != RuntimeRole::none) return wrong_role("become_primary");
        primary_ = make_primary_proxy(options_.proxy, *this);
        role_ = RuntimeRole::primary;
        frozen_ = false;
        return wires(true);
    });
}

Result<void> RuntimeImpl::become_secondary(SessionId session, ProxyChannel channel, Deadline deadline)
{
    const auto owner = std::make_shared<ChannelOwner>(std::move(channel));
    return commands_.ask<void>(deadline, [this, session, owner]() -> Result<void> {
        if (role_ != RuntimeRole::none) return wrong_role("become_secondary");
        if (auto r = wires(false); !r) return r.error();
        secondary_ = make_secondary_proxy(options_.proxy, *this);
        role_ = RuntimeRole::secondary;
        open_channel(session, owner->take());
        return {};
    });
}

Result<void> RuntimeImpl::go_live(Generation generation, Deadline deadline)
{
    return commands_.ask<void>(deadline, [this, generation] { return go_live_now(generation); });
}

Result<void> RuntimeImpl::go_live_now(Generation generation)
{
    if (role_ != RuntimeRole::secondary) return wrong_role("go_live");
    drain_ports();  // what the guest said until now is of the old life: it is replayed in order
    drop_channel();
    const TakeOver from = secondary_->take_over(now_);
    secondary_.reset();
    role_ = RuntimeRole::primary;
    frozen_ = false;
    primary_ = make_primary_proxy(options_.proxy, *this, from, now_);
    if (auto r = wires(true); !r) return r.error();
    start_announcing(generation);
    primary_->set_output(PrimaryProxy::Output::flow, generation, now_);
    protected_ = false;
    return {};
}

void RuntimeImpl::drop_cores()
{
    if (channel_) {
        sent_before_ += channel_->bytes_sent();
        received_before_ += channel_->bytes_received();
    }
    drop_channel();
    for (Nic& nic : nics_) {
        nic.guest_queue.clear();
        nic.wire_queue.clear();
    }
    primary_.reset();
    secondary_.reset();
    role_ = RuntimeRole::none;
    announcing_ = {};
    input_paused_ = protected_ = false;
    lease_told_ = kNever;
    sealed_ = make_error(Errc::invalid, "no seal was started");
}

Result<void> RuntimeImpl::stand_down(Deadline deadline)
{
    frozen_ = true;
    return commands_.ask<void>(deadline, [this]() -> Result<void> {
        drop_cores();
        return wires(false);
    });
}

void RuntimeImpl::open_channel(SessionId session, ProxyChannel channel)
{
    if (channel_) {
        sent_before_ += channel_->bytes_sent();
        received_before_ += channel_->bytes_received();
    }
    channel_ = std::make_unique<PeerChannel>(session, std::move(channel), options_.channel_send_bytes_max);
    channel_watched_ = 0;
    watch_channel();
    read_channel();  // the hand-over may have read too far
}

Result<void> RuntimeImpl::begin_session(SessionId session, ProxyChannel channel, Deadline deadline)
{
    const auto owner = std::make_shared<ChannelOwner>(std::move(channel));
    return commands_.ask<void>(deadline, [this, session, owner]() -> Result<void> {
        if (role_ != RuntimeRole::primary) return wrong_role("begin_session");
        primary_->begin_session(session, now_);
        lease_told_ = kNever;
        open_channel(session, owner->take());
        return {};
    });
}

void RuntimeImpl::end_session()
{
    commands_.post([this] {
        if (channel_) {
            sent_before_ += channel_->bytes_sent();
            received_before_ += channel_->bytes_received();
        }
        drop_channel();
        drop_released();
        if (primary_) primary_->end_session(now_);
        lease_told_ = kNever;
    });
}

void RuntimeImpl::set_output(PrimaryProxy::Output output, Generation generation)
{
    commands_.post([this, output, generation] {
        if (!primary_) return;
        protected_ = output == PrimaryProxy::Output::protect;
        if (output == PrimaryProxy::Output::hold) drop_released();
        for (Nic& nic : nics_) {
            if (protected_) nic.wire_queue.bind_to_peer();
            if (output == PrimaryProxy::Output::frozen) nic.wire_queue.clear();
        }
        primary_->set_output(output, generation, now_);
    });
}

void RuntimeImpl::set_mode(replication::Mode mode)
{
    commands_.post([this, mode] {
        if (primary_) primary_->set_mode(mode, now_);
    });
}

void RuntimeImpl::set_lease(Time until)
{
    const std::int64_t before = lease_us_.exchange(until.us);
    if (before <= now().us) commands_.wake();  // something may wait for it
}

void RuntimeImpl::set_announce(const AnnounceSchedule& schedule)
{
    commands_.post([this, schedule] { options_.announce = schedule; });
}

void RuntimeImpl::announce(Generation generation)
{
    commands_.post([this, generation] {
        if (primary_) start_announcing(generation);
    });
}

void RuntimeImpl::pause_input(bool paused)
{
    commands_.post([this, paused] { input_paused_ = paused; });
}

void RuntimeImpl::start_seal(Epoch next, bool protect)
{
    commands_.post([this, next, protect] { sealed_ = seal_now(next, protect); });
}

Result<replication::ProxySection> RuntimeImpl::finish_seal(Deadline deadline)
{
    return commands_.ask<replication::ProxySection>(deadline, [this]() -> Result<replication::ProxySection> {
        return std::exchange(sealed_, make_error(Errc::invalid, "no seal was started"));
    });
}

Result<replication::ProxySection> RuntimeImpl::seal_now(Epoch next, bool protect)
{
    if (role_ != RuntimeRole::primary) return wrong_role("seal");
    drain_ports();
    std::vector<PrimaryProxy::UnreadInput> unread;
    for (std::size_t i = 0; i < nics_.size(); ++i) {
        auto frames = nics_[i].port->take_unread();
        if (!frames) return with_context("seal", frames.error());
        for (FramePtr& frame : *frames) unread.push_back({static_cast<std::uint8_t>(i), std::move(frame)});
        for (FramePtr& frame : nics_[i].guest_queue.take_all())
            unread.push_back({static_cast<std::uint8_t>(i), std::move(frame)});
    }
    if (protect) {
        protected_ = true;
        for (Nic& nic : nics_) nic.wire_queue.bind_to_peer();
        primary_->set_output(PrimaryProxy::Output::protect, 0, now_);
    }
    replication::ProxySection section = primary_->seal(next, unread, now_);
    input_paused_ = false;
    return section;
}

void RuntimeImpl::staged(Epoch epoch)
{
    commands_.post([this, epoch] {
        if (primary_) primary_->staged(epoch, now_);
    });
}

void RuntimeImpl::applied(Epoch epoch)
{
    commands_.post([this, epoch] {
        if (primary_) primary_->applied(epoch, now_);
    });
}

void RuntimeImpl::aborted(Epoch epoch)
{
    commands_.post([this, epoch] {
        if (primary_) primary_->aborted(epoch, now_);
        if (secondary_) secondary_->aborted(epoch, now_);
        input_paused_ = false;
    });
}

void RuntimeImpl::peer_cut(Epoch epoch)
{
    const Time when = now();
    commands_.post([this, epoch, when] {
        if (secondary_) secondary_->peer_cut(epoch, when);
    });
}

Result<void> RuntimeImpl::seal_secondary(Deadline deadline)
{
    return commands_.ask<void>(deadline, [this]() -> Result<void> {
        if (role_ != RuntimeRole::secondary) return wrong_role("seal_secondary");
        drain_ports();
        for (Nic& nic : nics_) {
            nic.guest_queue.clear();
            if (auto unread = nic.port->take_unread(); !unread) return with_context("seal", unread.error());
        }
        secondary_->seal(now_);
        return {};
    });
}

Result<void> RuntimeImpl::applied_secondary(Epoch epoch, const replication::ProxySection& section, bool paused,
                                            Deadline deadline)
{
    return commands_.ask<void>(deadline, [this, epoch, section, paused]() -> Result<void> {
        if (role_ != RuntimeRole::secondary) return wrong_role("applied_secondary");
        if (paused) secondary_->set_paused(true, now_);
        secondary_->applied(epoch, section, now_);
        if (!paused) secondary_->set_paused(false, now_);
        return {};
    });
}

Result<std::unique_ptr<ProxyRuntime>> make_proxy_runtime(RuntimeOptions options, std::vector<RuntimeNic> nics,
                                                         RuntimeEvents& events)
{
    if (nics.size() != options.proxy.nics.size() || nics.size() > 16)
        return make_error(Errc::invalid, "proxy: one frame port and one wire per NIC, at most 16");
    for (const RuntimeNic& nic : nics)
        if (!nic.port || !nic.wire) return make_error(Errc::invalid, "proxy: a NIC without frame port or wire");
    auto runtime = std::make_unique<RuntimeImpl>(std::move(options), std::move(nics), events);
    if (auto r = runtime->start(); !r) return r.error();
    return std::unique_ptr<ProxyRuntime>(std::move(runtime));
}

}  // namespace colo::proxy
