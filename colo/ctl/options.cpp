// SPDX-License-Identifier: Apache-2.0
#include "colo/ctl/options.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <iostream>

namespace colo::ctl {
namespace {

constexpr const char* kFooter =
    "Exit status: 0 all is well, 1 the command failed, 2 wrong usage, 3 daemon unreachable, 4 degraded (status),\n"
    "130 interrupted (migrate).\n"
    "A DOMAIN is reached at RUN_DIRECTORY/DOMAIN/qmp.sock unless --socket is given. NO_COLOR switches colours off.";

CLI::App* subcommand(CLI::App& app, Options& options, Command command, const char* name, const char* text)
{
    CLI::App* sub = app.add_subcommand(name, text);
    sub->callback([&options, command] { options.command = command; });
    sub->fallthrough();  // the common options may stand behind the command, too
    return sub;
}

void add_domain(CLI::App* sub, Options& options, bool required)
{
    // With --socket the domain need not be named; checked after parsing.
    sub->add_option("domain", options.domain, required ? "domain" : "domain (default: every one of this host)");
}

void add_wait(CLI::App* sub, Options& options)
{
    sub->add_option("--wait", options.wait_s, "seconds to wait for the outcome, 0: do not wait")
        ->check(CLI::Range(0.0, 1e6))
        ->capture_default_str();
}

void add_migration_commands(CLI::App& app, Options& options)
{
    CLI::App* migrate = subcommand(app, options, Command::migrate, "migrate",
                                   "migrate the guest and follow it; without a URI, follow what is under way");
    add_domain(migrate, options, true);
    migrate->add_option("uri", options.uri, "tcp:HOST:PORT or unix:PATH of the waiting destination");
    migrate->add_option("--wait", options.follow_s, "seconds to follow it (default: until it ends), 0: do not")
        ->check(CLI::Range(0.0, 1e9));
    migrate->add_flag("--resume", options.resume, "go on with a postcopy migration whose link broke");
    CLI::Option* cancel = migrate->add_flag("--cancel", options.cancel, "cancel the one under way");
    cancel->excludes("--resume")->excludes("uri");
    migrate->add_flag("--cancel-on-interrupt", options.cancel_on_interrupt,
                      "Ctrl-C cancels the migration (otherwise it goes on unwatched)");

    CLI::App* capabilities = subcommand(app, options, Command::capabilities, "capabilities",
                                        "capabilities of migrations: list, or set them");
    add_domain(capabilities, options, true);
    capabilities->add_option("settings", options.settings, "NAME=on or NAME=off; all of them or none");

    CLI::App* parameters = subcommand(app, options, Command::parameters, "parameters",
                                      "parameters of migrations: list with defaults and ranges, or set them");
    add_domain(parameters, options, true);
    parameters->add_option("settings", options.settings,
                           "NAME=VALUE, such as max-bandwidth=100MiB/s; all of them or none");

    CLI::App* jobs = subcommand(app, options, Command::jobs, "jobs", "jobs of the daemon: list, or act on one");
    add_domain(jobs, options, true);
    jobs->add_option("verb", options.job_verb,
                     "what to do to one of them: pause, resume, cancel, complete, finalize, dismiss");
    jobs->add_option("job", options.job_id, "which");
}

void add_commands(CLI::App& app, Options& options)
{
    add_domain(subcommand(app, options, Command::status, "status", "one line a domain; details if one is named"),
               options, false);

    CLI::App* watch = subcommand(app, options, Command::watch, "watch", "status, again and again");
    add_domain(watch, options, false);
    watch->add_option("-n,--interval", options.interval_s, "seconds between two looks")
        ->check(CLI::Range(0.05, 3600.0))
        ->capture_default_str();
    watch->add_option("-c,--count", options.count, "end after so many looks")->check(CLI::Range(1L, 1000000000L));

    add_domain(subcommand(app, options, Command::precheck, "precheck", "can the guest be protected: every reason against it, and what to do"),
               options, true);

    CLI::App* protect =
        subcommand(app, options, Command::protect, "protect", "protect the running guest with a fresh secondary");
    add_domain(protect, options, true);
    protect->add_option("--to", options.to, "tcp:HOST:PORT of the waiting secondary (default: the configured peer)");
    add_wait(protect, options);

    CLI::App* failover = subcommand(app, options, Command::failover, "failover", "let this side go on alone");
    add_domain(failover, options, true);
    failover->add_flag("--accept-data-loss", options.accept_data_loss,
                       "even if this side is outdated: what the other side acknowledged since is lost");
    add_wait(failover, options);

    CLI::App* unprotect =
        subcommand(app, options, Command::unprotect, "unprotect", "end protection; the primary goes on alone");
    add_domain(unprotect, options, true);
    add_wait(unprotect, options);

    add_migration_commands(app, options);
    CLI::App* dirty_rate =
        subcommand(app, options, Command::dirty_rate, "dirty-rate", "measure how fast the guest dirties its memory");
    add_domain(dirty_rate, options, true);
    dirty_rate->add_option("--seconds", options.seconds, "how long to measure")
        ->check(CLI::Range(1, 60))
        ->capture_default_str();
    dirty_rate->add_option("--mode", options.mode, "page-sampling (default), dirty-bitmap or dirty-ring")
        ->check(CLI::IsMember({"page-sampling", "dirty-bitmap", "dirty-ring"}));
    dirty_rate->add_option("--sample-pages", options.sample_pages, "pages per GiB for page-sampling (default 512)")
        ->check(CLI::Range(128, 16384));

    CLI::App* qmp = subcommand(app, options, Command::qmp, "qmp", "one QMP command; prints its result");
    add_domain(qmp, options, true);
    qmp->add_option("command", options.qmp_command, "name of the command")->required();
    qmp->add_option("arguments", options.qmp_arguments, "its arguments, as a JSON object");

    CLI::App* events =
        subcommand(app, options, Command::events, "events", "events as they happen, one JSON object a line");
    add_domain(events, options, true);
    events->add_option("-c,--count", options.count, "end after so many events")->check(CLI::Range(1L, 1000000000L));
}

int usage(const std::string& text)
{
    std::cerr << "coloctl: usage: " << text << '\n';
    return kUsage;
}

bool is_job_verb(const std::string& text)
{
    const auto verbs = {"pause", "resume", "cancel", "complete", "finalize", "dismiss"};
    return std::ranges::find(verbs, text) != verbs.end();
}

// With --socket there is no domain: what stands there belongs one further.
void shift_positionals(Options& options)
{
    if (options.socket.empty() || options.domain.empty()) return;
    switch (options.command) {
    case Command::qmp: {
        const bool arguments_in_place = !options.qmp_arguments.empty();
        const bool json_in_command = !options.qmp_command.empty() && options.qmp_command.front() == '{';
        if (arguments_in_place || (!options.qmp_command.empty() && !json_in_command)) return;
        options.qmp_arguments = options.qmp_command;
        options.qmp_command = options.domain;
        break;
    }
    case Command::migrate:
        if (!options.uri.empty() || options.domain.find(':') == std::string::npos) return;
        options.uri = options.domain;
        break;
    case Command::capabilities:
    case Command::parameters:
        if (options.domain.find('=') == std::string::npos) return;
        options.settings.insert(options.settings.begin(), options.domain);
        break;
    case Command::jobs:
        if (!options.job_id.empty() || !is_job_verb(options.domain)) return;
        options.job_id = options.job_verb;
        options.job_verb = options.domain;
        break;
    default: return;
    }
    options.domain.clear();
}

// What the parser cannot know; empty if all is well.
std::string misuse(const Options& options)
{
    if (options.command == Command::qmp && options.qmp_command.empty()) return "qmp: which command?";
    const bool all = options.command == Command::status || options.command == Command::watch;
    if (options.domain.empty() && options.socket.empty() && !all) return "which domain? Name it, or give --socket";
    if (options.domain.find('/') != std::string::npos) return "'" + options.domain + "' is no name of a domain";
    if (options.command == Command::migrate && options.resume && options.uri.empty())
        return "migrate: --resume needs a URI";
    if (options.command != Command::jobs || options.job_verb.empty()) return {};
    if (!is_job_verb(options.job_verb))
        return "jobs: '" + options.job_verb + "'? Say pause, resume, cancel, complete, finalize or dismiss";
    return options.job_id.empty() ? "jobs: " + options.job_verb + " which job?" : "";
}

}  // namespace

std::optional<int> parse_options(int argc, char** argv, Options& options)
{
    CLI::App app{"Control of COLO protected domains."};
    app.footer(kFooter);
    app.set_version_flag("--version", std::string("coloctl ") + COLO_VERSION);
    app.require_subcommand(1);
    std::string output = "text";
    app.add_option("-s,--socket", options.socket, "control socket of the daemon");
    app.add_option("--run-directory", options.run_directory, "where the control sockets are")->capture_default_str();
    app.add_option("-o,--output", output, "text or json")
        ->check(CLI::IsMember({"text", "json"}))
        ->capture_default_str();
    app.add_option("--timeout", options.timeout_s, "seconds for one exchange with a daemon")
        ->check(CLI::Range(0.01, 3600.0))
        ->capture_default_str();
    add_commands(app, options);
    for (CLI::App* sub : app.get_subcommands({})) sub->footer(kFooter);
    if (CLI::Option* command = app.get_subcommand("qmp")->get_option("command")) command->required(false);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        if (error.get_exit_code() == 0) return app.exit(error);
        return usage(error.what());
    }
    options.json = output == "json";
    shift_positionals(options);
    if (const std::string text = misuse(options); !text.empty()) return usage(text);
    return std::nullopt;
}

}  // namespace colo::ctl
