// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/load/output.h"

#include <cstdio>
#include <unistd.h>

namespace colo::load {
namespace {

class Object {
public:
    Object& text(const char* name, const std::string& value) { return raw(name, json_string(value)); }
    Object& integer(const char* name, std::uint64_t value) { return raw(name, std::to_string(value)); }
    Object& milliseconds(const char* name, Microseconds us) { return fixed(name, static_cast<double>(us) / 1e3); }
    Object& seconds(const char* name, Microseconds us) { return fixed(name, static_cast<double>(us) / 1e6); }
    Object& fixed(const char* name, double value)
    {
        char buffer[64];
        std::snprintf(buffer, sizeof buffer, "%.6g", value);
        // Monotonic seconds need more digits than %.6g gives.
        if (value >= 1000) std::snprintf(buffer, sizeof buffer, "%.6f", value);
        return raw(name, buffer);
    }
    Object& boolean(const char* name, bool value) { return raw(name, value ? "true" : "false"); }
    Object& raw(const char* name, const std::string& value)
    {
        body_ += (body_.empty() ? "\"" : ", \"") + std::string(name) + "\": " + value;
        return *this;
    }
    std::string str() const { return "{" + body_ + "}"; }

private:
    std::string body_;
};

// Sums over flows of one kind, or of all.
struct Sums {
    std::uint64_t flows = 0, open = 0, finished = 0, lost = 0, answers = 0, verified = 0, moved = 0, wrong = 0, missing = 0, repeated = 0;
    std::uint64_t connections = 0;
    Histogram latency;
    Microseconds longest = 0, ended = 0;
    int longest_id = 0;

    void add(int id, const Flow& flow, Microseconds now)
    {
        const FlowStats& s = flow.stats();
        ++flows;
        connections += s.restarted > 0 ? s.restarted : 1;
        open += flow.active() ? 1 : 0;
        finished += s.state == FlowState::finished ? 1 : 0;
        lost += s.state == FlowState::lost ? 1 : 0;
        answers += s.answers;
        verified += s.verified_bytes;
        moved += s.moved_bytes;
        wrong += s.wrong_bytes;
        missing += s.missing;
        repeated += s.repeated;
        latency.add(s.latency);
        if (s.gap.longest(now) > longest) {
            longest = s.gap.longest(now);
            ended = s.gap.ended(now);
            longest_id = id;
        }
    }
    std::string str() const
    {
        Object o;
        o.integer("flows", flows).integer("connections", connections).integer("open", open).integer("finished", finished)
            .integer("lost", lost).integer("answers", answers).integer("verified_bytes", verified)
            .integer("moved_bytes", moved).integer("wrong_bytes", wrong).integer("missing", missing)
            .integer("repeated", repeated);
        o.integer("samples", latency.total()).milliseconds("p50_ms", latency.quantile(0.5))
            .milliseconds("p99_ms", latency.quantile(0.99)).milliseconds("max_ms", latency.largest());
        o.milliseconds("longest_gap_ms", longest).seconds("longest_gap_ended_s", ended)
            .integer("longest_gap_id", static_cast<std::uint64_t>(longest_id));
        return o.str();
    }
};

std::string flow_object(int id, const Flow& flow, Microseconds now)
{
    const FlowStats& s = flow.stats();
    Object o;
    o.integer("id", static_cast<std::uint64_t>(id)).text("kind", flow.kind()).text("state", to_string(s.state));
    o.integer("answers", s.answers).integer("verified_bytes", s.verified_bytes).integer("moved_bytes", s.moved_bytes)
        .integer("wrong_bytes", s.wrong_bytes).integer("missing", s.missing).integer("repeated", s.repeated)
        .integer("connections", s.restarted);
    o.milliseconds("p50_ms", s.latency.quantile(0.5)).milliseconds("p99_ms", s.latency.quantile(0.99));
    o.milliseconds("gap_ms", s.gap.longest(now)).seconds("gap_ended_s", s.gap.ended(now)).boolean("gap_open", s.gap.open(now));
    if (!s.problem.empty()) o.text("problem", s.problem);
    return o.str();
}

}  // namespace

std::string json_string(const std::string& text)
{
    std::string out = "\"";
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (c == '"' || c == '\\') {
            out += '\\';
            out += c;
        } else if (byte < 0x20 || byte > 0x7e) {
            char buffer[8];
            std::snprintf(buffer, sizeof buffer, "\\u%04x", byte);
            out += buffer;
        } else {
            out += c;
        }
    }
    return out + "\"";
}

std::string report_line(const std::string& type, const Flows& flows, Microseconds began, bool each)
{
    const Microseconds now = now_us();
    Sums all;
    std::map<std::string, Sums> kinds;
    std::string list;
    for (const auto& [id, flow] : flows) {
        all.add(id, *flow, now);
        kinds[flow->kind()].add(id, *flow, now);
        if (each) list += (list.empty() ? "" : ", ") + flow_object(id, *flow, now);
    }
    Object by_kind;
    for (const auto& [kind, sums] : kinds) by_kind.raw(kind.c_str(), sums.str());
    Object o;
    o.text("type", type).seconds("now_s", now).seconds("running_s", now - began).raw("sums", all.str());
    o.raw("kinds", by_kind.str());
    if (each) o.raw("flows", "[" + list + "]");
    return o.str();
}

std::string lost_line(int id, const Flow& flow)
{
    Object o;
    o.text("type", "lost").integer("id", static_cast<std::uint64_t>(id)).text("kind", flow.kind());
    o.seconds("at_s", flow.stats().lost_at).integer("answers", flow.stats().answers).text("problem", flow.stats().problem);
    return o.str();
}

void emit(const std::string& line)
{
    std::fputs((line + "\n").c_str(), stdout);
    std::fflush(stdout);
}

}  // namespace colo::load
