// SPDX-License-Identifier: Apache-2.0
#include "node_pair.h"

#include "core/check.h"
#include "proxy/proxy.h"

#include <algorithm>

namespace colo::test {

using Output = proxy::PrimaryProxy::Output;

replication::GuestDescription small_guest()
{
    replication::GuestDescription guest;
    guest.kind = "sim";
    guest.machine = "desk";
    guest.vcpus = 1;
    guest.regions = {{0, 16}};
    guest.nics = {{"net0", {2, 0, 0, 0, 0, 1}, 0}};
    return guest;
}

NodeConfig small_config()
{
    NodeConfig config;
    config.domain_uuid = "01234567-89ab-cdef-0123-456789abcdef";
    config.domain_name = "desk";
    config.arbiter = ArbiterKind::lock;
    config.arbiter_digest = "lock:desk";
    return config;
}

Host::Host(Desk& d, std::string n, const NodeConfig& config) : desk(d), name(std::move(n)), node(make_node(config)) {}

void Host::restart(const NodeConfig& config)
{
    ++incarnation_;
    node = make_node(config);
    connected = guest_runs = wire_on = crashed = false;
    output = -1;
    waiting_.clear();
    held_.clear();
}

int Host::index(const std::string& what, int from) const
{
    for (std::size_t i = static_cast<std::size_t>(from); i < trace.size(); ++i)
        if (trace[i] == what) return static_cast<int>(i);
    return -1;
}

int Host::count(const std::string& what) const
{
    return static_cast<int>(std::count(trace.begin(), trace.end(), what));
}

void Host::release(const std::string& what)
{
    held_.erase(what);
    for (auto& call : std::exchange(waiting_[what], {})) desk.queue.push_back(std::move(call));
    desk.run();
}

void Host::answer(const std::string& what, std::function<void(Node&, std::optional<Error>)> call)
{
    std::optional<Error> error;
    if (const auto it = failures_.find(what); it != failures_.end()) {
        error = it->second;
        failures_.erase(it);
    }
    auto job = [this, call = std::move(call), error, incarnation = incarnation_] {
        if (incarnation != incarnation_ || crashed) return;
        call(*node, error);
        pump();
    };
    if (held_.count(what) != 0)
        waiting_[what].push_back(std::move(job));
    else
        desk.queue.push_back(std::move(job));
}

void Host::pump()
{
    if (crashed) return;
    for (auto actions = node->take_actions(); !actions.empty(); actions = node->take_actions())
        for (const Action& action : actions) perform(action);
}

namespace {
Result<void> result_of(const std::optional<Error>& error)
{
    return error ? Result<void>(*error) : Result<void>{};
}
template <class... F> struct Overloaded : F... { using F::operator()...; };
template <class... F> Overloaded(F...) -> Overloaded<F...>;
}  // namespace

void Host::perform(const Action& action)
{
    Desk& d = desk;
    const auto note = [this](std::string text) { trace.push_back(std::move(text)); };
    std::visit(
        Overloaded{
            [&](const action::BootGuest&) {
                note("boot");
                guest_runs = true;
                answer("boot", [&d](Node& n, auto e) { n.guest_booted(result_of(e), d.now); });
            },
            [&](const action::PrepareStandby&) {
                note("standby");
                guest_runs = false;
                answer("standby", [&d](Node& n, auto e) { n.standby_ready(result_of(e), d.now); });
            },
            [&](const action::Send& s) {
                note(std::string("send ") + replication::name_of(s.message));
                if (const auto* ack = std::get_if<replication::HelloAck>(&s.message)) memory_told = ack->memory_free;
                if (const auto* hello = std::get_if<replication::Hello>(&s.message)) channels_told = hello->page_channels;
                if (!connected || peer == nullptr) return;
                d.queue.push_back([p = peer, m = s.message, &d, inc = peer->incarnation_] {
                    if (!p->connected || p->crashed || inc != p->incarnation_) return;
                    p->node->message(m, d.now);
                    p->pump();
                });
            },
            [&](const action::Persist& p) {
                persist_token = p.token;
                note(std::string("persist") + (p.state.in_session ? " in-session" : "") + (p.state.eligible ? " eligible" : "") +
                     (p.state.outdated ? " outdated" : ""));
                answer("persist", [this, p, &d](Node& n, auto e) {
                    if (!e) stored = p.state;
                    n.persisted(p.token, result_of(e), d.now);
                });
            },
            [&](const action::OpenSession&) { note("open"); },
            [&](const action::StartEpoch& s) {
                note("epoch " + std::to_string(s.epoch) + " on " + std::to_string(s.base));
                if (s.base == 0) answer("copy", [s, &d](Node& n, auto) { n.initial_copy_converged(s.epoch, d.now); });
            },
            [&](const action::StartCut& c) {
                note("cut " + std::to_string(c.epoch));
                if (c.power != replication::PowerState::running) guest_runs = false;
                answer("cut-begun", [c, &d](Node& n, auto) { n.cut_begun(c.epoch, d.now); });
                answer("cut", [c, &d](Node& n, auto e) { n.cut_done(c.epoch, result_of(e), d.now); });
            },
            [&](const action::SendEpoch& s) {
                note("transfer " + std::to_string(s.epoch));
                answer("transfer", [s, &d](Node& n, auto e) {
                    n.transfer_done(s.epoch, e ? Result<replication::Manifest>(*e) : Result<replication::Manifest>(replication::Manifest{}), d.now);
                });
            },
            [&](const action::AbortEpoch& x) { note("abort " + std::to_string(x.epoch)); },
            [&](const action::ReleaseStaged& x) { note("release " + std::to_string(x.epoch)); },
            [&](const action::OpenComparer& x) { note("compare " + std::to_string(x.epoch)); },
            [&](const action::StageBegin& x) { note("stage " + std::to_string(x.epoch)); },
            [&](const action::StageDrop& x) { note("drop " + std::to_string(x.epoch)); },
            [&](const action::StageFinish& x) {
                note("verify " + std::to_string(x.epoch));
                answer("stage", [x, &d](Node& n, auto e) { n.stage_complete(x.epoch, result_of(e), d.now); });
            },
            [&](const action::Commit& x) { note("commit " + std::to_string(x.epoch)); },
            [&](const action::Apply& x) {
                note("apply " + std::to_string(x.epoch) + (x.mode == replication::Mode::lock_step ? " load" : " keep") +
                     (x.resume ? " resume" : ""));
                answer("apply", [this, x, &d](Node& n, auto e) {
                    if (!e) guest_runs = x.resume;
                    n.apply_done(x.epoch, result_of(e), Duration{100}, 1, d.now);
                });
            },
            [&](const action::RollForward& x) {
                note("roll-forward " + std::to_string(x.epoch));
                answer("apply", [this, x, &d](Node& n, auto e) {
                    if (!e) guest_runs = x.resume;
                    n.apply_done(x.epoch, result_of(e), Duration{100}, 1, d.now);
                });
            },
            [&](const action::CloseSession& c) {
                note("close");
                last_close = c.why;
                if (connected && peer != nullptr)
                    d.queue.push_back([p = peer, &d, inc = peer->incarnation_] {
                        if (!p->connected || p->crashed || inc != p->incarnation_) return;
                        p->connected = false;
                        p->node->channel_lost("closed by the peer", d.now);
                        p->pump();
                    });
                connected = false;
                answer("closed", [this, &d](Node& n, auto) { n.session_closed(last_answer, d.now); });
            },
            [&](const action::SetOutput& o) {
                output = o.output;
                static constexpr const char* kNames[] = {"flow", "protect", "hold", "frozen"};
                note(std::string("output ") + kNames[o.output]);
            },
            [&](const action::RequestGrant& r) {
                note("ask " + std::to_string(r.generation));
                answer("grant", [this, r, &d](Node& n, auto) {
                    if (d.arbiter_hangs) return n.grant_result(r.generation, GrantOutcome::unknown, "no answer", d.now);
                    const auto [it, fresh] = d.granted.try_emplace(r.generation, this);
                    const bool ours = fresh || it->second == this;
                    n.grant_result(r.generation, ours ? GrantOutcome::granted : GrantOutcome::refused, it->second->name, d.now);
                });
            },
            [&](const action::StopGuest& s) {
                note("stop-guest");
                if (s.only_copy) return answer("stop", [this, &d](Node& n, auto e) {
                    if (e) return n.channel_lost(e->text, d.now);
                    guest_runs = false;
                    n.guest_halted(d.now);
                });
                guest_runs = false;
            },
            [&](const action::ResumeGuest&) {
                note("resume-guest");
                guest_runs = true;
            },
            [&](const action::KillGuest&) {
                note("kill-guest");
                guest_runs = false;
            },
            [&](const action::GoLive& g) {
                note("live " + std::to_string(g.generation));
                const bool runs = g.power == replication::PowerState::running;
                answer("live", [this, &d, runs](Node& n, auto e) {
                    if (!e) guest_runs = runs;
                    if (!e) wire_on = true;
                    n.went_live(result_of(e), d.now);
                });
            },
            [&](const action::Beat& x) {
                note(x.closed ? "beat closed" : "beat");
                if (!d.beats || peer == nullptr || x.role != Role::primary || x.session != 0) return;
                d.queue.push_back([p = peer, generation = x.generation, &d, inc = peer->incarnation_] {
                    if (!d.beats || p->crashed || inc != p->incarnation_ || !p->status().switching) return;
                    p->node->higher_generation(generation, d.now);
                    p->pump();
                });
            },
            [&](const action::Changed& c) { note(std::string("now ") + to_string(c.protection)); },
            [&](const action::ColoExit& x) { note(x.reason == ColoExitReason::error ? "exit error" : "exit request"); },
            [&](const action::ColoEntered&) { note("entered"); },
            [&](const action::SessionFailed& f) {
                note("failed");
                failed_session = f.reason;
            },
            [&](const action::SwitchOver& s) { note(s.waits ? "pre-switchover" : "device"); },
            [&](const action::Migrated&) { note("migrated"); },
            [&](const action::OperatorDone& o) {
                note("operator-done");
                operator_result = o.result;
            },
            [&](const action::ModeChanged& m) { note(std::string("mode ") + replication::to_string(m.mode)); },
        },
        action);
}

Desk::Desk(const NodeConfig& config) : a(*this, "a", config), b(*this, "b", config)
{
    a.peer = &b;
    b.peer = &a;
}

void Desk::run()
{
    for (int i = 0; i < 10'000; ++i) {
        a.pump();
        b.pump();
        if (queue.empty()) return;
        auto job = std::move(queue.front());
        queue.pop_front();
        job();
    }
    COLO_CHECK(queue.empty() && "the desk must come to rest");
}

void Desk::advance(Duration d)
{
    const Time end = now + d;
    run();
    for (int i = 0; i < 100'000; ++i) {
        Time next = end;
        for (Host* h : {&a, &b})
            if (!h->crashed) next = std::min(next, std::max(now, h->node->next_deadline()));
        now = next;
        for (Host* h : {&a, &b})
            if (!h->crashed) h->node->tick(now);
        run();
        if (now >= end) return;
    }
    COLO_CHECK(now >= end && "every deadline must pass");
}

void Desk::start()
{
    PersistentState empty;
    empty.domain_uuid = small_config().domain_uuid;
    a.node->start(empty, StartIntent::primary, now);
    b.node->start(empty, StartIntent::secondary, now);
    run();
}

void Desk::connect(SessionId session)
{
    a.connected = b.connected = true;
    b.node->open_secondary_session(small_guest(), now);
    b.pump();
    a.node->open_primary_session(session, small_guest(), now);
    run();
}

void Desk::protect()
{
    start();
    connect(77);
}

void Desk::migrate(const SessionPlan& plan)
{
    start();
    a.node->plan_session(plan);
    connect(77);
}

void Desk::cut_link()
{
    a.connected = b.connected = beats = false;
    if (!a.crashed) a.node->peer_lost("no beat", now);
    if (!b.crashed) b.node->peer_lost("no beat", now);
    a.pump();
    b.pump();
}

void Desk::checkpoint()
{
    advance(Duration{500'000});
}

}  // namespace colo::test
