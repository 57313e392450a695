// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "colo/handlers/control.h"
#include "fake_service.h"
#include "monitor.h"

#include <gmock/gmock.h>

namespace colo::test {

// A negotiated monitor on the real commands over a fake daemon.
class HandlersTest : public ::testing::Test {
protected:
    HandlersTest() { monitor_.negotiate(); }

    schema::Value run(const std::string& command, const std::string& arguments = "{}")
    {
        return monitor_.ask(R"({"execute": ")" + command + R"(", "arguments": )" + arguments + "}");
    }
    // The result, or the error's description.
    schema::Value result(const std::string& command, const std::string& arguments = "{}")
    {
        const schema::Value answer = run(command, arguments);
        const schema::Value* value = answer.find("return");
        return value != nullptr ? *value : schema::Value();
    }
    std::string error(const std::string& command, const std::string& arguments = "{}")
    {
        const schema::Value answer = run(command, arguments);
        const schema::Value* failure = answer.find("error");
        return failure != nullptr ? *failure->find("desc")->as_string() : "no error: " + qmp::to_json(answer);
    }
    void must(const std::string& command, const std::string& arguments = "{}")
    {
        EXPECT_EQ(run(command, arguments), qmp::test::empty_answer()) << command << " " << arguments;
    }
    void enable(const std::string& capability, bool on = true)
    {
        must("migrate-set-capabilities", R"({"capabilities": [{"capability": ")" + capability + R"(", "state": )" +
                                             (on ? "true" : "false") + "}]}");
    }

    FakeService service_;
    qmp::test::EventLog events_;
    qmp::Registry registry_;
    Control control_{service_, events_, registry_};
    qmp::test::Monitor monitor_{registry_};
};

}  // namespace colo::test
