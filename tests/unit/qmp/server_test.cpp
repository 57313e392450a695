// SPDX-License-Identifier: Apache-2.0
#include "live_server.h"

#include "qmp/session.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <atomic>
#include <fstream>

namespace colo::qmp::test {
namespace {

using schema::Object;
using schema::Value;

class ServerTest : public ::testing::Test {
protected:
    ServerTest()
    {
        add_introspection(registry_);
        registry_.add_raw("echo", [](const Object& arguments, Reply reply) { reply.succeed(arguments); });
        registry_.add_raw("later", [this](const Object&, Reply reply) {
            waiting_.push_back(std::move(reply));
            ++waiting_count_;
        });
    }

    Client client()
    {
        auto connected = Client::connect(path_, soon());
        EXPECT_TRUE(connected) << connected.error().text;
        EXPECT_TRUE(connected->negotiate(soon()));
        return std::move(*connected);
    }
    void wait_waiting(int count)
    {
        const Deadline deadline = soon();
        while (waiting_count_ < count && now() < deadline) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        ASSERT_EQ(waiting_count_, count);
    }

    TemporaryDirectory directory_;
    std::string path_ = directory_.file("d.qmp");
    Registry registry_;
    std::atomic<int> waiting_count_{0};
    std::vector<Reply> waiting_;
};

TEST_F(ServerTest, SocketFileBelongsToTheGroupOnly)
{
    LiveServer live(registry_, path_);
    ASSERT_TRUE(live.started()) << live.started().error().text;
    struct stat status {};
    ASSERT_EQ(::lstat(path_.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777u, 0660u);
    EXPECT_TRUE(S_ISSOCK(status.st_mode));
}

TEST_F(ServerTest, AbandonedSocketIsReplacedAServedOneIsNot)
{
    {
        LiveServer live(registry_, path_);
        LiveServer second(registry_, path_);
        ASSERT_FALSE(second.started());
        EXPECT_NE(second.started().error().text.find("another daemon serves it"), std::string::npos);
        EXPECT_TRUE(client().execute("echo", {}, soon()));
    }
    EXPECT_FALSE(std::filesystem::exists(path_));
    const int abandoned = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof address.sun_path - 1);
    ASSERT_EQ(::bind(abandoned, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    ::close(abandoned);
    LiveServer live(registry_, path_);
    EXPECT_TRUE(live.started());
}

TEST_F(ServerTest, SaysWhyItCannotListen)
{
    std::ofstream(path_) << "precious";
    LiveServer in_the_way(registry_, path_);
    EXPECT_NE(in_the_way.started().error().text.find("a file is in the way"), std::string::npos);
    EXPECT_TRUE(std::filesystem::exists(path_));
    LiveServer nowhere(registry_, directory_.file("no/such/d.qmp"));
    EXPECT_NE(nowhere.started().error().text.find("No such file"), std::string::npos);
    LiveServer too_long(registry_, directory_.file(std::string(200, 'x')));
    EXPECT_NE(too_long.started().error().text.find("107 bytes"), std::string::npos);
}

TEST_F(ServerTest, SeveralMonitorsEachNegotiateAndAllGetEvents)
{
    LiveServer live(registry_, path_);
    Client one = client();
    Client two = client();
    auto silent = Client::connect(path_, soon());
    ASSERT_TRUE(silent);
    ASSERT_TRUE(live.wait_clients(3));
    live.emit(schema::events::Migration{schema::MigrationStatus::colo});
    live.emit(schema::events::Stop{});
    for (Client* each : {&one, &two}) {
        const auto first = each->next_event(soon());
        ASSERT_TRUE(first);
        EXPECT_EQ(first->name, "MIGRATION");
        EXPECT_EQ(*first->message.find("data"), Value(Object{{"status", "colo"}}));
        const auto second = each->next_event(soon());
        ASSERT_TRUE(second);
        EXPECT_EQ(second->name, "STOP");
        EXPECT_FALSE(second->message.contains("data"));
    }
    // The one in negotiation mode got none, and none is saved for it.
    ASSERT_TRUE(silent->negotiate(soon()));
    EXPECT_EQ(silent->next_event(now() + Duration{20'000}).error().code, Errc::timed_out);
    EXPECT_TRUE(silent->execute("echo", {}, soon()));
}

TEST_F(ServerTest, AWaitingMonitorDoesNotBlockAnother)
{
    LiveServer live(registry_, path_);
    Client slow = client();
    Client quick = client();
    ASSERT_TRUE(slow.write(R"({"execute": "later", "id": "x"} {"execute": "echo", "id": "y"})", soon()));
    wait_waiting(1);
    for (int i = 0; i < 20; ++i) EXPECT_TRUE(quick.execute("echo", {}, soon()));
    live.run([this] { waiting_.front().succeed("done"); });
    EXPECT_EQ(*slow.read(soon())->find("return"), Value("done"));
    EXPECT_EQ(*slow.read(soon())->find("id"), Value("y"));
}

TEST_F(ServerTest, RequestsInPiecesAndManyAtOnce)
{
    LiveServer live(registry_, path_);
    Client one = client();
    const std::string request = R"({"execute": "echo", "arguments": {"a": [1, 2]}, "id": 1})";
    for (const char byte : request) ASSERT_TRUE(one.write({&byte, 1}, soon()));
    EXPECT_EQ(*one.read(soon())->find("id"), Value(1));
    std::string many;
    for (int i = 0; i < 500; ++i) many += R"({"execute":"echo","id":)" + std::to_string(i) + "}";
    ASSERT_TRUE(one.write(many, soon()));
    for (int i = 0; i < 500; ++i) {
        const auto answer = one.read(soon());
        ASSERT_TRUE(answer);
        ASSERT_EQ(*answer->find("id"), Value(i));
    }
    ASSERT_TRUE(one.write("\xff\n", soon()));
    EXPECT_EQ(*one.read(soon())->find("error")->find("desc"), Value("JSON parse error, stray '\xef\xbf\xbd'"));
}

TEST_F(ServerTest, WhatWasAskedBeforeTheEndIsAnswered)
{
    LiveServer live(registry_, path_);
    Client one = client();
    ASSERT_TRUE(
        one.write(R"({"execute":"echo","id":1}{"execute":"later","id":2}{"execute":"echo","id":3}{"execute")", soon()));
    ::shutdown(one.fd(), SHUT_WR);
    EXPECT_EQ(*one.read(soon())->find("id"), Value(1));
    wait_waiting(1);
    live.run([this] { waiting_.front().succeed(); });
    EXPECT_EQ(*one.read(soon())->find("id"), Value(2));
    EXPECT_EQ(*one.read(soon())->find("id"), Value(3));
    EXPECT_EQ(one.read(soon()).error().code, Errc::closed);
    EXPECT_TRUE(live.wait_clients(0));
}

TEST_F(ServerTest, ClientThatDoesNotReadIsDisconnected)
{
    LiveServer live(registry_, path_);
    Client deaf = client();
    Client good = client();
    schema::events::XColoStateChange event;
    event.reason = std::string(64 << 10, 'x');
    // The server buffers kMaxPendingOutput for a client; the kernel some more. The good one reads along.
    const std::size_t enough = 3 * kMaxPendingOutput / event.reason.size();
    for (std::size_t i = 0; i < enough && live.clients() == 2; ++i) {
        live.emit(event);
        ASSERT_TRUE(good.next_event(soon()));
    }
    EXPECT_TRUE(live.wait_clients(1));
    EXPECT_TRUE(good.execute("echo", {}, soon()));
}

TEST_F(ServerTest, ClientsBeyondTheLimitAreTurnedAway)
{
    LiveServer live(registry_, path_, 2);
    Client one = client();
    Client two = client();
    EXPECT_EQ(Client::connect(path_, soon()).error().code, Errc::closed);
    EXPECT_TRUE(one.execute("echo", {}, soon()));
}

TEST_F(ServerTest, DisconnectInTheMiddleOfEverything)
{
    LiveServer live(registry_, path_);
    for (int i = 0; i < 20; ++i) {
        Client gone = client();
        ASSERT_TRUE(gone.write(i % 2 == 0 ? R"({"execute": "later"})" : R"({"execute": "echo", "argu)", soon()));
        if (i % 2 == 0) wait_waiting(i / 2 + 1);
    }
    live.run([this] {
        for (Reply& reply : waiting_) reply.succeed();
    });
    EXPECT_TRUE(live.wait_clients(0));
    EXPECT_TRUE(client().execute("echo", {}, soon()));
}

TEST_F(ServerTest, StopSendsWhatWasAnsweredThenCloses)
{
    LiveServer live(registry_, path_);
    Client one = client();
    std::promise<void> closed;
    ASSERT_TRUE(one.execute("echo", {}, soon()));
    live.run([&] {
        live.server().emit(schema::events::Shutdown{false, schema::ShutdownCause::host_qmp_quit});
        live.server().stop(Duration{30'000'000}, [&] { closed.set_value(); });
    });
    EXPECT_EQ(one.next_event(soon())->name, "SHUTDOWN");
    EXPECT_EQ(one.read(soon()).error().code, Errc::closed);
    closed.get_future().wait();
    EXPECT_FALSE(Client::connect(path_, soon()));
    EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(ServerTest, ClientReportsRefusalsWithTheirClass)
{
    LiveServer live(registry_, path_);
    Client one = client();
    const auto answer = one.execute("nope", {}, soon());
    ASSERT_FALSE(answer);
    EXPECT_EQ(answer.error().code, Errc::refused);
    EXPECT_EQ(answer.error().text, "The command nope has not been found");
    EXPECT_EQ(one.error_class(), "CommandNotFound");
    ASSERT_TRUE(one.write(R"({"execute": "later"})", soon()));
    EXPECT_EQ(one.execute("echo", {}, now() + Duration{20'000}).error().code, Errc::timed_out);
}

}  // namespace
}  // namespace colo::qmp::test
