// SPDX-License-Identifier: Apache-2.0
#include "world.h"

#include "core/breakage.h"

#include <algorithm>

namespace colo::sim {

namespace {
constexpr Duration kMs{1000};
}

World::World(const RunOptions& options)
    : options_(options), random_(options.seed), model_(scheduler_), network_(scheduler_, Random(mix(options.seed, 11)))
{
    model_.tracing = options.trace;
    cell_index_ = options.seed % all_cells().size();
    cell_ = &all_cells()[cell_index_];
    draw_settings();
    network_.to_host = [this](int host, ByteView frame) { hosts_[host]->wire_frame(frame); };
    client_ = std::make_unique<Client>(
        scheduler_, Random(mix(options.seed, 12)), [this](ByteView f) { network_.from_client(f); },
        [this](const std::string& text) { model_.violation(text); });
    network_.to_client = [this](ByteView frame) { client_->receive(frame); };
    client_->time_share = random_.chance(0.5) ? 0.02 : 0.25;
    if (client_uploads_) {
        client_->upload_share = 0.6;
        client_->segment_gap = Duration{2500};
    }
    client_->pause = random_.between(500, 8000);
    for (int i = 0; i < 2; ++i)
        hosts_[i] = std::make_unique<Host>(
            i, Surroundings{scheduler_, model_, network_, arbiter_, settings_, {&paths_[0], &paths_[1]},
                            [this](int host, const std::string& step) { on_step(host, step); }, [](int) {}},
            options.seed);
    hosts_[0]->peer = hosts_[1].get();
    hosts_[1]->peer = hosts_[0].get();
}

void World::draw_settings()
{
    Random& r = random_;
    settings_.pages = 64 + r.below(64);
    settings_.dirty_pages = static_cast<std::uint32_t>(r.below(6));
    settings_.eager = r.chance(0.5);
    settings_.extra_precapture = r.chance(0.5);
    for (int i = 0; i < 2; ++i) {
        settings_.clock_drift[i] = (static_cast<double>(r.below(2001)) - 1000.0) / 100'000.0;   // within 1 %
        settings_.clock_offset[i] = static_cast<std::int64_t>(r.below(1'000'000'000));
    }
    settings_.compression = r.chance(0.2) ? replication::Compression::zstd : replication::Compression::none;
    NodeConfig& n = settings_.node;
    n.domain_name = "sim";
    n.arbiter = r.chance(0.8) ? ArbiterKind::lock : ArbiterKind::manual;
    n.arbiter_digest = "sim";
    n.checkpoint_interval = r.between(12'000, 50'000);
    if (r.chance(0.25)) n.checkpoint_interval = r.between(60'000, 200'000);
    if (r.chance(0.3)) settings_.port_loss = 0.03;
    if (settings_.port_loss > 0 && r.chance(0.7)) {
        settings_.port_loss = 0.08;
        client_uploads_ = true;
    }
    if (r.chance(0.4)) settings_.port_delay = Duration{700};
    n.checkpoint_interval_min = r.between(3'000, 10'000);
    n.buffered_interval_min = r.between(2'000, 8'000);
    n.pause_bound = Duration{20'000};
    n.guest_answer = Duration{100'000};
    n.hello_deadline = Duration{400'000};
    n.first_copy_deadline = Duration{2'000'000};
    n.transfer_deadline = n.staged_deadline = n.apply_deadline = Duration{250'000};
    n.resign_deadline = Duration{200'000};
    n.grant_retry = Duration{50'000};
    n.mismatch_budget = static_cast<std::uint32_t>(2 + r.below(8));
    n.mismatch_window = Duration{200'000};
    n.calm_initial = r.between(80'000, 400'000);
    n.calm_max = Duration{1'000'000};
    n.allow_buffered = r.chance(0.6);
    n.always_buffered = r.chance(0.12);
    // In buffered mode nothing is loaded until the take-over.
    const bool loads = !cell_->primary && (cell_->step == "job:load" || cell_->step == "job:cont" || cell_->approach == Approach::refused_load);
    if (loads) n.allow_buffered = n.always_buffered = false;
    for (Path& p : paths_) {
        p.delay = r.between(40, 600);
        p.jitter = r.between(10, 400);
    }
    network_.delay = r.between(50, 400);
    network_.jitter = r.between(20, 300);
    if (r.chance(0.3)) network_.loss = 0.01;
    if (r.chance(0.3)) network_.duplicate = 0.02;
}

Outcome World::run()
{
    hosts_[0]->start(StartIntent::primary);
    hosts_[1]->start(StartIntent::secondary);
    scheduler_.after(3 * kMs, [this] { client_->start(3 + random_.below(3)); });
    scheduler_.after(kMs, [this] { supervise(); });
    enter(1);
    const Time end = scheduler_.now() + Duration{40'000'000};
    while (!done_ && !model_.failed() && scheduler_.now() < end && scheduler_.step(end)) {}
    if (!done_ && !model_.failed()) model_.violation("Inv13: the run does not come to an end, act " + std::to_string(act_));
    Outcome out;
    out.violations = model_.violations();
    out.trace_hash = model_.trace_hash();
    out.epochs = model_.epochs;
    out.answers = client_->answers();
    out.events = scheduler_.events();
    out.sessions = model_.sessions;
    out.faults = faults_;
    out.takeovers = takeovers_;
    out.migrations = model_.migrations;
    out.cell_hit = fired_;
    out.cell = cell_index_;
    for (auto& host : hosts_)
        if (host->alive()) host->crash(true);
    return out;
}

// ---- acts -------------------------------------------------------------------------------------------------------------

void World::enter(int next)
{
    act_ = next;
    act_since_ = scheduler_.now();
    act_epochs_ = model_.epochs;
    model_.note(-1, "act " + std::to_string(next));
}

bool World::until(bool condition, Duration patience, const char* what)
{
    if (condition) return true;
    if (scheduler_.now() - act_since_ > patience) {
        model_.violation(std::string("Inv13: ") + what + " took too long: A " + hosts_[0]->status().step + ", B " +
                         hosts_[1]->status().step + client_->waiting_for());
        done_ = true;
    }
    return false;
}

void World::act()
{
    const bool protected_now = server() >= 0 && hosts_[server()]->status().protection == Protection::in_sync;
    const Time quiet = last_disaster_ + Duration{400'000};
    const bool whole = protected_now && hosts_[1 - server()]->alive() && hosts_[1 - server()]->status().eligible &&
                       scheduler_.now() > quiet;
    if (whole) disasters_ = 0;
    switch (act_) {
    case 1:
        if (!until(model_.epochs >= 20 && protected_now, Duration{20'000'000}, "reaching twenty epochs")) return;
        sessions_before_ = model_.sessions;
        countdown_ = 1 + static_cast<int>(random_.below(cell_->approach == Approach::none ? 4 : 1));
        armed_ = true;
        return enter(2);
    case 2:
        if (!approached_) {
            approached_ = true;
            approach();
        }
        if (fired_) return enter(3);
        // Not every approach leads to its step every time.
        if (scheduler_.now() - act_since_ > Duration{1'500'000} && whole && attempts_ < 5) {
            ++attempts_;
            countdown_ = 1;
            armed_ = true;
            approached_ = false;
            act_since_ = scheduler_.now();
        } else if (scheduler_.now() - act_since_ > Duration{4'000'000}) {
            armed_ = false;
            enter(3);
        }
        return;
    case 3:
        // Two disasters in a row may leave nobody who may run; nobody must run then.
        if (server() < 0 && disasters_ >= 2 && !guest_lost_ && scheduler_.now() - act_since_ > Duration{6'000'000}) lose_guest();
        if (guest_lost_ && server() < 0 && scheduler_.now() - act_since_ > Duration{1'500'000}) {
            done_ = true;   // nothing is left to lose, and nobody ran what must not run
            return;
        }
        if (fired_ && is_benign(cell_->fault) && cell_->approach == Approach::none && model_.sessions != sessions_before_)
            model_.violation("Inv13: protection was lost by " + std::string(to_string(cell_->fault)));
        if (!until(protected_now && model_.epochs - act_epochs_ >= 5, Duration{12'000'000}, "recovery")) return;
        for (auto& host : hosts_) {
            host->heal();
            if (host->alive()) host->guest().forget_faults();
        }
        second_loss_ = random_.chance(0.6) || faults_ == 0;
        if (second_loss_) lose_primary();
        return enter(4);
    case 4:
        if (second_loss_ && !until(server() >= 0 && scheduler_.now() - act_since_ > Duration{20'000}, Duration{5'000'000}, "the second take-over")) return;
        protect_ = random_.chance(0.5);
        if (scheduler_.now() - act_since_ < Duration{300'000}) return;
        client_->drain();
        return enter(5);
    case 5:
        if (guest_lost_) {
            done_ = true;
            return;
        }
        if (!until(client_->idle(), Duration{8'000'000}, "serving the clients to the end")) return;
        protect_ = true;
        return enter(6);
    case 6:
        if (random_.chance(0.6) && act_since_ + kMs > scheduler_.now()) done_ = true;
        else if (until(whole, Duration{8'000'000}, "protection before the epilogue")) random_.chance(0.5) ? power_off() : lose_everything();
        return;
    default: return epilogue();
    }
}

// ---- epilogues --------------------------------------------------------------------------------------------------------

// R9: the guest switches itself off; losing the primary afterwards must not bring it back.
void World::power_off()
{
    protect_ = false;
    victim_ = server();
    hosts_[victim_]->guest().power_off();
    enter(7);
}

// Inv19: both hosts lose power at once.
void World::lose_everything()
{
    protect_ = false;
    for (auto& host : hosts_) host->crash(true);
    client_->give_up();
    for (Time& t : restart_at_) t = kNever;
    enter(9);
}

void World::epilogue()
{
    const Duration passed = scheduler_.now() - act_since_;
    Host& other = *hosts_[1 - std::max(victim_, 0)];
    switch (act_) {
    case 7:
        if (passed < Duration{400'000}) return;
        if (other.guest().running()) model_.violation("R9: the guest is off on the primary and runs on the secondary");
        hosts_[victim_]->crash(true);
        return enter(8);
    case 8: {
        if (settings_.node.arbiter == ArbiterKind::manual && other.status().step == "asking") operator_decides(1 - victim_);
        if (passed < Duration{700'000}) return;
        if (other.guest().running()) model_.violation("R9: a guest that switched itself off was resurrected");
        if (other.status().step != "alone") model_.violation("R9: the secondary did not take over a guest that is off: " + other.status().step);
        done_ = true;
        return;
    }
    case 9:
        if (passed < Duration{100'000}) return;
        for (auto& host : hosts_) host->start(StartIntent::primary);
        return enter(10);
    case 10:
        if (passed < Duration{50'000}) return;
        for (auto& host : hosts_)
            if (host->serving()) model_.violation("Inv19: a copy runs after a power loss of both hosts without anybody's decision");
        model_.data_loss_accepted = true;
        victim_ = static_cast<int>(random_.below(2));
        (void)hosts_[victim_]->with_node([](Node& n, Time t) { return n.failover(true, t); });
        protect_ = true;   // the other one is made a secondary by the operator
        return enter(11);
    default:
        if (!until(hosts_[victim_]->serving() && hosts_[1 - victim_]->status().eligible, Duration{3'000'000}, "starting over after a power loss")) return;
        done_ = true;
    }
}

int World::server() const
{
    for (int i = 0; i < 2; ++i)
        if (hosts_[i]->alive() && !hosts_[i]->frozen() && hosts_[i]->serving()) return i;
    return -1;
}

bool World::has_copy(int i) const
{
    if (!hosts_[i]->alive()) return false;
    const NodeStatus s = hosts_[i]->status();
    if (s.role == Role::secondary) return s.eligible;
    if (s.migrating && s.step == "abdicating") return may_take_back(i);
    return s.protection != Protection::outdated && s.protection != Protection::failed && s.protection != Protection::abdicated &&
           s.protection != Protection::idle;
}

void World::approach()
{
    const int p = server();
    if (p < 0) return;
    const int s = 1 - p;
    switch (cell_->approach) {
    case Approach::none: return;
    case Approach::new_session:
        // The secondary dies, the primary gets a new generation, the secondary comes back: a whole new session.
        return crash(s, true);
    case Approach::aborted_cut:
        return hosts_[p]->guest().inject("save", {SimGuest::Fault::Kind::slow, Duration{40'000}});
    case Approach::refused_load: return hosts_[s]->guest().inject("load", {SimGuest::Fault::Kind::error, {}});
    case Approach::peer_lost:
        if (random_.chance(0.4) && (cell_->step == std::string("closing") || cell_->step == std::string("asking"))) {
            ++faults_;
            return block_both(random_.between(150'000, 700'000));
        }
        // Only a connection that ends at once is noticed before the lease has run out.
        return crash(cell_->primary ? s : p, cell_->step != "lease-wait" && random_.chance(0.6));
    case Approach::resignation:
        (void)hosts_[p]->with_node([](Node& n, Time t) { return n.lost_heartbeat(t); });
        return;
    case Approach::abdication:
        (void)hosts_[s]->with_node([](Node& n, Time t) { return n.lost_heartbeat(t); });
        return;
    case Approach::migration: return want_migration(p);
    }
}

void World::on_step(int host, const std::string& step)
{
    if (!armed_ || step != cell_->step || !hosts_[host]->alive()) return;
    const Role role = hosts_[host]->status().role;
    if (role != (cell_->primary ? Role::primary : Role::secondary)) return;
    if (--countdown_ > 0) return;
    armed_ = false;
    scheduler_.after(random_.chance(0.6) ? random_.between(0, 60) : random_.between(0, 2000), [this, host] { fire(host); });
}

void World::fire(int host)
{
    if (!hosts_[host]->alive()) return;
    fired_ = true;
    model_.note(host, "FAULT " + cell_->name());
    strike(host, cell_->fault);
}

void World::lose_primary()
{
    const int p = server();
    if (p < 0) return;
    model_.note(p, "second loss");
    // A manual operator does not vouch for a host that may wake up: the run would wait for it.
    if (settings_.node.arbiter != ArbiterKind::manual && random_.chance(0.3)) strike(p, FaultKind::long_stall);
    else if (random_.chance(0.3)) strike(p, FaultKind::guest_dies);
    else strike(p, FaultKind::power_loss);
}

// ---- operator ---------------------------------------------------------------------------------------------------------

void World::supervise()
{
    resume_domain();
    run_migration();
    for (int i = 0; i < 2; ++i) {
        supervise_host(i);
        check_paused(i);
    }
    const int s = server();
    if (s >= 0 && last_server_ >= 0 && s != last_server_) ++takeovers_;
    if (s >= 0) last_server_ = s;
    protect_again();
    act();
    if (!done_) scheduler_.after(kMs, [this] { supervise(); });
}

void World::supervise_host(int i)
{
    Host& host = *hosts_[i];
    Host& other = *hosts_[1 - i];
    const Time now = scheduler_.now();
    if (!host.alive()) {
        // It comes back as what its host's boot scripts say: as a primary, which refuses unless it was left cleanly; the
        // operator then makes it a secondary.
        if (now >= restart_at_[i]) {
            restart_at_[i] = kNever;
            const bool as_primary = host.stored().role == Role::primary && random_.chance(0.5) && host.stored().in_session;
            host.start(as_primary ? StartIntent::primary : StartIntent::secondary);
        }
        return;
    }
    if (host.frozen()) return;
    const NodeStatus status = host.status();
    if (status.step != "stopped") {
        stopped_since_[i] = kNever;
    } else if (other.alive() && other.serving() && !other.frozen()) {
        if (stopped_since_[i] == kNever) stopped_since_[i] = now;
        if (now - stopped_since_[i] > 40 * kMs) {
            stopped_since_[i] = kNever;
            (void)host.with_node([&](Node& n, Time t) {
                n.start(host.stored(), StartIntent::secondary, t);
                return 0;
            });
        }
    }
    if (settings_.node.arbiter == ArbiterKind::manual && status.step == "asking") operator_decides(i);
}

// Manual arbiter: the operator looks at the other host and vouches for what he sees.
void World::operator_decides(int i)
{
    Host& other = *hosts_[1 - i];
    const bool other_cannot_run =
        !other.alive() || (!other.frozen() && (other.status().step == "stopped" || other.status().step == "standby" ||
                                               other.status().step == "preparing"));
    const bool both_wait = other.alive() && !other.frozen() && other.status().step == "asking" && i == 0;
    if (!other_cannot_run && !both_wait) return;
    // He remembers whom he sent alone: that one has served since, whatever became of it, and this copy is an old one.
    const auto [sent, fresh] = vouched_.try_emplace(hosts_[i]->status().generation + 1, i);
    if (!fresh && sent->second != i) return lose_guest();
    model_.note(i, "operator: the other copy does not run");
    (void)hosts_[i]->with_node([](Node& n, Time t) { return n.lost_heartbeat(t); });
}

void World::protect_again()
{
    const Time now = scheduler_.now();
    if (!protect_ || now < protect_after_) return;
    for (int p = 0; p < 2; ++p) {
        Host& primary = *hosts_[p];
        Host& secondary = *hosts_[1 - p];
        if (!primary.alive() || !secondary.alive() || primary.frozen() || secondary.frozen()) continue;
        if (primary.status().step != "alone" || secondary.status().step != "standby" || primary.has_connection()) continue;
        if (paths_[0].blocked_until > now || paths_[1].blocked_until > now) continue;
        protect_after_ = now + 20 * kMs;
        auto connection = std::make_shared<Connection>();
        for (int from = 0; from < 2; ++from)
            for (auto& stream : connection->from[from])
                stream = std::make_shared<Stream>(scheduler_, Random(random_.next()), paths_[from]);
        const SessionId session = ++next_session_;
        SessionPlan plan;
        if (std::exchange(migrate_next_, false)) {
            plan.kind = SessionKind::migration;
            plan.pause_before_switchover = cell_->step == "pre-switchover" || random_.chance(0.3);
            model_.note(p, "operator: migrate");
        }
        secondary.connect(connection, session, nullptr);
        primary.connect(connection, session, &plan);
        return;
    }
}

}  // namespace colo::sim
