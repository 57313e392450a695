// SPDX-License-Identifier: Apache-2.0
// Stands in for QEMU: maps the guest's RAM, speaks QMP on the inherited channels and writes the name of each command
// that it gets on the serial console. The guest's command line tells it to misbehave: "refuse=stop:2" answers the
// second `stop` with an error.

#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

namespace {

std::string word_after(const std::vector<std::string>& words, const std::string& option)
{
    for (std::size_t i = 0; i + 1 < words.size(); ++i)
        if (words[i] == option) return words[i + 1];
    return {};
}

// The number behind "fd=" or "/fd/" of the word that contains `what`.
int fd_of(const std::vector<std::string>& words, const std::string& what, const std::string& before)
{
    for (const std::string& word : words) {
        if (word.find(what) == std::string::npos) continue;
        if (const auto at = word.find(before); at != std::string::npos)
            return std::atoi(word.c_str() + at + before.size());
    }
    return -1;
}

void say(int fd, const std::string& text)
{
    if (::write(fd, text.data(), text.size()) < 0) std::exit(1);
}

// "QEVM", version 3, one section with four bytes of data, end.
std::string saved_state()
{
    using namespace std::string_literals;
    return "QEVM\0\0\0\3\4\0\0\0\1\4fake\0\0\0\0\0\0\0\1data\x7e\0\0\0\1\0"s;
}

// The first whole command of `text`, which is taken away. Our commands have no braces in strings.
std::string next_command(std::string& text)
{
    int depth = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '{') ++depth;
        if (text[i] != '}' || --depth > 0) continue;
        std::string command = text.substr(0, i + 1);
        text.erase(0, i + 1);
        return command;
    }
    return {};
}

std::string name_in(const std::string& command)
{
    const std::string key = R"("execute":")";
    const auto at = command.find(key);
    if (at == std::string::npos) return {};
    const auto begin = at + key.size();
    return command.substr(begin, command.find('"', begin) - begin);
}

}  // namespace

int main(int count, char** arguments)
{
    const std::vector<std::string> words(arguments, arguments + count);
    const int ram = fd_of(words, "id=ram", "/fd/"), serial = fd_of(words, "id=serial", "fd=");
    const int state = fd_of(words, "node-name=snapshot", "/fd/") - 1;
    struct stat info {};
    if (::fstat(ram, &info) != 0) return 2;
    if (::mmap(nullptr, static_cast<std::size_t>(info.st_size), PROT_READ | PROT_WRITE, MAP_SHARED, ram, 0) ==
        MAP_FAILED)
        return 3;
    std::array<pollfd, 3> channels{};
    std::array<std::string, 3> input;
    const char* const names[] = {"id=control", "id=state", "id=probe"};
    for (std::size_t i = 0; i < channels.size(); ++i) {
        channels[i] = {fd_of(words, names[i], "fd="), POLLIN, 0};
        say(channels[i].fd, R"({"QMP": {"version": {"qemu": {"major": 9, "minor": 9, "micro": 9}}}})"
                            "\r\n");
    }
    const std::string append = word_after(words, "-append");
    std::map<std::string, int> seen;
    while (::poll(channels.data(), channels.size(), -1) > 0) {
        for (std::size_t i = 0; i < channels.size(); ++i) {
            if (channels[i].revents == 0) continue;
            char text[4096];
            const ssize_t n = ::read(channels[i].fd, text, sizeof text);
            if (n <= 0) return 0;
            input[i].append(text, static_cast<std::size_t>(n));
            for (std::string command = next_command(input[i]); !command.empty(); command = next_command(input[i])) {
                const std::string name = name_in(command);
                if (i < 2) say(serial, name + "\n");
                if (name == "xen-save-devices-state") {
                    const std::string blob = saved_state();
                    if (::ftruncate(state, 0) != 0 || ::pwrite(state, blob.data(), blob.size(), 0) < 0) return 4;
                }
                const std::string key = "refuse=" + name + ":" + std::to_string(++seen[name]);
                if ((append + " ").find(key + " ") != std::string::npos)
                    say(channels[i].fd, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"told to refuse\"}}\r\n");
                else if (name == "query-status")
                    say(channels[i].fd, "{\"return\": {\"status\": \"paused\"}}\r\n");
                else
                    say(channels[i].fd, "{\"return\": {}}\r\n");
            }
        }
    }
    return 0;
}
