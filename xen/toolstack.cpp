// SPDX-License-Identifier: Apache-2.0
#include "xen/toolstack.h"

#include "qemu/device_model.h"
#include "qemu/process.h"

#include <fmt/format.h>

#include <csignal>
#include <fstream>
#include <map>
#include <mutex>
#include <sstream>
#include <vector>

namespace colo::xen {
namespace {

using Values = std::map<std::string, std::string>;

// A word that becomes empty is left out.
std::vector<std::string> words_of(const std::string& command, const Values& values)
{
    std::vector<std::string> words;
    std::istringstream in(command);
    for (std::string word; in >> word;) {
        for (const auto& [key, value] : values)
            for (std::size_t at = 0; (at = word.find(key, at)) != std::string::npos; at += value.size()) word.replace(at, key.size(), value);
        if (!word.empty()) words.push_back(std::move(word));
    }
    return words;
}

constexpr std::size_t kMaxWords = 300;

// What a command said of its failure: its errors from the first one on, which is the cause of the others; or else its last words.
std::string words_of_failure(const std::string& log_file)
{
    std::ifstream in(log_file);
    std::string out;
    for (std::string line; out.size() < kMaxWords && std::getline(in, line);)
        if (line.find("error") != std::string::npos || line.find("ERROR") != std::string::npos) out += (out.empty() ? "" : "; ") + line;
    if (out.empty()) return qemu::last_words(log_file);
    if (out.size() > kMaxWords) out = out.substr(0, kMaxWords) + "...";
    // What xl says if the host has no memory does not name it.
    if (out.find("populate") != std::string::npos) out += " (is there memory left? xl info free_memory)";
    return out;
}

class Commands final : public Toolstack {
public:
    Commands(ToolstackCommands commands, std::string log_file) : commands_(std::move(commands)), log_file_(std::move(log_file)) {}

    Result<void> create(const std::string& config_file, bool paused, Deadline deadline) override
    {
        return run(commands_.create, {{"{config}", config_file}, {"{pause}", paused ? "-p" : ""}}, deadline);
    }
    Result<void> destroy(DomainId domain, Deadline deadline) override
    {
        return run(commands_.destroy, {{"{domain}", std::to_string(domain)}}, deadline);
    }
    Result<void> rename(DomainId domain, const std::string& name, Deadline deadline) override
    {
        return run(commands_.rename, {{"{domain}", std::to_string(domain)}, {"{name}", name}}, deadline);
    }

private:
    Result<void> run(const std::string& command, const Values& values, Deadline deadline);

    const ToolstackCommands commands_;
    const std::string log_file_;
    std::mutex mutex_;   // one log file
};

Result<void> Commands::run(const std::string& command, const Values& values, Deadline deadline)
{
    const std::lock_guard lock(mutex_);
    qemu::ProcessOptions options;
    options.argv = words_of(command, values);
    options.log_file = log_file_;
    options.core_dumps = false;
    const std::string what = fmt::format("{}", fmt::join(options.argv, " "));
    auto process = qemu::Process::start(options, deadline);
    if (!process) return with_context(what, process.error());
    if (!(*process)->wait_ended(deadline)) {
        // With what it has started, if it is a script: none of it may go on and make a domain behind our back. Its number is
        // its group's, and cannot be another's before the process is reaped. A device model is in a group of its own.
        (void)::kill(-(*process)->pid(), SIGKILL);
        return make_error(Errc::timed_out, what + ": did not end in time");
    }
    const std::string end = (*process)->how_ended();
    if (end == "exited with status 0") return {};
    const std::string words = words_of_failure(log_file_);
    return make_error(Errc::failed, fmt::format("{}: {}{}{}", what, end, words.empty() ? "" : ": ", words));
}

}  // namespace

Result<std::unique_ptr<Toolstack>> make_toolstack(ToolstackCommands commands, std::string log_file)
{
    const auto lacks = [](const std::string& command, const char* part) { return command.find(part) == std::string::npos; };
    if (lacks(commands.create, "{config}")) return make_error(Errc::invalid, "the command that creates a domain has no {config}: " + commands.create);
    if (lacks(commands.create, "{pause}")) return make_error(Errc::invalid, "the command that creates a domain has no {pause}: " + commands.create);
    if (lacks(commands.destroy, "{domain}")) return make_error(Errc::invalid, "the command that destroys a domain has no {domain}: " + commands.destroy);
    if (lacks(commands.rename, "{domain}") || lacks(commands.rename, "{name}"))
        return make_error(Errc::invalid, "the command that renames a domain lacks {domain} or {name}: " + commands.rename);
    return std::unique_ptr<Toolstack>(std::make_unique<Commands>(std::move(commands), std::move(log_file)));
}

}  // namespace colo::xen
