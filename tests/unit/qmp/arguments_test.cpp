// SPDX-License-Identifier: Apache-2.0

// Every command and every member of its arguments, at every depth, from the schema files: missing, each wrong JSON
// type, out of range on both sides, unknown enum value, unexpected member, null. Nothing of it may reach the daemon.

#include "handlers_fixture.h"
#include "schema/tables.h"

#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

namespace colo::test {
namespace {

using qmp::test::json;
using schema::Array;
using schema::Object;
using schema::Value;

using Place = std::function<Object(Value)>;  // the arguments with a value at the place in question

class ArgumentsTest : public HandlersTest {
protected:
    void SetUp() override
    {
        for (const auto& entry : std::filesystem::directory_iterator(COLO_SCHEMA_DIR)) {
            if (entry.path().extension() != ".json") continue;
            std::ifstream file(entry.path());
            std::stringstream text;
            text << file.rdbuf();
            const Value document = json(text.str());
            for (const Value& definition : *document.find("definitions")->as_array())
                definitions_[*definition.find("name")->as_string()] = definition;
        }
        ASSERT_GT(definitions_.size(), 60u);
    }

    const Value& definition(const std::string& name) { return definitions_.at(name); }

    Array members_of(const Value& definition, const char* where)
    {
        const Value* members = definition.find(where);
        if (members == nullptr) return {};
        if (const std::string* name = members->as_string()) return *this->definition(*name).find("members")->as_array();
        return *members->as_array();
    }

    static bool optional(const Value& member) { return member.find("optional") != nullptr; }
    static const std::string& text(const Value& object, const char* name) { return *object.find(name)->as_string(); }

    Value valid(const std::string& type)
    {
        if (type.front() == '[') return Array{valid(type.substr(1, type.size() - 2))};
        if (type == "str") return "x";
        if (type == "bool") return true;
        if (type == "any") return nullptr;
        if (!definitions_.contains(type)) return 1;
        const Value& target = definition(type);
        if (text(target, "kind") == "enum") {
            const Value& first = target.find("values")->as_array()->front();
            return first.as_string() ? first : *first.find("name");
        }
        if (text(target, "kind") == "alternate") return nullptr;
        return valid_object(members_of(target, "members"));
    }
    Object valid_object(const Array& members)
    {
        Object object;
        for (const Value& member : members)
            if (!optional(member)) object.append(text(member, "name"), valid(text(member, "type")));
        return object;
    }

    void expect(const Object& arguments, const std::string& description)
    {
        ++checks_;
        EXPECT_EQ(error(command_, qmp::to_json(arguments)), description) << command_ << " " << qmp::to_json(arguments);
        EXPECT_TRUE(service_.calls.empty());
    }

    void check_types(const std::string& type, const std::string& path, const std::string& name, const Place& place);
    void check_integer(const std::string& type, const std::string& path, const std::string& name, const Place& place);
    void check_members(const Array& members, const std::string& path, const Place& place);

    std::map<std::string, Value> definitions_;
    std::string command_;
    int checks_ = 0;
};

void ArgumentsTest::check_integer(const std::string& type, const std::string& path, const std::string& name,
                                  const Place& place)
{
    if (type == "int" || type == "int64") {
        expect(place(std::uint64_t{1} << 63), "Invalid parameter type for '" + path + "', expected: integer");
        return;
    }
    expect(place(json("18446744073709551616")), "Parameter '" + path + "' expects uint64");
    expect(place(json("-9223372036854775809")), "Parameter '" + path + "' expects uint64");
    const std::map<std::string, std::uint64_t> narrow = {
        {"uint8", 256}, {"uint16", 65536}, {"uint32", std::uint64_t{1} << 32}};
    const auto width = narrow.find(type);
    if (width == narrow.end()) return;
    for (const Value& value : {Value(width->second), Value(-1), Value(~std::uint64_t{0})})
        expect(place(value), "Parameter '" + name + "' expects " + type + "_t");
}

void ArgumentsTest::check_types(const std::string& type, const std::string& path, const std::string& name,
                                const Place& place)
{
    static const std::set<std::string> kUnsigned = {"uint8", "uint16", "uint32", "uint64", "size"};
    static const std::set<std::string> kSigned = {"int", "int64"};
    const Value* target = definitions_.contains(type) ? &definition(type) : nullptr;
    const std::string kind = target ? text(*target, "kind") : "";
    std::string accepted = type == "str" || kind == "enum" ? "string"
                           : type == "bool"                ? "boolean"
                           : type.front() == '['           ? "array"
                                                           : "object";
    if (kUnsigned.contains(type) || kSigned.contains(type)) accepted = "integer";
    if (kind == "alternate") accepted = type;

    const std::pair<const char*, Value> samples[] = {{"null", nullptr},   {"boolean", false}, {"integer", 1},
                                                     {"real", 1.5},       {"string", "1"},    {"array", Array()},
                                                     {"object", Object()}};
    for (const auto& [sample, value] : samples) {
        if (sample == accepted || (kind == "alternate" && (value.is_null() || value.as_string()))) continue;
        const std::string description = kUnsigned.contains(type)
                                            ? "Parameter '" + path + "' expects uint64"
                                            : "Invalid parameter type for '" + path + "', expected: " + accepted;
        expect(place(value), description);
    }
    if (accepted == "integer") {
        check_integer(type, path, name, place);
        // 1.0 is no integer, whatever its value.
        std::string request = qmp::to_json(place(424242));
        request.replace(request.find("424242"), 6, "1.0");
        EXPECT_NE(error(command_, request).find("'" + path + "'"), std::string::npos);
    }
    if (kind == "enum")
        for (const char* unknown : {"", "bogus", "NONE"})
            expect(place(unknown), "Parameter '" + name + "' does not accept value '" + unknown + "'");
    if (kind == "struct") check_members(members_of(*target, "members"), path + ".", place);
    if (type.front() == '[')
        check_types(type.substr(1, type.size() - 2), path + "[0]", "null",
                    [&](Value value) { return place(Array{std::move(value)}); });
}

void ArgumentsTest::check_members(const Array& members, const std::string& path, const Place& place)
{
    const Object base = valid_object(members);
    Object extra = base;
    extra.append("bogus", 1);
    expect(place(extra), "Parameter '" + path + "bogus' is unexpected");
    for (const Value& member : members) {
        const std::string& name = text(member, "name");
        if (!optional(member)) {
            Object without = base;
            without.erase(name);
            expect(place(without), "Parameter '" + path + name + "' is missing");
        }
        check_types(text(member, "type"), path + name, name, [&](Value value) {
            Object object = base;
            object.set(name, std::move(value));
            return place(std::move(object));
        });
    }
}

TEST_F(ArgumentsTest, EveryMemberOfEveryCommand)
{
    int commands = 0;
    for (const auto& [name, definition] : definitions_) {
        if (text(definition, "kind") != "command" || name == "qmp_capabilities") continue;
        ++commands;
        command_ = name;
        check_members(members_of(definition, "arguments"), "", [](Value value) { return *value.as_object(); });
    }
    EXPECT_EQ(commands + 1, static_cast<int>(schema::command_table().size()));
    EXPECT_GT(checks_, 400);
}

TEST_F(ArgumentsTest, FirstErrorInSchemaOrderWinsUnexpectedComesLast)
{
    EXPECT_EQ(error("migrate", R"({"zzz": 1, "resume": 1, "blk": 1})"), "Parameter 'uri' is missing");
    EXPECT_EQ(error("migrate", R"({"zzz": 1, "resume": 1, "blk": 1, "uri": "x"})"),
              "Invalid parameter type for 'blk', expected: boolean");
    EXPECT_EQ(error("migrate", R"({"zzz": 1, "uri": "x"})"), "Parameter 'zzz' is unexpected");
    EXPECT_EQ(error("migrate-set-capabilities",
                    R"({"capabilities": [{"capability": "events", "state": true}, {"state": true}]})"),
              "Parameter 'capabilities[1].capability' is missing");
    EXPECT_EQ(error("migrate-set-parameters", R"({"block-bitmap-mapping": [{"node-name": "n", "alias": "a", "bitmaps":
        [{"name": "x", "alias": "x"}, {"name": "b", "alias": "c", "transform": {"x": 1}}]}]})"),
              "Parameter 'block-bitmap-mapping[0].bitmaps[1].transform.x' is unexpected");
}

TEST_F(ArgumentsTest, CommandListAndSchemaAgree)
{
    std::set<std::string> listed;
    const Value answer = result("query-commands");
    for (const Value& entry : *answer.as_array()) EXPECT_TRUE(listed.insert(text(entry, "name")).second);
    std::set<std::string> introspected;
    const Value introspection = result("query-qmp-schema");
    for (const Value& entity : *introspection.as_array())
        if (text(entity, "meta-type") == "command") introspected.insert(text(entity, "name"));
    EXPECT_EQ(listed, introspected);
    EXPECT_TRUE(listed.contains("x-query-colo"));
    for (const char* gone :
         {"migrate_set_downtime", "migrate_set_speed", "migrate-set-cache-size", "query-migrate-cache-size"})
        EXPECT_FALSE(listed.contains(gone));
}

}  // namespace
}  // namespace colo::test
