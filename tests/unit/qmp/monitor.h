// SPDX-License-Identifier: Apache-2.0
#pragma once

// A client and a session without a socket between them.

#include "qmp/event.h"
#include "qmp/session.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

namespace colo::qmp::test {

inline schema::Value json(std::string_view text)
{
    auto value = parse_json(text);
    EXPECT_TRUE(value.has_value()) << text;
    return value ? *value : schema::Value();
}

inline schema::Value error_answer(std::string_view description, const char* error_class = "GenericError")
{
    return schema::Object{{"error", schema::Object{{"class", error_class}, {"desc", description}}}};
}

inline schema::Value with_id(schema::Value answer, schema::Value id)
{
    answer.as_object()->set("id", std::move(id));
    return answer;
}

inline schema::Value empty_answer()
{
    return schema::Object{{"return", schema::Object()}};
}

class Monitor {
public:
    explicit Monitor(const Registry& registry) : session_(Session::make(registry, {{7, 0, 0}, "test 1"})) {}

    // Bytes in, everything that can be executed is; messages out.
    std::vector<schema::Value> send(std::string_view bytes)
    {
        session_->feed(bytes);
        while (session_->runnable()) session_->run_one();
        return messages();
    }

    std::vector<schema::Value> messages()
    {
        input_ += session_->take_output();
        std::vector<schema::Value> result;
        for (std::size_t end; (end = input_.find("\r\n")) != input_.npos; input_.erase(0, end + 2))
            result.push_back(json(std::string_view(input_).substr(0, end)));
        return result;
    }

    // The only answer to `bytes`.
    schema::Value ask(std::string_view bytes)
    {
        auto answers = send(bytes);
        EXPECT_EQ(answers.size(), 1u) << bytes;
        return answers.empty() ? schema::Value() : answers.front();
    }

    // Greeting read, in command mode.
    void negotiate(bool oob = false)
    {
        messages();
        const char* enable = oob ? R"(, "arguments": {"enable": ["oob"]})" : "";
        EXPECT_EQ(ask(std::string(R"({"execute": "qmp_capabilities")") + enable + "}"), empty_answer());
    }

    Session& session() { return *session_; }
    std::weak_ptr<Session> weak() { return session_; }
    void disconnect() { session_.reset(); }

private:
    std::shared_ptr<Session> session_;
    std::string input_;
};

// Keeps what was emitted.
class EventLog : public EventSink {
public:
    struct Entry {
        std::string name;
        std::optional<schema::Object> data;
    };
    void emit_event(std::string_view name, std::optional<schema::Object> data) override
    {
        entries.push_back({std::string(name), std::move(data)});
    }
    // "MIGRATION setup", "STOP": name and the values of the data.
    std::vector<std::string> take()
    {
        std::vector<std::string> result;
        for (const Entry& entry : entries) {
            std::string text = entry.name;
            if (entry.data)
                for (const auto& member : entry.data->members())
                    text += " " + (member.value.as_string() ? *member.value.as_string() : to_json(member.value));
            result.push_back(text);
        }
        entries.clear();
        return result;
    }
    std::vector<Entry> entries;
};

}  // namespace colo::qmp::test
