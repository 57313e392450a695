// SPDX-License-Identifier: Apache-2.0
#include "colo/handlers/control.h"

#include <string>

namespace colo {

namespace commands = schema::commands;
using schema::RunState;

namespace {

constexpr const char* kNoUuid = "00000000-0000-0000-0000-000000000000";

void add_identity(Control& control, qmp::Registry& registry)
{
    registry.add<commands::QueryVersion>([&control](const auto&, auto reply) {
        reply.succeed(interface_version(control.service().identity().version));
    });
    registry.add<commands::QueryName>([&control](const auto&, auto reply) {
        schema::NameInfo info;
        if (std::string name = control.service().identity().domain; !name.empty()) info.name = std::move(name);
        reply.succeed(info);
    });
    registry.add<commands::QueryUuid>([&control](const auto&, auto reply) {
        const std::string uuid = control.service().identity().uuid;
        reply.succeed({uuid.empty() ? kNoUuid : uuid});
    });
    registry.add<commands::QueryKvm>([&control](const auto&, auto reply) {
        const ServiceIdentity identity = control.service().identity();
        reply.succeed({identity.kvm_enabled, identity.kvm_present});
    });
    registry.add<commands::QueryTarget>([](const auto&, auto reply) {
        reply.succeed({schema::SysEmuTarget::x86_64});  // the only architecture of our guests
    });
    registry.add<commands::QueryStatus>([&control](const auto&, auto reply) {
        const RunState state = control.service().run_state();
        reply.succeed({state == RunState::running, false, state});
    });
}

// While a guest is waited for, stop and cont say whether it runs once it was migrated here. A protected copy runs or rests
// as the primary's guest does.
void stop(Control& control, qmp::TypedReply<void> reply)
{
    switch (control.service().run_state()) {
    case RunState::running:
    case RunState::colo:     // between two halves of a checkpoint: it would run again in a moment
    case RunState::save_vm:  // the same with a device state that is being written
        break;
    case RunState::inmigrate: control.service().begin_paused(true); return reply.succeed();
    default: return reply.succeed();
    }
    auto shared = std::make_shared<qmp::TypedReply<void>>(std::move(reply));
    control.service().stop(RunState::paused, [shared](Result<void> result) { shared->complete(result); });
}

void cont(Control& control, qmp::TypedReply<void> reply)
{
    switch (control.service().run_state()) {
    case RunState::running:
    case RunState::suspended:
    case RunState::colo: return reply.succeed();
    case RunState::inmigrate: control.service().begin_paused(false); return reply.succeed();
    case RunState::finish_migrate: return reply.fail("Migration is not finalized yet");
    case RunState::shutdown:
    case RunState::internal_error: return reply.fail("Resetting the Virtual Machine is required");
    default: break;
    }
    auto shared = std::make_shared<qmp::TypedReply<void>>(std::move(reply));
    control.service().cont([shared](Result<void> result) { shared->complete(result); });
}

}  // namespace

void add_base_commands(Control& control, qmp::Registry& registry)
{
    add_identity(control, registry);
    registry.add<commands::Stop>([&control](const auto&, auto reply) { stop(control, std::move(reply)); });
    registry.add<commands::Cont>([&control](const auto&, auto reply) { cont(control, std::move(reply)); });
    registry.add<commands::Quit>([&control](const auto&, auto reply) {
        control.events().emit(schema::events::Shutdown{false, schema::ShutdownCause::host_qmp_quit});
        reply.succeed();
        control.jobs().cancel_all();
        control.service().quit();
    });
}

}  // namespace colo
