// SPDX-License-Identifier: Apache-2.0
#include "colo/ctl/report_text.h"

#include "colo/ctl/options.h"

#include <algorithm>
#include <array>
#include <cstdio>

namespace colo::ctl {
namespace {

using schema::ProtectionReport;

std::string format(double number, int digits, const char* unit)
{
    char text[64];
    std::snprintf(text, sizeof text, "%.*f %s", digits, number, unit);
    return text;
}

std::string paint(const std::string& text, const char* code, bool colour)
{
    return colour ? std::string("\033[") + code + "m" + text + "\033[0m" : text;
}

const char* state_colour(bool healthy)
{
    return healthy ? "32" : "31";
}

constexpr std::size_t kColumns = 8;
using Row = std::array<std::string, kColumns>;

Row header()
{
    return {"DOMAIN", "ROLE", "STATE", "MODE", "EPOCH", "PAUSE p50/p99", "PEER", "REASON"};
}

// Nothing takes no time at all: it was not measured so far.
std::string measured(std::uint64_t us)
{
    return us > 0 ? show_us(us) : "-";
}

std::string pauses(const schema::CheckpointStats& stats)
{
    return stats.pause_p50_us > 0 ? show_us(stats.pause_p50_us) + " / " + show_us(stats.pause_p99_us) : "-";
}

std::string peer_column(const ProtectionReport& report)
{
    if (!report.remote) return report.peer.empty() ? "-" : report.peer + " (no word yet)";
    const auto& remote = *report.remote;
    std::string text =
        remote.address + " (" + std::string(to_string(remote.role)) + ", " +
        (remote.state                                  ? std::string(to_string(*remote.state))
         : remote.healthy || report.session.empty() ? "no session"
                                                    : "silent");
    if (remote.age_ms >= 3000 && !report.session.empty()) text += ", " + show_us(remote.age_ms * 1000) + " ago";
    return text + ")";
}

// Outside a session nobody has promised to send beats.
bool peer_is_missed(const ProtectionReport& report)
{
    return report.remote && !report.remote->healthy && !report.session.empty();
}

// Everything that is not ok on either end, in one line.
std::string reasons(const ProtectionReport& report)
{
    std::string text = report.healthy ? "" : report.reason;
    const auto add = [&](const std::string& more) {
        if (!more.empty()) text += (text.empty() ? "" : "; ") + more;
    };
    if (peer_is_missed(report)) add("peer: " + report.remote->reason);
    for (const std::string& warning : report.warnings) add(warning);
    return text.empty() ? "-" : text;
}

Row row_of(const Look& look)
{
    if (!look.report)
        return {look.domain.empty() ? look.socket : look.domain,
                "-",
                "unreachable",
                "-",
                "-",
                "-",
                "-",
                look.report.error().text};
    const ProtectionReport& report = *look.report;
    return {report.domain,
            std::string(to_string(report.role)),
            std::string(to_string(report.state)),
            std::string(to_string(report.mode)),
            std::to_string(report.epoch),
            pauses(report.checkpoints),
            peer_column(report),
            reasons(report)};
}

std::string line_of(const Row& row, const std::array<std::size_t, kColumns>& widths, const char* state_code,
                    bool colour)
{
    std::string line;
    for (std::size_t i = 0; i < kColumns; ++i) {
        const bool last = i + 1 == kColumns;
        std::string cell = last ? row[i] : row[i] + std::string(widths[i] - row[i].size(), ' ');
        if (i == 2 && state_code != nullptr) cell = paint(cell, state_code, colour);
        line += cell + (last ? "\n" : "  ");
    }
    return line;
}

void detail(std::string& out, const char* name, const std::string& value)
{
    if (value.empty()) return;
    char label[32];
    std::snprintf(label, sizeof label, "  %-14s", name);
    out += label + value + "\n";
}

std::string checkpoints_line(const schema::CheckpointStats& stats)
{
    std::string text = std::to_string(stats.count) + " taken, " + std::to_string(stats.aborted) + " aborted";
    for (const auto& entry : stats.by_trigger)
        text += (&entry == &stats.by_trigger.front() ? " (" : ", ") + std::string(to_string(entry.trigger)) + " " +
                std::to_string(entry.count);
    return text + (stats.by_trigger.empty() ? "" : ")");
}

std::string last_checkpoint(const schema::CheckpointSample& last)
{
    std::string text = "epoch " + std::to_string(last.epoch) + ", " + std::string(to_string(last.trigger)) + ", " +
                       show_us(last.age_ms * 1000) + " ago: pause " + show_us(last.pause_us);
    for (const auto& stage : last.stages)
        text += (&stage == &last.stages.front() ? " (" : ", ") + stage.name + " " + show_us(stage.us);
    if (!last.stages.empty()) text += ")";
    return text + ", " + std::to_string(last.pages) + " pages, " + show_bytes(last.sent_bytes) +
           " sent, staged after " + show_us(last.staged_us);
}

void network_details(std::string& out, const schema::NetworkStats& net)
{
    detail(out, "released",
           std::to_string(net.released_matched) + " compared, " + std::to_string(net.released_staged) +
               " by checkpoint, " + std::to_string(net.released_unprotected) + " unprotected");
    detail(out, "held now",
           std::to_string(net.held_frames) + " frames, " + show_bytes(net.held_bytes) + ", hold p50 " +
               measured(net.hold_p50_us) + " p99 " + measured(net.hold_p99_us));
    detail(out, "comparison",
           std::to_string(net.mismatches) + " differed, " + std::to_string(net.late) + " late, " +
               std::to_string(net.no_comparison) + " without comparison, " + std::to_string(net.flows) + " flows");
}

}  // namespace

std::string show_us(std::uint64_t us)
{
    const auto value = static_cast<double>(us);
    if (us < 1'000) return std::to_string(us) + " us";
    if (us < 100'000) return format(value / 1e3, 1, "ms");
    if (us < 1'000'000) return format(value / 1e3, 0, "ms");
    if (us < 120'000'000) return format(value / 1e6, 1, "s");
    if (us < 7'200'000'000) return format(value / 6e7, 0, "min");
    return format(value / 3.6e9, 0, "h");
}

std::string show_bytes(std::uint64_t bytes)
{
    const auto value = static_cast<double>(bytes);
    if (bytes < 1024) return std::to_string(bytes) + " B";
    if (bytes < (1u << 20)) return format(value / 1024, 1, "KiB");
    if (bytes < (1u << 30)) return format(value / (1 << 20), 1, "MiB");
    return format(value / (1 << 30), 1, "GiB");
}

std::string table(const std::vector<Look>& looks, bool colour)
{
    std::vector<Row> rows{header()};
    for (const Look& look : looks) rows.push_back(row_of(look));
    std::array<std::size_t, kColumns> widths{};
    for (const Row& row : rows)
        for (std::size_t i = 0; i < kColumns; ++i) widths[i] = std::max(widths[i], row[i].size());
    std::string text = line_of(rows.front(), widths, nullptr, colour);
    for (std::size_t i = 0; i < looks.size(); ++i)
        text += line_of(rows[i + 1], widths, state_colour(looks[i].report && looks[i].report->healthy), colour);
    return text;
}

std::string details(const Look& look, bool colour)
{
    if (!look.report) return table({look}, colour);
    const ProtectionReport& report = *look.report;
    std::string out = report.domain + ": " +
                      paint(std::string(to_string(report.state)), state_colour(report.healthy), colour) + ", " +
                      std::string(to_string(report.role)) + ", for " + show_us(report.state_age_ms * 1000) + "\n";
    detail(out, report.healthy ? "note" : "reason", report.reason);
    detail(out, "what to do", report.advice.value_or(""));
    for (const std::string& warning : report.warnings) detail(out, "warning", warning);
    detail(out, "peer", peer_column(report));
    if (peer_is_missed(report)) detail(out, "peer says", report.remote->reason);
    detail(out, "mode",
           std::string(to_string(report.mode)) + (report.mode_reason.empty() ? "" : ": " + report.mode_reason));
    detail(out, "guest", std::string(to_string(report.run_state)) + ", uuid " + report.uuid);
    detail(out, "session",
           report.session.empty() ? "none" : report.session + ", epoch " + std::to_string(report.epoch));
    detail(out, "generation",
           std::to_string(report.generation) + ", " + (report.eligible ? "" : "not ") + "eligible" +
               (report.outdated ? ", OUTDATED" : "") + ", arbiter " + report.arbiter);
    detail(out, "checkpoints", checkpoints_line(report.checkpoints));
    if (report.checkpoints.last) detail(out, "last", last_checkpoint(*report.checkpoints.last));
    network_details(out, report.network);
    for (const auto& path : report.heartbeat)
        detail(out, "heartbeat",
               path.local + " - " + path.remote + (path.alive ? ", alive" : report.session.empty() ? ", no session" : ", SILENT") +
                   ", last beat " +
                   (path.last_received_age_us ? show_us(*path.last_received_age_us) + " ago" : "never"));
    if (report.last_failover)
        detail(out, "failover",
               report.last_failover->cause + ", took " + show_us(report.last_failover->duration_us) + ", generation " +
                   std::to_string(report.last_failover->generation));
    return out;
}

std::string summary(const ProtectionReport& report)
{
    std::string text = report.domain + ": " + std::string(to_string(report.role)) + " " +
                       std::string(to_string(report.state)) + " " + std::string(to_string(report.mode)) + " epoch " +
                       std::to_string(report.epoch) + " checkpoints " + std::to_string(report.checkpoints.count);
    if (report.checkpoints.count > 0)
        text += " pause p50 " + measured(report.checkpoints.pause_p50_us) + " p99 " +
                measured(report.checkpoints.pause_p99_us);
    text += " peer " + peer_column(report);
    const std::string why = reasons(report);
    return why == "-" ? text : text + " - " + why;
}

schema::Value json_status(const std::vector<Look>& looks)
{
    schema::Array domains;
    for (const Look& look : looks) {
        schema::Object entry{{"domain", look.report ? look.report->domain : look.domain},
                             {"socket", look.socket},
                             {"reachable", look.report.has_value()}};
        if (look.report)
            entry.append("report", look.raw);
        else
            entry.append("error", look.report.error().text);
        domains.emplace_back(std::move(entry));
    }
    return schema::Object{{"schema-version", 1}, {"domains", std::move(domains)}};
}

int exit_status(const std::vector<Look>& looks)
{
    if (std::ranges::any_of(looks, [](const Look& look) { return !look.report; })) return kUnreachable;
    const bool healthy = std::ranges::all_of(looks, [](const Look& look) { return look.report->healthy; });
    return healthy ? kOk : kDegraded;
}

}  // namespace colo::ctl
