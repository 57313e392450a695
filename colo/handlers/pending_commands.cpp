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
    refuse<commands::SystemReset>(registry);
    refuse<commands::SystemPowerdown>(registry);

    refuse<commands::QueryJobs>(registry);
    refuse<commands::JobPause>(registry);
    refuse<commands::JobResume>(registry);
    refuse<commands::JobCancel>(registry);
    refuse<commands::JobComplete>(registry);
    refuse<commands::JobDismiss>(registry);
    refuse<commands::JobFinalize>(registry);
    refuse<commands::SnapshotSave>(registry);
    refuse<commands::SnapshotLoad>(registry);
    refuse<commands::SnapshotDelete>(registry);

    refuse<commands::QueryNamedBlockNodes>(registry);
    refuse<commands::QueryBlock>(registry);

    refuse<commands::ClientMigrateInfo>(registry);
    refuse<commands::MigrateContinue>(registry);
    refuse<commands::MigrateStartPostcopy>(registry);
    refuse<commands::MigratePause>(registry);
    refuse<commands::MigrateRecover>(registry);
    refuse<commands::XenSetReplication>(registry);
    refuse<commands::QueryXenReplicationStatus>(registry);

    refuse<commands::CalcDirtyRate>(registry);
    refuse<commands::QueryDirtyRate>(registry);
}

}  // namespace colo
