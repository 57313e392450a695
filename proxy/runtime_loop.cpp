// SPDX-License-Identifier: Apache-2.0
#include "core/clock.h"
#include "core/log.h"
#include "proxy/packet.h"
#include "proxy/runtime_impl.h"

#include <pthread.h>
#include <sys/epoll.h>

#include <algorithm>
#include <span>

namespace colo::proxy {
namespace {

// epoll's user data: kind in the upper half, NIC in the lower.
enum class Source : std::uint32_t { commands = 1, port, wire, channel };
std::uint64_t tag(Source source, std::size_t nic = 0)
{
    return std::uint64_t{static_cast<std::uint32_t>(source)} << 32 | nic;
}

constexpr std::size_t kFramesPerTurn = 64;      // of one source, so that none starves the others
constexpr std::size_t kDrainFrames = 1u << 20;  // a sealed port that never runs empty is a bug, not a wait
constexpr Duration kTurnAtLeast{50'000};        // progress() rises 20 times a second
constexpr Duration kStatsEvery{50'000};
constexpr Duration kLeasePoll{2'000};
constexpr Duration kFlushAgain{1'000};
constexpr int kPriority = 2;  // above threads that wait for us in a cut, below the heartbeat

void raise_priority()
{
    sched_param wanted{};
    wanted.sched_priority = kPriority;
    if (::pthread_setschedparam(::pthread_self(), SCHED_FIFO, &wanted) == 0) return;
    spdlog::debug("the proxy thread has no real-time priority (CAP_SYS_NICE needed): answers wait behind busy guests");
}

int wait_for(int epoll, std::span<epoll_event> ready, Duration wait)
{
    const std::int64_t us = std::max<std::int64_t>(wait.count(), 0);
    const timespec timeout{us / 1'000'000, us % 1'000'000 * 1000};
    return ::epoll_pwait2(epoll, ready.data(), static_cast<int>(ready.size()), &timeout, nullptr);
}

}  // namespace

void RuntimeImpl::watch(int fd, std::uint64_t source, std::uint32_t ready, bool add)
{
    epoll_event event{};
    event.events = ready;
    event.data.u64 = source;
    (void)::epoll_ctl(epoll_.get(), add ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event);
}

void RuntimeImpl::forget(int fd)
{
    (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

void RuntimeImpl::register_port(std::size_t nic)
{
    const int fd = nics_[nic].port->poll_fd();
    if (fd < 0) return;
    nics_[nic].port_registered = fd;
    watch(fd, tag(Source::port, nic), EPOLLIN, true);
}

void RuntimeImpl::register_wire(std::size_t nic)
{
    Nic& n = nics_[nic];
    const bool want = role_ == RuntimeRole::primary && !input_paused_ && !n.wire_failed;
    if (want == n.wire_registered) return;
    n.wire_registered = want;
    if (want)
        watch(n.wire->poll_fd(), tag(Source::wire, nic), EPOLLIN, true);
    else
        forget(n.wire->poll_fd());
}

void RuntimeImpl::watch_channel()
{
    if (!channel_) return;
    const std::uint32_t want = EPOLLIN | (channel_->backlog() ? EPOLLOUT : 0u);
    if (want == channel_watched_) return;
    watch(channel_->fd(), tag(Source::channel), want, channel_watched_ == 0);
    channel_watched_ = want;
}

Result<void> RuntimeImpl::wires(bool up)
{
    for (std::size_t i = 0; i < nics_.size(); ++i) {
        register_wire(i);
        if (auto r = nics_[i].wire->set_up(up); !r) return with_context(nics_[i].wire->name(), r.error());
    }
    return {};
}

void RuntimeImpl::loop()
{
    ::pthread_setname_np(::pthread_self(), "colo-proxy");
    if (options_.raise_priority) raise_priority();
    watch(commands_.fd(), tag(Source::commands), EPOLLIN, true);
    now_ = colo::now();
    for (std::size_t i = 0; i < nics_.size(); ++i) register_port(i);
    std::array<epoll_event, 64> ready;
    while (!stop_.load()) {
        const int n = wait_for(epoll_.get(), ready, wait(now_));
        now_ = colo::now();
        update_lease(now_);
        for (int i = 0; i < n; ++i)
            handle(ready[static_cast<std::size_t>(i)].data.u64, ready[static_cast<std::size_t>(i)].events);
        turn(now_);
    }
}

Duration RuntimeImpl::wait(Time now) const
{
    Time until = now + kTurnAtLeast;
    if (primary_) until = std::min(until, primary_->next_deadline());
    if (secondary_) until = std::min(until, secondary_->next_deadline());
    if (channel_) until = std::min(until, channel_->next_deadline());
    until = std::min(until, announcing_.next);
    for (const Nic& nic : nics_) {
        until = std::min({until, nic.guest_queue.due(), nic.wire_queue.due()});
        if (!nic.flushed) until = std::min(until, now + kFlushAgain);
    }
    if (protected_ && lease() <= now) until = std::min(until, now + kLeasePoll);
    return until - now;
}

void RuntimeImpl::handle(std::uint64_t source, std::uint32_t ready)
{
    const auto nic = static_cast<std::size_t>(source & 0xffffffff);
    switch (static_cast<Source>(source >> 32)) {
    case Source::commands: commands_.run(); break;
    case Source::port: read_port(nic, kFramesPerTurn); break;
    case Source::wire: read_wire(nic); break;
    case Source::channel:
        if ((ready & EPOLLOUT) != 0) flush_channel();
        read_channel();
        break;
    }
}

void RuntimeImpl::turn(Time now)
{
    if (primary_ && now >= primary_->next_deadline()) primary_->tick(now);
    if (secondary_ && now >= secondary_->next_deadline()) secondary_->tick(now);
    announce_due(now);
    send_waiting(now);
    for (std::size_t i = 0; i < nics_.size(); ++i) register_wire(i);
    flush_channel();
    if (now >= stats_due_) publish_stats(now);
    progress_.fetch_add(1, std::memory_order_relaxed);
    if (options_.on_turn) options_.on_turn();
}

void RuntimeImpl::guest_frame(std::size_t nic, const FramePtr& frame)
{
    if (primary_)
        primary_->guest_frame(static_cast<std::uint8_t>(nic), frame, now_);
    else if (secondary_)
        secondary_->guest_frame(static_cast<std::uint8_t>(nic), frame, now_);
}

void RuntimeImpl::read_port(std::size_t nic, std::size_t max)
{
    if (nics_[nic].port_registered < 0) return;
    const auto n = nics_[nic].port->receive(max, [&](FramePtr frame) { guest_frame(nic, frame); });
    if (!n) port_failed(nic, false, n.error());
}

void RuntimeImpl::note_client(std::size_t nic, ByteView frame)
{
    if (!from_client(frame, options_.proxy.nics[nic], nics_[nic].host_mac)) return;
    clients_.saw(static_cast<std::uint8_t>(nic), frame);
    if (primary_) last_heard_us_.store(now_.us, std::memory_order_relaxed);
}

void RuntimeImpl::read_wire(std::size_t nic)
{
    if (!primary_ || input_paused_ || !nics_[nic].wire_registered) return;
    mirror_first_ = channel_ != nullptr;
    const auto n = nics_[nic].wire->receive(
        kFramesPerTurn, [&](FramePtr frame) {
            note_client(nic, frame->view());
            primary_->wire_frame(static_cast<std::uint8_t>(nic), frame, now_);
        });
    mirror_first_ = false;
    flush_channel();
    for (const auto& input : for_guest_) give_to_guest(input.nic, input.frame);
    for_guest_.clear();
    if (!n) port_failed(nic, true, n.error());
}

void RuntimeImpl::port_failed(std::size_t nic, bool wire, const Error& why)
{
    Nic& n = nics_[nic];
    if (wire) {
        n.wire_failed = true;
        register_wire(nic);
    } else {
        forget(n.port_registered);
        n.port_registered = -1;
    }
    events_.port_failed(static_cast<std::uint8_t>(nic), wire, why);
}

// R5: everything the guest said before it was stopped carries the old tag.
void RuntimeImpl::drain_ports()
{
    for (std::size_t i = 0; i < nics_.size(); ++i) read_port(i, kDrainFrames);
}

void RuntimeImpl::read_channel()
{
    if (!channel_) return;
    const PeerChannel::Handler handler{
        [this](const replication::ProxyInput& input) {
            if (!secondary_ || input.nic >= nics_.size()) return;
            note_client(input.nic, input.bytes);
            secondary_->input(input.nic, input.epoch, input.number,
                                  make_frame(Bytes(input.bytes.begin(), input.bytes.end())), now_);
        },
        [this](const replication::ProxyOutput& output) {
            if (primary_ && output.nic < nics_.size())
                primary_->peer_output(output.nic, output.epoch,
                                      make_frame(Bytes(output.bytes.begin(), output.bytes.end())), now_);
        },
        [this](const replication::ProxyJournalled& journalled) {
            if (primary_) primary_->peer_journalled(journalled.epoch, journalled.number, now_);
        }};
    if (auto r = channel_->receive(handler); !r) lose_channel(r.error());
}

void RuntimeImpl::flush_channel()
{
    if (!channel_) return;
    if (auto r = channel_->flush(now_); !r) return lose_channel(r.error());
    watch_channel();
}

// The daemon holds a duplicate of the socket, and with it the registration would live on: a closed channel is ready for
// ever, and this thread, with its priority, would leave no time to whoever closes the duplicate.
void RuntimeImpl::drop_channel()
{
    if (channel_ && channel_watched_ != 0) forget(channel_->fd());
    channel_.reset();
    channel_watched_ = 0;
}

void RuntimeImpl::lose_channel(const Error& why)
{
    const SessionId session = channel_->session();
    sent_before_ += channel_->bytes_sent();
    received_before_ += channel_->bytes_received();
    drop_channel();
    events_.channel_lost(session, why);
}

Time RuntimeImpl::lease() const
{
    const Time until{lease_us_.load(std::memory_order_acquire)};
    return options_.lease_source ? std::min(until, options_.lease_source()) : until;
}

void RuntimeImpl::update_lease(Time now)
{
    if (!primary_) return;
    const Time until = lease();
    if (until == lease_told_) return;
    lease_told_ = until;
    primary_->set_lease(until, now);
}

void RuntimeImpl::to_guest(std::uint8_t nic, const FramePtr& frame)
{
    if (nic >= nics_.size()) return;
    if (mirror_first_)
        for_guest_.push_back({nic, frame});
    else
        give_to_guest(nic, frame);
}

void RuntimeImpl::give_to_guest(std::uint8_t nic, const FramePtr& frame)
{
    Nic& n = nics_[nic];
    if (!n.guest_queue.empty()) return n.guest_queue.push({frame}, now_);
    const auto sent = n.port->send(frame->view());
    if (sent && *sent == SendResult::full) return n.guest_queue.push({frame}, now_);
    n.flushed = false;
    if (!sent && n.port_registered >= 0) port_failed(nic, false, sent.error());
}

void RuntimeImpl::to_wire(std::uint8_t nic, const FramePtr& frame, const ReleaseReason& reason)
{
    if (nic >= nics_.size()) return;
    const bool by_peer = reason.kind() == ReleaseReason::Kind::matched || reason.kind() == ReleaseReason::Kind::staged;
    Nic& n = nics_[nic];
    if (!n.wire_queue.empty()) return n.wire_queue.push({frame, by_peer}, now_);
    const auto sent = put_on_wire(n, {frame, by_peer});
    if (sent && *sent == SendResult::full) return n.wire_queue.push({frame, by_peer}, now_);
    if (!sent && !n.wire_failed) port_failed(nic, true, sent.error());
}

// The decision may be older than it looks: the frame may have waited, and this thread, or the whole machine, may have
// stood still since.
Result<SendResult> RuntimeImpl::put_on_wire(Nic& nic, const SendQueue::Entry& entry)
{
    if (frozen_.load(std::memory_order_acquire)) return SendResult::dropped;
    if (entry.by_peer && colo::now() >= lease()) {
        ++counters_.lease_stopped;
        return SendResult::dropped;
    }
    return nic.wire->send(entry.frame->view());
}

void RuntimeImpl::send_waiting(Time now)
{
    for (std::size_t i = 0; i < nics_.size(); ++i) {
        Nic& n = nics_[i];
        if (n.wire_queue.due() <= now) {
            const auto r = n.wire_queue.drain(now, [&](const SendQueue::Entry& e) { return put_on_wire(n, e); });
            if (!r && !n.wire_failed) port_failed(i, true, r.error());
        }
        if (!n.flushed) {
            const auto flushed = n.port->flush();
            n.flushed = !flushed || *flushed;
            if (!flushed && n.port_registered >= 0) port_failed(i, false, flushed.error());
        }
        if (n.guest_queue.due() > now) continue;
        const auto r = n.guest_queue.drain(now, [&](const SendQueue::Entry& e) {
            n.flushed = false;
            return n.port->send(e.frame->view());
        });
        if (!r && n.port_registered >= 0) port_failed(i, false, r.error());
    }
}

// What S took part in and has not left yet. The session is closed, or the output is: the client asks again.
void RuntimeImpl::drop_released()
{
    for (Nic& nic : nics_) nic.wire_queue.drop_if([](const SendQueue::Entry& entry) { return entry.by_peer; });
}

void RuntimeImpl::mirror(std::uint8_t nic, Epoch epoch, std::uint64_t number, const FramePtr& frame)
{
    // Not sent: S sees the gap in the numbers and reports nothing as journalled until a checkpoint contains it.
    if (!channel_ || !channel_->send_input(nic, epoch, number, frame->view())) ++counters_.mirror_dropped;
}

void RuntimeImpl::output(std::uint8_t nic, Epoch epoch, const FramePtr& frame)
{
    if (!channel_ || !channel_->send_output(nic, epoch, frame->view())) ++counters_.output_dropped;
}

void RuntimeImpl::journalled(Epoch epoch, std::uint64_t number)
{
    if (channel_) channel_->send_journalled(epoch, number, now_);
}

void RuntimeImpl::start_announcing(Generation generation)
{
    announcing_ = {generation, options_.announce.rounds, 0, now_};
    announce_due(now_);
}

void RuntimeImpl::announce_due(Time now)
{
    if (announcing_.rounds_left == 0 || now < announcing_.next || !primary_) return;
    send_announcements();
    const AnnounceSchedule& schedule = options_.announce;
    const Duration gap = std::min(schedule.initial + schedule.step * announcing_.round, schedule.max);
    ++announcing_.round;
    --announcing_.rounds_left;
    announcing_.next = announcing_.rounds_left == 0 ? kNever : now + gap;
}

void RuntimeImpl::send_announcements()
{
    for (std::size_t nic = 0; nic < nics_.size(); ++nic)
        for (const FramePtr& frame : primary_->announcements(static_cast<std::uint8_t>(nic))) {
            to_wire(static_cast<std::uint8_t>(nic), frame, ReleaseReason::announcement(announcing_.generation));
            ++counters_.announcements;
        }
}

void RuntimeImpl::publish_stats(Time now)
{
    stats_due_ = now + kStatsEvery;
    RuntimeStats stats = counters_;
    stats.role = role_;
    stats.clients = clients_.list();
    if (primary_) stats.core = primary_->stats();
    if (secondary_) stats.core = secondary_->stats();
    for (const Nic& nic : nics_) {
        stats.ports.push_back(nic.port->stats());
        stats.wires.push_back(nic.wire->stats());
        stats.ports.back().dropped_full += nic.guest_queue.dropped();
        stats.wires.back().dropped_full += nic.wire_queue.dropped();
        stats.carrier.push_back(nic.wire->carrier());
    }
    stats.channel_bytes_sent = sent_before_ + (channel_ ? channel_->bytes_sent() : 0);
    stats.channel_bytes_received = received_before_ + (channel_ ? channel_->bytes_received() : 0);
    stats.channel_backlog_bytes = channel_ ? channel_->backlog_bytes() : 0;
    const std::lock_guard lock(stats_mutex_);
    published_ = std::move(stats);
}

}  // namespace colo::proxy
