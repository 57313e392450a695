// SPDX-License-Identifier: Apache-2.0
#include "colo/handlers/control.h"

namespace colo {

namespace commands = schema::commands;

namespace {

constexpr const char* kNoDescriptor = "No file descriptor supplied via SCM_RIGHTS";

void add_named(qmp::Registry& registry)
{
    registry.add<commands::Getfd>([fds = registry.fds()](const auto& arguments, auto reply) {
        qmp::Fd fd = reply.take_fd();
        if (!fd) return reply.fail(kNoDescriptor);
        reply.complete(fds->name(reply.monitor(), arguments.fdname, std::move(fd)));
    });
    registry.add<commands::Closefd>([fds = registry.fds()](const auto& arguments, auto reply) {
        reply.complete(fds->close_named(reply.monitor(), arguments.fdname));
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

void add_sets(qmp::Registry& registry)
{
    registry.add<commands::AddFd>([fds = registry.fds()](const auto& arguments, auto reply) {
        qmp::Fd fd = reply.take_fd();
        if (!fd) return reply.fail(kNoDescriptor);
        const auto placed = fds->add_to_set(arguments.fdset_id, arguments.opaque, std::move(fd));
        if (!placed) return reply.fail(placed.error());
        reply.succeed({placed->set, placed->fd});
    });
    registry.add<commands::RemoveFd>([fds = registry.fds()](const auto& arguments, auto reply) {
        reply.complete(fds->remove_from_set(arguments.fdset_id, arguments.fd));
    });
    registry.add<commands::QueryFdsets>(
        [fds = registry.fds()](const auto&, auto reply) { reply.succeed(describe(*fds)); });
}

}  // namespace

void add_fd_commands(qmp::Registry& registry)
{
    add_named(registry);
    add_sets(registry);
}

}  // namespace colo
