// SPDX-License-Identifier: Apache-2.0
#include "colo/ctl/commands.h"
#include "colo/ctl/daemon_link.h"
#include "colo/ctl/failure.h"
#include "colo/ctl/report_text.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <future>
#include <thread>

namespace colo::ctl {
namespace {

Look look_at(const Target& target, double timeout_s)
{
    Look look{target.domain, target.socket, make_error(Errc::failed, ""), nullptr};
    auto link = open_link(target, timeout_s);
    if (!link) {
        look.report = link.error();
        return look;
    }
    auto answer = link->execute("x-query-colo", {}, deadline_of(timeout_s));
    if (!answer) {
        look.report = answer.error();
        return look;
    }
    look.report = schema::decode_value<schema::ProtectionReport>(*answer, schema::Decoder::Unexpected::ignore);
    look.raw = std::move(*answer);
    return look;
}

// All at once: one daemon that hangs must not hide the others.
std::vector<Look> look_at_all(const std::vector<Target>& targets, double timeout_s)
{
    std::vector<std::future<Look>> pending;
    for (const Target& target : targets)
        pending.push_back(std::async(std::launch::async, [&target, timeout_s] { return look_at(target, timeout_s); }));
    std::vector<Look> looks;
    for (auto& look : pending) looks.push_back(look.get());
    return looks;
}

bool want_colour()
{
    return ::isatty(STDOUT_FILENO) != 0 && std::getenv("NO_COLOR") == nullptr;
}

void print(const std::string& text)
{
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
}

std::string wall_time()
{
    const std::time_t seconds = std::time(nullptr);
    std::tm parts{};
    ::localtime_r(&seconds, &parts);
    char text[16];
    std::strftime(text, sizeof text, "%H:%M:%S", &parts);
    return text;
}

void show_watch(const Options& options, const std::vector<Look>& looks, bool terminal)
{
    if (options.json) return print(qmp::to_json(json_status(looks)) + "\n");
    if (terminal) {
        std::string screen =
            "\033[H\033[J" + wall_time() + "  every " + std::to_string(options.interval_s).substr(0, 4) + " s\n\n";
        screen += looks.size() == 1 ? details(looks.front(), want_colour()) : table(looks, want_colour());
        return print(screen);
    }
    std::string lines;
    for (const Look& look : looks)
        lines += wall_time() + " " +
                 (look.report ? summary(*look.report) : look.domain + ": unreachable - " + look.report.error().text) +
                 "\n";
    print(lines);
}

}  // namespace

int run_status(const Options& options)
{
    const auto targets = find_targets(options);
    if (!targets) return report_unreachable("status", targets.error());
    const std::vector<Look> looks = look_at_all(*targets, options.timeout_s);
    const bool one = !options.domain.empty() || !options.socket.empty();
    if (options.json)
        print(qmp::to_json(json_status(looks), qmp::Style::indented) + "\n");
    else
        print(one ? details(looks.front(), want_colour()) : table(looks, want_colour()));
    return exit_status(looks);
}

int run_watch(const Options& options)
{
    const bool terminal = ::isatty(STDOUT_FILENO) != 0;
    int status = kOk;
    for (long round = 0; options.count == 0 || round < options.count; ++round) {
        if (round > 0) std::this_thread::sleep_for(std::chrono::duration<double>(options.interval_s));
        const auto targets = find_targets(options);  // domains come and go
        if (!targets) {
            status = report_unreachable("watch", targets.error());
            continue;
        }
        const std::vector<Look> looks = look_at_all(*targets, options.timeout_s);
        show_watch(options, looks, terminal);
        status = exit_status(looks);
    }
    return status;
}

}  // namespace colo::ctl
