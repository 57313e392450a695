// SPDX-License-Identifier: Apache-2.0
#include "qmp/registry.h"

#include "core/check.h"
#include "qmp/json.h"
#include "schema/tables.h"

#include <algorithm>

namespace colo::qmp {

void Registry::add_raw(std::string_view name, Handler handler, bool allow_oob)
{
    COLO_CHECK(name != schema::commands::QmpCapabilities::kName);
    const bool added = commands_.emplace(name, Command{std::move(handler), allow_oob}).second;
    COLO_CHECK(added);
}

const Registry::Command* Registry::find(std::string_view name) const
{
    const auto found = commands_.find(name);
    return found != commands_.end() ? &found->second : nullptr;
}

std::vector<std::string> Registry::names() const
{
    std::vector<std::string> result{std::string(schema::commands::QmpCapabilities::kName)};
    for (const auto& [name, command] : commands_) result.push_back(name);
    return result;
}

std::vector<std::string> Registry::missing() const
{
    const std::vector<std::string> served = names();
    std::vector<std::string> result;
    for (const schema::CommandEntry& entry : schema::command_table())
        if (std::ranges::find(served, entry.name) == served.end()) result.emplace_back(entry.name);
    return result;
}

bool Registry::allow_oob(std::string_view name)
{
    return std::ranges::any_of(schema::command_table(), [&](const schema::CommandEntry& entry) {
        return entry.name == name && entry.allow_oob;
    });
}

void add_introspection(Registry& registry)
{
    registry.add<schema::commands::QueryCommands>([&registry](const auto&, auto reply) {
        std::vector<schema::CommandInfo> result;
        for (std::string& name : registry.names()) result.push_back({std::move(name)});
        reply.succeed(result);
    });
    // The text was made at build time; it is decoded on the rare occasion that somebody asks.
    registry.add_raw(schema::commands::QueryQmpSchema::kName, [](const schema::Object& object, Reply reply) {
        const auto arguments = schema::decode_arguments<schema::commands::QueryQmpSchema::Arguments>(object);
        if (!arguments) return reply.fail(arguments.error());
        auto schema = parse_json(schema::introspection_json());
        COLO_CHECK(schema.has_value());
        reply.succeed(std::move(*schema));
    });
}

}  // namespace colo::qmp
