// SPDX-License-Identifier: Apache-2.0
#pragma once

// The real coloctl against a live server: over the real commands with a fake daemon behind them, or over commands that
// a test makes up.

#include "colo/config.h"
#include "colo/handlers/control.h"
#include "fake_service.h"
#include "live_server.h"
#include "tests/unit/shell.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>

namespace colo::test {

using qmp::test::LiveServer;
using qmp::test::soon;

// The events of a Control go to the server that serves it; the server needs the registry first.
class Relay : public qmp::EventSink {
public:
    qmp::EventSink* target = nullptr;
    void emit_event(std::string_view name, std::optional<schema::Object> data) override
    {
        if (target != nullptr) target->emit_event(name, std::move(data));
    }
};

struct Daemon {
    Daemon(const std::string& path, const std::string& domain) : live(registry, path)
    {
        live.run([&] { prepare(domain); });
    }
    void prepare(const std::string& domain)
    {
        relay.target = &live.server();
        service.report.format = 1;
        service.report.domain = domain;
        service.report.role = schema::DomainRole::primary;
        service.report.state = schema::ProtectionState::protected_;
        service.report.mode = schema::ReplicationMode::lock_step;
        service.report.healthy = true;
        service.report.peer = "10.0.0.2:7777";
        service.report.remote = schema::PeerReport{
            200, "10.0.0.2:7777", schema::DomainRole::secondary, schema::ProtectionState::protected_, true, "", 3, 41};
    }
    FakeService service;
    Relay relay;
    qmp::Registry registry;
    Control control{service, relay, registry};
    LiveServer live;
};

class ColoctlTest : public ::testing::Test {
protected:
    std::string command(const std::string& arguments)
    {
        return std::string("NO_COLOR=1 '" COLOCTL "' --run-directory '") + directory_.path() + "' " + arguments;
    }
    Outcome ctl(const std::string& arguments) { return shell(command(arguments)); }
    // Where a daemon without a setting of its own puts its socket, below the directory of this test.
    std::string socket_of(const std::string& domain)
    {
        std::vector<ConfigProblem> problems;
        const std::string usual =
            parse_config("[domain]\nname = \"" + domain + "\"\n", "test", {}, problems).qmp.socket;
        EXPECT_THAT(usual, ::testing::StartsWith("/run/colo/"));
        const std::string path = directory_.file(usual.substr(std::string("/run/colo/").size()));
        std::filesystem::create_directories(std::filesystem::path(path).parent_path());
        return path;
    }
    void dead_socket(const std::string& domain) { std::fclose(std::fopen(socket_of(domain).c_str(), "w")); }
    std::unique_ptr<Daemon> daemon(const std::string& domain)
    {
        auto result = std::make_unique<Daemon>(socket_of(domain), domain);
        EXPECT_TRUE(result->live.started());
        return result;
    }
    static std::size_t lines(const std::string& text)
    {
        return static_cast<std::size_t>(std::ranges::count(text, '\n'));
    }

    qmp::test::TemporaryDirectory directory_;
};

}  // namespace colo::test
