// SPDX-License-Identifier: Apache-2.0
#include "colo/handlers/control.h"

namespace colo {

namespace commands = schema::commands;
using schema::JobVerb;

namespace {

template <class Command>
void add_verb(Control& control, qmp::Registry& registry, JobVerb verb)
{
    registry.add<Command>([&control, verb](const auto& arguments, auto reply) {
        reply.complete(control.jobs().apply(verb, arguments.id));
    });
}

}  // namespace

void add_job_commands(Control& control, qmp::Registry& registry)
{
    registry.add<commands::QueryJobs>([&control](const auto&, auto reply) { reply.succeed(control.jobs().list()); });
    add_verb<commands::JobPause>(control, registry, JobVerb::pause);
    add_verb<commands::JobResume>(control, registry, JobVerb::resume);
    add_verb<commands::JobCancel>(control, registry, JobVerb::cancel);
    add_verb<commands::JobComplete>(control, registry, JobVerb::complete);
    add_verb<commands::JobDismiss>(control, registry, JobVerb::dismiss);
    add_verb<commands::JobFinalize>(control, registry, JobVerb::finalize);
}

}  // namespace colo
