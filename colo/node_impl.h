// SPDX-License-Identifier: Apache-2.0
#pragma once

// The state of a Node. Not a public header: only node*.cpp include it.
//
//   node.cpp            start, persist, timers, status
//   node_primary.cpp    session of the primary: hello, epochs, checkpoints
//   node_secondary.cpp  session of the secondary: hello, staging, STAGED, apply
//   node_failover.cpp   closing, lease, grant, taking over, outdated
//   node_operator.cpp   negotiated failover, unprotect, accepted data loss
//   node_migration.cpp  what a session that is a migration does differently

#include "colo/node.h"
#include "colo/node_mode.h"

#include <algorithm>
#include <functional>

namespace colo {

class NodeImpl final : public Node {
public:
    explicit NodeImpl(const NodeConfig& config);

    std::vector<Action> take_actions() override;
    void tick(Time now) override;
    Time next_deadline() const override;
    NodeStatus status() const override;

    void start(const PersistentState& state, StartIntent intent, Time now) override;
    void guest_booted(Result<void> result, Time now) override;
    void standby_ready(Result<void> result, Time now) override;
    void persisted(std::uint64_t token, Result<void> result, Time now) override;
    void persist_slow(std::uint64_t token, const std::string& why, Time now) override;

    void copy_memory(const CopyMemory& memory) override { memory_ = memory; }
    void plan_session(const SessionPlan& plan) override { plan_ = plan; }
    void begin_paused(bool paused) override { begin_paused_ = paused; }
    void await_session(std::optional<SessionKind> kind) override { awaited_ = kind; }
    void open_primary_session(SessionId session, const replication::GuestDescription& guest, Time now) override;
    void open_secondary_session(const replication::GuestDescription& guest, Time now) override;
    void message(const replication::Message& message, Time now) override;
    void channel_lost(const std::string& why, Time now) override;
    void protocol_error(const Error& error, Time now) override;
    void session_closed(Time last_answer, Time now) override;

    void initial_copy_converged(Epoch epoch, Time now) override;
    void guest_halted(Time now) override;
    void trigger(replication::TriggerReason reason, Time now) override;
    void cut_begun(Epoch epoch, Time now) override;
    void cut_progress(Epoch epoch, Time now) override;
    void cut_done(Epoch epoch, Result<void> result, Time now) override;
    void transfer_done(Epoch epoch, Result<replication::Manifest> manifest, Time now) override;
    void set_checkpoint_interval(Duration interval, Time now) override;
    void set_pause_bound(Duration bound) override;
    void set_page_channels(std::uint8_t count) override;

    void staging_full(Epoch epoch, Time now) override;
    void stage_complete(Epoch epoch, Result<void> verified, Time now) override;
    void apply_done(Epoch epoch, Result<void> result, Duration took, std::uint32_t own_dirty, Time now) override;
    void went_live(Result<void> result, Time now) override;

    void guest_event(const replication::GuestEvent& event, Time now) override;
    void guest_renewing(bool on, Time now) override;
    void hold_cuts(bool renewing, bool seized, Time now);

    void peer_lost(const std::string& why, Time now) override;
    void higher_generation(Generation generation, Time now) override;
    void generation_conflict(Generation generation, Time now) override;
    void own_health(bool ok, const std::string& why, Time now) override;
    void ports(const std::string& unusable, Time now) override;
    void carrier(bool up, Time now) override;
    void grant_result(Generation generation, GrantOutcome outcome, const std::string& detail, Time now) override;

    Result<void> pause(bool paused, Time now) override;
    Result<void> lost_heartbeat(Time now) override;
    Result<void> failover(bool accept_data_loss, Time now) override;
    Result<void> unprotect(Time now) override;
    Result<void> hand_over(Time now) override;
    void cancel_session(const std::string& why, Time now) override;
    void switch_over(Time now) override;

private:
    enum class Step : std::uint8_t {
        stopped,        // nothing runs: idle, outdated, abdicated, failed
        booting, alone,                                                                          // primary, no session
        hello, first_copy, pre_switchover, cutting, aborting, ending, transferring, wait_staged, wait_applied, steady,   // primary
        preparing, standby, wait_hello, greeting, following, resigning,                          // secondary
        closing, lease_wait, asking, granted, going_live,                                        // both, peer lost
        abdicating,                                                                              // primary, frozen
    };
    enum class Stage : std::uint8_t { none, open, cut, ended, persisting };   // secondary: the epoch that is arriving
    enum class Job : std::uint8_t { none, applying, rolling };               // secondary: guest work under way
    enum class Ask : std::uint8_t { none, failover, unprotect, pressure };    // why a resignation is wanted
    using AfterPersist = std::function<void(const Result<void>&, Time)>;

    // ---- node.cpp
    template <class A>
    void act(A action) { actions_.emplace_back(std::move(action)); }
    void send(replication::Message message) { act(action::Send{std::move(message)}); }
    void persist(AfterPersist then = {});
    void enter(Step step, Time deadline = kNever);
    void change(Protection protection, const std::string& reason);
    void beat();
    void set_output(std::uint8_t output);
    void start_primary(Time now);
    bool may_run(std::string& why) const;
    void prepare_standby();
    void step_expired(Time now);
    static const char* to_string(Step step);

    // ---- node_primary.cpp
    bool primary_session() const { return step_ >= Step::hello && step_ <= Step::steady; }
    void on_hello_ack(const replication::HelloAck& ack, Time now);
    void open_primary(Time now);
    void begin_epoch(Time now);
    void start_cut(replication::TriggerReason reason, Time now);
    void maybe_cut(Time now);
    CheckpointPacer::Due next_cut() const;
    void abort_cut(const Error& error, Time now);
    void on_abort_ok(const replication::AbortOk& message, Time now);
    void send_end(replication::Manifest manifest, Time now);
    void on_staged(const replication::Staged& message, Time now);
    void on_applied(const replication::Applied& message, Time now);
    void on_resign(const replication::Resign& message, Time now);
    void on_resign_while_abdicating(const replication::Resign& message, Time now);
    void on_handover(Time now);
    void note_mode(replication::Mode mode, const std::string& reason);
    void guest_does_not_answer(const std::string& why, Time now);
    void primary_guest_lost(const std::string& why, Time now);
    void say_unwell();
    bool hand_over_for_ports(Time now);
    void primary_power_event(replication::PowerState power, Time now);
    void resume_guest();

    // ---- node_secondary.cpp
    bool secondary_session() const { return step_ == Step::wait_hello || step_ == Step::greeting || step_ == Step::following; }
    void on_hello(const replication::Hello& hello, Time now);
    void accept_hello(std::uint16_t version, Time now);
    void refuse(const std::string& reason, Time now);
    void on_begin(const replication::Begin& message, Time now);
    void on_cut(const replication::Cut& message, Time now);
    void on_end(const replication::End& message, Time now);
    void on_abort(const replication::Abort& message, Time now);
    void on_abdicate_while_resigning(Time now);
    void on_abdicate(const replication::Abdicate& message, Time now);
    void on_resign_request(Time now);
    void become_eligible(Time now);
    void commit(Time now);
    void start_apply(bool resume);
    void apply_failed(const Error& error, Time now);
    void cannot_run(const std::string& cause, Time now);
    void resign(const std::string& cause, Time now);
    void resigned(Time now);
    void secondary_guest_lost(const std::string& why, Time now);

    // ---- node_failover.cpp
    bool session_open() const { return primary_session() || secondary_session() || step_ == Step::resigning || step_ == Step::abdicating; }
    bool deciding() const { return step_ >= Step::closing && step_ <= Step::going_live; }
    void lost(const std::string& why, Time now);
    void violation(const std::string& what, Time now);
    void close_session(const std::string& why);
    void leave_colo(ColoExitReason reason, const std::string& why);
    void go_alone(const std::string& why, Time now);
    void decide(const std::string& why, Time now);
    void ask(Time now);
    void grant(Generation generation, Time now);
    void continue_take_over(Time now);
    void serve_on(Time now);
    void become_outdated(const std::string& why, Time now);
    void persist_outdated(const std::string& why);
    void outdated_persisted(const Result<void>& result, const std::string& why, Time now);
    void abdicate(const std::string& cause, Time now);
    void finish_abdication(Time now);
    void dead(Protection protection, const std::string& why);
    void load_for_take_over();

    // ---- node_migration.cpp
    void copy_converged(Time now);
    void first_cut(Time now);
    void switch_over_failed(const Error& error, Time now);
    void give_away(Time now);
    void end_migration(const Result<void>& result);
    void end_of_source(Time now);
    void last_word(const std::string& cause);
    bool may_take_back() const;
    void take_back(Time now);
    bool is_the_migrations(Generation generation) const;
    void settle_migration(const Result<void>& result);
    // In a migration nothing presses, the guest stands still anyway: a slow disk of the other side must not be shot for it.
    Duration resign_time() const { return m_.on ? std::max(config_.resign_deadline, config_.staged_deadline) : config_.resign_deadline; }
    // What the downtime limit lets the last copy take comes on top: with a generous one the link may need it.
    Duration with_limit(Duration usual) const { return m_.on ? usual + config_.pause_bound : usual; }
    void let_held_guest_run();
    bool accept_kind(replication::Mode mode, Time now);

    // ---- node_operator.cpp
    bool in_colo() const;
    void finish_operator(Result<void> result);
    Result<void> negotiate(Ask ask, Time now);
    void operator_expired(Time now);
    Result<void> accept_data_loss(Time now);
    void grant_on_stopped_guest();

    NodeConfig config_;
    PersistentState state_;
    Role role_ = Role::none;
    Protection protection_ = Protection::idle;
    std::string reason_;
    Step step_ = Step::stopped;
    Time deadline_ = kNever;            // of step_
    std::vector<Action> actions_;
    std::uint8_t output_ = 2;           // as last set
    std::uint64_t token_ = 0;
    AfterPersist after_persist_;
    bool unwritten_ = false;     // the answer to token_ has not come yet
    std::string slow_reason_;    // what the status says of a Persist that is overdue
    std::string prompt_reason_;  // what it said before

    SessionId session_ = 0;             // open or being decided about; 0: none
    replication::GuestDescription guest_;
    CopyMemory memory_;
    bool colo_entered_ = false, colo_exited_ = false;
    bool link_down_ = false;            // carrier of the client NIC
    std::string unwell_;                // own device model or proxy stands still
    std::string well_reason_;           // what the status said before
    std::string port_fault_;            // a wire or frame port is unusable
    bool guest_present_ = false;        // a guest that runs or could run exists here
    bool guest_stopped_ = false;        // frozen, kept
    replication::PowerState power_ = replication::PowerState::running;
    replication::Mode mode_ = replication::Mode::lock_step;
    std::string mode_reason_;

    struct Primary {
        Epoch epoch = 0;                // open, being cut or in transfer
        Epoch base = 0;                 // last STAGED
        Epoch running = 0;              // that the guest runs in: last cut that was not aborted
        Epoch applied = 0;
        bool peer_eligible = false;
        replication::Mode cut_mode = replication::Mode::lock_step;
        std::string cut_mode_reason;
        replication::TriggerReason cut_reason = replication::TriggerReason::period;
        replication::PowerState cut_power = replication::PowerState::running;
        bool cut_stops = false;          // the cut has done with the network and stops the guest
        bool cut_late = false;           // a cut was under way when its session ended
        bool first_cut_waits = false, first_epoch_waits = false;   // until nobody has the guest in hand
        std::string pressure;            // why the peer was asked to resign, if that was for too many aborts
        std::string abort_cause;         // of the last cut that was aborted
        replication::Manifest manifest;  // waits for in_session to be on disk
    } p_;
    ModePolicy mode_policy_;
    CheckpointPacer pacer_;
    std::array<std::uint64_t, replication::kTriggerReasons> triggers_{};
    std::uint64_t checkpoints_ = 0, aborts_ = 0;

    struct Secondary {
        Stage stage = Stage::none;
        Time stage_deadline = kNever;
        Epoch open = 0;                 // of stage
        Epoch highest = 0;              // last number seen: never again (R7)
        Epoch staged = 0, applied = 0;
        replication::Mode arriving_mode = replication::Mode::lock_step, staged_mode = replication::Mode::lock_step;
        replication::PowerState arriving_power = replication::PowerState::running, staged_power = replication::PowerState::running;
        bool loaded = false;            // the guest holds at least the staged state (not so in buffered mode)
        Job job = Job::none;
        bool job_loads = false;         // the job puts the staged state into the guest
        bool eligible = false;
        bool guest_died = false;        // since the job began
        bool rolled = false;            // this staged state was already rolled forward
        replication::PowerState own_power = replication::PowerState::running;   // held (R9)
        bool asked_to_resign = false;
        Epoch told_full = 0;  // a cut was asked for because staging was nearly full with this epoch
    } s_;

    SessionPlan plan_;                       // P: of the next session
    bool renewing_ = false;                  // P: guest_renewing()
    bool seized_ = false;                    // a tool outside has the guest
    std::optional<SessionKind> awaited_;     // S
    bool begin_paused_ = false;              // S
    // Above every generation that an arbiter could have granted meanwhile, so that the copy that was given up is overtaken.
    static Generation next_thousand(Generation generation) { return (generation + 1) / 1000 * 1000 + 1000; }
    static constexpr const char* kTakesOver = "takes over";   // cause of the Close with which a destination answers Abdicate
    struct Migration {
        bool on = false;            // the session at hand is one
        bool pauses = false;        // P: before the switch-over
        bool halted = false;        // P: the guest stands still for that pause
        bool told = false;          // its end was said
        bool holds_guest = false;   // P: stopped for the switch-over; if this side serves on, it runs again
        bool power_event = false;   // P: the guest went off or was reset after the cut had been begun
        bool heard = false;         // P: the destination said that it takes over
        bool taken = false;         // P: and it has the guest: nobody else may run it
        bool refused = false;       // the lock gave it to the other side, which need not have come to run it
        std::string why;            // P: the session ended behind END; what that comes to is not known yet
    } m_;
    bool migrated_ = false;         // P: until the next start
    bool outcome_open_ = false;     // P: it stays stopped, and whether the destination runs is not known

    struct Decision {
        bool peer_abdicated = false;
        bool vouched = false;           // the operator's word is the grant (manual)
        bool request_out = false;
        bool stored = false;            // the grant is on disk
        bool finished_staged = false;
        Generation generation = 0;
        Generation override_generation = 0;   // the operator accepted data loss: no arbiter is asked
        Time not_before{};              // lease
        std::string why;                // the peer was lost; what the arbiter says meanwhile is not the reason for anything later
    } d_;

    struct Operator {
        bool waits = false;             // OperatorDone is owed
        Ask ask = Ask::none;            // negotiation with the peer under way
        Time deadline = kNever;
        bool finishing = false;         // the operator's wish is being carried out
        bool vouches = false;           // ... and that wish was a failover: his word under `manual`
    } o_;
};

}  // namespace colo
