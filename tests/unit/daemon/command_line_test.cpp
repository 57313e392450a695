// SPDX-License-Identifier: Apache-2.0

// The real colod where it refuses to start: exit status and one line.

#include <gtest/gtest.h>

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

namespace colo::test {
namespace {

struct Outcome {
    int status = -1;
    std::string out;  // standard output and error together
};

Outcome colod(const std::string& arguments)
{
    Outcome outcome;
    std::FILE* pipe = ::popen(("'" COLOD "' " + arguments + " 2>&1").c_str(), "r");
    if (pipe == nullptr) return outcome;
    std::array<char, 4096> buffer;
    while (const std::size_t size = std::fread(buffer.data(), 1, buffer.size(), pipe))
        outcome.out.append(buffer.data(), size);
    const int status = ::pclose(pipe);
    outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : -2;
    return outcome;
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
