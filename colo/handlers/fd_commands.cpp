// SPDX-License-Identifier: Apache-2.0
#include "colo/handlers/control.h"

namespace colo {

namespace commands = schema::commands;

namespace {

constexpr const char* kNoDescriptor = "No file descriptor supplied via SCM_RIGHTS";

void add_named(Control& control, qmp::Registry& registry)
{
    registry.add<commands::Getfd>([&control](const auto& arguments, auto reply) {
        qmp::Fd fd = reply.take_fd();
        if (!fd) return reply.fail(kNoDescriptor);
        reply.complete(control.fds().name(reply.monitor(), arguments.fdname, std::move(fd)));
    });
    registry.add<commands::Closefd>([&control](const auto& arguments, auto reply) {
        reply.complete(control.fds().close_named(reply.monitor(), arguments.fdname));
    });
}

// The highest number first, as clients are used to it.
std::vector<schema::FdsetInfo> describe(const qmp::FdStore& fds)
{
    std::vector<schema::FdsetInfo> result;
    for (auto set = fds.sets().rbegin(); set != fds.sets().rend(); ++set) {
        schema::FdsetInfo& info = result.emplace_back();
        info.fdset_id = set->first;
        for (const auto& entry : set->second.entries) info.fds.push_back({entry.fd.get(), entry.opaque});
    }
    return result;
}

void add_sets(Control& control, qmp::Registry& registry)
{
    registry.add<commands::AddFd>([&control](const auto& arguments, auto reply) {
        qmp::Fd fd = reply.take_fd();
        if (!fd) return reply.fail(kNoDescriptor);
        const auto placed = control.fds().add_to_set(arguments.fdset_id, arguments.opaque, std::move(fd));
        if (!placed) return reply.fail(placed.error());
        reply.succeed({placed->set, placed->fd});
    });
    registry.add<commands::RemoveFd>([&control](const auto& arguments, auto reply) {
        reply.complete(control.fds().remove_from_set(arguments.fdset_id, arguments.fd));
    });
    registry.add<commands::QueryFdsets>(
        [&control](const auto&, auto reply) { reply.succeed(describe(control.fds())); });
}

}  // namespace

void add_fd_commands(Control& control, qmp::Registry& registry)
{
    add_named(control, registry);
    add_sets(control, registry);
}

}  // namespace colo
