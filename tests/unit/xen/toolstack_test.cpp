// SPDX-License-Identifier: Apache-2.0
// The toolstack's commands, as real programs.
#include "core/clock.h"
#include "xen/toolstack.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <sys/stat.h>
#include <thread>

namespace colo::xen {
namespace {

using testing::HasSubstr;

Deadline soon() { return now() + std::chrono::seconds(60); }

std::string content(const std::string& path)
{
    std::ifstream in(path);
    return {std::istreambuf_iterator<char>(in), {}};
}

class ToolstackTest : public testing::Test {
protected:
    ToolstackTest()
    {
        std::string pattern = testing::TempDir() + "toolstack-XXXXXX";
        EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
        directory = pattern;
    }
    ~ToolstackTest() override { std::filesystem::remove_all(directory); }

    // A program of these lines.
    std::string program(const std::string& lines)
    {
        const std::string path = directory + "/tool";
        std::ofstream(path) << "#!/bin/sh\n" << lines;
        EXPECT_EQ(::chmod(path.c_str(), 0700), 0);
        return path;
    }
    std::unique_ptr<Toolstack> toolstack(const std::string& tool)
    {
        auto made = make_toolstack({tool + " create -q {pause} {config}", tool + " destroy {domain}", tool + " rename {domain} {name}"},
                                   directory + "/log");
        EXPECT_TRUE(made) << made.error().text;
        return std::move(*made);
    }
    // What a program got, one argument a line.
    std::string arguments() { return content(directory + "/arguments"); }
    std::string writer() { return program("for a in \"$@\"; do echo \"<$a>\"; done > " + directory + "/arguments\n"); }

    std::string directory;
};

TEST_F(ToolstackTest, WordsBecomeArguments)
{
    const auto tools = toolstack(writer());
    ASSERT_TRUE(tools->create("/a b/c.cfg", true, soon()));
    EXPECT_EQ(arguments(), "<create>\n<-q>\n<-p>\n</a b/c.cfg>\n");
    ASSERT_TRUE(tools->create("/c.cfg", false, soon()));
    EXPECT_EQ(arguments(), "<create>\n<-q>\n</c.cfg>\n");   // a word that is empty is none
    ASSERT_TRUE(tools->destroy(17, soon()));
    EXPECT_EQ(arguments(), "<destroy>\n<17>\n");
    ASSERT_TRUE(tools->rename(17, "web;$(reboot)", soon()));
    EXPECT_EQ(arguments(), "<rename>\n<17>\n<web;$(reboot)>\n");   // no shell
}

// Of five errors the first one is the cause, and what an earlier command said is no word of this one's.
TEST_F(ToolstackTest, FirstErrorOfTheCommandIsWhatCounts)
{
    const auto tools = toolstack(program("echo \"$1 begins\"; echo \"xc: error: Failed to populate physmap\"\n"
                                         "for i in 1 2 3 4 5 6 7 8 9; do echo \"libxl: error: $1 and so on, and so on, and so on $i\"; done; exit 1\n"));
    for (int round = 0; round < 2; ++round) {
        const auto r = tools->create("/c.cfg", true, soon());
        ASSERT_FALSE(r);
        EXPECT_THAT(r.error().text, HasSubstr("status 1: xc: error: Failed to populate physmap; libxl: error: create and"));
        EXPECT_THAT(r.error().text, HasSubstr("xl info free_memory"));
        EXPECT_FALSE(tools->destroy(3, soon()));
    }
}

TEST_F(ToolstackTest, PartsOfWordsAndSeveralInOneWord)
{
    auto tools = make_toolstack({writer() + " --from={config} {pause}", "x {domain}", writer() + " {domain}:{name}:{domain}"}, directory + "/log");
    ASSERT_TRUE(tools);
    ASSERT_TRUE((*tools)->create("/c", true, soon()));
    EXPECT_EQ(arguments(), "<--from=/c>\n<-p>\n");
    ASSERT_TRUE((*tools)->rename(3, "a{name}", soon()));   // what is put in is not looked at again
    EXPECT_EQ(arguments(), "<3:a{name}:3>\n");
}

TEST_F(ToolstackTest, FailureHasStatusAndLastWords)
{
    const auto tools = toolstack(program("echo first; echo 'libxl: no memory' >&2; exit 3\n"));
    const auto r = tools->create("/c.cfg", true, soon());
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, Errc::failed);
    EXPECT_THAT(r.error().text, HasSubstr("create -q -p /c.cfg: exited with status 3"));
    EXPECT_THAT(r.error().text, HasSubstr("libxl: no memory"));
    EXPECT_THAT(content(directory + "/log"), HasSubstr("first"));
}

TEST_F(ToolstackTest, DeathOfTheCommandIsAFailure)
{
    const auto r = toolstack(program("kill -9 $$\n"))->destroy(1, soon());
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, Errc::failed);
    EXPECT_THAT(r.error().text, HasSubstr("killed by signal 9"));
}

TEST_F(ToolstackTest, DeadlineEndsTheCommand)
{
    const std::string pid_file = directory + "/pid";
    const auto tools = toolstack(program("echo $$ > " + pid_file + "; exec sleep 1000\n"));
    const auto r = tools->destroy(1, now() + std::chrono::milliseconds(300));
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, Errc::timed_out);
    const std::string pid = content(pid_file);   // empty: a busy machine has not come that far
    EXPECT_FALSE(!pid.empty() && std::filesystem::exists("/proc/" + pid.substr(0, pid.find('\n'))));
}

TEST_F(ToolstackTest, DeadlineEndsWhatAScriptHasStarted)
{
    const std::string pid_file = directory + "/child";
    const auto tools = toolstack(program("sleep 1000 &\necho $! > " + pid_file + "\nwait\n"));
    std::string pid;
    // A busy machine may not come that far within the first deadline.
    for (int ms = 300; pid.empty() && ms < 100000; ms *= 2) {
        EXPECT_EQ(tools->destroy(1, now() + std::chrono::milliseconds(ms)).error().code, Errc::timed_out);
        pid = content(pid_file);
    }
    ASSERT_FALSE(pid.empty());
    const std::string file = "/proc/" + pid.substr(0, pid.find('\n')) + "/stat";
    const auto ended = [&] {   // or nobody has asked yet how
        const std::string stat = content(file);
        return stat.empty() || stat.find(") Z ") != std::string::npos;
    };
    for (const Deadline end = soon(); !ended() && now() < end;) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_TRUE(ended());
}

TEST_F(ToolstackTest, MissingProgramIsNamed)
{
    const auto r = toolstack(directory + "/no-such-tool")->destroy(1, soon());
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, Errc::failed) << r.error().text;
    EXPECT_THAT(r.error().text, HasSubstr("no-such-tool"));
    EXPECT_THAT(r.error().text, HasSubstr("No such file"));
}

TEST_F(ToolstackTest, CommandsThatLackWhatTheyAreAboutAreRefused)
{
    const ToolstackCommands good;
    EXPECT_TRUE(make_toolstack(good, "/dev/null"));
    const auto without = [&](auto member, const char* command) {
        ToolstackCommands bad = good;
        bad.*member = command;
        const auto made = make_toolstack(bad, "/dev/null");
        ASSERT_FALSE(made) << command;
        EXPECT_EQ(made.error().code, Errc::invalid);
    };
    without(&ToolstackCommands::create, "xl create {pause}");
    without(&ToolstackCommands::create, "xl create {config}");
    without(&ToolstackCommands::destroy, "xl destroy");
    without(&ToolstackCommands::rename, "xl rename {name}");
    without(&ToolstackCommands::rename, "xl rename {domain}");
}

}  // namespace
}  // namespace colo::xen
