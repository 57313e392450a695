// SPDX-License-Identifier: Apache-2.0

// Capabilities and parameters of migrations: both are listed, or changed with NAME=VALUE, all or nothing.

#include "colo/ctl/commands.h"
#include "colo/ctl/daemon_link.h"
#include "colo/ctl/failure.h"
#include "colo/ctl/text_table.h"
#include "colo/ctl/units.h"
#include "schema/tables.h"

#include <algorithm>
#include <cstdio>

namespace colo::ctl {
namespace {

constexpr const char* kSetParameters = "migrate-set-parameters";

int usage(const std::string& text)
{
    std::fprintf(stderr, "coloctl: usage: %s\n", text.c_str());
    return kUsage;
}

struct Assignment {
    std::string name;
    std::string value;
};

Result<std::vector<Assignment>> assignments(const Options& options, const char* example)
{
    std::vector<Assignment> result;
    for (const std::string& text : options.settings) {
        const std::size_t equals = text.find('=');
        if (equals == text.npos || equals == 0)
            return make_error(Errc::invalid, "'" + text + "': write it as NAME=VALUE, such as " + example);
        const std::string name = text.substr(0, equals);
        if (std::ranges::any_of(result, [&](const Assignment& earlier) { return earlier.name == name; }))
            return make_error(Errc::invalid, "'" + name + "' is there twice");
        result.push_back({name, text.substr(equals + 1)});
    }
    return result;
}

// The array that query-migrate-capabilities answers with.
Result<schema::Value> query(const Options& options, qmp::Client& client, const char* command)
{
    return client.execute(command, {}, deadline_of(options.timeout_s));
}

const schema::ArgumentEntry* parameter(std::string_view name)
{
    const auto table = schema::argument_table(kSetParameters);
    const auto found = std::ranges::find(table, name, &schema::ArgumentEntry::name);
    return found != table.end() ? &*found : nullptr;
}

std::string capability_table(const schema::Value& answer)
{
    std::vector<std::vector<std::string>> rows{{"CAPABILITY", "STATE", "WHAT IT DOES"}};
    const auto known = schema::value_table("MigrationCapability");
    for (const schema::Value& entry : answer.as_array() ? *answer.as_array() : schema::Array()) {
        const schema::Value* name = entry.find("capability");
        const schema::Value* state = entry.find("state");
        if (name == nullptr || !name->as_string() || state == nullptr || !state->as_bool()) continue;
        const auto found = std::ranges::find(known, *name->as_string(), &schema::ValueEntry::name);
        std::string text(found != known.end() ? found->doc : "");
        if (found != known.end() && found->unstable) text += " (unstable)";
        rows.push_back({*name->as_string(), *state->as_bool() ? "on" : "off", text});
    }
    return text_table(rows);
}

std::string parameter_table(const schema::Value& answer)
{
    std::vector<std::vector<std::string>> rows{{"PARAMETER", "VALUE", "DEFAULT", "ALLOWED"}};
    for (const schema::ArgumentEntry& entry : schema::argument_table(kSetParameters)) {
        const schema::Value* value = answer.find(entry.name);
        const auto usual = qmp::parse_json(entry.default_json);
        const std::string shown = value != nullptr ? show_parameter(entry, *value) : "not set";
        rows.push_back(
            {std::string(entry.name), shown, usual ? show_parameter(entry, *usual) : "not set", show_range(entry)});
        if (usual && value != nullptr && *value != *usual) rows.back()[1] += " *";
    }
    if (const schema::Object* object = answer.as_object())
        for (const schema::Member& member : object->members())
            if (parameter(member.name) == nullptr)  // of a newer daemon
                rows.push_back({member.name, qmp::to_json(member.value), "", ""});
    return text_table(rows) + "* not the default\n";
}

int list(const Options& options, qmp::Client& client, const char* command, const char* name,
         std::string (*table)(const schema::Value&))
{
    auto answer = query(options, client, command);
    if (!answer) return report_failure(name_of(options), answer.error());
    if (options.json)
        print_json(name, std::move(*answer));
    else
        std::fputs(table(*answer).c_str(), stdout);
    return kOk;
}

Result<schema::Array> capability_changes(const std::vector<Assignment>& wanted)
{
    schema::Array changes;
    for (const Assignment& one : wanted) {
        if (one.value != "on" && one.value != "off")
            return make_error(Errc::invalid, one.name + ": '" + one.value + "': say on or off");
        changes.push_back(schema::Object{{"capability", one.name}, {"state", one.value == "on"}});
    }
    return changes;
}

Result<schema::Object> parameter_changes(const std::vector<Assignment>& wanted)
{
    schema::Object changes;
    for (const Assignment& one : wanted) {
        const schema::ArgumentEntry* entry = parameter(one.name);
        if (entry == nullptr)
            return make_error(Errc::invalid, "'" + one.name + "' is no parameter; without arguments they are listed");
        auto value = parse_parameter(*entry, one.value);
        if (!value) return value.error();
        changes.append(one.name, std::move(*value));
    }
    return changes;
}

int change(const Options& options, qmp::Client& client, const char* command, schema::Object arguments)
{
    const auto answer = client.execute(command, std::move(arguments), deadline_of(options.timeout_s));
    return answer ? kOk : report_failure(name_of(options), answer.error(), options.domain);
}

}  // namespace

int run_capabilities(const Options& options)
{
    const auto wanted = assignments(options, "events=on");
    if (!wanted) return usage("capabilities: " + wanted.error().text);
    auto changes = capability_changes(*wanted);
    if (!changes) return usage("capabilities: " + changes.error().text);
    auto client = connect_or_report(options);
    if (!client) return kUnreachable;
    if (!changes->empty()) {
        const int status =
            change(options, *client, "migrate-set-capabilities", {{"capabilities", std::move(*changes)}});
        if (status != kOk || !options.json) return status;
    }
    return list(options, *client, "query-migrate-capabilities", "capabilities", capability_table);
}

int run_parameters(const Options& options)
{
    const auto wanted = assignments(options, "downtime-limit=300ms");
    if (!wanted) return usage("parameters: " + wanted.error().text);
    auto changes = parameter_changes(*wanted);
    if (!changes) return usage("parameters: " + changes.error().text);
    auto client = connect_or_report(options);
    if (!client) return kUnreachable;
    if (!changes->empty()) {
        const int status = change(options, *client, kSetParameters, std::move(*changes));
        if (status != kOk || !options.json) return status;
    }
    return list(options, *client, "query-migrate-parameters", "parameters", parameter_table);
}

}  // namespace colo::ctl
