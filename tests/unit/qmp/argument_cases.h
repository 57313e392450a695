// SPDX-License-Identifier: Apache-2.0
#pragma once

// The cases that schema/generator/cases.py makes from the schema, and how an answer is held against one.

#include "qmp/json.h"

#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

namespace colo::qmp::test {

struct ArgumentCase {
    std::string command;
    std::string
        kind;  // JSON type that was tried, missing, unexpected, duplicate, order, enum, above, below, range, accepted
    std::string path;       // the place in the arguments
    std::string arguments;  // JSON text
    std::string error_class;
    std::optional<std::string> desc;  // absent: must be accepted

    std::string request() const { return R"({"execute": ")" + command + R"(", "arguments": )" + arguments + "}"; }
    std::string show() const { return command + " " + arguments + " (" + kind + " at '" + path + "')"; }
};

inline std::vector<ArgumentCase> read_argument_cases(const std::string& file)
{
    std::ifstream stream(file);
    std::stringstream content;
    content << stream.rdbuf();
    const auto document = parse_json(content.str());
    EXPECT_TRUE(document && document->as_array()) << file;
    std::vector<ArgumentCase> cases;
    if (!document || !document->as_array()) return cases;
    for (const schema::Value& row : *document->as_array()) {
        const auto text = [&](const char* name) {
            return row.find(name) ? *row.find(name)->as_string() : std::string();
        };
        cases.push_back({text("command"), text("kind"), text("path"), text("arguments"), text("class"), {}});
        if (row.find("desc")) cases.back().desc = text("desc");
    }
    return cases;
}

// What a decoder that refuses nothing answers; the handlers of decoding tests say it, too.
inline constexpr const char* kDecoded = "decoded";

inline schema::Value error_answer_of(const std::string& error_class, const std::string& desc)
{
    return schema::Object{{"error", schema::Object{{"class", error_class}, {"desc", desc}}}};
}

// Lines about every case whose answer is not what the case says. `ask` gives the whole answer to its request.
inline std::vector<std::string> disagreements(const std::vector<ArgumentCase>& cases,
                                              const std::function<schema::Value(const ArgumentCase&)>& ask)
{
    std::vector<std::string> lines;
    const schema::Value accepted = error_answer_of("GenericError", kDecoded);
    for (const ArgumentCase& entry : cases) {
        const schema::Value answer = ask(entry);
        const schema::Value expected = entry.desc ? error_answer_of(entry.error_class, *entry.desc) : accepted;
        if (answer != expected)
            lines.push_back(entry.show() + "\n    expected " + to_json(expected) + "\n    got      " + to_json(answer));
    }
    return lines;
}

inline std::string joined(const std::vector<std::string>& lines, std::size_t most = 20)
{
    std::string text;
    for (std::size_t i = 0; i < lines.size() && i < most; ++i) text += lines[i] + "\n";
    return lines.size() > most ? text + "and " + std::to_string(lines.size() - most) + " more\n" : text;
}

}  // namespace colo::qmp::test
