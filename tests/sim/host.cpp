// SPDX-License-Identifier: Apache-2.0
#include "host.h"

#include "core/breakage.h"

#include <algorithm>

namespace colo::sim {

namespace {
constexpr std::size_t kControl = 0, kProxy = 1;
template <class... F> struct Overloaded : F... { using F::operator()...; };
template <class... F> Overloaded(F...) -> Overloaded<F...>;
constexpr const char* kUuid = "01234567-89ab-cdef-0123-456789abcdef";
}  // namespace

Host::Host(int index, Surroundings surroundings, std::uint64_t seed)
    : index_(index), surroundings_(std::move(surroundings)), random_(mix(seed, static_cast<std::uint64_t>(index) + 77))
{
    stored_.domain_uuid = kUuid;
}

Host::~Host() = default;

// ---- time and lanes ---------------------------------------------------------------------------------------------------

Time Host::local_now() const
{
    const auto i = static_cast<std::size_t>(index_);
    const double t = static_cast<double>(surroundings_.scheduler.now().us) * (1.0 + surroundings_.settings.clock_drift[i]);
    return Time{static_cast<std::int64_t>(t) + surroundings_.settings.clock_offset[i]};
}

Time Host::to_global(Time local) const
{
    const auto i = static_cast<std::size_t>(index_);
    const double t = static_cast<double>(local.us - surroundings_.settings.clock_offset[i]) / (1.0 + surroundings_.settings.clock_drift[i]);
    return Time{static_cast<std::int64_t>(t) + 1};
}

void Host::after(Lane lane, Duration d, std::function<void()> run)
{
    surroundings_.scheduler.after(d, [this, lane, incarnation = incarnation_, run = std::move(run)]() mutable {
        dispatch(lane, incarnation, std::move(run));
    });
}

// A frozen host does its work later; its threads wake in any order.
void Host::dispatch(Lane lane, std::uint64_t incarnation, std::function<void()> run)
{
    if (incarnation != incarnation_ || !life_) return;
    const Time wakes = frozen_until_ + lane_delay_[static_cast<std::size_t>(lane)];
    if (surroundings_.scheduler.now() < wakes && frozen_until_.us != 0)
        return surroundings_.scheduler.at(wakes, [this, lane, incarnation, run = std::move(run)]() mutable {
            dispatch(lane, incarnation, std::move(run));
        });
    run();
}

void Host::freeze(Duration d)
{
    if (!life_) return;
    note("frozen for " + std::to_string(d.count() / 1000) + " ms");
    frozen_until_ = std::max(frozen_until_, surroundings_.scheduler.now() + d);
    for (Duration& delay : lane_delay_) delay = random_.between(0, 300);
}

void Host::on_proxy(std::function<void()> run)
{
    last_proxy_post_ = std::max(last_proxy_post_, surroundings_.scheduler.now() + random_.between(0, 25));
    after(Lane::proxy, last_proxy_post_ - surroundings_.scheduler.now(), std::move(run));
}

void Host::guest_job(std::function<void()> job)
{
    life_->fiber->post(std::move(job));
}

// ---- life -------------------------------------------------------------------------------------------------------------

void Host::make_guest()
{
    Life& l = *life_;
    l.fiber = std::make_unique<Fiber>([this](Duration d, std::function<void()> run) { after(Lane::guest, d, std::move(run)); });
    GuestSurroundings g;
    g.local_now = [this] { return local_now(); };
    g.after = [this](Duration d, std::function<void()> run) { after(Lane::guest, d, std::move(run)); };
    g.fiber = l.fiber.get();
    g.random = &random_;
    g.on_operation = [this](const std::string& name) { step("job:" + name); };
    g.transmitted = [this](bool first) {
        life_->sent_load_counts.push_back(life_->load_count);
        if (first) after(Lane::proxy, random_.between(10, surroundings_.settings.port_delay.count()), [this] { drain_port(); });
    };
    g.disk_write = [this](std::uint32_t sector, std::uint64_t value) { return disk_write(sector, value); };
    g.disk_read = [this](std::uint32_t sector) { return disk_read(sector); };
    g.broken = [this](const std::string& text) { surroundings_.model.violation(text); };
    g.cut_state = [this] {
        surroundings_.model.cut_state(life_->session, life_->cutting, life_->guest->ram(), life_->guest->registers());
    };
    l.guest = std::make_unique<SimGuest>(surroundings_.settings.pages, std::move(g), surroundings_.settings.dirty_pages);
    l.guest->set_event_handler([this](replication::GuestEvent event) {
        after(Lane::control, Duration{30}, [this, event] { feed([&](Node& n, Time t) { n.guest_event(event, t); }); });
    });
}

void Host::start(StartIntent intent)
{
    ++incarnation_;
    life_ = std::make_unique<Life>();
    frozen_until_ = Time{};
    last_proxy_post_ = Time{};
    Life& l = *life_;
    NodeConfig config = surroundings_.settings.node;
    config.domain_uuid = kUuid;
    l.node = make_node(config);
    HeartbeatTimes times;
    times.interval = config.beat_interval;
    times.loss = config.beat_loss;
    times.lease = config.lease;
    l.heartbeat = std::make_unique<HeartbeatCore>(times, 2, *replication::parse_domain_id(kUuid));
    make_guest();
    note(std::string("start as ") + (intent == StartIntent::secondary ? "secondary" : "primary"));
    if (intent != StartIntent::secondary) l.primary_proxy = nullptr;
    after(Lane::beat, Duration{500}, [this] { beat_timer(); });
    after(Lane::proxy, Duration{700}, [this] { proxy_timer(); });
    feed([&](Node& n, Time t) { n.start(stored_, intent, t); });
}

void Host::crash(bool power_lost)
{
    if (!life_) return;
    note(power_lost ? "loses power" : "daemon and device model killed");
    ++incarnation_;
    if (life_->connection)
        for (const auto& stream : life_->connection->from[index_]) power_lost ? stream->host_gone() : stream->finish();
    life_->fiber->kill_all();
    life_.reset();
    surroundings_.changed(index_);
}

NodeStatus Host::status() const
{
    return life_ ? life_->node->status() : NodeStatus{};
}

bool Host::serving() const
{
    if (!life_ || !life_->primary_proxy || !life_->guest->running()) return false;
    const Protection p = status().protection;
    return status().role == Role::primary && (p == Protection::unprotected || p == Protection::syncing ||
                                              p == Protection::connecting || p == Protection::in_sync);
}

void Host::step(const std::string& what)
{
    surroundings_.on_step(index_, what);
}

void Host::feed(std::function<void(Node&, Time)> event)
{
    event(*life_->node, local_now());
    pump();
}

void Host::pump()
{
    for (auto actions = life_->node->take_actions(); !actions.empty(); actions = life_->node->take_actions())
        for (const Action& action : actions) perform(action);
    arm_timer();
    const std::string now_at = status().step;
    if (now_at != last_step_) {
        last_step_ = now_at;
        note("step " + now_at);
        step(now_at);
        surroundings_.changed(index_);
    }
}

void Host::arm_timer()
{
    const Time next = life_->node->next_deadline();
    const std::uint64_t ticket = ++timer_ticket_;
    if (next == kNever) return;
    const Duration wait = std::max(Duration{1}, to_global(next) - surroundings_.scheduler.now() + Duration{2});
    after(Lane::control, wait, [this, ticket] {
        if (ticket == timer_ticket_) feed([](Node& n, Time t) { n.tick(t); });
    });
}

// ---- actions ----------------------------------------------------------------------------------------------------------

void Host::perform(const Action& action)
{
    Life& l = *life_;
    std::visit(Overloaded{
                   [&](const action::Persist& a) { persist(a); },
                   [&](const action::Send& a) {
                       if (l.closed && !std::holds_alternative<replication::Hello>(a.message) &&
                           !std::holds_alternative<replication::Refuse>(a.message))
                           return;
                       if (!l.connection) return;
                       if (const auto* staged = std::get_if<replication::Staged>(&a.message))
                           surroundings_.model.staged_sent(l.session, staged->epoch);
                       if (const auto* begin = std::get_if<replication::Begin>(&a.message))
                           surroundings_.model.epoch_begun(l.session, begin->epoch);
                       note(std::string("send ") + replication::name_of(a.message) + " " + std::to_string(replication::epoch_of(a.message)));
                       Bytes bytes;
                       if (l.writers[kControl]->append_message(bytes, a.message)) send(kControl, std::move(bytes));
                   },
                   [&](const action::CloseSession& a) { close_session(a); },
                   [&](const action::RequestGrant& a) { ask(a); },
                   [&](const action::Beat& a) { l.heartbeat->become({a.role, a.generation, a.session, a.closed}, local_now()); },
                   [&](const action::Changed& a) { note(std::string("now ") + to_string(a.protection) + ": " + a.reason); },
                   [&](const action::OperatorDone& a) { operator_result = a.result; },
                   [&](const action::StopGuest& a) {
                       guest_job([this, only_copy = a.only_copy] {
                           const auto r = life_->guest->stop(local_now() + Duration{2'000'000});
                           if (!only_copy) return;
                           after(Lane::control, Duration{20}, [this, r, session = life_->session] {
                               if (session != life_->session) return;
                               feed([&](Node& n, Time t) { r ? n.guest_halted(t) : n.channel_lost(r.error().text, t); });
                           });
                       });
                   },
                   [&](const action::SwitchOver& a) {
                       if (a.waits && l.guest->running()) surroundings_.model.violation("pre-switchover is said of a guest that runs");
                   },
                   [&](const action::ResumeGuest&) {
                       guest_job([this] {
                           const auto r = run_resume(*life_->guest, local_now() + Duration{2'000'000});
                           if (!r) life_->guest->die("it does not resume: " + r.error().text);
                       });
                   },
                   [&](const action::KillGuest&) { l.guest->kill(); },
                   [&](const action::Migrated&) {
                       const bool source = l.node->status().migrated;
                       note(source ? "migrated away" : "migrated here");
                       if (source) surroundings_.model.source_said(l.migration, true);
                       else ++surroundings_.model.migrations;
                   },
                   [&](const action::SessionFailed& a) {
                       note("failed: " + a.reason);
                       if (l.node->status().role == Role::primary && l.migration != 0) surroundings_.model.source_said(l.migration, false);
                   },
                   [&](const action::ModeChanged& a) { note(std::string("mode ") + replication::to_string(a.mode)); },
                   [&](const auto&) {
                       perform_primary(action);
                       perform_secondary(action);
                   },
               },
               action);
}

bool Host::pause(bool paused)
{
    Result<void> allowed;
    feed([&](Node& n, Time t) { allowed = n.pause(paused, t); });
    if (!allowed) return false;
    note(paused ? "operator: stop" : "operator: cont");
    guest_job([this, paused] {
        const Time deadline = local_now() + Duration{2'000'000};
        const auto result = paused ? life_->guest->stop(deadline) : life_->guest->resume(deadline);
        if (result) return;
        after(Lane::control, Duration{20}, [this, paused] {
            feed([&](Node& n, Time t) { (void)n.pause(!paused, t); });
        });
    });
    return true;
}

void Host::fail_port(Duration d)
{
    feed([](Node& n, Time t) { n.ports("NIC net0: the wire is unusable", t); });
    after(Lane::control, d, [this] {
        feed([](Node& n, Time t) { n.ports("", t); });
    });
}

void Host::persist(const action::Persist& a)
{
    constexpr Duration kSlow{100'000};   // from then on it is said
    const Duration takes = random_.between(60, 700) + std::exchange(slow_persist_, Duration{0});
    if (takes > kSlow)
        after(Lane::control, kSlow, [this, token = a.token] {
            feed([&](Node& n, Time t) { n.persist_slow(token, "the state file is slow", t); });
        });
    const bool fails = std::exchange(fail_persist_, false);
    after(Lane::storage, takes, [this, a, fails] {
        if (!fails) stored_ = a.state;
        after(Lane::control, Duration{10}, [this, a, fails] {
            feed([&](Node& n, Time t) {
                n.persisted(a.token, fails ? Result<void>(make_error(Errc::failed, "no space left")) : Result<void>{}, t);
            });
        });
    });
}

void Host::close_session(const action::CloseSession& a)
{
    Life& l = *life_;
    note("close: " + a.why);
    const bool opened = !l.closed;
    l.closed = true;
    const Time last_answer = l.heartbeat->close_session(local_now());
    if (l.connection) {
        for (const auto& stream : l.connection->from[index_]) stream->finish();
        l.connection.reset();
    }
    l.finishing = 0;
    for (auto& queue : l.waiting_chunks) queue.clear();
    if (opened && l.primary_proxy) {
        on_proxy([this] {
            if (life_->primary_proxy) life_->primary_proxy->end_session(local_now());
        });
        guest_job([this] {
            if (!life_->closed) return;   // a new session is open already
            if (life_->engine) life_->guest->dirty_log().stop();
            life_->engine.reset();
            life_->engine_epoch = 0;
        });
    }
    on_proxy([this, last_answer] {
        after(Lane::control, Duration{5}, [this, last_answer] {
            feed([&](Node& n, Time t) { n.session_closed(last_answer, t); });
        });
    });
}

void Host::ask(const action::RequestGrant& a)
{
    after(Lane::storage, random_.between(300, 8000), [this, a] {
        SimArbiter& arbiter = surroundings_.arbiter;
        GrantOutcome outcome = GrantOutcome::unknown;
        if (!arbiter.hangs) {
            const auto [it, fresh] = arbiter.granted.try_emplace(a.generation, index_);
            outcome = fresh || it->second == index_ ? GrantOutcome::granted : GrantOutcome::refused;
        }
        note("generation " + std::to_string(a.generation) +
             (outcome == GrantOutcome::granted ? " granted" : outcome == GrantOutcome::refused ? " refused" : " unknown"));
        after(Lane::control, Duration{20}, [this, a, outcome] {
            feed([&](Node& n, Time t) { n.grant_result(a.generation, outcome, "sim", t); });
        });
    });
}

// ---- heartbeat --------------------------------------------------------------------------------------------------------

void Host::beat_timer()
{
    Life& l = *life_;
    ++l.progress;
    const bool hangs = local_now() < counter_hangs_until_;
    static constexpr std::uint64_t kStuck = 1;
    l.heartbeat->set_progress({l.progress + 1, l.progress + 1, hangs ? kStuck : l.progress + 1});
    if (const auto beat = l.heartbeat->on_timer(local_now())) {
        const replication::BeatBytes bytes = replication::encode(*beat);
        for (std::size_t path = 0; path < 2; ++path)
            send_datagram(surroundings_.scheduler, random_, *surroundings_.paths[index_], Bytes(bytes.begin(), bytes.end()),
                          [p = peer, path](ByteView d) { p->on_beat_datagram(path, d); });
    }
    take_heartbeat_news();
    after(Lane::beat, surroundings_.settings.node.beat_interval, [this] { beat_timer(); });
}

void Host::on_beat_datagram(std::size_t path, ByteView datagram)
{
    if (!life_) return;
    after(Lane::beat, Duration{1}, [this, path, bytes = Bytes(datagram.begin(), datagram.end())] {
        const auto beat = replication::decode_beat(bytes);
        if (!beat) return life_->heartbeat->on_malformed(path);
        if (const auto answer = life_->heartbeat->on_beat(path, *beat, local_now())) {
            const replication::BeatBytes out = replication::encode(*answer);
            send_datagram(surroundings_.scheduler, random_, *surroundings_.paths[index_], Bytes(out.begin(), out.end()),
                          [p = peer, path](ByteView d) { p->on_beat_datagram(path, d); });
        }
        take_heartbeat_news();
    });
}

void Host::take_heartbeat_news()
{
    Life& l = *life_;
    if (l.primary_proxy && !l.closed) l.primary_proxy->set_lease(l.heartbeat->lease_until(), local_now());
    if (const auto generation = l.heartbeat->take_higher_generation())
        after(Lane::control, Duration{20}, [this, g = *generation] { feed([&](Node& n, Time t) { n.higher_generation(g, t); }); });
    if (const auto lost = l.heartbeat->take_peer_lost())
        after(Lane::control, Duration{20}, [this, text = lost->text(), session = l.session] {
            if (session == life_->session) feed([&](Node& n, Time t) { n.peer_lost(text, t); });
        });
}

void Host::proxy_timer()
{
    Life& l = *life_;
    if (l.primary_proxy) l.primary_proxy->tick(local_now());
    if (l.secondary_proxy) l.secondary_proxy->tick(local_now());
    after(Lane::proxy, Duration{1000}, [this] { proxy_timer(); });
}

// ---- connections ------------------------------------------------------------------------------------------------------

void Host::connect(std::shared_ptr<Connection> connection, SessionId session, const SessionPlan* as_primary)
{
    Life& l = *life_;
    l.connection = std::move(connection);
    for (std::size_t i = 0; i < kStreams; ++i) {
        const auto kind = i == kControl ? replication::ChannelKind::control
                          : i == kProxy ? replication::ChannelKind::proxy
                                        : replication::ChannelKind::page;
        l.writers[i].emplace(kind, session);
        l.decoders[i].emplace(kind);
        const auto& stream = l.connection->from[1 - index_][i];
        stream->deliver = [this, i, incarnation = incarnation_, c = l.connection.get()](ByteView bytes) {
            if (incarnation != incarnation_) return;
            after(i == kControl ? Lane::control : Lane::proxy, Duration{1}, [this, i, c, b = Bytes(bytes.begin(), bytes.end())] {
                if (life_->connection.get() == c) received(i, b);
            });
        };
        stream->ended = [this, i, incarnation = incarnation_, c = l.connection.get()] {
            if (incarnation != incarnation_) return;
            after(Lane::control, Duration{40}, [this, i, c] {
                if (life_->connection.get() == c) stream_ended(i);
            });
        };
    }
    const auto description = sim_description(surroundings_.settings.pages);
    l.migration = as_primary != nullptr && as_primary->kind == SessionKind::migration ? session : 0;
    if (as_primary != nullptr)
        feed([&](Node& n, Time t) {
            n.plan_session(*as_primary);
            n.open_primary_session(session, description, t);
        });
    else
        feed([&](Node& n, Time t) { n.open_secondary_session(description, t); });
}

void Host::send(std::size_t stream, Bytes bytes)
{
    if (life_->connection) life_->connection->from[index_][stream]->send(std::move(bytes));
}

void Host::received(std::size_t stream, ByteView bytes)
{
    auto& decoder = *life_->decoders[stream];
    decoder.push(bytes);
    const auto* connection = life_->connection.get();
    while (life_->connection.get() == connection) {
        const auto frame = decoder.next();
        if (!frame) {
            note("stream " + std::to_string(stream) + ": " + frame.error().text);
            const Error error = frame.error();
            return feed([&](Node& n, Time t) { n.protocol_error(error, t); });
        }
        if (!*frame) return;
        on_frame(stream, **frame);
    }
}

void Host::stream_ended(std::size_t stream)
{
    note("stream " + std::to_string(stream) + " ended");
    feed([](Node& n, Time t) { n.channel_lost("connection closed", t); });
}

void Host::on_frame(std::size_t stream, const replication::Frame& frame)
{
    Life& l = *life_;
    if (stream == kControl) {
        const auto message = replication::decode_message(frame);
        if (!message) return feed([&](Node& n, Time t) { n.protocol_error(message.error(), t); });
        note(std::string("got ") + replication::name_of(*message) + " " + std::to_string(replication::epoch_of(*message)));
        if (const auto* cut = std::get_if<replication::Cut>(&*message); cut != nullptr && l.secondary_proxy)
            on_proxy([this, epoch = cut->epoch] { if (life_->secondary_proxy) life_->secondary_proxy->peer_cut(epoch, local_now()); });
        return feed([&](Node& n, Time t) { n.message(*message, t); });
    }
    if (l.closed) return;
    if (stream == kProxy) {
        if (frame.header.type == replication::FrameType::input && l.secondary_proxy) {
            const auto in = replication::decode_input(frame);
            const auto f = proxy::make_frame(Bytes(in->bytes.begin(), in->bytes.end()));
            surroundings_.model.frame(index_, "mirrored", in->epoch, f->view());
            surroundings_.model.secondary_received(f);
            l.secondary_proxy->input(in->nic, in->epoch, in->number, f, local_now());
        } else if (frame.header.type == replication::FrameType::output && l.primary_proxy) {
            const auto out = replication::decode_output(frame);
            l.primary_proxy->peer_output(out->nic, out->epoch, proxy::make_frame(Bytes(out->bytes.begin(), out->bytes.end())), local_now());
        } else if (frame.header.type == replication::FrameType::journalled && l.primary_proxy) {
            const auto j = replication::decode_journalled(frame);
            l.primary_proxy->peer_journalled(j->epoch, j->number, local_now());
        }
        return;
    }
    if (l.stager) chunk(stream - 2, frame.payload);
}

// ---- port and disk ----------------------------------------------------------------------------------------------------

void Host::drain_port()
{
    Life& l = *life_;
    if (l.guest->state() == SimGuest::State::none) l.sent_load_counts.clear();
    for (const proxy::FramePtr& frame : l.guest->drain()) {
        const std::uint64_t made = l.sent_load_counts.empty() ? l.load_count : l.sent_load_counts.front();
        if (!l.sent_load_counts.empty()) l.sent_load_counts.pop_front();
        if (l.primary_proxy) {
            l.primary_proxy->guest_frame(0, frame, local_now());
        } else if (l.secondary_proxy) {
            if (made != l.load_count)
                surroundings_.model.violation("R5: output of the state before the load counts as output of the new epoch");
            l.secondary_proxy->guest_frame(0, frame, local_now());
        }
    }
}

std::uint64_t Host::disk_write(std::uint32_t sector, std::uint64_t value)
{
    Life& l = *life_;
    sector %= kSectors;
    if (is_secondary()) {
        l.own[sector] = value;
        return value;
    }
    disk_[sector] = value;
    ++l.writes;
    if (!l.closed && peer->life_ && peer->life_->secondary_proxy)   // the disk has a channel of its own; it is not what is tested here
        after(Lane::storage, Duration{200}, [this, w = Life::Write{l.writes, sector, value}, session = l.session] {
            if (Life* other = peer->life_.get(); other != nullptr && other->session == session && !other->closed) {
                other->journal.push_back(w);
                other->journal_number = w.number;
                peer->check_complete();
            }
        });
    return value;
}

std::uint64_t Host::disk_read(std::uint32_t sector) const
{
    sector %= kSectors;
    if (is_secondary())
        if (const auto it = life_->own.find(sector); it != life_->own.end()) return it->second;
    return disk_[sector];
}

}  // namespace colo::sim
