// SPDX-License-Identifier: Apache-2.0
#include "world.h"

namespace colo::sim {

void World::crash(int host, bool power_lost)
{
    if (!hosts_[host]->alive()) return;
    ++faults_;
    disaster();
    lose_copy(host);
    hosts_[host]->crash(power_lost);
    restart_at_[host] = scheduler_.now() + random_.between(120'000, 600'000);
}

// The only whole copy is hit: the guest may be gone for good. Then only safety is checked.
void World::lose_copy(int host)
{
    if (has_copy(host) && !has_copy(1 - host)) lose_guest();
}

void World::lose_guest()
{
    guest_lost_ = true;
    client_->give_up();
}

// With a manual arbiter the operator's word counts, so he says it only while he sees both sides.
void World::command_failover(int host)
{
    const bool clear = paths_[0].blocked_until <= scheduler_.now() && paths_[1].blocked_until <= scheduler_.now() &&
                       hosts_[1 - host]->alive() && !hosts_[1 - host]->frozen();
    if (!hosts_[host]->alive() || hosts_[host]->frozen()) return;
    if (settings_.node.arbiter == ArbiterKind::manual && !clear) return;
    (void)hosts_[host]->with_node([](Node& n, Time t) { return n.lost_heartbeat(t); });
}

// Where the domain may be stopped, he stops it; whoever serves later is told to let it run again.
void World::pause_domain(int victim)
{
    for (const int host : {victim, 1 - victim}) {
        if (!hosts_[host]->alive() || hosts_[host]->frozen() || !hosts_[host]->pause(true)) continue;
        resume_after_ = scheduler_.now() + random_.between(1'000, random_.chance(0.5) ? 40'000 : 500'000);
        return;
    }
}

void World::resume_domain()
{
    if (scheduler_.now() < resume_after_) return;
    for (auto& host : hosts_) {
        if (!host->alive() || host->frozen() || host->status().power != replication::PowerState::paused) continue;
        if (host->pause(false)) return;   // looked at again: the guest may refuse, or be lost with its host meanwhile
    }
    for (auto& host : hosts_)
        if (host->alive() && host->status().power == replication::PowerState::paused) return;
    resume_after_ = kNever;
}

// R9 for a stopped domain: where it counts as paused, it does not run. A moment is for the stop itself, or for the cut that
// is under way.
void World::check_paused(int i)
{
    Host& host = *hosts_[i];
    const bool wrong = host.alive() && !host.frozen() && host.status().power == replication::PowerState::paused &&
                       host.guest().running();
    if (!wrong) paused_runs_since_[i] = kNever;
    else if (paused_runs_since_[i] == kNever) paused_runs_since_[i] = scheduler_.now();
    else if (scheduler_.now() - paused_runs_since_[i] > Duration{150'000})
        model_.violation("R9: a domain that was stopped by the operator runs on host " + std::string(i == 0 ? "A" : "B"));
}

// The protection is ended for it. A second wish, or every fourth one a little later, is that it had better not be.
void World::want_migration(int host)
{
    for (auto& h : hosts_) {
        if (!h->alive() || h->frozen() || !h->status().migrating) continue;
        (void)h->with_node([](Node& n, Time t) {
            n.cancel_session("the operator changed his mind", t);
            return 0;
        });
        return;
    }
    if (!hosts_[host]->alive() || hosts_[host]->frozen()) return;
    migrate_next_ = true;
    (void)hosts_[host]->with_node([](Node& n, Time t) { return n.unprotect(t); });
    if (random_.chance(0.25)) scheduler_.after(random_.between(20'000, 60'000), [this, host] {
        if (hosts_[host]->alive() && hosts_[host]->status().migrating) want_migration(host);
    });
}

// The source of a migration has the guest until a lock says that the destination took it.
bool World::may_take_back(int i) const
{
    const auto granted = arbiter_.granted.find(hosts_[i]->status().generation + 1);
    return settings_.node.arbiter == ArbiterKind::lock && hosts_[i]->guest().state() == SimGuest::State::stopped &&
           (granted == arbiter_.granted.end() || granted->second == i);
}

// R1 for a migration: while it lasts one copy runs at most, and the one that was given away not at all.
void World::run_migration()
{
    bool migrating = false;
    int running = 0;
    for (auto& host : hosts_) {
        if (!host->alive()) continue;
        const NodeStatus status = host->status();
        migrating = migrating || status.migrating;
        if (host->guest().running()) ++running;
        // It gave the guest away to a host that is no more, and nobody can say whether that one ran: an operator has to decide.
        if (status.migrating && status.step == "abdicating" && !host->peer->alive() && !may_take_back(host == hosts_[1]) && !guest_lost_) lose_guest();
        if (status.migrated && host->guest().running()) model_.violation("R1: a guest that was migrated away runs");
        if (status.step == "pre-switchover" && !host->frozen() && random_.chance(0.05))
            (void)host->with_node([](Node& n, Time t) {
                n.switch_over(t);
                return 0;
            });
    }
    if (migrating && running > 1) model_.violation("R1: both copies of a guest that is migrated run");
}

void World::block(int from, Duration d)
{
    disaster();
    paths_[from].blocked_until = std::max(paths_[from].blocked_until, scheduler_.now() + d);
}

void World::block_both(Duration d)
{
    block(0, d);
    block(1, d);
    --disasters_;   // one event
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
    case FaultKind::long_stall:
        disaster();
        return victim.freeze(random_.between(150'000, random_.chance(0.1) ? 6'000'000 : 1'500'000));
    case FaultKind::partition:
        return block_both(random_.between(50'000, 900'000));
    case FaultKind::outgoing_lost: return block(host, random_.between(50'000, 900'000));
    case FaultKind::incoming_lost: return block(1 - host, random_.between(50'000, 900'000));
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
        disaster();
        lose_copy(host);
        return victim.guest().die("killed");
    case FaultKind::guest_slow: {
        disaster();
        if (!has_copy(1 - host)) ++disasters_;   // too slow for the patience with the only one there is: it may be lost
        const Duration d = random_.chance(0.5) ? random_.between(3'000, 60'000) : random_.between(100'000, 3'000'000);
        for (const char* operation : {"stop", "save", "load", "cont"})
            if (random_.chance(0.4)) victim.guest().inject(operation, {SimGuest::Fault::Kind::slow, d});
        if (random_.chance(0.3)) victim.hang_guest_counter(d);
        return;
    }
    case FaultKind::guest_refuses:
        disaster();
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
        return block_both(random_.between(120'000, 500'000));
    case FaultKind::operator_both:
        command_failover(1 - host);
        return command_failover(host);
    case FaultKind::operator_failover: return command_failover(host);
    case FaultKind::stale_chunk: return victim.inject_stale_chunk();
    case FaultKind::operator_pauses: return pause_domain(host);
    case FaultKind::operator_migrates: return want_migration(server() < 0 ? host : server());
    case FaultKind::port_fails:
        disaster();
        return victim.fail_port(random_.between(20'000, 900'000));
    }
}

}  // namespace colo::sim
