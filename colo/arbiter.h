// SPDX-License-Identifier: Apache-2.0
#pragma once

// Who may go on alone. A side asks for generation g+1 after it closed the session; at most one side is ever granted a
// generation. Unknown (storage hangs, command failed) is not a grant: keep holding and ask again.
//
// Threads: every call blocks, up to its deadline, and comes from one worker thread; cancel() from any thread.

#include "colo/node.h"
#include "core/error.h"
#include "core/types.h"

#include <functional>
#include <memory>
#include <string>

namespace colo {

struct GrantRequest {
    Generation generation = 0;  // the one that is asked for: persisted generation + 1
    Role role = Role::none;     // primary or secondary of the session that was lost
    std::string peer;           // for the fence command: the peer as the operator named it
    std::function<bool()> wanted{};   // any thread; false: the decision has fallen, do nothing. Empty: always wanted
};

struct GrantResult {
    GrantOutcome outcome = GrantOutcome::unknown;
    std::string reason;  // for people: who has it, what failed, what it waits for
};

struct Observation {
    enum class State : std::uint8_t { free, ours, theirs, unknown };
    State state = State::unknown;
    std::string detail;  // owner, or why it is unknown
};

class Arbiter {
public:
    virtual ~Arbiter() = default;

    virtual ArbiterKind kind() const = 0;
    // Compared at hello: both sides must ask the same arbiter. `lock`: identity of the directory itself, so that two
    // different directories of the same name are found out; needs I/O, hence the deadline.
    virtual Result<std::string> settings_digest(Deadline deadline) = 0;

    // Asking again for a generation that this host holds is granted. The waits before asking are others': the lease is
    // Node's, fence_delay, link_penalty and unreached_delay are the driver's.
    virtual GrantResult request(const GrantRequest& request, Deadline deadline) = 0;
    // Is the generation taken, and by whom. `manual` and `command` do not know.
    virtual Observation observe(Generation generation, Deadline deadline) = 0;

    // A request under way returns unknown soon (a fence command is killed). Sticky until the next request.
    virtual void cancel() = 0;
};

struct ArbiterSettings {
    ArbiterKind kind = ArbiterKind::manual;
    std::string directory, command;
    Duration timeout{5'000'000};  // of one request, where the caller's deadline is not earlier
    std::string domain_name, domain_uuid;
    std::string host_id;  // StateDirectory::host_id(): how this host signs
};

// Would a failover be granted `next`? Refused when somebody holds it already: left over from an earlier life of the domain,
// it would refuse every failover. Not known is not a refusal.
Result<void> failover_possible(Arbiter& arbiter, Generation next, Deadline deadline);

// Errc::invalid for settings that cannot work. Does no I/O: a lock directory that is away makes answers unknown.
Result<std::unique_ptr<Arbiter>> make_arbiter(const ArbiterSettings& settings);

}  // namespace colo
