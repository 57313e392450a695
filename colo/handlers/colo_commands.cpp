// SPDX-License-Identifier: Apache-2.0
#include "colo/handlers/control.h"
#include "colo/handlers/uri.h"
#include "core/log.h"

#include <memory>
#include <string_view>

namespace colo {

namespace commands = schema::commands;
using schema::MigrationCapability;

namespace {

Done completing(qmp::TypedReply<void> reply)
{
    auto shared = std::make_shared<qmp::TypedReply<void>>(std::move(reply));
    return [shared](Result<void> result) { shared->complete(result); };
}

// A device model's refusal passes through several hands that say "COMMAND: CLASS: " in front of it. Clients of the
// established interface know its plain text.
std::string plain_text(std::string_view text, std::string_view command)
{
    for (const std::string_view prefix : {command, std::string_view("GenericError")})
        if (text.starts_with(prefix) && text.substr(prefix.size()).starts_with(": "))
            text.remove_prefix(prefix.size() + 2);
    return std::string(text);
}

Done completing_plainly(qmp::TypedReply<void> reply, std::string_view command)
{
    return [done = completing(std::move(reply)), command](const Result<void>& result) {
        if (result) return done(result);
        done(make_error(result.error().code, plain_text(result.error().text, command)));
    };
}

void lost_heartbeat(Control& control, qmp::TypedReply<void> reply)
{
    if (!control.book().in_colo()) return reply.fail("The feature 'colo' is not enabled");
    if (control.book().failing_over()) return reply.fail("COLO failover is already activated");
    control.service().lost_heartbeat(completing(std::move(reply)));
}

void protect(Control& control, const std::string& uri, qmp::TypedReply<void> reply)
{
    if (auto allowed = check_outgoing(control); !allowed) return reply.fail(allowed.error());
    if (!uri.empty() && classify_uri(uri) == UriKind::unknown)
        return reply.fail("Parameter 'uri' expects tcp:HOST:PORT or unix:PATH");
    if (!uri.empty() && classify_uri(uri) != UriKind::usable) return start_transfer(control, uri, SessionKind::protection, std::move(reply));
    if (auto set =
            control.settings().set_capabilities({{MigrationCapability::x_colo, true}}, control.capability_facts());
        !set)
        return reply.fail(set.error());
    start_transfer(control, uri, SessionKind::protection, std::move(reply));
}

void load_device_state(Control& control, const std::string& file, qmp::TypedReply<void> reply)
{
    if (control.service().run_state() == schema::RunState::running)
        return reply.fail("Cannot update device state while vm is running");
    auto shared = std::make_shared<qmp::TypedReply<void>>(std::move(reply));
    control.service().load_device_state(file, [file, shared](Result<void> result) {
        if (result) return shared->succeed();
        spdlog::warn("load device state from {}: {}", file, result.error().text);
        if (result.error().code == Errc::unsupported) return shared->fail(result.error());
        shared->fail("An IO error has occurred");
    });
}

// Disks bring their engine with them; where nothing is replicated there is nothing to start, to stop or to report.
Result<void> set_replication(const commands::XenSetReplication::Arguments& arguments)
{
    if (arguments.enable && arguments.failover)
        return make_error(Errc::invalid, "Parameter 'failover' is only for stopping replication");
    return {};
}

void add_xen(Control& control, qmp::Registry& registry)
{
    registry.add<commands::XenSaveDevicesState>([&control](const auto& arguments, auto reply) {
        control.service().save_device_state(arguments.filename, arguments.live.value_or(true),
                                            completing_plainly(std::move(reply), "xen-save-devices-state"));
    });
    registry.add<commands::XenLoadDevicesState>([&control](const auto& arguments, auto reply) {
        load_device_state(control, arguments.filename, std::move(reply));
    });
    registry.add<commands::XenSetGlobalDirtyLog>([&control](const auto& arguments, auto reply) {
        control.service().set_global_dirty_log(arguments.enable,
                                               completing_plainly(std::move(reply), "xen-set-global-dirty-log"));
    });
    registry.add<commands::XenSetReplication>(
        [](const auto& arguments, auto reply) { reply.complete(set_replication(arguments)); });
    registry.add<commands::QueryXenReplicationStatus>([](const auto&, auto reply) { reply.succeed({}); });
    registry.add<commands::XenColoDoCheckpoint>(
        [&control](const auto&, auto reply) { control.service().do_checkpoint(completing(std::move(reply))); });
}

}  // namespace

void add_colo_commands(Control& control, qmp::Registry& registry)
{
    registry.add<commands::QueryColoStatus>(
        [&control](const auto&, auto reply) { reply.succeed(control.book().colo_status()); });
    registry.add<commands::XColoLostHeartbeat>(
        [&control](const auto&, auto reply) { lost_heartbeat(control, std::move(reply)); });
    add_xen(control, registry);

    registry.add<commands::XQueryColo>(
        [&control](const auto&, auto reply) { reply.succeed(control.service().status()); });
    registry.add<commands::XColoSetReporting>([&control](const auto& arguments, auto reply) {
        schema::ReportingOptions options = control.reporting();
        options.checkpoint_events = arguments.checkpoint_events.value_or(options.checkpoint_events);
        options.live_statistics = arguments.live_statistics.value_or(options.live_statistics);
        control.set_reporting(options);
        reply.succeed(options);
    });
    registry.add<commands::XColoPrecheck>([&control](const auto&, auto reply) {
        auto shared = std::make_shared<decltype(reply)>(std::move(reply));
        control.service().precheck([shared](const Result<std::vector<schema::GuestCheck>>& checks) {
            if (!checks) return shared->fail(checks.error());
            shared->succeed(*checks);
        });
    });
    registry.add<commands::XColoProtect>([&control](const auto& arguments, auto reply) {
        protect(control, arguments.uri.value_or(std::string()), std::move(reply));
    });
    registry.add<commands::XColoFailover>([&control](const auto& arguments, auto reply) {
        control.service().failover(arguments.accept_data_loss.value_or(false), completing(std::move(reply)));
    });
    registry.add<commands::XColoUnprotect>(
        [&control](const auto&, auto reply) { control.service().unprotect(completing(std::move(reply))); });
}

}  // namespace colo
