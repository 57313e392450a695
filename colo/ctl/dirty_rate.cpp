// SPDX-License-Identifier: Apache-2.0
#include "colo/ctl/commands.h"
#include "colo/ctl/daemon_link.h"
#include "colo/ctl/failure.h"

#include <fmt/format.h>

#include <unistd.h>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <thread>

namespace colo::ctl {
namespace {

using schema::DirtyRateInfo;
using schema::DirtyRateStatus;

constexpr auto kPollInterval = std::chrono::milliseconds(100);

Result<DirtyRateInfo> query(qmp::Client& client, double timeout_s)
{
    const auto answer = client.execute("query-dirty-rate", {}, deadline_of(timeout_s));
    if (!answer) return answer.error();
    return schema::decode_value<DirtyRateInfo>(*answer, schema::Decoder::Unexpected::ignore);
}

// A line that is written over, only for somebody who watches; standard output stays clean.
class ProgressLine {
public:
    explicit ProgressLine(bool wanted) : on_(wanted && ::isatty(STDERR_FILENO) == 1) {}
    ~ProgressLine()
    {
        if (on_) std::fputs("\r\033[K", stderr);
    }
    void show(double passed_s, double whole_s) const
    {
        if (on_) fmt::print(stderr, "\rmeasuring: {:.0f} of {:.0f} s", std::min(passed_s, whole_s), whole_s);
    }

private:
    bool on_;
};

Result<DirtyRateInfo> wait_measured(const Options& options, qmp::Client& client)
{
    const ProgressLine progress(!options.json);
    const Time begun = now();
    // Beside a protection the window waits for checkpoints; the daemon gives up by itself.
    const Deadline deadline = begun + Duration{options.seconds * 3'000'000 + 40'000'000};
    for (;;) {
        auto info = query(client, options.timeout_s);
        if (!info || info->status == DirtyRateStatus::measured) return info;
        if (info->status == DirtyRateStatus::unstarted)
            return make_error(Errc::failed, "the measurement was given up; the daemon's log says why");
        if (now() >= deadline) return make_error(Errc::failed, "still measuring; see query-dirty-rate");
        progress.show(static_cast<double>((now() - begun).count()) / 1e6, static_cast<double>(options.seconds));
        std::this_thread::sleep_for(kPollInterval);
    }
}

void print(const Options& options, const DirtyRateInfo& info)
{
    if (options.json) {
        const schema::Object result{{"schema-version", 1}, {"dirty-rate", encode(info)}};
        std::puts(qmp::to_json(result, qmp::Style::indented).c_str());
        return;
    }
    std::puts(fmt::format("{} MiB/s ({}, over {} s)", info.dirty_rate.value_or(0), to_string(info.mode), info.calc_time)
                  .c_str());
    if (!info.vcpu_dirty_rate) return;
    for (const auto& vcpu : *info.vcpu_dirty_rate)
        std::puts(fmt::format("  vCPU {}: {} MiB/s", vcpu.id, vcpu.dirty_rate).c_str());
}

}  // namespace

int run_dirty_rate(const Options& options)
{
    const std::string name = options.domain.empty() ? "daemon" : options.domain;
    const auto targets = find_targets(options);
    if (!targets) return report_unreachable(name, targets.error());
    auto client = open_link(targets->front(), options.timeout_s);
    if (!client) return report_unreachable(name, client.error());
    schema::Object arguments{{"calc-time", options.seconds}};
    if (!options.mode.empty()) arguments.append("mode", options.mode);
    if (options.sample_pages != 0) arguments.append("sample-pages", options.sample_pages);
    if (const auto started = client->execute("calc-dirty-rate", std::move(arguments), deadline_of(options.timeout_s));
        !started)
        return report_failure(name, started.error());
    const auto info = wait_measured(options, *client);
    if (!info) return report_failure(name, info.error());
    print(options, *info);
    return kOk;
}

}  // namespace colo::ctl
