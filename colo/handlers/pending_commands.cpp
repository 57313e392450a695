// SPDX-License-Identifier: Apache-2.0
#include "colo/handlers/control.h"

namespace colo {

namespace commands = schema::commands;

namespace {

template <class Command>
void refuse(qmp::Registry& registry)
{
    registry.add<Command>([](const auto&, auto reply) { reply.fail("This command is not served yet"); });
}

}  // namespace

void add_pending_commands(qmp::Registry& registry)
{
    refuse<commands::Getfd>(registry);
    refuse<commands::Closefd>(registry);
    refuse<commands::AddFd>(registry);
    refuse<commands::RemoveFd>(registry);
    refuse<commands::QueryFdsets>(registry);

}

}  // namespace colo
