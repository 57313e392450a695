// SPDX-License-Identifier: Apache-2.0
#include "monitor.h"

#include <gmock/gmock.h>

#include <map>
#include <stdexcept>

namespace colo::qmp::test {
namespace {

using schema::Object;
using schema::Value;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Commands that show what a session does: echo, one that waits, one for out-of-band, one that throws.
class SessionTest : public ::testing::Test {
protected:
    SessionTest()
    {
        registry_.add_raw("echo", [](const Object& arguments, Reply reply) { reply.succeed(arguments); });
        registry_.add_raw("later", [this](const Object&, Reply reply) { waiting_.push_back(std::move(reply)); });
        registry_.add_raw(
            "urgent", [](const Object&, Reply reply) { reply.succeed("now"); }, true);
        registry_.add_raw("throw", [](const Object&, Reply) { throw std::runtime_error("boom"); });
        registry_.add_raw("forget", [](const Object&, Reply) {});
        registry_.add_raw("big", [](const Object&, Reply reply) { reply.succeed(std::string(kBusyOutput, 'x')); });
        registry_.add_raw("inactive", [](const Object&, Reply reply) {
            reply.fail({schema::QapiErrorClass::DeviceNotActive, "SPICE is not in use"});
        });
    }

    Registry registry_;
    std::vector<Reply> waiting_;
};

TEST_F(SessionTest, GreetsAndNegotiates)
{
    Monitor monitor(registry_);
    EXPECT_THAT(monitor.messages(),
                ElementsAre(json(R"({"QMP": {"version": {"qemu": {"major": 7, "minor": 0, "micro": 0},
        "package": "test 1"}, "capabilities": ["oob"]}})")));
    const Value expecting =
        error_answer("Expecting capabilities negotiation with 'qmp_capabilities'", "CommandNotFound");
    EXPECT_EQ(monitor.ask(R"({"execute": "echo"})"), expecting);
    EXPECT_EQ(monitor.ask(R"({"execute": "no-such", "id": null})"), with_id(expecting, nullptr));
    EXPECT_EQ(monitor.ask(R"({"execute": "migrate_set_speed", "id": false})"), with_id(expecting, false));
    EXPECT_EQ(monitor.ask(R"({"execute": "qmp_capabilities", "arguments": {"enable": ["foo"]}})"),
              error_answer("Parameter 'null' does not accept value 'foo'"));
    EXPECT_EQ(monitor.ask(R"({"execute": "qmp_capabilities", "arguments": {"enable": "oob"}})"),
              error_answer("Invalid parameter type for 'enable', expected: array"));
    EXPECT_EQ(monitor.ask(R"({"execute": "qmp_capabilities", "arguments": {"enable": [1]}})"),
              error_answer("Invalid parameter type for 'enable[0]', expected: string"));
    EXPECT_EQ(monitor.ask(R"({"execute": "qmp_capabilities", "arguments": {"x": 1}})"),
              error_answer("Parameter 'x' is unexpected"));
    EXPECT_EQ(monitor.ask(R"({"execute": "echo"})"), expecting);
    EXPECT_EQ(monitor.ask(R"({"execute": "qmp_capabilities", "arguments": {"enable": ["oob", "oob"]}, "id": 1})"),
              with_id(empty_answer(), 1));
    EXPECT_EQ(monitor.ask(R"({"execute": "qmp_capabilities"})"),
              error_answer("Capabilities negotiation is already complete, command ignored", "CommandNotFound"));
    // Arguments are looked at first, then whether it is the time.
    EXPECT_EQ(monitor.ask(R"({"execute": "qmp_capabilities", "arguments": {"x": 1}})"),
              error_answer("Parameter 'x' is unexpected"));
}

TEST_F(SessionTest, EnvelopeErrors)
{
    Monitor monitor(registry_);
    monitor.negotiate();
    const std::pair<const char*, const char*> cases[] = {
        {"[]", "QMP input must be a JSON object"},
        {"1 ", "QMP input must be a JSON object"},
        {"\"stop\"", "QMP input must be a JSON object"},
        {"{}", "QMP input lacks member 'execute'"},
        {R"({"execute": 1})", "QMP input member 'execute' must be a string"},
        {R"({"execute": null})", "QMP input member 'execute' must be a string"},
        {R"({"execute": "echo", "arguments": []})", "QMP input member 'arguments' must be an object"},
        {R"({"execute": "echo", "arguments": null})", "QMP input member 'arguments' must be an object"},
        {R"({"execute": "echo", "foo": 1})", "QMP input member 'foo' is unexpected"},
        {R"({"exec-oob": "urgent"})", "QMP input member 'exec-oob' is unexpected"},
        {R"({"execute": "echo" "id": 1})", "JSON parse error, expected separator in dict"},
    };
    for (const auto& [request, text] : cases) EXPECT_EQ(monitor.ask(request), error_answer(text)) << request;
    EXPECT_EQ(monitor.ask(R"({"id": 5, "execute": "echo", "foo": 1})"),
              with_id(error_answer("QMP input member 'foo' is unexpected"), 5));
    EXPECT_EQ(monitor.ask(R"({"id": [], "arguments": {}})"),
              with_id(error_answer("QMP input lacks member 'execute'"), schema::Array()));
}

TEST_F(SessionTest, ClassesAndUnknownCommands)
{
    Monitor monitor(registry_);
    monitor.negotiate();
    EXPECT_EQ(monitor.ask(R"({"execute": "Echo"})"),
              error_answer("The command Echo has not been found", "CommandNotFound"));
    EXPECT_EQ(monitor.ask(R"({"execute": ""})"), error_answer("The command  has not been found", "CommandNotFound"));
    EXPECT_EQ(monitor.ask(R"({"execute": "migrate-set-cache-size", "arguments": {"value": 1}})"),
              error_answer("The command migrate-set-cache-size has not been found", "CommandNotFound"));
    EXPECT_EQ(monitor.ask(R"({"execute": "inactive"})"), error_answer("SPICE is not in use", "DeviceNotActive"));
}

TEST_F(SessionTest, EveryRequestIsAnswered)
{
    Monitor monitor(registry_);
    monitor.negotiate();
    const Value lost = error_answer("The command ended without an answer");
    EXPECT_EQ(monitor.ask(R"({"execute": "throw", "id": 1})"), with_id(lost, 1));
    EXPECT_EQ(monitor.ask(R"({"execute": "forget"})"), lost);
    EXPECT_EQ(monitor.ask(R"({"execute": "echo", "arguments": {"a": 1}})"), json(R"({"return": {"a": 1}})"));
}

TEST_F(SessionTest, IdsComeBackUnchanged)
{
    Monitor monitor(registry_);
    monitor.negotiate();
    for (const char* id : {"null", "false", "0", "-1", "18446744073709551615", "-9223372036854775808", "\"\"",
                           "\"a\\u0000b\"", "1.5", "{\"a\": [1, {\"b\": null}]}", "[]"})
        EXPECT_EQ(monitor.ask(std::string(R"({"execute": "echo", "id": )") + id + "}"),
                  with_id(empty_answer(), json(id)))
            << id;
}

TEST_F(SessionTest, InBandRequestsAreAnsweredInOrder)
{
    Monitor monitor(registry_);
    monitor.negotiate();
    EXPECT_THAT(monitor.send(R"({"execute":"later","id":1}{"execute":"echo","id":2} nope {"execute":"echo","id":3})"),
                IsEmpty());
    EXPECT_FALSE(monitor.session().wants_input());
    ASSERT_EQ(waiting_.size(), 1u);
    bool active = false;
    monitor.session().on_activity = [&] { active = true; };
    waiting_.front().succeed();
    EXPECT_TRUE(active);
    EXPECT_THAT(monitor.send(""),
                ElementsAre(with_id(empty_answer(), 1), with_id(empty_answer(), 2),
                            error_answer("JSON parse error, invalid keyword 'nope'"), with_id(empty_answer(), 3)));
    EXPECT_TRUE(monitor.session().wants_input());
}

TEST_F(SessionTest, OneRequestAtATimeWithoutOob)
{
    Monitor monitor(registry_);
    monitor.negotiate();
    monitor.send(R"({"execute":"later"}{"execute":"later"}{"execute":"later"})");
    EXPECT_EQ(waiting_.size(), 1u);
    waiting_[0].succeed();
    monitor.send("");
    EXPECT_EQ(waiting_.size(), 2u);
}

TEST_F(SessionTest, OutOfBandOvertakes)
{
    Monitor monitor(registry_);
    monitor.negotiate(true);
    monitor.send(R"({"execute":"later","id":1}{"execute":"echo","id":2})");
    EXPECT_EQ(monitor.ask(R"({"exec-oob":"urgent","id":3})"), json(R"({"return": "now", "id": 3})"));
    EXPECT_EQ(monitor.ask(R"({"exec-oob":"echo"})"), error_answer("The command echo does not support OOB"));
    EXPECT_EQ(monitor.ask(R"({"exec-oob":"nope"})"),
              error_answer("The command nope has not been found", "CommandNotFound"));
    // A broken one does not wait either, unless it could be meant in-band.
    EXPECT_EQ(monitor.ask(R"({"exec-oob":1,"id":9})"),
              with_id(error_answer("QMP input member 'exec-oob' must be a string"), 9));
    EXPECT_EQ(monitor.ask(R"({"exec-oob":"qmp_capabilities"})"),
              error_answer("The command qmp_capabilities does not support OOB"));
    waiting_[0].succeed();
    EXPECT_THAT(
        monitor.send(R"({"execute":"urgent","id":4})"),
        ElementsAre(with_id(empty_answer(), 1), with_id(empty_answer(), 2), json(R"({"return": "now", "id": 4})")));
    EXPECT_EQ(monitor.ask(R"({"execute":"a","exec-oob":"b"})"),
              error_answer("QMP input member 'exec-oob' clashes with 'execute'"));
    EXPECT_EQ(monitor.ask(R"({"exec-oob":"a","execute":"b"})"),
              error_answer("QMP input member 'execute' clashes with 'exec-oob'"));
}

TEST_F(SessionTest, QueueIsBoundedWithOob)
{
    Monitor monitor(registry_);
    monitor.negotiate(true);
    std::string many;
    for (int i = 0; i < 20; ++i) many += R"({"execute":"later"})";
    monitor.send(many + R"({"exec-oob":"urgent"})");
    EXPECT_FALSE(monitor.session().wants_input());  // 1 runs, 8 wait, the rest is not even parsed
    for (std::size_t done = 0; done < 20; ++done) {
        ASSERT_EQ(waiting_.size(), done + 1);
        waiting_[done].succeed();
        monitor.send("");
    }
    EXPECT_TRUE(monitor.session().idle());
}

TEST_F(SessionTest, LateAnswerAfterDisconnectIsDropped)
{
    Monitor monitor(registry_);
    monitor.negotiate();
    monitor.send(R"({"execute":"later"})");
    monitor.disconnect();
    waiting_.at(0).succeed();
    EXPECT_TRUE(monitor.weak().expired());
}

TEST_F(SessionTest, AnswersWaitForTheReader)
{
    Monitor monitor(registry_);
    monitor.negotiate();
    Session& session = monitor.session();
    session.feed(R"({"execute":"big"}{"execute":"echo","id":1})");
    while (session.runnable()) session.run_one();
    EXPECT_GT(session.pending_output(), kBusyOutput);
    EXPECT_FALSE(session.wants_input());
    EXPECT_EQ(monitor.messages().size(), 1u);
    EXPECT_THAT(monitor.send(""), ElementsAre(with_id(empty_answer(), 1)));
}

TEST_F(SessionTest, EventsOnlyInCommandModeAndBounded)
{
    Monitor monitor(registry_);
    monitor.messages();
    monitor.session().send_event("{\"event\": \"A\"}\r\n");
    EXPECT_THAT(monitor.messages(), IsEmpty());
    monitor.negotiate();
    monitor.session().send_event("{\"event\": \"B\"}\r\n");
    EXPECT_THAT(monitor.messages(), ElementsAre(json("{\"event\": \"B\"}")));
    const std::string line = "{\"event\": \"" + std::string(100'000, 'C') + "\"}\r\n";
    for (int i = 0; i < 200; ++i) monitor.session().send_event(line);
    EXPECT_TRUE(monitor.session().overflowed());
    EXPECT_LE(monitor.session().pending_output(), kMaxPendingOutput);
}

TEST_F(SessionTest, OutputIsOneAsciiLineEach)
{
    Monitor monitor(registry_);
    monitor.negotiate();
    Session& session = monitor.session();
    session.feed("{\"execute\":\"echo\",\"arguments\":{\"\xc3\xa9\":\"a\\nb\"}}");
    session.run_one();
    EXPECT_EQ(session.take_output(), "{\"return\": {\"\\u00E9\": \"a\\nb\"}}\r\n");
}

TEST(EventMessage, DataIsAbsentNotEmpty)
{
    const Object stop = event_message("STOP", std::nullopt);
    EXPECT_FALSE(stop.contains("data"));
    EXPECT_GT(*stop.find("timestamp")->find("seconds")->as_int64(), 1'600'000'000);
    EventLog log;
    log.emit(schema::events::Stop{});
    log.emit(schema::events::ColoExit{schema::COLOMode::primary, schema::COLOExitReason::error});
    EXPECT_THAT(log.take(), ElementsAre("STOP", "COLO_EXIT primary error"));
}

}  // namespace
}  // namespace colo::qmp::test
