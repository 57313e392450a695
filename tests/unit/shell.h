// SPDX-License-Identifier: Apache-2.0
#pragma once

// Programs as a user runs them: exit status and everything that they say.

#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <string>

namespace colo::test {

struct Outcome {
    int status = -1;  // -2: ended by a signal
    std::string out;  // standard output and error together
};

inline int exit_status_of(int status)
{
    return WIFEXITED(status) ? WEXITSTATUS(status) : -2;
}

// A shell command line, its output in a pipe.
inline Outcome shell(const std::string& command)
{
    Outcome outcome;
    std::FILE* pipe = ::popen(("{ " + command + "\n} 2>&1").c_str(), "r");
    if (pipe == nullptr) return outcome;
    std::array<char, 4096> buffer;
    while (const std::size_t size = std::fread(buffer.data(), 1, buffer.size(), pipe))
        outcome.out.append(buffer.data(), size);
    outcome.status = exit_status_of(::pclose(pipe));
    return outcome;
}

// The same on a terminal of so many columns.
inline Outcome shell_on_terminal(const std::string& command, unsigned short columns = 80)
{
    Outcome outcome;
    winsize size{};
    size.ws_col = columns;
    size.ws_row = 25;
    int terminal = -1;
    const pid_t child = ::forkpty(&terminal, nullptr, nullptr, &size);
    if (child == 0) {
        ::execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
        ::_exit(127);
    }
    if (child < 0) return outcome;
    std::array<char, 4096> buffer;
    for (ssize_t got; (got = ::read(terminal, buffer.data(), buffer.size())) > 0;)  // EIO when the child has gone
        outcome.out.append(buffer.data(), static_cast<std::size_t>(got));
    ::close(terminal);
    int status = 0;
    if (::waitpid(child, &status, 0) == child) outcome.status = exit_status_of(status);
    return outcome;
}

}  // namespace colo::test
