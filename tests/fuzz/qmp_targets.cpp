// SPDX-License-Identifier: Apache-2.0
#include "qmp_targets.h"

#include "colo/handlers/control.h"
#include "core/check.h"
#include "fake_service.h"
#include "qmp/event.h"
#include "qmp/json.h"
#include "qmp/session.h"
#include "schema/tables.h"

#include <algorithm>
#include <string>
#include <vector>

namespace colo::fuzz {
namespace {

using schema::Object;
using schema::Value;

std::string_view text_of(ByteView input)
{
    return {reinterpret_cast<const char*>(input.data()), input.size()};
}

std::size_t piece_of(std::uint8_t choice)
{
    constexpr std::size_t kPieces[] = {1, 2, 3, 5, 7, 13, 64, 4096};
    return kPieces[choice % std::size(kPieces)];
}

template <class Take>
void in_pieces(std::string_view text, std::size_t piece, Take take)
{
    while (!text.empty()) {
        take(text.substr(0, piece));
        text.remove_prefix(std::min(piece, text.size()));
    }
}

std::vector<std::string> tokens_of(std::string_view text, std::size_t piece)
{
    qmp::Lexer lexer;
    std::vector<std::string> result;
    in_pieces(text, piece, [&](std::string_view part) {
        for (;;) {
            const auto outcome = lexer.next(part);
            if (outcome == qmp::Lexer::Outcome::need_input) break;
            result.push_back(std::to_string(static_cast<int>(outcome)) +
                             std::to_string(static_cast<int>(lexer.type())) + std::string(lexer.text()));
        }
        COLO_CHECK(part.empty());
    });
    return result;
}

std::vector<std::string> messages_of(std::string_view text, std::size_t piece)
{
    qmp::MessageParser parser;
    std::vector<std::string> result;
    in_pieces(text, piece, [&](std::string_view part) {
        while (auto message = parser.next(part)) {
            if (!*message) {
                COLO_CHECK(message->error().text.starts_with("JSON "));
                result.push_back(message->error().text);
                continue;
            }
            // What was understood is written in a way that means the same.
            result.push_back(qmp::to_json(**message));
            const auto again = qmp::parse_json(result.back());
            COLO_CHECK(again.has_value() && qmp::to_json(*again) == result.back());
        }
    });
    return result;
}

class NoEvents : public qmp::EventSink {
public:
    void emit_event(std::string_view, std::optional<Object>) override {}
};

// The commands of the product over a daemon that accepts everything and does nothing.
struct Commands {
    test::FakeService service;
    NoEvents events;
    qmp::Registry registry;
    Control control{service, events, registry};
};

// Every line is one answer, or the greeting.
void check_output(const std::string& output)
{
    for (std::size_t at = 0; at < output.size();) {
        const std::size_t end = output.find("\r\n", at);
        COLO_CHECK(end != std::string::npos);
        const auto line = std::string_view(output).substr(at, end - at);
        COLO_CHECK(std::ranges::all_of(line, [](char c) { return c >= 0x20 && c <= 0x7e; }));
        const auto message = qmp::parse_json(line);
        COLO_CHECK(message.has_value());
        const bool answer = (message->find("return") != nullptr) != (message->find("error") != nullptr);
        COLO_CHECK(answer || message->find("QMP") != nullptr);
        if (const Value* error = message->find("error")) COLO_CHECK(!error->find("desc")->as_string()->empty());
        at = end + 2;
    }
}

class OneAnswer : public qmp::ReplyTarget {
public:
    void deliver(Object, bool) override { ++answers; }
    int answers = 0;
};

}  // namespace

void qmp_lexer(ByteView input)
{
    if (input.empty()) return;
    const std::string_view text = text_of(input.subspan(1));
    const std::size_t piece = piece_of(input[0]);
    COLO_CHECK(tokens_of(text, piece) == tokens_of(text, text.size()));
    COLO_CHECK(messages_of(text, piece) == messages_of(text, text.size()));
}

void qmp_session(ByteView input)
{
    if (input.empty()) return;
    Commands commands;
    const auto session = qmp::Session::make(commands.registry, interface_version("1"));
    const auto run = [&] {
        while (session->runnable()) session->run_one();
        check_output(session->take_output());
        while (session->runnable()) {  // output that was not read held the rest back
            session->run_one();
            check_output(session->take_output());
        }
    };
    if ((input[0] & 0x10) != 0) session->feed(R"({"execute":"qmp_capabilities"})");
    if ((input[0] & 0x20) != 0) session->feed(R"({"execute":"qmp_capabilities","arguments":{"enable":["oob"]}})");
    run();
    in_pieces(text_of(input.subspan(1)), piece_of(input[0]), [&](std::string_view part) {
        COLO_CHECK(session->wants_input());
        session->feed(part);
        run();
    });
    // Whatever it was, one byte FF and a line end bring the client back into step.
    session->feed("\xff\n");
    run();
    session->feed(R"({"execute":"nothing","id":"step"})");
    while (session->runnable()) session->run_one();
    const std::string last = session->take_output();
    check_output(last);
    COLO_CHECK(last.find("\"id\": \"step\"") != std::string::npos);
    COLO_CHECK(session->idle());
}

void qmp_decoder(ByteView input)
{
    if (input.empty()) return;
    const auto arguments = qmp::parse_json(text_of(input.subspan(1)));
    if (!arguments || arguments->as_object() == nullptr) return;
    Commands commands;
    const auto table = schema::command_table();
    const auto* command = commands.registry.find(table[input[0] % table.size()].name);
    if (command == nullptr) return;  // qmp_capabilities
    const auto target = std::make_shared<OneAnswer>();
    command->handler(*arguments->as_object(), qmp::Reply(target, std::nullopt, true));
    COLO_CHECK(target->answers == 1);
    // What was decoded is encoded in a way that is decoded to the same.
    const auto parameters = schema::decode_value<schema::MigrateSetParameters>(*arguments);
    if (!parameters) return;
    const auto again = schema::decode_value<schema::MigrateSetParameters>(schema::encode(*parameters));
    COLO_CHECK(again.has_value() && *again == *parameters);
}

}  // namespace colo::fuzz
