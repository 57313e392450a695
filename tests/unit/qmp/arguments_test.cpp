// SPDX-License-Identifier: Apache-2.0

// Every command and every member of its arguments, at every depth: the cases are made from the schema
// (schema/generator/cases.py). Nothing of what is refused may reach the daemon. The last tests show that this one fails
// when a decoder, an expectation or the table is broken.

#include "argument_cases.h"
#include "handlers_fixture.h"
#include "schema/tables.h"

#include <map>
#include <set>

namespace colo::test {
namespace {

using qmp::test::ArgumentCase;
using qmp::test::disagreements;
using qmp::test::joined;
using schema::Array;
using schema::Value;

const std::vector<ArgumentCase>& all_cases()
{
    static const std::vector<ArgumentCase> cases = qmp::test::read_argument_cases(COLO_ARGUMENT_CASES);
    return cases;
}

template <class Condition>
std::vector<ArgumentCase> cases_if(Condition condition)
{
    std::vector<ArgumentCase> result;
    std::ranges::copy_if(all_cases(), std::back_inserter(result), condition);
    return result;
}

bool negotiates(const ArgumentCase& entry)
{
    return entry.command == "qmp_capabilities";
}

// Every command, with a handler that is only reached by arguments that decode.
class DecodingOnly {
public:
    DecodingOnly()
    {
        schema::for_each_command([this]<class Command>() {
            if constexpr (!std::is_same_v<Command, schema::commands::QmpCapabilities>)
                registry_.add<Command>([](const auto&, auto reply) { reply.fail(qmp::test::kDecoded); });
        });
        monitor_.negotiate();
    }
    Value ask(const ArgumentCase& entry)
    {
        if (!negotiates(entry)) return monitor_.ask(entry.request());
        qmp::test::Monitor fresh(registry_);
        fresh.messages();
        const Value answer = fresh.ask(entry.request());
        return answer == qmp::test::empty_answer() ? qmp::test::error_answer(qmp::test::kDecoded) : answer;
    }

private:
    qmp::Registry registry_;
    qmp::test::Monitor monitor_{registry_};
};

class ArgumentsTest : public HandlersTest {};

TEST_F(ArgumentsTest, EveryMemberOfEveryCommandIsDecodedOrRefused)
{
    DecodingOnly decoding;
    const auto cases = cases_if([](const auto& entry) { return entry.kind != "range"; });
    ASSERT_GT(cases.size(), 2500u);
    EXPECT_EQ(joined(disagreements(cases, [&](const auto& entry) { return decoding.ask(entry); })), "");
}

// The same over the real handlers, with ranges: no refusal leaves a trace.
TEST_F(ArgumentsTest, NothingThatIsRefusedHasAnEffect)
{
    const auto refused = cases_if([](const auto& entry) { return entry.desc && !negotiates(entry); });
    ASSERT_GT(refused.size(), 2400u);
    const Value parameters = result("query-migrate-parameters");
    const Value capabilities = result("query-migrate-capabilities");
    EXPECT_EQ(joined(disagreements(refused, [&](const auto& entry) { return monitor_.ask(entry.request()); })), "");
    EXPECT_TRUE(service_.calls.empty()) << service_.calls.front();
    EXPECT_TRUE(events_.entries.empty());
    EXPECT_EQ(result("query-migrate-parameters"), parameters);
    EXPECT_EQ(result("query-migrate-capabilities"), capabilities);
}

TEST_F(ArgumentsTest, FirstErrorInSchemaOrderWinsUnexpectedComesLast)
{
    EXPECT_EQ(error("migrate", R"({"zzz": 1, "resume": 1, "blk": 1})"), "Parameter 'uri' is missing");
    EXPECT_EQ(error("migrate", R"({"zzz": 1, "resume": 1, "blk": 1, "uri": "x"})"),
              "Invalid parameter type for 'blk', expected: boolean");
    EXPECT_EQ(error("migrate", R"({"zzz": 1, "uri": "x"})"), "Parameter 'zzz' is unexpected");
    EXPECT_EQ(error("migrate", R"({"": 1, "uri": "x"})"), "Parameter '' is unexpected");
    EXPECT_EQ(error("migrate-set-capabilities",
                    R"({"capabilities": [{"capability": "events", "state": true}, {"state": true}]})"),
              "Parameter 'capabilities[1].capability' is missing");
    EXPECT_EQ(error("migrate-set-parameters", R"({"block-bitmap-mapping": [{"node-name": "n", "alias": "a", "bitmaps":
        [{"name": "x", "alias": "x"}, {"name": "b", "alias": "c", "transform": {"x": 1}}]}]})"),
              "Parameter 'block-bitmap-mapping[0].bitmaps[1].transform.x' is unexpected");
}

TEST_F(ArgumentsTest, CommandListAndSchemaAgree)
{
    const auto text = [](const Value& value, const char* name) { return *value.find(name)->as_string(); };
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
         {"migrate_set_downtime", "migrate_set_speed", "migrate-set-cache-size", "query-migrate-cache-size"}) {
        EXPECT_FALSE(listed.contains(gone));
        EXPECT_EQ(
            run(gone, R"({"value": "no look at this"})"),
            qmp::test::error_answer("The command " + std::string(gone) + " has not been found", "CommandNotFound"));
    }
}

// Which kinds of cases a place needs, found from the introspected schema, which is made by other code than the table.
class TableTest : public ::testing::Test {
protected:
    using Kinds = std::set<std::string>;

    TableTest()
    {
        const auto parsed = qmp::parse_json(schema::introspection_json());
        for (const Value& entity : *parsed->as_array()) entities_[text(entity, "name")] = entity;
        for (const ArgumentCase& entry : all_cases()) present_[entry.command][entry.path].insert(entry.kind);
    }
    static std::string text(const Value& value, const char* name) { return *value.find(name)->as_string(); }
    static const Array& list(const Value& value, const char* name) { return *value.find(name)->as_array(); }

    static Kinds others(const std::string& accepted)
    {
        Kinds kinds{"null", "boolean", "integer", "real", "string", "array", "object"};
        kinds.erase(accepted);
        return kinds;
    }
    void need(const std::string& path, const Kinds& kinds)
    {
        for (const std::string& kind : kinds)
            if (!present_[command_][path].contains(kind))
                missing_.push_back(command_ + ": nothing of kind '" + kind + "' at '" + path + "'");
        needed_ += kinds.size();
    }
    void value(const std::string& type, const std::string& path);
    void object(const std::string& type, const std::string& prefix);

    std::map<std::string, Value> entities_;
    std::map<std::string, std::map<std::string, Kinds>> present_;
    std::string command_;
    std::vector<std::string> missing_;
    std::size_t needed_ = 0;
};

void TableTest::value(const std::string& type, const std::string& path)
{
    const Value& entity = entities_.at(type);
    const std::string meta = text(entity, "meta-type");
    if (meta == "enum") {
        need(path, others("string"));
        need(path, {"enum", "accepted"});
    } else if (meta == "array") {
        need(path, others("array"));
        need(path, {"accepted"});
        value(text(entity, "element-type"), path + "[0]");
        need(path + "[1]", {"object"});
    } else if (meta == "object") {
        need(path, others("object"));
        object(type, path + ".");
    } else if (meta == "alternate") {
        need(path, {"boolean", "integer", "array", "object", "accepted"});
    } else if (text(entity, "json-type") == "int") {
        need(path, others("integer"));
        need(path, {"above", "below", "accepted"});
    } else {
        need(path, others(text(entity, "json-type")));
    }
}

void TableTest::object(const std::string& type, const std::string& prefix)
{
    need(prefix + "bogus", {"unexpected"});
    need(prefix, {"accepted"});
    for (const Value& member : list(entities_.at(type), "members")) {
        const std::string path = prefix + text(member, "name");
        need(path, {"duplicate"});
        if (member.find("default") == nullptr) need(path, {"missing"});
        value(text(member, "type"), path);
    }
}

TEST_F(TableTest, HasEveryKindOfCaseAtEveryPlace)
{
    std::size_t commands = 0;
    for (const auto& [name, entity] : entities_) {
        if (text(entity, "meta-type") != "command") continue;
        ++commands;
        command_ = name;
        need("", {"null", "boolean", "integer", "real", "string", "array"});
        object(text(entity, "arg-type"), "");
    }
    EXPECT_EQ(commands, schema::command_table().size());
    EXPECT_GT(needed_, 900u);
    EXPECT_EQ(joined(missing_), "");
}

TEST_F(TableTest, HasBothSidesOfEveryRange)
{
    int ranges = 0;
    for (const schema::CommandEntry& command : schema::command_table())
        for (const schema::ArgumentEntry& argument : command.arguments) {
            if (!argument.ranged) continue;
            ++ranges;
            const auto has = [&](const std::string& kind, const std::string& number) {
                return std::ranges::any_of(all_cases(), [&](const ArgumentCase& entry) {
                    return entry.kind == kind && entry.command == command.name && entry.path == argument.name &&
                           entry.arguments.find(": " + number + "}") != std::string::npos;
                });
            };
            const bool byte = argument.type == "uint8";
            EXPECT_TRUE(has(argument.max == 255 && byte ? "above" : "range", std::to_string(argument.max + 1)))
                << argument.name;
            if (argument.min > 0)
                EXPECT_TRUE(has("range", std::to_string(argument.min - 1))) << argument.name;
            else
                EXPECT_TRUE(has(byte ? "below" : "range", "-1")) << argument.name;
        }
    EXPECT_EQ(ranges, 16);
}

TEST_F(TableTest, ABrokenDecoderIsSeen)
{
    DecodingOnly decoding;
    const auto refused = cases_if([](const auto& entry) { return entry.desc && entry.kind != "range"; });
    const Value decoded = qmp::test::error_answer(qmp::test::kDecoded);
    // Accepts everything; has no look at one kind; accepts every string in place of an integer.
    EXPECT_EQ(disagreements(refused, [&](const auto&) { return decoded; }).size(), refused.size());
    const auto all = cases_if([](const auto& entry) { return entry.kind != "range"; });
    std::set<std::string> kinds;
    for (const ArgumentCase& entry : refused) kinds.insert(entry.kind);
    EXPECT_EQ(kinds.size(), 14u);
    for (const std::string& kind : kinds) {
        const auto lax = [&](const auto& entry) { return entry.kind == kind ? decoded : decoding.ask(entry); };
        const auto of_kind = std::ranges::count_if(refused, [&](const auto& entry) { return entry.kind == kind; });
        EXPECT_EQ(disagreements(all, lax).size(), static_cast<std::size_t>(of_kind)) << kind;
    }
    // Refuses everything.
    const auto strict = [](const auto&) { return qmp::test::error_answer("no"); };
    EXPECT_EQ(disagreements(all, strict).size(), all.size());
}

TEST_F(TableTest, AMutatedExpectationIsSeen)
{
    DecodingOnly decoding;
    const auto ask = [&](const auto& entry) { return decoding.ask(entry); };
    auto some = cases_if([](const auto& entry) { return entry.command == "migrate-set-capabilities"; });
    ASSERT_EQ(disagreements(some, ask).size(), 0u);
    std::size_t index = 0;
    for (ArgumentCase& entry : some) {
        switch (index++ % 3) {
        case 0: entry.error_class = "DeviceNotFound"; break;
        case 1: entry.desc = entry.desc.value_or("") + "."; break;
        default: entry.desc = entry.desc ? std::optional<std::string>() : "Parameter 'x' is missing"; break;
        }
        if (!entry.desc) entry.error_class = "GenericError";
    }
    const auto unchanged = std::ranges::count_if(some, [](const ArgumentCase& entry) {
        return !entry.desc && entry.kind == "accepted";  // whose class does not matter
    });
    EXPECT_EQ(disagreements(some, ask).size(), some.size() - static_cast<std::size_t>(unchanged));
    EXPECT_LT(static_cast<std::size_t>(unchanged), some.size() / 4);
}

TEST_F(TableTest, AMissingCaseIsSeen)
{
    command_ = "migrate";
    object(text(entities_.at("migrate"), "arg-type"), "");
    ASSERT_EQ(joined(missing_), "");
    present_["migrate"]["uri"].erase("null");
    present_["migrate"]["bogus"].clear();
    object(text(entities_.at("migrate"), "arg-type"), "");
    EXPECT_EQ(missing_.size(), 2u) << joined(missing_);
}

}  // namespace
}  // namespace colo::test
