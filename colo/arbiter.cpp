// SPDX-License-Identifier: Apache-2.0
#include "colo/arbiter.h"

#include "colo/arbiter_command.h"
#include "colo/arbiter_lock.h"

#include <string>

namespace colo {
namespace {

class ManualArbiter final : public Arbiter {
public:
    ArbiterKind kind() const override { return ArbiterKind::manual; }
    Result<std::string> settings_digest(Deadline) override { return std::string("manual"); }
    GrantResult request(const GrantRequest&, Deadline) override
    {
        return {
            GrantOutcome::unknown,
            "waits for the operator: make sure that the peer does not run the domain, then x-colo-lost-heartbeat here"};
    }
    Observation observe(Generation, Deadline) override
    {
        return {Observation::State::unknown, "only the operator knows"};
    }
    void cancel() override {}
};

}  // namespace

Result<void> failover_possible(Arbiter& arbiter, Generation next, Deadline deadline)
{
    const Observation seen = arbiter.observe(next, deadline);
    if (seen.state != Observation::State::ours && seen.state != Observation::State::theirs) return {};
    return make_error(Errc::refused, "a failover would be refused: " + seen.detail +
                                         ", left over from earlier. Make sure that no other host runs this domain, then remove "
                                         "the lock files of generation " + std::to_string(next) +
                                         " and above from the arbiter's directory");
}

Result<std::unique_ptr<Arbiter>> make_arbiter(const ArbiterSettings& settings)
{
    switch (settings.kind) {
    case ArbiterKind::manual: return std::unique_ptr<Arbiter>(std::make_unique<ManualArbiter>());
    case ArbiterKind::command: return make_command_arbiter(settings);
    case ArbiterKind::lock: return make_lock_arbiter(settings);
    }
    return make_error(Errc::invalid, "unknown kind of arbiter");
}

}  // namespace colo
