// SPDX-License-Identifier: Apache-2.0
#include "qmp/json.h"
#include "schema/tables.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

namespace colo::schema {
namespace {

class IntrospectionTest : public ::testing::Test {
protected:
    void SetUp() override
    {
        auto parsed = qmp::parse_json(introspection_json());
        ASSERT_TRUE(parsed);
        for (const Value& entity : *parsed->as_array()) {
            const std::string& name = text(entity, "name");
            EXPECT_TRUE(entities_.emplace(name, entity).second) << "twice: " << name;
        }
    }
    static const std::string& text(const Value& value, std::string_view member)
    {
        return *value.find(member)->as_string();
    }

    // Members of an argument or event type by name.
    std::map<std::string, Value> members(const std::string& command)
    {
        std::map<std::string, Value> result;
        const Value& type = entities_.at(text(entities_.at(command), "arg-type"));
        for (const Value& member : *type.find("members")->as_array()) result[text(member, "name")] = member;
        return result;
    }

    // Names of the entities that an entity refers to.
    static std::vector<std::string> references(const Value& entity)
    {
        std::vector<std::string> result;
        for (const char* member : {"arg-type", "ret-type", "element-type"})
            if (const Value* target = entity.find(member)) result.push_back(*target->as_string());
        if (text(entity, "meta-type") != "enum")
            for (const char* list : {"members", "variants"})
                if (const Value* entries = entity.find(list))
                    for (const Value& entry : *entries->as_array()) result.push_back(text(entry, "type"));
        return result;
    }

    std::map<std::string, Value> entities_;
};

TEST_F(IntrospectionTest, EveryReferenceExistsAndEverythingIsReachable)
{
    std::set<std::string> seen;
    std::vector<std::string> todo;
    for (const auto& [name, entity] : entities_)
        if (text(entity, "meta-type") == "command" || text(entity, "meta-type") == "event") todo.push_back(name);
    while (!todo.empty()) {
        const std::string name = todo.back();
        todo.pop_back();
        ASSERT_TRUE(entities_.contains(name)) << name;
        if (!seen.insert(name).second) continue;
        for (std::string& target : references(entities_.at(name))) todo.push_back(std::move(target));
    }
    EXPECT_EQ(seen.size(), entities_.size());
}

TEST_F(IntrospectionTest, CommandsAndEventsKeepTheirNames)
{
    for (const CommandEntry& command : command_table()) {
        const Value& entity = entities_.at(std::string(command.name));
        EXPECT_EQ(text(entity, "meta-type"), "command");
        EXPECT_EQ(entity.find("allow-oob") != nullptr, command.allow_oob);
        EXPECT_EQ(entity.find("features") != nullptr, command.unstable) << command.name;
        EXPECT_TRUE(entity.find("arg-type") && entity.find("ret-type"));
    }
    for (const std::string_view event : event_table())
        EXPECT_EQ(text(entities_.at(std::string(event)), "meta-type"), "event");
    EXPECT_EQ(event_table().size(), 13u);
}

TEST_F(IntrospectionTest, TypesHaveNumbersForNames)
{
    for (const auto& [name, entity] : entities_) {
        const std::string& kind = text(entity, "meta-type");
        if (kind == "object" || kind == "enum" || kind == "alternate") {
            EXPECT_TRUE(std::ranges::all_of(name, ::isdigit)) << name;
        } else if (kind == "array") {
            EXPECT_EQ(name, "[" + text(entity, "element-type") + "]");
        }
    }
    for (const char* hidden : {"uint8", "size", "int64", "uint64", "QapiErrorClass", "RunState"})
        EXPECT_FALSE(entities_.contains(hidden));
}

TEST_F(IntrospectionTest, IntegersOptionalsAndFeatures)
{
    auto parameters = members("migrate-set-parameters");
    for (const char* integer : {"max-bandwidth", "compress-level", "x-checkpoint-delay", "downtime-limit"})
        EXPECT_EQ(parameters.at(integer).find("type")->as_string()->c_str(), std::string("int"));
    ASSERT_TRUE(parameters.at("max-bandwidth").find("default"));
    EXPECT_TRUE(parameters.at("max-bandwidth").find("default")->is_null());
    EXPECT_FALSE(members("migrate").at("uri").find("default"));
    EXPECT_EQ(*parameters.at("x-checkpoint-delay").find("features"), Value(Array{"unstable"}));
    EXPECT_EQ(entities_.at("x-colo-lost-heartbeat").find("features")->as_array()->size(), 1u);
    const Value& address = entities_.at(text(entities_.at("query-migrate"), "ret-type"));
    ASSERT_EQ(text(address, "meta-type"), "object");
    for (const auto& [name, entity] : entities_) {
        if (text(entity, "meta-type") != "enum") continue;
        const Array& values = *entity.find("values")->as_array();
        const Array& listed = *entity.find("members")->as_array();
        ASSERT_EQ(values.size(), listed.size());
        for (std::size_t i = 0; i < values.size(); ++i) {
            EXPECT_EQ(*listed[i].find("name"), values[i]);
            const bool unstable = values[i] == Value("x-colo") || values[i] == Value("x-ignore-shared");
            EXPECT_EQ(listed[i].find("features") != nullptr, unstable);
        }
    }
}

TEST_F(IntrospectionTest, UnionsHaveTagAndVariants)
{
    int unions = 0;
    for (const auto& [name, entity] : entities_) {
        if (!entity.find("tag")) continue;
        ++unions;
        const Array& list = *entity.find("members")->as_array();
        const std::string& name_of_tag = text(entity, "tag");
        const auto tag =
            std::ranges::find_if(list, [&](const Value& member) { return text(member, "name") == name_of_tag; });
        ASSERT_NE(tag, list.end());
        EXPECT_EQ(entities_.at(text(*tag, "type")).find("values")->as_array()->size(),
                  entity.find("variants")->as_array()->size());
    }
    EXPECT_EQ(unions, 2);
}

}  // namespace
}  // namespace colo::schema
