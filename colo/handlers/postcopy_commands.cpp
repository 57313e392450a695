// SPDX-License-Identifier: Apache-2.0
// Commands that act on a migration which runs already, or tell a client of the guest about it. A phase that only an
// engine of plain migration has is never reached here; the checks before it are complete all the same.
#include "colo/handlers/control.h"
#include "colo/handlers/refusals.h"
#include "colo/handlers/uri.h"

namespace colo {

namespace commands = schema::commands;
using schema::MigrationCapability;
using schema::MigrationStatus;

namespace {

// The state in which it is has to be named. Only pre-switchover waits for this.
Result<void> go_on(Control& control, MigrationStatus expected)
{
    const MigrationStatus status = control.book().outgoing();
    if (status != expected) return refused("Migration not in expected state: " + std::string(to_string(status)));
    if (status == MigrationStatus::pre_switchover) control.service().migrate_continue();
    return {};
}

// After the end of a migration it succeeds without effect: clients cannot know that they came too late.
Result<void> start_postcopy(Control& control)
{
    if (!control.settings().enabled(MigrationCapability::postcopy_ram))
        return refused("Enable postcopy with migrate_set_capability before the start of migration");
    if (control.book().outgoing() == MigrationStatus::none)
        return refused("Postcopy must be started after migration has been started");
    return {};
}

Result<void> pause_link(Control& control)
{
    const MigrationBook& book = control.book();
    if (book.outgoing() != MigrationStatus::postcopy_active && book.incoming() != MigrationStatus::postcopy_active)
        return refused("migrate-pause is currently only supported during postcopy-active state");
    return refusal_error(Refused::postcopy_link);
}

Result<void> recover(Control& control, const std::string& uri)
{
    if (control.book().incoming() != MigrationStatus::postcopy_paused)
        return refused("Migrate recover can only be run when postcopy is paused.");
    control.events().emit(schema::events::Migration{MigrationStatus::setup});
    if (classify_uri(uri) == UriKind::unknown) return refused("unknown migration protocol: " + uri);
    return refusal_error(Refused::postcopy_link);
}

void client_info(const std::string& protocol, qmp::TypedReply<void> reply)
{
    if (protocol != "spice") return reply.fail("Parameter 'protocol' expects 'spice'");
    reply.fail({schema::QapiErrorClass::DeviceNotActive, refusal(Refused::spice).text});
}

}  // namespace

// migrate-pause and migrate-recover may overtake everything else; like all the others they answer at once.
void add_postcopy_commands(Control& control, qmp::Registry& registry)
{
    registry.add<commands::MigrateContinue>(
        [&control](const auto& arguments, auto reply) { reply.complete(go_on(control, arguments.state)); });
    registry.add<commands::MigrateStartPostcopy>(
        [&control](const auto&, auto reply) { reply.complete(start_postcopy(control)); });
    registry.add<commands::MigratePause>([&control](const auto&, auto reply) { reply.complete(pause_link(control)); });
    registry.add<commands::MigrateRecover>(
        [&control](const auto& arguments, auto reply) { reply.complete(recover(control, arguments.uri)); });
    registry.add<commands::ClientMigrateInfo>(
        [](const auto& arguments, auto reply) { client_info(arguments.protocol, std::move(reply)); });
}

}  // namespace colo
