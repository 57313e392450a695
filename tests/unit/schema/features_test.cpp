// SPDX-License-Identifier: Apache-2.0

// What the generator makes of features.json, a schema of its own: conditions, features, recursion, unions, alternates.

#include "qmp/json.h"
#include "schema/codec.h"
#include "schema/tables.h"
#include "tests/unit/qmp/argument_cases.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace colo::schema {
namespace {

using qmp::test::ArgumentCase;

Value json(std::string_view text)
{
    auto value = qmp::parse_json(text);
    EXPECT_TRUE(value.has_value()) << text;
    return value ? *value : Value();
}

template <class T>
std::string refusal(std::string_view text)
{
    const auto result = decode_value<T>(json(text));
    return result ? "accepted" : result.error().text;
}

// What a session does with a request, as far as its arguments are concerned.
std::string outcome(const ArgumentCase& entry)
{
    const auto arguments = qmp::parse_json(entry.arguments);
    if (!arguments) return arguments.error().text;
    if (arguments->as_object() == nullptr) return "QMP input member 'arguments' must be an object";
    std::string text = "The command " + entry.command + " has not been found";
    for_each_command([&]<class Command>() {
        if (Command::kName != entry.command) return;
        const auto decoded = decode_arguments<typename Command::Arguments>(*arguments->as_object());
        text = decoded ? qmp::test::kDecoded : decoded.error().text;
        if constexpr (std::is_same_v<typename Command::Arguments, Limited>)
            if (decoded && entry.kind == "range") text = range_error(*decoded);
    });
    return text;
}

const Value* entity(const Value& schema, std::string_view name)
{
    for (const Value& entry : *schema.as_array())
        if (*entry.find("name") == Value(name)) return &entry;
    return nullptr;
}

// The entity that the member of another one is of.
const Value& type_of(const Value& schema, const Value& object, std::string_view member)
{
    for (const Value& entry : *object.find("members")->as_array())
        if (*entry.find("name") == Value(member)) return *entity(schema, *entry.find("type")->as_string());
    throw std::runtime_error(std::string(member));
}

TEST(Features, EveryGeneratedCaseHolds)
{
    const auto cases = qmp::test::read_argument_cases(FEATURES_CASES);
    EXPECT_GT(cases.size(), 500u);
    const auto ask = [](const ArgumentCase& entry) {
        return qmp::test::error_answer_of("GenericError", outcome(entry));
    };
    EXPECT_EQ(qmp::test::joined(disagreements(cases, ask)), "");
    for (const char* path : {"shape.radius", "more[0].label", "node.next.next", "node.children[0].name", "count"})
        EXPECT_TRUE(std::ranges::any_of(cases, [&](const ArgumentCase& entry) { return entry.path == path; })) << path;
}

TEST(Features, ATypeMayContainItself)
{
    const char* text =
        R"({"name": "a", "next": {"name": "b", "next": {"name": "c"}}, "children": [{"name": "d", "children": []}]})";
    const auto node = decode_value<Node>(json(text));
    ASSERT_TRUE(node);
    EXPECT_EQ(node->next->next->name, "c");
    EXPECT_FALSE(node->next->next->next);
    EXPECT_EQ(node->children->front().name, "d");
    EXPECT_EQ(encode(*node), json(text));

    Node copy = *node;  // copies are deep
    EXPECT_EQ(copy, *node);
    copy.next->next->name = "x";
    EXPECT_NE(copy, *node);
    EXPECT_EQ(node->next->next->name, "c");
    copy = *node;
    EXPECT_EQ(copy, *node);
    copy.next.reset();
    EXPECT_NE(copy, *node);
    const Node moved = std::move(copy);
    EXPECT_FALSE(moved.next.has_value());

    EXPECT_EQ(refusal<Node>(R"({"name": "a", "next": {"name": "b", "next": {"next": null}}})"),
              "Parameter 'next.next.name' is missing");
    EXPECT_EQ(refusal<Node>(R"({"name": "a", "children": [{"name": "b", "next": {"name": "c", "weight": 70000}}]})"),
              "Parameter 'weight' expects uint16_t");
    EXPECT_EQ(refusal<Node>(R"({"name": "a", "next": null})"), "Invalid parameter type for 'next', expected: object");
}

TEST(Features, WhatIsOffIsNotAccepted)
{
    Colour colour{};
    EXPECT_FALSE(from_string("green", colour));
    EXPECT_TRUE(from_string("white", colour));
    EXPECT_FALSE(served(Colour::green));
    EXPECT_TRUE(served(Colour::dark_blue));
    EXPECT_EQ(refusal<Limited>(R"({"hidden": "x"})"), "Parameter 'hidden' is unexpected");
    EXPECT_EQ(refusal<Shape>(R"({"kind": "square", "side": 1})"), "Parameter 'kind' does not accept value 'square'");
    std::vector<std::string_view> commands;
    for (const CommandEntry& entry : command_table()) commands.push_back(entry.name);
    EXPECT_EQ(commands, (std::vector<std::string_view>{"draw", "link", "limit", "old-command"}));
    EXPECT_EQ(event_table().size(), 1u);
    EXPECT_FALSE(commands::HiddenCommand::kServed);
    EXPECT_FALSE(events::HiddenEvent::kServed);
}

TEST(Features, WhatIsOffIsNotShown)
{
    Limited limited;
    set_defaults(limited);
    limited.hidden = "x";
    EXPECT_EQ(encode(limited), json(R"({"count": 3, "ratio": 1.5, "label": "a \"b\"", "colour": "dark-blue", "on": true,
        "offset": -4, "either": 5})"));
    Object data;
    write_members(events::Changed{{"n", {}, {}, {}}, "x"}, data);
    EXPECT_EQ(data, (Object{{"node", Object{{"name", "n"}}}}));
    const Value schema = json(introspection_json());
    for (const char* hidden : {"hidden-command", "HIDDEN_EVENT"}) EXPECT_EQ(entity(schema, hidden), nullptr);
    for (const char* word : {"hidden", "green", "square", "side"})
        EXPECT_EQ(introspection_json().find("\"" + std::string(word) + "\""), std::string_view::npos) << word;
    for (const ArgumentEntry& argument : argument_table("draw")) EXPECT_NE(argument.name, "hidden");
}

TEST(Features, FeaturesAreShownWhereTheyAre)
{
    const Value schema = json(introspection_json());
    EXPECT_EQ(*entity(schema, "old-command")->find("features"), Value(Array{"deprecated"}));
    EXPECT_EQ(*entity(schema, "old-command")->find("allow-oob"), Value(true));
    EXPECT_EQ(entity(schema, "draw")->find("features"), nullptr);
    const Value& arguments = *entity(schema, *entity(schema, "draw")->find("arg-type")->as_string());
    for (const Value& member : *arguments.find("members")->as_array()) {
        const bool marked = *member.find("name") == Value("tall");
        ASSERT_EQ(member.find("features") != nullptr, marked);
        if (marked) {
            EXPECT_EQ(*member.find("features"), Value(Array{"deprecated", "unstable"}));
        }
    }
    EXPECT_EQ(*type_of(schema, arguments, "flag").find("features"), Value(Array{"unstable"}));
    const Value& shape = type_of(schema, arguments, "shape");
    EXPECT_EQ(*shape.find("features"), Value(Array{"unstable"}));
    const Array& variants = *shape.find("variants")->as_array();
    ASSERT_EQ(variants.size(), 2u);
    const Value& circle = *entity(schema, *variants[0].find("type")->as_string());
    EXPECT_EQ(*(*circle.find("members")->as_array())[1].find("features"), Value(Array{"deprecated"}));
    EXPECT_EQ(*type_of(schema, arguments, "colour").find("members"),
              json(R"([{"name": "red"}, {"name": "dark-blue", "features": ["deprecated"]}, {"name": "white"}])"));
}

TEST(Features, TheTypeThatContainsItselfIsShownOnce)
{
    const Value schema = json(introspection_json());
    const Value& link = *entity(schema, "link");
    const std::string& name = *link.find("ret-type")->as_string();
    const Value& node = *entity(schema, name);
    EXPECT_EQ(*type_of(schema, node, "next").find("name"), Value(name));
    EXPECT_EQ(*type_of(schema, node, "children").find("name"), Value("[" + name + "]"));
}

}  // namespace
}  // namespace colo::schema
