// SPDX-License-Identifier: Apache-2.0
#include "world.h"

namespace colo::sim {

void World::crash(int host, bool power_lost)
{
    if (!hosts_[host]->alive()) return;
    ++faults_;
    ++destroyed_;
    if (!has_copy(1 - host) || destroyed_ > 1) {
        // Two hits without a whole copy in between may end the guest; then only safety is checked.
        if (has_copy(host) && !has_copy(1 - host)) {
            guest_lost_ = true;
            client_->give_up();
        }
    }
    hosts_[host]->crash(power_lost);
    restart_at_[host] = scheduler_.now() + random_.between(120'000, 600'000);
}

void World::strike(int host, FaultKind kind)
{
    Host& victim = *hosts_[host];
    if (kind != FaultKind::power_loss && kind != FaultKind::kill_process) ++faults_;
    const Time now = scheduler_.now();
    const auto connection = victim.connection();
    const auto any_stream = [&] {
        return connection ? connection->from[random_.below(2)][random_.below(kStreams)] : std::shared_ptr<Stream>{};
    };
    const auto reset = [&](std::size_t stream) {
        if (!connection) return;
        connection->from[0][stream]->reset();
        connection->from[1][stream]->reset();
    };
    switch (kind) {
    case FaultKind::power_loss: return crash(host, true);
    case FaultKind::kill_process: return crash(host, false);
    case FaultKind::short_stall: return victim.freeze(random_.between(5'000, 70'000));
    case FaultKind::long_stall: return victim.freeze(random_.between(150'000, random_.chance(0.1) ? 10'000'000 : 2'000'000));
    case FaultKind::partition:
        for (Path& path : paths_) path.blocked_until = now + random_.between(50'000, 900'000);
        return;
    case FaultKind::outgoing_lost: paths_[host].blocked_until = now + random_.between(50'000, 900'000); return;
    case FaultKind::incoming_lost: paths_[1 - host].blocked_until = now + random_.between(50'000, 900'000); return;
    case FaultKind::control_reset: return reset(0);
    case FaultKind::proxy_reset: return reset(1);
    case FaultKind::page_reset: return reset(2 + random_.below(kPageChannels));
    case FaultKind::bit_flip:
        if (const auto stream = any_stream()) stream->damage_next();
        return;
    case FaultKind::truncate:
        if (const auto stream = any_stream()) stream->truncate_next();
        return;
    case FaultKind::channel_stalls:
        if (const auto stream = any_stream()) stream->stall(now + random_.between(20'000, 600'000));
        return;
    case FaultKind::beat_noise:
        for (Path& path : paths_) {
            path.datagram_loss = 0.25;
            path.datagram_duplicate = 0.3;
            path.datagram_damage = 0.1;
            path.reorder = true;
        }
        return;
    case FaultKind::client_noise:
        network_.loss = 0.04;
        network_.duplicate = 0.05;
        network_.jitter = Duration{3'000};
        return;
    case FaultKind::guest_dies:
        ++destroyed_;
        if (has_copy(host) && !has_copy(1 - host)) {
            guest_lost_ = true;
            client_->give_up();
        }
        return victim.guest().die("killed");
    case FaultKind::guest_slow: {
        const Duration d = random_.chance(0.5) ? random_.between(3'000, 60'000) : random_.between(100'000, 3'000'000);
        for (const char* operation : {"stop", "save", "load", "cont"})
            if (random_.chance(0.4)) victim.guest().inject(operation, {SimGuest::Fault::Kind::slow, d});
        if (random_.chance(0.3)) victim.hang_guest_counter(d);
        return;
    }
    case FaultKind::guest_refuses:
        for (const char* operation : {"stop", "save", "load", "cont"})
            if (random_.chance(0.4)) victim.guest().inject(operation, {SimGuest::Fault::Kind::error, {}});
        return;
    case FaultKind::storage_fails:
        if (random_.chance(0.5)) victim.fail_next_persist();
        else victim.slow_next_persist(random_.between(5'000, 800'000));
        return;
    case FaultKind::arbiter_hangs:
        arbiter_.hangs = true;
        scheduler_.after(random_.between(100'000, 700'000), [this] { arbiter_.hangs = false; });
        for (Path& path : paths_) path.blocked_until = now + random_.between(120'000, 500'000);
        return;
    case FaultKind::operator_both:
        (void)hosts_[1 - host]->alive();
        if (hosts_[1 - host]->alive() && !hosts_[1 - host]->frozen())
            (void)hosts_[1 - host]->with_node([](Node& n, Time t) { return n.lost_heartbeat(t); });
        [[fallthrough]];
    case FaultKind::operator_failover:
        if (!victim.frozen() && settings_.node.arbiter != ArbiterKind::manual)
            (void)victim.with_node([](Node& n, Time t) { return n.lost_heartbeat(t); });
        return;
    case FaultKind::stale_chunk: return victim.inject_stale_chunk();
    }
}

}  // namespace colo::sim
