// SPDX-License-Identifier: Apache-2.0

// Descriptors that clients hand over: the store, which request they belong to, and the five commands.

#include "handlers_fixture.h"
#include "qmp/fd_store.h"

#include <fcntl.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <sstream>

namespace colo::test {
namespace {

using qmp::Fd;
using qmp::FdStore;
using qmp::test::Monitor;
using schema::Value;

// A pipe whose reading end stays here: it tells whether the other one is still open anywhere.
class Watched {
public:
    Watched()
    {
        std::array<int, 2> ends{};
        EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK), 0);
        reader_.reset(ends[0]);
        writer_.reset(ends[1]);
    }
    Fd hand_over() { return std::move(writer_); }
    std::vector<Fd> list()
    {
        std::vector<Fd> result;
        result.push_back(hand_over());
        return result;
    }
    bool closed() const
    {
        char byte = 0;
        return ::read(reader_.get(), &byte, 1) == 0;
    }

private:
    Fd reader_;
    Fd writer_;
};

TEST(FdStore, NamesAndNotesAreShort)
{
    FdStore store;
    const auto monitor = store.open_monitor();
    Watched named, placed;
    EXPECT_FALSE(store.name(monitor, std::string(256, 'a'), named.hand_over()));
    EXPECT_FALSE(store.add_to_set({}, std::string(4097, 'x'), placed.hand_over()));
    EXPECT_TRUE(named.closed());
    EXPECT_TRUE(placed.closed());
    EXPECT_TRUE(store.sets().empty());
}

TEST(FdStore, NamesBelongToOneMonitor)
{
    FdStore store;
    const auto one = store.open_monitor();
    const auto two = store.open_monitor();
    EXPECT_NE(one, two);
    Watched first, second, other;
    ASSERT_TRUE(store.name(one, "a", first.hand_over()));
    ASSERT_TRUE(store.name(two, "a", other.hand_over()));
    ASSERT_TRUE(store.name(one, "a", second.hand_over()));  // replaces
    EXPECT_TRUE(first.closed());
    EXPECT_FALSE(second.closed());
    EXPECT_EQ(store.close_named(one, "b").error().text, "File descriptor named 'b' not found");
    const auto taken = store.take_named(one, "a");
    ASSERT_TRUE(taken);
    EXPECT_FALSE(second.closed());
    EXPECT_EQ(store.take_named(one, "a").error().text, "File descriptor named 'a' has not been found");
    EXPECT_FALSE(other.closed());
    store.close_monitor(two);
    EXPECT_TRUE(other.closed());
}

TEST(FdStore, NothingIsKeptOfARefusedDescriptor)
{
    FdStore store;
    const auto monitor = store.open_monitor();
    Watched digit, negative;
    EXPECT_FALSE(store.name(monitor, "7x", digit.hand_over()));
    EXPECT_TRUE(digit.closed());
    EXPECT_FALSE(store.add_to_set(-1, std::nullopt, negative.hand_over()));
    EXPECT_TRUE(negative.closed());
}

TEST(FdStore, IsBounded)
{
    FdStore store;
    const auto monitor = store.open_monitor();
    for (std::size_t i = 0; i < FdStore::kMaxHeld / 2; ++i) {
        ASSERT_TRUE(store.name(monitor, "n" + std::to_string(i), Fd(::open("/dev/null", O_RDONLY))));
        ASSERT_TRUE(store.add_to_set(std::nullopt, std::nullopt, Fd(::open("/dev/null", O_RDONLY))));
    }
    EXPECT_EQ(store.held(), FdStore::kMaxHeld);
    Watched named, in_set, instead;
    EXPECT_EQ(store.name(monitor, "more", named.hand_over()).error().code, Errc::limit);
    EXPECT_EQ(store.add_to_set(1, std::nullopt, in_set.hand_over()).error().code, Errc::limit);
    EXPECT_TRUE(named.closed() && in_set.closed());
    EXPECT_TRUE(store.name(monitor, "n0", instead.hand_over()));  // takes no more room
    store.close_monitor(monitor);
    EXPECT_EQ(store.held(), 0u);
}

TEST(FdStore, WhatWaitsIsCountedInOneTotal)
{
    const auto store = std::make_shared<FdStore>();
    const auto nulls = [](std::size_t count) {
        std::vector<Fd> result;
        while (result.size() < count) result.emplace_back(::open("/dev/null", O_RDONLY));
        return result;
    };
    qmp::WaitingFds most(store, nulls(FdStore::kMaxWaiting - 3));
    {
        Watched kept, excess;
        std::vector<Fd> fds = nulls(2);
        fds.push_back(kept.hand_over());
        fds.push_back(excess.hand_over());
        qmp::WaitingFds last(store, std::move(fds));
        EXPECT_EQ(last.size(), 3u);
        EXPECT_TRUE(excess.closed());
        EXPECT_FALSE(kept.closed());
        EXPECT_EQ(store->waiting(), FdStore::kMaxWaiting);
        EXPECT_EQ(qmp::WaitingFds(store, nulls(2)).size(), 0u);
        most.append(std::move(last));
    }
    EXPECT_EQ(store->waiting(), FdStore::kMaxWaiting);
    qmp::WaitingFds moved = std::move(most);
    moved.keep(10);
    EXPECT_EQ(store->waiting(), 10u);
    EXPECT_TRUE(moved.take_first());
    EXPECT_EQ(store->waiting(), 0u);
    EXPECT_FALSE(moved.take_first());
}

TEST(FdStore, AFloodOfWhatWaitsIsLoggedOnce)
{
    std::ostringstream log;
    const auto usual = spdlog::default_logger();
    spdlog::set_default_logger(std::make_shared<spdlog::logger>("", std::make_shared<spdlog::sinks::ostream_sink_mt>(log)));
    const auto lines = [&log] { return std::ranges::count(log.str(), '\n'); };
    const auto store = std::make_shared<FdStore>();
    const auto nulls = [](std::size_t count) {
        std::vector<Fd> result;
        while (result.size() < count) result.emplace_back(::open("/dev/null", O_RDONLY));
        return result;
    };
    qmp::WaitingFds most(store, nulls(FdStore::kMaxWaiting));
    for (int i = 0; i < 100; ++i) {
        qmp::WaitingFds beyond(store, nulls(3));
        EXPECT_EQ(beyond.size(), 0u);
        most.keep(most.size() - 1);  // one in and one out is the same flood
        most.append(qmp::WaitingFds(store, nulls(1)));
    }
    EXPECT_EQ(lines(), 1) << log.str();
    most.keep(10);
    EXPECT_EQ(qmp::WaitingFds(store, nulls(FdStore::kMaxWaiting)).size(), FdStore::kMaxWaiting - 10);
    EXPECT_EQ(lines(), 2) << log.str();
    spdlog::set_default_logger(usual);
}

TEST(FdStore, SetsGoWithTheLastMonitorUnlessTheyAreUsed)
{
    FdStore store;
    const auto one = store.open_monitor();
    const auto two = store.open_monitor();
    Watched idle, used;
    ASSERT_TRUE(store.add_to_set(5, "note", idle.hand_over()));
    ASSERT_TRUE(store.add_to_set(7, std::nullopt, used.hand_over()));
    store.close_monitor(one);
    EXPECT_FALSE(idle.closed());
    {
        EXPECT_FALSE(store.use_set(7, O_RDONLY));
        const auto use = store.use_set(7, O_WRONLY);
        ASSERT_TRUE(use);
        store.close_monitor(two);
        EXPECT_TRUE(idle.closed());
        EXPECT_FALSE(used.closed());
        EXPECT_TRUE(store.sets().contains(7));
    }
    store.open_monitor();
    EXPECT_TRUE(used.closed());
    EXPECT_TRUE(store.sets().empty());
}

class FdCommandsTest : public HandlersTest {
protected:
    // What the monitor says to `request`, which comes with one descriptor.
    Value with_fd(Monitor& monitor, const std::string& request, std::vector<Fd> fds)
    {
        monitor.session().feed(request, std::move(fds));
        while (monitor.session().runnable()) monitor.session().run_one();
        const auto answers = monitor.messages();
        EXPECT_EQ(answers.size(), 1u) << request;
        return answers.empty() ? Value() : answers.front();
    }
    Value with_fd(const std::string& command, const std::string& arguments, std::vector<Fd> fds)
    {
        return with_fd(monitor_, R"({"execute": ")" + command + R"(", "arguments": )" + arguments + "}\r\n",
                       std::move(fds));
    }
};

TEST_F(FdCommandsTest, GetfdAndClosefd)
{
    Watched one, two, digit;
    EXPECT_EQ(error("getfd", R"({"fdname": "x"})"), "No file descriptor supplied via SCM_RIGHTS");
    EXPECT_EQ(error("getfd", R"({"fdname": "1x"})"), "No file descriptor supplied via SCM_RIGHTS");
    EXPECT_EQ(with_fd("getfd", R"({"fdname": "1x"})", digit.list()),
              qmp::test::error_answer("Parameter 'fdname' expects a name not starting with a digit"));
    EXPECT_TRUE(digit.closed());
    EXPECT_EQ(with_fd("getfd", R"({"fdname": "x"})", one.list()), qmp::test::empty_answer());
    EXPECT_EQ(with_fd("getfd", R"({"fdname": "x"})", two.list()), qmp::test::empty_answer());
    EXPECT_TRUE(one.closed());
    EXPECT_FALSE(two.closed());

    Monitor other(registry_);
    other.negotiate();
    EXPECT_EQ(other.ask(R"({"execute": "closefd", "arguments": {"fdname": "x"}})"),
              qmp::test::error_answer("File descriptor named 'x' not found"));
    must("closefd", R"({"fdname": "x"})");
    EXPECT_TRUE(two.closed());
    EXPECT_EQ(error("closefd", R"({"fdname": "x"})"), "File descriptor named 'x' not found");
}

TEST_F(FdCommandsTest, SetsAreSharedByAllMonitors)
{
    Watched a, b, c, negative;
    EXPECT_EQ(error("add-fd"), "No file descriptor supplied via SCM_RIGHTS");
    EXPECT_EQ(with_fd("add-fd", R"({"fdset-id": -3})", negative.list()),
              qmp::test::error_answer("Parameter 'fdset-id' expects a non-negative value"));
    EXPECT_TRUE(negative.closed());
    const Value first = with_fd("add-fd", R"({"fdset-id": 3, "opaque": "rdonly:/x"})", a.list());
    const Value second = with_fd("add-fd", R"({"fdset-id": 3})", b.list());
    const Value lowest = with_fd("add-fd", "{}", c.list());
    const auto number = [](const Value& answer) { return *answer.find("return")->find("fd")->as_int64(); };
    EXPECT_EQ(*lowest.find("return")->find("fdset-id"), Value(0));

    Monitor other(registry_);
    other.negotiate();
    const Value listed = other.ask(R"({"execute": "query-fdsets"})");
    EXPECT_EQ(*listed.find("return"),
              qmp::test::json(R"([{"fdset-id": 3, "fds": [{"fd": )" + std::to_string(number(first)) +
                              R"(, "opaque": "rdonly:/x"}, {"fd": )" + std::to_string(number(second)) +
                              R"(}]}, {"fdset-id": 0, "fds": [{"fd": )" + std::to_string(number(lowest)) + "}]}]"));

    EXPECT_EQ(error("remove-fd", R"({"fdset-id": 4})"), "File descriptor named 'fdset-id:4' not found");
    EXPECT_EQ(error("remove-fd", R"({"fdset-id": 3, "fd": 99999})"),
              "File descriptor named 'fdset-id:3, fd:99999' not found");
    must("remove-fd", R"({"fdset-id": 3, "fd": )" + std::to_string(number(first)) + "}");
    EXPECT_TRUE(a.closed());
    EXPECT_FALSE(b.closed());
    must("remove-fd", R"({"fdset-id": 3})");
    EXPECT_TRUE(b.closed());
    monitor_.disconnect();
    EXPECT_FALSE(c.closed());
    other.disconnect();
    EXPECT_TRUE(c.closed());
}

TEST_F(FdCommandsTest, DescriptorsBelongToTheRequestTheyCameWith)
{
    const std::string get = R"({"execute": "getfd", "arguments": {"fdname": "x"}})";
    // White space first, the request later, in pieces.
    Watched before;
    monitor_.session().feed(" ", before.list());
    monitor_.session().feed(get.substr(0, 20));
    EXPECT_EQ(monitor_.ask(get.substr(20)), qmp::test::empty_answer());
    EXPECT_FALSE(before.closed());
    // A request that does not want it, in the middle of it, and with a line end behind.
    Watched unwanted;
    monitor_.session().feed(R"({"execute": "quer)");
    EXPECT_EQ(with_fd(monitor_, "y-name\"}\r\n", unwanted.list()).find("error"), nullptr);
    EXPECT_TRUE(unwanted.closed());
    EXPECT_EQ(monitor_.ask(get), qmp::test::error_answer("No file descriptor supplied via SCM_RIGHTS"));
    // Broken requests.
    for (const char* broken :
         {R"({"execute": "getfd", "arguments": {"fdname": 1}})", R"({"execute": "getfd", "arguments": []})",
          R"({"execute": "getfd" "id": 1})", "[]", "nope "}) {
        Watched lost;
        EXPECT_NE(with_fd(monitor_, broken, lost.list()).find("error"), nullptr);
        EXPECT_TRUE(lost.closed()) << broken;
    }
    // Read together with an earlier request: it belongs to the one that ends with it.
    Watched later;
    monitor_.session().feed(R"({"execute": "query-name"})" + get, later.list());
    while (monitor_.session().runnable()) monitor_.session().run_one();
    EXPECT_EQ(monitor_.messages().back(), qmp::test::empty_answer());
    EXPECT_FALSE(later.closed());
    // Only the first of several is meant; the others are closed.
    Watched first, second;
    std::vector<Fd> both = first.list();
    both.push_back(second.hand_over());
    EXPECT_EQ(with_fd(monitor_, get, std::move(both)), qmp::test::empty_answer());
    EXPECT_FALSE(first.closed());
    EXPECT_TRUE(second.closed());
}

TEST_F(FdCommandsTest, QueuedRequestsKeepTheirOwn)
{
    Monitor monitor(registry_);
    monitor.negotiate(true);
    Watched one, two;
    monitor.session().feed(R"({"execute": "getfd", "arguments": {"fdname": "one"}})", one.list());
    monitor.session().feed(R"({"execute": "getfd", "arguments": {"fdname": "two"}})", two.list());
    while (monitor.session().runnable()) monitor.session().run_one();
    EXPECT_EQ(monitor.messages().size(), 2u);
    EXPECT_EQ(monitor.ask(R"({"execute": "closefd", "arguments": {"fdname": "one"}})"), qmp::test::empty_answer());
    EXPECT_TRUE(one.closed());
    EXPECT_FALSE(two.closed());
}

TEST_F(FdCommandsTest, WaitingDescriptorsAreBounded)
{
    std::vector<Watched> many(2 * qmp::kMaxWaitingFds);
    for (Watched& each : many) monitor_.session().feed(" ", each.list());
    for (std::size_t i = 0; i < many.size(); ++i) EXPECT_EQ(many[i].closed(), i < qmp::kMaxWaitingFds) << i;
    monitor_.disconnect();
    for (const Watched& each : many) EXPECT_TRUE(each.closed());
}

// Requests that wait behind others, and pieces of requests, hold what came with them; the total says so.
TEST_F(FdCommandsTest, RequestsThatWaitAreCounted)
{
    const auto& store = *registry_.fds();
    Watched piece, whole;
    monitor_.session().feed(R"({"execute": "getfd", )", piece.list());
    EXPECT_EQ(store.waiting(), 1u);
    monitor_.session().feed(R"("arguments": {"fdname": "n"}})");
    EXPECT_EQ(store.waiting(), 1u);
    EXPECT_EQ(monitor_.send("").size(), 1u);
    EXPECT_EQ(store.waiting(), 0u);
    EXPECT_EQ(store.held(), 1u);
    {
        Monitor other(registry_);
        other.session().feed("{", whole.list());
        EXPECT_EQ(store.waiting(), 1u);
    }
    EXPECT_EQ(store.waiting(), 0u);
    EXPECT_TRUE(whole.closed());
}

// fd:NAME is used up by the attempt; a guest cannot go over it.
TEST_F(FdCommandsTest, MigrationTakesTheDescriptorThatItNames)
{
    const char* outgoing = R"({"uri": "fd:n"})";
    const std::string unknown = "File descriptor named 'n' has not been found";
    EXPECT_EQ(error("migrate", outgoing), unknown);
    EXPECT_EQ(result("query-migrate"), qmp::test::json(R"({"status": "failed", "error-desc": ")" + unknown + "\"}"));
    for (const bool colo : {false, true}) {
        if (colo) enable("x-colo");
        Watched sent;
        with_fd("getfd", R"({"fdname": "n"})", sent.list());
        EXPECT_FALSE(sent.closed());
        EXPECT_THAT(error("migrate", outgoing), ::testing::HasSubstr("over 'fd:'"));
        EXPECT_TRUE(sent.closed());
        EXPECT_EQ(error("migrate", outgoing), unknown);
    }
    EXPECT_EQ(error("migrate", R"({"uri": "fd:7"})"), "File descriptor named '7' has not been found");
    EXPECT_TRUE(service_.take_calls().empty());
}

TEST_F(FdCommandsTest, IncomingMigrationTakesNamesAndNumbers)
{
    service_.state = schema::RunState::inmigrate;
    enable("x-colo");
    const auto incoming = [this](const std::string& name) {
        return error("migrate-incoming", R"({"uri": "fd:)" + name + "\"}");
    };
    EXPECT_EQ(incoming("n"), "File descriptor named 'n' has not been found");
    EXPECT_EQ(incoming(""), "File descriptor named '' has not been found");
    EXPECT_EQ(incoming("7x"), "Invalid file descriptor number '7x'");
    EXPECT_EQ(incoming("99999999999"), "Invalid file descriptor number '99999999999'");
    EXPECT_THAT(incoming("7"), ::testing::HasSubstr("over 'fd:'"));
    Watched sent;
    with_fd("getfd", R"({"fdname": "n"})", sent.list());
    EXPECT_THAT(incoming("n"), ::testing::HasSubstr("over 'fd:'"));
    EXPECT_TRUE(sent.closed());
}

}  // namespace
}  // namespace colo::test
