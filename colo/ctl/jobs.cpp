// SPDX-License-Identifier: Apache-2.0
#include "colo/ctl/commands.h"
#include "colo/ctl/daemon_link.h"
#include "colo/ctl/failure.h"
#include "colo/ctl/text_table.h"

#include <cstdio>

namespace colo::ctl {
namespace {

std::string progress(const schema::JobInfo& job)
{
    if (job.total_progress <= 0) return "-";
    const double share = static_cast<double>(job.current_progress) / static_cast<double>(job.total_progress);
    char text[64];
    std::snprintf(text, sizeof text, "%.0f %%", 100 * share);
    return text;
}

std::string job_table(const std::vector<schema::JobInfo>& jobs)
{
    if (jobs.empty()) return "no jobs\n";
    std::vector<std::vector<std::string>> rows{{"JOB", "TYPE", "STATUS", "PROGRESS", "ERROR"}};
    for (const schema::JobInfo& job : jobs)
        rows.push_back({job.id, std::string(to_string(job.type)), std::string(to_string(job.status)), progress(job),
                        job.error.value_or("-")});
    return text_table(rows);
}

int list(const Options& options, qmp::Client& client)
{
    auto answer = client.execute("query-jobs", {}, deadline_of(options.timeout_s));
    if (!answer) return report_failure(name_of(options), answer.error(), options.domain);
    if (options.json) return print_json("jobs", std::move(*answer)), kOk;
    const auto jobs = schema::decode_value<std::vector<schema::JobInfo>>(*answer, schema::Decoder::Unexpected::ignore);
    if (!jobs)
        return report_failure(
            name_of(options),
            make_error(Errc::corrupt, "the daemon's answer is not of this version: " + jobs.error().text));
    std::fputs(job_table(*jobs).c_str(), stdout);
    return kOk;
}

}  // namespace

int run_jobs(const Options& options)
{
    auto client = connect_or_report(options);
    if (!client) return kUnreachable;
    if (!options.job_verb.empty()) {
        const auto answer = client->execute("job-" + options.job_verb, schema::Object{{"id", options.job_id}},
                                            deadline_of(options.timeout_s));
        if (!answer) return report_failure(options.job_id, answer.error(), options.domain);
        if (!options.json) return kOk;
    }
    return list(options, *client);
}

}  // namespace colo::ctl
