// SPDX-License-Identifier: Apache-2.0
// What a session that is a migration does differently: one cut that leaves the guest stopped, and once the destination has
// loaded it, the planned hand-over that a protected domain knows as well. Nothing of R1 to R9 is weaker: until Abdicate the
// guest can go on here, by the destination's word (Resign) or by a grant; behind it the destination may run, with a grant, and
// this side only with that same grant of a lock, of which there is one.
#include "colo/node_impl.h"

#include <algorithm>

namespace colo {

using replication::PowerState;

constexpr Duration kLastWord{300'000};

// The first copy has come as far as it gets while the guest runs.
void NodeImpl::copy_converged(Time now)
{
    if (!m_.on || !m_.pauses) return first_cut(now);
    m_.holds_guest = true;
    act(action::StopGuest{"the migration waits before the switch-over", true});
    enter(Step::pre_switchover);   // as long as the operator likes; the heartbeat watches the other side
}

// Said when it is true: who waits for it relies on a guest that stands still.
void NodeImpl::guest_halted(Time)
{
    if (step_ != Step::pre_switchover || std::exchange(m_.halted, true)) return;
    act(action::SwitchOver{true});
}

void NodeImpl::switch_over(Time now)
{
    if (step_ != Step::pre_switchover || !m_.halted) return;
    act(action::SwitchOver{false});
    first_cut(now);
}

// There is no next checkpoint that could do better.
void NodeImpl::switch_over_failed(const Error& error, Time now)
{
    const std::string why = "the switch-over failed: " + error.text;
    send(replication::Close{why});
    lost(why, now);
    p_.cut_late = false;   // it is over
}

// The destination holds everything, loaded and still: one word moves the guest.
void NodeImpl::give_away(Time now)
{
    if (o_.ask != Ask::none) return enter(Step::steady);   // cancelled: it is about to resign
    if (m_.power_event) {   // what was sent is not what the guest did last (R9), and there is no next checkpoint
        (void)negotiate(Ask::pressure, now);
        return enter(Step::steady);
    }
    abdicate("migrated to the destination", now);
}

void NodeImpl::end_migration(const Result<void>& result)
{
    if (!m_.on || std::exchange(m_.told, true)) return;
    if (!result) return act(action::SessionFailed{result.error().text});
    act(action::Migrated{});
}

// The destination closes every channel at once, and what it said last need not be the first to arrive. Behind that word it
// asks the arbiter, and its beats say when it runs.
void NodeImpl::end_of_source(Time now)
{
    if (m_.taken) return finish_abdication(now);
    if (!m_.heard) deadline_ = std::min(deadline_, now + kLastWord);
}

void NodeImpl::last_word(const std::string& cause)
{
    if (cause != kTakesOver) return;
    m_.heard = true;
    m_.taken = config_.arbiter != ArbiterKind::lock;   // it asks nobody
}

// Abdicate says that this side does not run on its own. A lock grants a generation once, whoever asks and when: if the
// destination is lost before it ran, it did not take it, and if it took it, this side is refused. Where the destination grants
// it to itself there is nobody to ask.
bool NodeImpl::may_take_back() const
{
    return m_.on && !m_.taken && guest_present_ && config_.arbiter == ArbiterKind::lock;
}

void NodeImpl::take_back(Time)
{
    m_.why = "the destination did not say that it runs";
    d_ = {};
    d_.why = m_.why;
    close_session(m_.why);
    enter(Step::closing);
    beat();
    change(Protection::deciding, m_.why + "; the arbiter decides who goes on");
}

// Granted in the course of things, and not by an operator who gave up what was migrated.
bool NodeImpl::is_the_migrations(Generation generation) const
{
    return generation == state_.generation + 1 || generation < next_thousand(state_.generation);
}

// Of a source that stopped without knowing.
void NodeImpl::settle_migration(const Result<void>& result)
{
    if (!std::exchange(outcome_open_, false)) return;
    migrated_ = result.has_value();
    if (!result) return act(action::SessionFailed{result.error().text});
    act(action::Migrated{});
}

void NodeImpl::let_held_guest_run()
{
    if (std::exchange(m_.holds_guest, false) && power_ == PowerState::running) act(action::ResumeGuest{});
}

// S learns from the first Begin what it is wanted for.
bool NodeImpl::accept_kind(replication::Mode mode, Time now)
{
    const bool migration = mode == replication::Mode::migration;
    if (s_.highest != 0) {
        if (migration != m_.on) violation("the session changed from or to a migration", now);
        return migration == m_.on;
    }
    if (awaited_ && (*awaited_ == SessionKind::migration) != migration) {
        refuse(migration ? "this side waits for a primary to protect, not for a migration: the capability x-colo is set here, "
                           "but not there"
                         : "this side waits for a migration, not for a primary to protect: the capability x-colo is set "
                           "there, but not here",
               now);
        return false;
    }
    m_.on = migration;
    if (migration) deadline_ = kNever;   // however large the guest and slow the link; the heartbeat watches the other side
    return true;
}

}  // namespace colo
