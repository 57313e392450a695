// SPDX-License-Identifier: Apache-2.0
#include "colo/ctl/commands.h"
#include "colo/ctl/daemon_link.h"
#include "colo/ctl/failure.h"
#include "colo/ctl/progress.h"
#include "colo/ctl/report_text.h"

#include <csignal>
#include <cstdio>
#include <thread>

namespace colo::ctl {
namespace {

using schema::MigrationInfo;
using schema::MigrationStatus;

constexpr auto kPollInterval = std::chrono::milliseconds(100);

volatile std::sig_atomic_t interrupts = 0;

void count_interrupt(int)
{
    interrupts = interrupts + 1;
}

// Counts Ctrl-C while it lives instead of dying of it.
class InterruptCounter {
public:
    InterruptCounter()
    {
        struct sigaction action {};
        action.sa_handler = count_interrupt;
        ::sigaction(SIGINT, &action, &old_);
    }
    ~InterruptCounter() { ::sigaction(SIGINT, &old_, nullptr); }
    InterruptCounter(const InterruptCounter&) = delete;
    InterruptCounter& operator=(const InterruptCounter&) = delete;

private:
    struct sigaction old_ {};
};

struct Watched {
    MigrationInfo info;
    schema::Value raw;
};

Result<Watched> look(qmp::Client& client, const Options& options)
{
    auto answer = client.execute("query-migrate", {}, deadline_of(options.timeout_s));
    if (!answer) return answer.error();
    auto info = schema::decode_value<MigrationInfo>(*answer, schema::Decoder::Unexpected::ignore);
    if (!info) return make_error(Errc::corrupt, "the daemon's answer is not of this version: " + info.error().text);
    return Watched{std::move(*info), std::move(*answer)};
}

bool at_end(std::optional<MigrationStatus> status)
{
    switch (status.value_or(MigrationStatus::none)) {
    case MigrationStatus::none:
    case MigrationStatus::completed:
    case MigrationStatus::colo:  // lasts, but the copy is over
    case MigrationStatus::failed:
    case MigrationStatus::cancelled: return true;
    default: return false;
    }
}

std::string success_text(const MigrationInfo& info)
{
    std::string text = *info.status == MigrationStatus::colo ? "protected from now on (COLO)" : "completed";
    if (info.total_time) text += " after " + show_us(static_cast<std::uint64_t>(*info.total_time) * 1000);
    if (info.downtime) text += ", down for " + show_us(static_cast<std::uint64_t>(*info.downtime) * 1000);
    if (info.ram) text += ", " + show_bytes(static_cast<std::uint64_t>(info.ram->transferred)) + " sent";
    return text;
}

// Says how it ended; returns the exit status.
int outcome(const Options& options, const Watched& seen, bool cancelled_by_us)
{
    const MigrationInfo& info = seen.info;
    const std::string name = name_of(options);
    const MigrationStatus status = info.status.value_or(MigrationStatus::none);
    if (status == MigrationStatus::none)
        return report_failure(name, make_error(Errc::failed, "there is no migration; name a URI to start one"));
    if (options.json) print_json("migration", seen.raw);
    if (status == MigrationStatus::failed) {
        const std::string why = info.error_desc.value_or("no reason is known");
        return report_failure(name, make_error(Errc::failed, "the migration failed: " + why), options.domain);
    }
    if (status == MigrationStatus::cancelled && !cancelled_by_us)
        return report_failure(name, make_error(Errc::cancelled, "the migration was cancelled"));
    const std::string text =
        status == MigrationStatus::cancelled ? "cancelled, the guest stays here" : success_text(info);
    if (!options.json) std::printf("%s: %s\n", name.c_str(), text.c_str());
    return kOk;
}

// The daemon in a command line that is proposed.
std::string target_of(const Options& options)
{
    return options.domain.empty() ? "--socket " + options.socket : options.domain;
}

// States in which nothing goes on until somebody does something; said once for each.
void hint(const Options& options, ProgressView& view, MigrationStatus status, std::optional<MigrationStatus>& said)
{
    if (said == status) return;
    said = status;
    std::string text;
    if (status == MigrationStatus::pre_switchover)
        text = "waits before the switch-over; coloctl qmp " + target_of(options) +
               " migrate-continue '{\"state\": \"pre-switchover\"}' lets it go on";
    else if (status == MigrationStatus::postcopy_paused)
        text =
            "the link broke during postcopy; let the destination listen again (migrate-recover), then 'coloctl "
            "migrate " +
            target_of(options) + " URI --resume'";
    if (text.empty()) return;
    view.clear();
    std::fprintf(stderr, "coloctl: %s: %s\n", name_of(options).c_str(), text.c_str());
}

int cancel(const Options& options, qmp::Client& client)
{
    const auto answer = client.execute("migrate_cancel", {}, deadline_of(options.timeout_s));
    return answer ? kOk : report_failure(name_of(options), answer.error());
}

// After Ctrl-C: an exit status, or none if the migration is being cancelled and its end is awaited.
std::optional<int> interrupted(const Options& options, qmp::Client& client, bool& cancelled_by_us)
{
    if (options.cancel_on_interrupt && !cancelled_by_us) {
        cancelled_by_us = true;
        const int status = cancel(options, client);
        return status == kOk ? std::nullopt : std::optional(status);
    }
    std::fprintf(stderr, "coloctl: %s: interrupted; the migration goes on, 'coloctl migrate %s' follows it again\n",
                 name_of(options).c_str(), target_of(options).c_str());
    return kInterrupted;
}

int follow(const Options& options, qmp::Client& client, bool cancelled_by_us)
{
    const bool bounded = options.follow_s.has_value();
    const Deadline deadline = deadline_of(options.follow_s.value_or(0));
    ProgressView view(options.json);
    std::optional<MigrationStatus> said;
    for (int seen_interrupts = 0;; std::this_thread::sleep_for(kPollInterval)) {
        const auto seen = look(client, options);
        if (seen) view.show(seen->info, true);
        const bool over = !seen || at_end(seen->info.status);
        if (over) view.clear();
        if (!seen) return report_failure(name_of(options), seen.error());
        if (over) return outcome(options, *seen, cancelled_by_us);
        hint(options, view, *seen->info.status, said);
        if (interrupts > seen_interrupts) {
            seen_interrupts = interrupts;
            view.clear();
            if (const auto status = interrupted(options, client, cancelled_by_us)) return *status;
        }
        if (bounded && now() >= deadline) {
            view.clear();
            const std::string text = "still " + std::string(to_string(*seen->info.status)) + "; it goes on";
            return report_failure(name_of(options), make_error(Errc::failed, text));
        }
    }
}

}  // namespace

int run_migrate(const Options& options)
{
    auto client = connect_or_report(options);
    if (!client) return kUnreachable;
    const InterruptCounter counter;
    if (options.cancel) {
        if (const int status = cancel(options, *client); status != kOk) return status;
        return follow(options, *client, true);
    }
    if (!options.uri.empty()) {
        schema::Object arguments{{"uri", options.uri}};
        if (options.resume) arguments.append("resume", true);
        const auto answer = client->execute("migrate", std::move(arguments), deadline_of(options.timeout_s));
        if (!answer) return report_failure(name_of(options), answer.error(), options.domain);
    }
    if (options.follow_s && *options.follow_s <= 0) {
        if (!options.json) return kOk;
        const auto seen = look(*client, options);
        if (!seen) return report_failure(name_of(options), seen.error());
        return print_json("migration", seen->raw), kOk;
    }
    return follow(options, *client, false);
}

}  // namespace colo::ctl
