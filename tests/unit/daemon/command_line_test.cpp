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

TEST_F(CommandLine, ASecondaryAcceptsNoDataLoss)
{
    const Outcome outcome = colod("--config '" + path_ + "' --role secondary --accept-data-loss --check-config");
    EXPECT_EQ(outcome.status, 2);
    EXPECT_NE(outcome.out.find("contradicts --role secondary"), std::string::npos) << outcome.out;
}

}  // namespace
}  // namespace colo::test
