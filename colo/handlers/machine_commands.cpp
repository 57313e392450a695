// SPDX-License-Identifier: Apache-2.0
// The buttons of the machine. What they do is told by events.
#include "colo/handlers/control.h"

#include <memory>

namespace colo {

namespace commands = schema::commands;

namespace {

Done answer(qmp::TypedReply<void> reply)
{
    auto shared = std::make_shared<qmp::TypedReply<void>>(std::move(reply));
    return [shared](const Result<void>& result) { shared->complete(result); };
}

}  // namespace

void add_machine_commands(Control& control, qmp::Registry& registry)
{
    registry.add<commands::SystemReset>(
        [&control](const auto&, auto reply) { control.service().system_reset(answer(std::move(reply))); });
    registry.add<commands::SystemPowerdown>(
        [&control](const auto&, auto reply) { control.service().system_powerdown(answer(std::move(reply))); });
}

void Control::reset(bool guest, schema::ShutdownCause cause)
{
    events_.emit(schema::events::Reset{guest, cause});
}
void Control::power_button()
{
    events_.emit(schema::events::Powerdown{});
}
void Control::suspended()
{
    events_.emit(schema::events::Suspend{});
}
void Control::woken()
{
    events_.emit(schema::events::Wakeup{});
}
void Control::panicked()
{
    events_.emit(schema::events::GuestPanicked{schema::GuestPanicAction::pause});
}

}  // namespace colo
