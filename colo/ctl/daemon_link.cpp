// SPDX-License-Identifier: Apache-2.0
#include "colo/ctl/daemon_link.h"

#include "colo/ctl/advice.h"
#include "colo/ctl/failure.h"
#include "core/run_directory.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>

namespace colo::ctl {

namespace fs = std::filesystem;

Result<std::vector<Target>> find_targets(const Options& options)
{
    if (!options.socket.empty()) return std::vector<Target>{{options.domain, options.socket}};
    if (!options.domain.empty())
        return std::vector<Target>{{options.domain, control_socket(options.run_directory, options.domain)}};

    std::vector<Target> targets;
    std::error_code error;
    for (fs::directory_iterator entry(options.run_directory, error), end; !error && entry != end;
         entry.increment(error)) {
        const std::string domain = entry->path().filename().string();
        const std::string socket = control_socket(options.run_directory, domain);
        // A socket that may not be looked at is a daemon all the same; connecting says why.
        std::error_code unknown;
        const fs::file_type type = fs::status(socket, unknown).type();
        if (type != fs::file_type::not_found) targets.push_back({domain, socket});
    }
    if (error) return make_error(Errc::invalid, options.run_directory + ": " + error.message());
    if (targets.empty())
        return make_error(Errc::invalid, options.run_directory + ": no daemon has a control socket here");
    std::ranges::sort(targets, {}, &Target::domain);
    return targets;
}

Result<qmp::Client> open_link(const Target& target, double timeout_s)
{
    const Deadline deadline = deadline_of(timeout_s);
    auto client = qmp::Client::connect(target.socket, deadline);
    if (!client) return client.error();
    if (auto ready = client->negotiate(deadline); !ready) return with_context(target.socket, ready.error());
    return client;
}

std::string name_of(const Options& options)
{
    return options.domain.empty() ? "daemon" : options.domain;
}

std::optional<qmp::Client> connect_or_report(const Options& options)
{
    const auto targets = find_targets(options);
    if (!targets) return report_unreachable(name_of(options), targets.error()), std::nullopt;
    auto client = open_link(targets->front(), options.timeout_s);
    if (!client) {
        Error error = client.error();
        error.text += advice_unreachable(error.text);
        report_unreachable(name_of(options), error);
        return std::nullopt;
    }
    return std::move(*client);
}

void print_json(const char* name, schema::Value value)
{
    const schema::Object document{{"schema-version", 1}, {name, std::move(value)}};
    std::puts(qmp::to_json(document, qmp::Style::indented).c_str());
}

Result<schema::ProtectionReport> query_report(qmp::Client& client, double timeout_s)
{
    auto answer = client.execute("x-query-colo", {}, deadline_of(timeout_s));
    if (!answer) return answer.error();
    auto report = schema::decode_value<schema::ProtectionReport>(*answer, schema::Decoder::Unexpected::ignore);
    if (!report) return make_error(Errc::corrupt, "the daemon's report is not of this version: " + report.error().text);
    return report;
}

}  // namespace colo::ctl
