// SPDX-License-Identifier: Apache-2.0
// colod: the daemon of one protected domain on one host.
#include "colo/daemon.h"
#include "core/failpoint.h"
#include "core/log.h"

#include <CLI/CLI.hpp>

#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

namespace {

struct Arguments {
    std::string config;
    std::string role = "primary";
    std::vector<std::string> overrides;
    bool check_config = false, print_config = false, accept_data_loss = false, fault_injection = false, qmp_stdio = false;
};

// Exit status: 0 ended on request, 1 failed, 2 usage or configuration.
constexpr int kFailed = 1, kUsage = 2;

int fail(const std::string& text, int status)
{
    std::fprintf(stderr, "colod: %s\n", text.c_str());
    return status;
}

int arm_faults(const Arguments& arguments)
{
    const char* fault = std::getenv("COLOD_FAULT");
    if (fault == nullptr) return 0;
    if (!arguments.fault_injection) return fail("COLOD_FAULT is set, but --enable-fault-injection is not given", kUsage);
    if (auto r = colo::failpoint::arm(fault); !r) return fail(r.error().text, kUsage);
    return 0;
}

std::string checked_text(const std::string& file, const colo::Config& config)
{
    const auto count = [](std::size_t n, const char* what) { return std::to_string(n) + " " + what + (n == 1 ? "" : "s"); };
    return file + ": ok: domain " + config.domain.name + " with " + count(config.nics.size(), "NIC") + " and " +
           count(config.heartbeat.paths.size(), "heartbeat path") +
           "; every setting is known, has a possible value, and fits the others. Files, devices and the peer are looked at "
           "when colod starts\n";
}

// Clients of the control interface may hand over many; the usual soft limit of 1024 is for programs that use select().
void raise_descriptor_limit()
{
    constexpr rlim_t kEnough = 65536;
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= kEnough) return;
    limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, kEnough);
    (void)::setrlimit(RLIMIT_NOFILE, &limit);
}

int run(const Arguments& arguments)
{
    if (arguments.role == "secondary" && arguments.accept_data_loss)
        return fail("--accept-data-loss is for the side that shall run; it contradicts --role secondary", kUsage);
    auto config = colo::load_config(arguments.config, arguments.overrides);
    if (!config) return fail(config.error().text, kUsage);
    if (arguments.print_config) std::fputs(colo::to_toml(*config).c_str(), stdout);
    if (arguments.check_config) {
        if (!arguments.print_config) std::fputs(checked_text(arguments.config, *config).c_str(), stdout);
        return 0;
    }
    if (arguments.print_config) return 0;
    if (const int status = arm_faults(arguments); status != 0) return status;
    if (auto r = colo::log::init({config->log.level, config->log.file, config->domain.name}); !r)
        return fail(r.error().text, kFailed);
    raise_descriptor_limit();
    colo::DaemonOptions options;
    options.config = std::move(*config);
    options.intent = arguments.role == "secondary"   ? colo::StartIntent::secondary
                     : arguments.accept_data_loss    ? colo::StartIntent::primary_accept_data_loss
                                                     : colo::StartIntent::primary;
    options.qmp_stdio = arguments.qmp_stdio;
    colo::Daemon daemon(std::move(options));
    if (auto r = daemon.start(); !r) return fail(r.error().text, kFailed);
    return daemon.run();
}

}  // namespace

int main(int argc, char** argv)
{
    CLI::App app{"COLO fault tolerance for one domain: primary or secondary copy"};
    app.set_version_flag("--version", "colod " COLO_VERSION);
    Arguments arguments;
    app.add_option("-c,--config", arguments.config, "configuration of the domain (TOML), needed; \"colod FILE\" will do");
    app.allow_extras();
    app.add_option("--role", arguments.role, "primary: boot the guest and serve; secondary: wait for a primary")
        ->check(CLI::IsMember({"primary", "secondary"}));
    app.add_option("--set", arguments.overrides, "section.key=value, on top of the file; may be repeated");
    app.add_flag("--check-config", arguments.check_config, "check the configuration, say what is wrong, and exit");
    app.add_flag("--print-config", arguments.print_config, "print the effective configuration and exit");
    app.add_flag("--accept-data-loss", arguments.accept_data_loss,
                 "boot although this side is outdated or the other side may have taken over");
    app.add_flag("--qmp-stdio", arguments.qmp_stdio, "one more control client, on standard input and output");
    app.add_flag("--enable-fault-injection", arguments.fault_injection, "honour COLOD_FAULT (rehearsals and tests)");
    try {
        app.parse(argc, argv);
        auto rest = app.remaining();
        if (rest.size() == 1 && arguments.config.empty() && !rest[0].starts_with('-')) arguments.config = std::exchange(rest, {})[0];
        if (!rest.empty()) throw CLI::ExtrasError("colod", rest);
        if (arguments.config.empty()) throw CLI::RequiredError("--config");
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : kUsage;
    }
    std::signal(SIGPIPE, SIG_IGN);
    return run(arguments);
}
