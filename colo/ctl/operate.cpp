// SPDX-License-Identifier: Apache-2.0
#include "colo/ctl/commands.h"
#include "colo/ctl/daemon_link.h"
#include "colo/ctl/failure.h"
#include "colo/ctl/progress.h"
#include "colo/ctl/report_text.h"

#include <cstdio>
#include <functional>
#include <thread>

namespace colo::ctl {
namespace {

using schema::ProtectionReport;
using schema::ProtectionState;

constexpr auto kPollInterval = std::chrono::milliseconds(100);

// What has become of it: finished, failed with a reason, or neither yet.
enum class Progress { going_on, done };
using Judge = std::function<Result<Progress>(qmp::Client&, const ProtectionReport&, ProgressView&)>;

void print_result(const Options& options, const ProtectionReport& report)
{
    if (options.json)
        print_json("report", encode(report));
    else
        std::puts(summary(report).c_str());
}

int wait_for_outcome(const Options& options, qmp::Client& client, const Judge& judge, ProgressView& view)
{
    const Deadline deadline = deadline_of(options.wait_s);
    for (;;) {
        const auto report = query_report(client, options.timeout_s);
        const auto progress = report ? judge(client, *report, view) : Result<Progress>(report.error());
        const bool late = now() >= deadline;
        if (options.wait_s <= 0 && report) return print_result(options, *report), kOk;  // as it is now
        if (!progress || *progress == Progress::done || late) view.clear();
        if (!progress) return report_failure(name_of(options), progress.error());
        if (*progress == Progress::done) {
            print_result(options, *report);
            return kOk;
        }
        if (late)
            return report_failure(
                name_of(options),
                make_error(Errc::failed, "still " + std::string(to_string(report->state)) +
                                             (report->reason.empty() ? "" : " (" + report->reason + ")") + " after " +
                                             show_us(static_cast<std::uint64_t>(options.wait_s * 1e6)) +
                                             "; it goes on, see coloctl status"));
        std::this_thread::sleep_for(kPollInterval);
    }
}

int operate(const Options& options, const std::string& command, schema::Object arguments, const Judge& judge)
{
    auto client = connect_or_report(options);
    if (!client) return kUnreachable;
    const auto answer = client->execute(command, std::move(arguments), deadline_of(options.timeout_s));
    if (!answer) return report_failure(name_of(options), answer.error());
    if (options.wait_s <= 0 && !options.json) return kOk;
    ProgressView view(options.json);
    return wait_for_outcome(options, *client, judge, view);
}

// The migration behind a protection says why it failed; the report says when it is done.
Result<Progress> judge_protect(qmp::Client& client, double timeout_s, const ProtectionReport& report,
                               ProgressView& view)
{
    if (report.state == ProtectionState::protected_) return Progress::done;
    const auto answer = client.execute("query-migrate", {}, deadline_of(timeout_s));
    if (!answer) return answer.error();
    const auto info = schema::decode_value<schema::MigrationInfo>(*answer, schema::Decoder::Unexpected::ignore);
    if (!info || !info->status) return Progress::going_on;
    view.show(*info, false);
    if (*info->status != schema::MigrationStatus::failed && *info->status != schema::MigrationStatus::cancelled)
        return Progress::going_on;
    const std::string why = info->error_desc.value_or(report.reason.empty() ? "the session ended" : report.reason);
    return make_error(Errc::failed, "not protected: " + why);
}

// The daemon says what became of the command; the states are for what ends it without a word.
Result<Progress> judge_alone(const ProtectionReport& report)
{
    if (report.operator_command && report.operator_command->error)
        return make_error(Errc::failed, *report.operator_command->error);
    if (report.state == ProtectionState::unprotected) return Progress::done;
    // Until the command has its outcome the state may be what it was before.
    if (report.operator_command && report.operator_command->pending) return Progress::going_on;
    if (report.state == ProtectionState::outdated)
        return make_error(Errc::failed, "the other side went on: " + report.reason);
    if (report.state == ProtectionState::stopped)
        return make_error(Errc::failed, "nothing runs here any more: " + report.reason);
    return report.operator_command ? Progress::done : Progress::going_on;
}

}  // namespace

// Status kError if there is a reason against it.
int run_precheck(const Options& options)
{
    auto client = connect_or_report(options);
    if (!client) return kUnreachable;
    const auto answer = client->execute("x-colo-precheck", {}, deadline_of(options.timeout_s));
    if (!answer) return report_failure(name_of(options), answer.error());
    const auto checks = schema::decode_value<std::vector<schema::GuestCheck>>(*answer, schema::Decoder::Unexpected::ignore);
    if (!checks) return report_failure(name_of(options), checks.error());
    bool fine = true;
    for (const schema::GuestCheck& check : *checks) fine = fine && check.ok;
    if (options.json) {
        print_json("checks", *answer);
    } else {
        for (const schema::GuestCheck& check : *checks) std::printf("%s  %-14s %s\n", check.ok ? "ok" : "NO", check.check.c_str(), check.text.c_str());
        std::puts(fine ? "It can be protected." : "It cannot be protected as it is.");
    }
    return fine ? kOk : kError;
}

int run_protect(const Options& options)
{
    schema::Object arguments;
    if (!options.to.empty()) arguments.append("uri", options.to);
    return operate(options, "x-colo-protect", std::move(arguments),
                   [&](qmp::Client& client, const ProtectionReport& report, ProgressView& view) {
                       return judge_protect(client, options.timeout_s, report, view);
                   });
}

int run_failover(const Options& options)
{
    schema::Object arguments;
    if (options.accept_data_loss) arguments.append("accept-data-loss", true);
    return operate(options, "x-colo-failover", std::move(arguments),
                   [](qmp::Client&, const ProtectionReport& report, ProgressView&) { return judge_alone(report); });
}

int run_unprotect(const Options& options)
{
    return operate(options, "x-colo-unprotect", {},
                   [](qmp::Client&, const ProtectionReport& report, ProgressView&) { return judge_alone(report); });
}

int run_qmp(const Options& options)
{
    schema::Object arguments;
    if (!options.qmp_arguments.empty()) {
        auto parsed = qmp::parse_json(options.qmp_arguments);
        if (!parsed) return report_failure("arguments", parsed.error()), kUsage;
        if (parsed->as_object() == nullptr)
            return report_failure("arguments", make_error(Errc::invalid, "must be a JSON object")), kUsage;
        arguments = *parsed->as_object();
    }
    auto client = connect_or_report(options);
    if (!client) return kUnreachable;
    const auto answer = client->execute(options.qmp_command, std::move(arguments), deadline_of(options.timeout_s));
    if (!answer) return report_failure(options.qmp_command, answer.error());
    std::puts(qmp::to_json(*answer, qmp::Style::indented).c_str());
    return kOk;
}

int run_events(const Options& options)
{
    auto client = connect_or_report(options);
    if (!client) return kUnreachable;
    for (long count = 0; options.count == 0 || count < options.count;) {
        auto event = client->next_event(deadline_of(3600));
        if (!event && event.error().code == Errc::timed_out) continue;
        if (!event) return report_unreachable(name_of(options), event.error());
        std::puts(qmp::to_json(event->message).c_str());
        std::fflush(stdout);
        ++count;
    }
    return kOk;
}

}  // namespace colo::ctl
