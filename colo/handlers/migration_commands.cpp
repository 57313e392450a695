// SPDX-License-Identifier: Apache-2.0
#include "colo/handlers/control.h"
#include "colo/handlers/refusals.h"
#include "colo/handlers/uri.h"

#include <charconv>
#include <memory>

namespace colo {

namespace commands = schema::commands;
using schema::MigrationCapability;
using schema::MigrationStatus;
using schema::RunState;

namespace {

SessionKind wanted_kind(const Control& control)
{
    return control.settings().enabled(MigrationCapability::x_colo) ? SessionKind::protection : SessionKind::migration;
}

// The migration was begun and cannot go on: both the command and query-migrate say so.
void fail_outgoing(Control& control, const std::string& text, qmp::TypedReply<void> reply)
{
    control.book().start_outgoing();
    control.book().refuse_outgoing(text);
    reply.fail(text);
}

Result<void> check_resume(Control& control)
{
    if (control.book().outgoing() != MigrationStatus::postcopy_paused)
        return refused("Cannot resume if there is no paused migration");
    if (control.settings().enabled(MigrationCapability::release_ram))
        return refused("Postcopy recovery cannot work when release-ram capability is set");
    return refusal_error(Refused::postcopy_link);
}

Result<void> check_disk_options(Control& control)
{
    const MigrationSettings& settings = control.settings();
    if (settings.enabled(MigrationCapability::x_colo)) return refused("No disk migration is required in COLO mode");
    if (settings.enabled(MigrationCapability::block) || settings.parameters().block_incremental.value_or(false))
        return refused("Command options are incompatible with current migration capabilities");
    return refusal_error(Refused::block_option);
}

// What a number after "fd:" is.
enum class Numbers : std::uint8_t { are_names, are_descriptors };

// A name is used up, whatever comes of the migration: so clients expect it, and the descriptor is closed at once.
Result<void> take_descriptor(Control& control, const std::string& name, qmp::MonitorId monitor, Numbers numbers)
{
    const bool number = !name.empty() && name.front() >= '0' && name.front() <= '9';
    if (!number || numbers == Numbers::are_names) {
        const auto taken = control.fds().take_named(monitor, name);
        return taken ? Result<void>{} : taken.error();
    }
    int descriptor = -1;
    const auto [end, status] = std::from_chars(name.data(), name.data() + name.size(), descriptor);
    if (status != std::errc{} || end != name.data() + name.size())
        return refused("Invalid file descriptor number '" + name + "'");
    return {};
}

// What is wrong with an address is said before what is wrong with migrating to it.
Result<void> check_address(Control& control, const std::string& uri, qmp::MonitorId monitor, Numbers numbers)
{
    const UriKind kind = classify_uri(uri);
    if (kind == UriKind::malformed) return make_error(Errc::invalid, uri_error(uri));
    if (kind == UriKind::descriptor) return take_descriptor(control, descriptor_name(uri), monitor, numbers);
    return {};
}

void migrate(Control& control, const commands::Migrate::Arguments& arguments, qmp::TypedReply<void> reply)
{
    if (arguments.resume.value_or(false)) return reply.complete(check_resume(control));
    if (auto allowed = check_outgoing(control); !allowed) return reply.fail(allowed.error());
    if (arguments.blk.value_or(false) || arguments.inc.value_or(false))
        return reply.complete(check_disk_options(control));
    if (classify_uri(arguments.uri) == UriKind::unknown) {
        control.book().start_outgoing();
        control.book().refuse_outgoing({});  // without a text in query-migrate
        return reply.fail("Parameter 'uri' expects a valid migration protocol");
    }
    if (auto address = check_address(control, arguments.uri, reply.monitor(), Numbers::are_names); !address)
        return fail_outgoing(control, address.error().text, std::move(reply));
    start_transfer(control, arguments.uri, wanted_kind(control), std::move(reply));
}

Result<void> check_incoming(Control& control, const std::string& uri, qmp::MonitorId monitor)
{
    const UriKind kind = classify_uri(uri);
    if (kind == UriKind::unknown) return refused("unknown migration protocol: " + uri);
    if (auto address = check_address(control, uri, monitor, Numbers::are_descriptors); !address) return address;
    if (kind != UriKind::usable) return make_error(Errc::invalid, uri_error(uri));
    return check_credentials(control);
}

void migrate_incoming(Control& control, const std::string& uri, qmp::TypedReply<void> reply)
{
    MigrationBook& book = control.book();
    const MigrationStatus status = book.incoming();
    if (status != MigrationStatus::none && status != MigrationStatus::failed && status != MigrationStatus::cancelled)
        return reply.fail("The incoming migration has already been started");
    if (control.service().run_state() != RunState::inmigrate)
        return reply.fail("'-incoming' was not specified on the command line");
    // A daemon that was started as a secondary listens by itself; the book hears of that when a primary comes.
    if (status == MigrationStatus::none && !control.service().listening().empty())
        return reply.fail("The incoming migration has already been started");
    control.set_several_connections(several_connections(uri));
    book.start_incoming();  // announced whatever comes of the address
    if (auto checked = check_incoming(control, uri, reply.monitor()); !checked) {
        book.refuse_incoming();
        return reply.fail(checked.error());
    }
    auto shared = std::make_shared<qmp::TypedReply<void>>(std::move(reply));
    control.service().migrate_incoming(uri, wanted_kind(control), [&book, shared](Result<void> result) {
        if (!result) book.refuse_incoming();
        shared->complete(result);
    });
}

// Credentials apply to the next stream. One that is awaited already would come without them.
Result<void> set_parameters(Control& control, const schema::MigrateSetParameters& wanted)
{
    const std::string* creds = wanted.tls_creds ? std::get_if<std::string>(&wanted.tls_creds->value) : nullptr;
    const bool awaited = control.service().run_state() == RunState::inmigrate &&
                         !control.service().listening().empty() && !control.book().in_progress();
    if (creds != nullptr && !creds->empty() && awaited) return refusal_error(Refused::tls_incoming, *creds);
    return control.settings().set_parameters(wanted);
}

// They count until the stream comes, also where it is awaited already.
Result<void> set_capabilities(Control& control, const std::vector<schema::MigrationCapabilityStatus>& wanted)
{
    auto set = control.settings().set_capabilities(wanted, control.capability_facts());
    if (set && control.book().incoming() == MigrationStatus::setup) control.service().await_session(wanted_kind(control));
    return set;
}

void add_settings(Control& control, qmp::Registry& registry)
{
    registry.add<commands::MigrateSetCapabilities>([&control](const auto& arguments, auto reply) {
        if (control.book().in_progress()) return reply.fail(kInProgress);
        reply.complete(set_capabilities(control, arguments.capabilities));
    });
    registry.add<commands::QueryMigrateCapabilities>(
        [&control](const auto&, auto reply) { reply.succeed(control.settings().capabilities()); });
    registry.add<commands::MigrateSetParameters>(
        [&control](const auto& arguments, auto reply) { reply.complete(set_parameters(control, arguments)); });
    registry.add<commands::QueryMigrateParameters>(
        [&control](const auto&, auto reply) { reply.succeed(control.settings().parameters()); });
}

}  // namespace

Result<void> check_outgoing(Control& control)
{
    if (control.book().sending()) return refused(kInProgress);
    const RunState state = control.service().run_state();
    if (state == RunState::inmigrate) return refused("Guest is waiting for an incoming migration");
    if (control.book().in_progress()) return refused(kInProgress);
    if (state == RunState::postmigrate)
        return refused("Can't migrate the vm that was paused due to previous migration");
    const auto reasons = control.service().blocked_reasons();
    if (!reasons.empty()) return refused(reasons.front());
    return {};
}

Result<void> check_credentials(const Control& control)
{
    const std::string creds = control.settings().parameters().tls_creds.value_or(std::string());
    if (creds.empty()) return {};
    return refusal_error(Refused::tls, creds);
}

void start_transfer(Control& control, const std::string& uri, SessionKind kind, qmp::TypedReply<void> reply)
{
    MigrationBook& book = control.book();
    const MigrationSettings& settings = control.settings();
    const bool protect = kind == SessionKind::protection;
    if (!protect && settings.enabled(MigrationCapability::xbzrle))
        return fail_outgoing(control, refusal(Refused::plain_deltas).text, std::move(reply));
    if (protect && settings.enabled(MigrationCapability::pause_before_switchover))
        return fail_outgoing(control, refusal(Refused::pause_in_colo).text, std::move(reply));
    if (!uri.empty() && classify_uri(uri) != UriKind::usable)
        return fail_outgoing(control, uri_error(uri), std::move(reply));
    book.start_outgoing();
    if (auto checked = check_credentials(control); !checked) {
        // They are looked up when the link is there, which is after the answer.
        book.refuse_outgoing(checked.error().text);
        return reply.succeed();
    }
    auto shared = std::make_shared<qmp::TypedReply<void>>(std::move(reply));
    const bool pauses = settings.enabled(MigrationCapability::pause_before_switchover);
    control.service().migrate(uri, {kind, pauses}, [&book, shared](Result<void> result) {
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
        if (control.book().cancel_outgoing()) control.service().migrate_cancel();
        reply.succeed();
    });
    registry.add<commands::QueryMigrate>(
        [&control](const auto&, auto reply) { reply.succeed(control.book().info(control.service())); });
}

}  // namespace colo
