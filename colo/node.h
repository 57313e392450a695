// SPDX-License-Identifier: Apache-2.0
#pragma once

// The brain of one daemon, sans-I/O: both session machines (primary, secondary), closing, grants, eligibility, modes and
// timers. Events go in with the time they happened, actions come out in the order they must be carried out. It never
// blocks, has no clock, socket or thread; colod (colo/daemon.*) and the simulator (tests/sim) drive the very same code.
//
// Contract with the driver
//  * take_actions() after every event; carry actions out in order. An action that takes time is answered by the event
//    named in its comment, exactly once, unless the comment says otherwise. Guest work (StartCut, Apply, RollForward,
//    StopGuest, ...) runs one at a time, in the order of the actions.
//  * Answers that come late (an epoch or session that is over) are allowed and ignored.
//  * Persist: nothing after it in the same decision happens before persisted(); Node itself waits for it.
//  * Send is in order and never blocks. CloseSession flushes what was sent before it for a short, bounded time.
//  * A cut that is under way when the session ends may still seal the proxy: its late cut_done is answered by SetOutput.
//  * fence_delay, link_penalty and unreached_delay are waited for by the driver before it asks; Node only waits for the
//    lease.
//  * start() may be called again when nothing runs here (outdated, abdicated, failed, idle): as a secondary, to be
//    resynchronised.
//
// Primary session:  hello -> syncing(1) -> cutting(n) -> transferring(n) -> wait_staged(n) -> wait_applied(n) -> steady
// Secondary:        hello -> staging(1) -> [persist eligible] -> STAGED -> applying(n) -> running -> staging(n+1) ...
// Migration, primary:   hello -> first_copy -> [pre_switchover] -> cutting -> transferring -> wait_staged -> wait_applied ->
//                       abdicating -> stopped; its guest stands still from the cut on, unless the migration fails
// Migration, secondary: hello -> staging(1) -> [persist eligible] -> STAGED -> applying, loaded and still -> Abdicate: below
// Both, when the peer is lost: closing -> [lease wait] -> asking -> granted: live / refused: outdated / unknown: ask again.

#include "colo/session_plan.h"
#include "core/error.h"
#include "core/types.h"
#include "replication/guest.h"
#include "replication/message.h"

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace colo {

enum class Role : std::uint8_t { none = 0, primary, secondary };
const char* to_string(Role role);

// What is fsynced before anything acts on it (colo/state_file.h stores it).
struct PersistentState {
    std::string domain_uuid;
    Generation generation = 0;
    Role role = Role::none;
    SessionId session = 0;
    bool in_session = false;   // P: from END of the first epoch; S: from its first STAGED. The peer may be the one to run
    bool eligible = false;     // S: may ask for a grant
    bool outdated = false;     // refused, overtaken or resigned: never runs without a resync or accepted data loss
    std::string reason;
    bool operator==(const PersistentState&) const = default;
};

enum class Protection : std::uint8_t {
    idle,           // nothing runs here
    unprotected,    // primary, guest serves, no copy
    connecting,     // primary: hello under way
    syncing,        // first copy under way (both roles)
    in_sync,        // protected (P) / eligible and up to date (S)
    deciding,       // peer lost: closing, waiting for lease, grant or operator
    outdated,       // may not run
    abdicated,      // handed over or device model lost; may not run
    standby,        // secondary, waiting for a primary
    failed,         // guest lost without a copy
};
const char* to_string(Protection protection);

enum class GrantOutcome : std::uint8_t { granted, refused, unknown };
enum class ArbiterKind : std::uint8_t { manual, command, lock };
enum class ColoExitReason : std::uint8_t { request, error };

struct NodeConfig {
    std::string domain_uuid;
    std::string domain_name;
    ArbiterKind arbiter = ArbiterKind::manual;
    std::string arbiter_digest;
    std::uint8_t page_channels = 1;
    Duration checkpoint_interval{500'000};       // x-checkpoint-delay; change with set_checkpoint_interval
    Duration checkpoint_interval_min{20'000};    // storm limiter in lock-step (Inv15)
    Duration buffered_interval_min{2'000};
    Duration pause_bound{300'000};               // downtime-limit: longer cuts are aborted (R7, Inv12)
    Duration guest_answer{2'000'000};            // past it, a device model that is asked something in a cut hangs
    Duration hello_deadline{5'000'000};
    Duration first_copy_deadline{600'000'000};
    Duration transfer_deadline{5'000'000};       // cut to END
    Duration staged_deadline{5'000'000};         // END to STAGED
    Duration apply_deadline{5'000'000};          // STAGED to APPLIED; past it S counts as lost
    Duration beat_interval{10'000}, beat_loss{100'000}, lease{90'000};
    Duration fence_delay{2'000'000};             // arbiter command, S only
    Duration link_penalty{0};                    // wait before asking while the client NIC has no carrier
    Duration grant_retry{200'000};
    Duration resign_deadline{1'000'000};         // operator fails over on P: how long S may take to resign
    // Modes: more than `mismatch_budget` divergence checkpoints within `mismatch_window` -> buffered; back to lock-step
    // after calm_initial, doubling to calm_max when the return was short-lived.
    std::uint32_t mismatch_budget = 8;
    Duration mismatch_window{1'000'000};
    Duration calm_initial{5'000'000}, calm_max{60'000'000};
    bool allow_buffered = true;
    bool always_buffered = false;                // from the first cut on
    std::uint32_t abort_limit = 16;              // cuts aborted in a row; then the session is ended in an orderly way
};

// What a copy of the guest takes on this host, and what the host can give it. 0: not known.
struct CopyMemory {
    std::uint64_t needed = 0;  // RAM, shadow and staging
    std::uint64_t free = 0;    // available, and what the guest's RAM takes already
};

enum class StartIntent : std::uint8_t {
    primary,                    // boot the guest and serve
    secondary,                  // wait for a primary
    primary_accept_data_loss,   // operator's word over an outdated or unclean state
};

namespace action {
struct BootGuest {};                                    // -> guest_booted
struct PrepareStandby {};                               // S: (re)create the guest loadable, empty stager -> standby_ready
struct Send { replication::Message message; };          // on the control channel; no answer
struct Persist { PersistentState state; std::uint64_t token; };   // -> persisted(token)
// P: engine and proxy of a new session; S: stager and proxy. From now on input is mirrored (P).
struct OpenSession { SessionId session; Generation generation; };
// P: engine.begin_epoch, pre-capture towards the cut. `planned_cut`: when the period will ask for it. In the first
// epoch the driver answers initial_copy_converged once the backlog is small or stops shrinking; in a migration (`migrates`),
// once the rest can be sent within the downtime limit.
struct StartEpoch { Epoch epoch; Epoch base; Time planned_cut; bool migrates = false; };
// `power`: goes into run_cut (R9); `paused` also where a migration leaves the guest stopped. base 0: first cut of the
// session (run_cut's `first`). -> cut_begun unless it fails before; cut_done
struct StartCut {
    Epoch epoch; Epoch base;
    replication::TriggerReason reason;
    replication::Mode mode;
    Duration pause_bound;
    Duration answer_bound;  // longer while there is no other copy: a guest that answers late is better than none
    replication::PowerState power = replication::PowerState::running;
};
struct SendEpoch { Epoch epoch; };                      // flush the residue to the channels -> transfer_done
struct AbortEpoch { Epoch epoch; };                     // engine.aborted, proxy.aborted (the cut may have been sealed or not)
struct ReleaseStaged { Epoch epoch; };                  // engine.staged, proxy.staged
struct OpenComparer { Epoch epoch; replication::Mode mode; };   // proxy.applied, proxy.set_mode
struct StageBegin { Epoch epoch; Epoch base; };
struct StageDrop { Epoch epoch; };                      // stager.drop, proxy.aborted
struct StageFinish { Epoch epoch; replication::Manifest manifest; };   // wait for chunks, verify all (R1) -> stage_complete
struct Commit { Epoch epoch; };                         // stager.commit; directly before Send{Staged}
// Stop, seal, pages, load, offsets; lock-step: resume. Buffered: stop only (if it ran), no load. -> apply_done
struct Apply { Epoch epoch; replication::Mode mode; bool resume; };
struct RollForward { Epoch epoch; bool resume; };       // kill, recreate, everything from the shadow, load -> apply_done
// The session is over for good: close channels, heartbeat stops answering. P: engine dropped, proxy.end_session.
// -> session_closed(last time this side answered a beat of the session)
struct CloseSession { std::string why; };
struct SetOutput { std::uint8_t output; Generation generation; };   // proxy::PrimaryProxy::Output
// -> grant_result. `peer_abdicated`: the peer has promised never to run again, no need for fence_delay.
struct RequestGrant { Generation generation; bool client_link_down = false; bool peer_abdicated = false; };
// Freeze: guest stopped, kept. only_copy: this side may still be the one that goes on; -> guest_halted, or channel_lost if it
// does not stop.
struct StopGuest { std::string why; bool only_copy = false; };
// Accepted data loss on a stopped guest; a cut whose end is not known. If it fails: guest_event(device_model_died).
struct ResumeGuest {};
struct KillGuest { std::string why; };
// S: take-over, wire on, guest resumed if it is stopped and `power` is running, announce -> went_live
struct GoLive {
    Generation generation;
    bool finished_staged;
    replication::PowerState power = replication::PowerState::running;
};
struct Beat { Role role; Generation generation; SessionId session; bool closed; };   // what our beats say from now on
struct Changed { Protection protection; std::string reason; };    // status, log, X_COLO_STATE_CHANGE
struct ColoExit { Role mode; ColoExitReason reason; };
struct ColoEntered { Role mode; };                       // first APPLIED: migration status colo
struct SessionFailed { std::string reason; };            // before COLO was reached, or a migration: status failed
struct SwitchOver { bool waits; };                       // P, migration that pauses first: status pre-switchover, then device
struct Migrated {};                                      // migration status completed: P gave the guest away, S runs it
struct OperatorDone { Result<void> result; };            // answer of lost_heartbeat / failover / unprotect
struct ModeChanged { replication::Mode mode; std::string reason; };
}  // namespace action

using Action = std::variant<
    action::BootGuest, action::PrepareStandby, action::Send, action::Persist, action::OpenSession, action::StartEpoch,
    action::StartCut, action::SendEpoch, action::AbortEpoch, action::ReleaseStaged, action::OpenComparer,
    action::StageBegin, action::StageDrop, action::StageFinish, action::Commit, action::Apply, action::RollForward,
    action::CloseSession, action::SetOutput, action::RequestGrant, action::StopGuest, action::ResumeGuest,
    action::KillGuest, action::GoLive, action::Beat, action::Changed, action::ColoExit, action::ColoEntered,
    action::SessionFailed, action::SwitchOver, action::Migrated, action::OperatorDone, action::ModeChanged>;

struct NodeStatus {
    Role role = Role::none;
    Protection protection = Protection::idle;
    std::string reason;
    Generation generation = 0;
    SessionId session = 0;
    Epoch epoch = 0;             // P: epoch it runs in; S: last committed
    Epoch staged = 0, applied = 0;
    replication::Mode mode = replication::Mode::lock_step;
    std::string mode_reason;
    bool peer_eligible = false;  // P: S may take over
    bool eligible = false;       // S
    bool outdated = false;
    bool failover_under_way = false;
    bool migrating = false;      // the session at hand is a migration
    bool switching = false;      // P: the guest stands still for the switch-over
    bool migrated = false;       // P: the guest was given away by a migration
    std::string step;            // "cutting", "wait-staged", ... for people and for the simulator's coverage
    std::array<std::uint64_t, replication::kTriggerReasons> triggers{};
    std::uint64_t checkpoints = 0, aborts = 0;
    replication::PowerState power = replication::PowerState::running;   // of the guest here, as far as known
};

class Node {
public:
    virtual ~Node() = default;

    virtual std::vector<Action> take_actions() = 0;
    virtual void tick(Time now) = 0;
    virtual Time next_deadline() const = 0;
    virtual NodeStatus status() const = 0;

    virtual void start(const PersistentState& state, StartIntent intent, Time now) = 0;
    virtual void guest_booted(Result<void> result, Time now) = 0;
    virtual void standby_ready(Result<void> result, Time now) = 0;
    virtual void persisted(std::uint64_t token, Result<void> result, Time now) = 0;
    // Its answer is overdue: said in the status until it comes. Nothing else changes, since not knowing means waiting.
    virtual void persist_slow(std::uint64_t token, const std::string& why, Time now) = 0;

    // As measured now; before the channels of a new session are announced.
    virtual void copy_memory(const CopyMemory& memory) = 0;
    // P: of the session that is opened next. S: what it waits for; a primary that wants something else is refused.
    virtual void plan_session(const SessionPlan& plan) = 0;
    virtual void begin_paused(bool paused) = 0;   // S: of a guest that is migrated here
    virtual void await_session(std::optional<SessionKind> kind) = 0;   // nothing: either
    // Channels of a new session are up. P: `session` is fresh and random. S: only says that somebody connected; Hello
    // follows. A second connection while a session is open is the driver's to refuse.
    virtual void open_primary_session(SessionId session, const replication::GuestDescription& guest, Time now) = 0;
    virtual void open_secondary_session(const replication::GuestDescription& guest, Time now) = 0;
    virtual void message(const replication::Message& message, Time now) = 0;
    virtual void channel_lost(const std::string& why, Time now) = 0;
    virtual void protocol_error(const Error& error, Time now) = 0;   // bad frame, CRC, wrong session: the session ends
    virtual void session_closed(Time last_answer, Time now) = 0;

    // Primary work
    virtual void initial_copy_converged(Epoch epoch, Time now) = 0;
    virtual void guest_halted(Time now) = 0;
    virtual void trigger(replication::TriggerReason reason, Time now) = 0;
    // The pages ahead of the cut are sent, which may take as long as the link likes; `stop` is about to be written.
    virtual void cut_begun(Epoch epoch, Time now) = 0;
    // Pages ahead of the cut go on being sent: told again and again, it keeps transfer_deadline from passing.
    virtual void cut_progress(Epoch epoch, Time now) = 0;
    virtual void cut_done(Epoch epoch, Result<void> result, Time now) = 0;
    virtual void transfer_done(Epoch epoch, Result<replication::Manifest> manifest, Time now) = 0;
    virtual void set_checkpoint_interval(Duration interval, Time now) = 0;   // takes effect at once
    virtual void set_pause_bound(Duration bound) = 0;
    virtual void set_page_channels(std::uint8_t count) = 0;  // of the next session that is dialled

    // Secondary work
    // Staging of the open epoch is nearly full (replication::kStagingTrigger); telling it twice has no second effect.
    virtual void staging_full(Epoch epoch, Time now) = 0;
    virtual void stage_complete(Epoch epoch, Result<void> verified, Time now) = 0;
    virtual void apply_done(Epoch epoch, Result<void> result, Duration took, std::uint32_t own_dirty, Time now) = 0;
    virtual void went_live(Result<void> result, Time now) = 0;

    // The guest is made anew after a reset, which takes its time on the guest thread: nothing is cut meanwhile.
    virtual void guest_renewing(bool on, Time now) = 0;
    virtual void guest_event(const replication::GuestEvent& event, Time now) = 0;

    // Heartbeat and arbitration
    virtual void peer_lost(const std::string& why, Time now) = 0;
    virtual void higher_generation(Generation generation, Time now) = 0;
    // A beat says that the other side holds the generation that this one holds: neither may go on.
    virtual void generation_conflict(Generation generation, Time now) = 0;
    // Our own device model or proxy stands still (judged by the driver, sooner than the peer judges it), or moves again.
    virtual void own_health(bool ok, const std::string& why, Time now) = 0;
    // A wire or frame port of this side is unusable until somebody repairs it; empty: all are usable again.
    virtual void ports(const std::string& unusable, Time now) = 0;
    virtual void carrier(bool up, Time now) = 0;
    virtual void grant_result(Generation generation, GrantOutcome outcome, const std::string& detail, Time now) = 0;

    // Primary: an operator stops the guest or lets it run again; copies and takeovers follow. Before the driver does it to
    // the guest, so that no later cut undoes it. Refused where this side is not the one to decide.
    virtual Result<void> pause(bool paused, Time now) = 0;

    // Operator. Refusals come back at once as the Result; success means "under way", OperatorDone follows.
    virtual Result<void> lost_heartbeat(Time now) = 0;                       // x-colo-lost-heartbeat
    virtual Result<void> failover(bool accept_data_loss, Time now) = 0;
    virtual Result<void> unprotect(Time now) = 0;
    // P: this host ends in order. Freezes, abdicates; the secondary goes on at once. Refused without one.
    virtual Result<void> hand_over(Time now) = 0;
    // migrate_cancel: before COLO is reached, and of a migration until the guest is given away. The guest goes on here.
    virtual void cancel_session(const std::string& why, Time now) = 0;
    virtual void switch_over(Time now) = 0;                                  // migrate-continue
};

std::unique_ptr<Node> make_node(const NodeConfig& config);

}  // namespace colo
