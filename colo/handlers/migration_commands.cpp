// SPDX-License-Identifier: Apache-2.0
#include "colo/handlers/control.h"
#include "colo/handlers/uri.h"

#include <memory>

namespace colo {

namespace commands = schema::commands;
using schema::MigrationCapability;
using schema::MigrationStatus;
using schema::RunState;

namespace {

void migrate(Control& control, const commands::Migrate::Arguments& arguments, qmp::TypedReply<void> reply)
{
    if (arguments.resume.value_or(false)) return reply.fail("Cannot resume if there is no paused migration");
    if (auto allowed = check_outgoing(control); !allowed) return reply.fail(allowed.error());
    const bool colo = control.settings().enabled(MigrationCapability::x_colo);
    if (colo && (arguments.blk.value_or(false) || arguments.inc.value_or(false)))
        return reply.fail("No disk migration is required in COLO mode");
    if (classify_uri(arguments.uri) == UriKind::unknown) {
        control.book().start_outgoing();
        control.book().refuse_outgoing({});
        return reply.fail("Parameter 'uri' expects a valid migration protocol");
    }
    if (!colo)
        return reply.fail("Plain migration is not available: only protection is, set the capability 'x-colo' first");
    start_protection(control, arguments.uri, std::move(reply));
}

void migrate_incoming(Control& control, const std::string& uri, qmp::TypedReply<void> reply)
{
    const MigrationStatus status = control.book().incoming();
    if (status != MigrationStatus::none && status != MigrationStatus::failed && status != MigrationStatus::cancelled)
        return reply.fail("The incoming migration has already been started");
    if (control.service().run_state() != RunState::inmigrate)
        return reply.fail("'-incoming' was not specified on the command line");
    const UriKind kind = classify_uri(uri);
    if (kind == UriKind::unknown) return reply.fail("unknown migration protocol: " + uri);
    if (kind != UriKind::usable) return reply.fail(uri_error(uri));
    if (!control.settings().enabled(MigrationCapability::x_colo))
        return reply.fail(
            "Plain incoming migration is not available: only protection is, set the capability 'x-colo' first");
    control.book().start_incoming();
    auto shared = std::make_shared<qmp::TypedReply<void>>(std::move(reply));
    control.service().migrate_incoming(uri, [&control, shared](Result<void> result) {
        if (!result) control.book().refuse_incoming();
        shared->complete(result);
    });
}

void cancel(Control& control)
{
    const MigrationStatus status = control.book().outgoing();
    if (status != MigrationStatus::setup && status != MigrationStatus::active) return;
    control.book().cancel_outgoing();
    control.service().migrate_cancel();
}

void add_settings(Control& control, qmp::Registry& registry)
{
    registry.add<commands::MigrateSetCapabilities>([&control](const auto& arguments, auto reply) {
        if (control.book().in_progress()) return reply.fail(kInProgress);
        reply.complete(control.settings().set_capabilities(arguments.capabilities));
    });
    registry.add<commands::QueryMigrateCapabilities>(
        [&control](const auto&, auto reply) { reply.succeed(control.settings().capabilities()); });
    registry.add<commands::MigrateSetParameters>([&control](const auto& arguments, auto reply) {
        reply.complete(control.settings().set_parameters(arguments));
    });
    registry.add<commands::QueryMigrateParameters>(
        [&control](const auto&, auto reply) { reply.succeed(control.settings().parameters()); });
}

}  // namespace

Result<void> check_outgoing(Control& control)
{
    if (control.book().in_progress()) return make_error(Errc::refused, kInProgress);
    const RunState state = control.service().run_state();
    if (state == RunState::inmigrate) return make_error(Errc::refused, "Guest is waiting for an incoming migration");
    if (state == RunState::postmigrate)
        return make_error(Errc::refused, "Can't migrate the vm that was paused due to previous migration");
    const auto reasons = control.service().blocked_reasons();
    if (!reasons.empty()) return make_error(Errc::refused, reasons.front());
    return {};
}

void start_protection(Control& control, const std::string& uri, qmp::TypedReply<void> reply)
{
    MigrationBook& book = control.book();
    book.start_outgoing();
    if (!uri.empty() && classify_uri(uri) != UriKind::usable) {
        book.refuse_outgoing(uri_error(uri));
        return reply.fail(uri_error(uri));
    }
    auto shared = std::make_shared<qmp::TypedReply<void>>(std::move(reply));
    control.service().migrate(uri, [&book, shared](Result<void> result) {
        if (!result) book.refuse_outgoing(result.error().text);
        shared->complete(result);
    });
}

void add_migration_commands(Control& control, qmp::Registry& registry)
{
    add_settings(control, registry);
    registry.add<commands::Migrate>(
        [&control](const auto& arguments, auto reply) { migrate(control, arguments, std::move(reply)); });
    registry.add<commands::MigrateIncoming>(
        [&control](const auto& arguments, auto reply) { migrate_incoming(control, arguments.uri, std::move(reply)); });
    registry.add<commands::MigrateCancel>([&control](const auto&, auto reply) {
        cancel(control);
        reply.succeed();
    });
    registry.add<commands::QueryMigrate>(
        [&control](const auto&, auto reply) { reply.succeed(control.book().info(control.service())); });
}

}  // namespace colo
