// SPDX-License-Identifier: Apache-2.0
#include "colo/arbiter.h"

#include "colo/arbiter_command.h"
#include "colo/arbiter_lock.h"

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
