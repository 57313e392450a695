// SPDX-License-Identifier: Apache-2.0

// The real colod where it refuses to start: exit status and one line.

#include "tests/unit/shell.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

namespace colo::test {
namespace {

Outcome colod(const std::string& arguments)
{
    return shell("'" COLOD "' " + arguments);
}

constexpr const char* kConfig = R"([domain]
name = "web1"
uuid = "01234567-89ab-cdef-0123-456789abcdef"
[guest]
kernel = "/boot/vmlinuz"
[[heartbeat.path]]
local = "127.0.0.1:7000"
peer = "127.0.0.2:7000"
[arbiter]
kind = "manual"
[log]
file = "/dev/null/colod.log"
)";

class CommandLine : public ::testing::Test {
protected:
    CommandLine() { std::ofstream(path_) << kConfig; }
    ~CommandLine() override { std::remove(path_.c_str()); }

    const std::string path_ =
        (std::filesystem::temp_directory_path() / ("colod-" + std::to_string(::getpid()) + ".toml")).string();
};

TEST_F(CommandLine, ALogFileThatCannotBeOpenedIsSaidInOneLine)
{
    EXPECT_EQ(colod("--check-config --config '" + path_ + "'").status, 0);
    const Outcome outcome = colod("--config '" + path_ + "'");
    EXPECT_EQ(outcome.status, 1);
    EXPECT_TRUE(outcome.out.starts_with("colod: log.file: ")) << outcome.out;
    EXPECT_EQ(outcome.out.find('\n'), outcome.out.size() - 1) << outcome.out;
}

TEST_F(CommandLine, TheConfigurationIsAskedForOnce)
{
    const std::string help = colod("--help").out;
    const std::size_t first = help.find("configuration of the domain");
    ASSERT_NE(first, std::string::npos) << help;
    EXPECT_EQ(help.find("configuration of the domain", first + 1), std::string::npos) << help;
    EXPECT_EQ(colod("--check-config '" + path_ + "'").status, 0) << "also without the option's name";
    const Outcome none = colod("--check-config");
    EXPECT_EQ(none.status, 2);
    EXPECT_NE(none.out.find("--config is required"), std::string::npos) << none.out;
    EXPECT_EQ(colod("--config '" + path_ + "' --check-config '" + path_ + "'").status, 2);
}

TEST_F(CommandLine, ACheckedConfigurationSaysWhatWasChecked)
{
    const Outcome outcome = colod("--check-config --config '" + path_ + "'");
    EXPECT_EQ(outcome.out.find(path_ + ": ok: domain web1 with 0 NICs and 1 heartbeat path; every setting"), 0u) << outcome.out;
    EXPECT_NE(outcome.out.find("looked at when colod starts"), std::string::npos) << outcome.out;
}

TEST_F(CommandLine, ASecondaryAcceptsNoDataLoss)
{
    const Outcome outcome = colod("--config '" + path_ + "' --role secondary --accept-data-loss --check-config");
    EXPECT_EQ(outcome.status, 2);
    EXPECT_NE(outcome.out.find("contradicts --role secondary"), std::string::npos) << outcome.out;
}

}  // namespace
}  // namespace colo::test
