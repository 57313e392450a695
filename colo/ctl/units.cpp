// SPDX-License-Identifier: Apache-2.0
#include "colo/ctl/units.h"

#include "qmp/json.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <span>

namespace colo::ctl {
namespace {

struct Suffix {
    std::string_view text;
    double factor;  // into the unit of the parameter
};

constexpr double kKi = 1024, kMi = kKi * 1024, kGi = kMi * 1024, kTi = kGi * 1024;
constexpr Suffix kSizes[] = {{"", 1},      {"B", 1},    {"bytes", 1}, {"K", kKi},   {"M", kMi},
                             {"G", kGi},   {"T", kTi},  {"KiB", kKi}, {"MiB", kMi}, {"GiB", kGi},
                             {"TiB", kTi}, {"kB", 1e3}, {"MB", 1e6},  {"GB", 1e9},  {"TB", 1e12}};
constexpr Suffix kTimes[] = {{"", 1}, {"us", 1e-3}, {"ms", 1}, {"s", 1e3}, {"min", 6e4}};
constexpr Suffix kPercent[] = {{"", 1}, {"%", 1}};
constexpr Suffix kPlain[] = {{"", 1}};

bool is_size(std::string_view unit)
{
    return unit == "bytes" || unit == "bytes/s";
}

std::span<const Suffix> suffixes(std::string_view unit)
{
    if (is_size(unit)) return kSizes;
    if (unit == "ms") return kTimes;
    if (unit == "percent") return kPercent;
    return kPlain;
}

const char* examples(std::string_view unit)
{
    if (unit == "bytes/s") return "write it as 100MiB/s or 1GB/s";
    if (unit == "bytes") return "write it as 64MiB";
    if (unit == "ms") return "write it as 300ms or 2s";
    if (unit == "percent") return "write it as 20 or 20%";
    return "a whole number is needed";
}

Error bad(const schema::ArgumentEntry& entry, std::string_view text, const std::string& why)
{
    return make_error(Errc::invalid, std::string(entry.name) + ": '" + std::string(text) + "': " + why);
}

Result<schema::Value> parse_number(const schema::ArgumentEntry& entry, std::string_view text)
{
    const char* end = text.data() + text.size();
    std::uint64_t whole = 0;
    const auto exact = std::from_chars(text.data(), end, whole);
    if (exact.ec == std::errc() && exact.ptr == end) return schema::Value(whole);
    double number = 0;
    const auto read = std::from_chars(text.data(), end, number, std::chars_format::fixed);
    if (read.ec != std::errc() || number < 0) return bad(entry, text, examples(entry.unit));
    std::string_view suffix(read.ptr, static_cast<std::size_t>(end - read.ptr));
    while (!suffix.empty() && suffix.front() == ' ') suffix.remove_prefix(1);
    if (entry.unit == "bytes/s" && suffix.ends_with("/s")) suffix.remove_suffix(2);
    for (const Suffix& known : suffixes(entry.unit)) {
        if (known.text != suffix) continue;
        const double value = number * known.factor;
        if (value != std::floor(value))
            return bad(entry, text, "that is no whole number of " + std::string(entry.unit));
        if (value >= 18446744073709551616.0) return bad(entry, text, "that is too much");
        return schema::Value(static_cast<std::uint64_t>(value));
    }
    return bad(entry, text, examples(entry.unit));
}

std::string number_text(double number, const char* unit)
{
    char text[64];
    std::snprintf(text, sizeof text, "%.10g %s", number, unit);
    return text;
}

// Exact, so that what is shown can be given back: 1000000 bytes stay "1000000 bytes".
std::string show_size(std::uint64_t bytes, bool rate)
{
    const char* unit = rate ? "bytes/s" : "bytes";
    const std::pair<double, const char*> steps[] = {{kTi, rate ? "TiB/s" : "TiB"},
                                                    {kGi, rate ? "GiB/s" : "GiB"},
                                                    {kMi, rate ? "MiB/s" : "MiB"},
                                                    {kKi, rate ? "KiB/s" : "KiB"}};
    for (const auto& [factor, name] : steps)
        if (bytes > 0 && bytes % static_cast<std::uint64_t>(factor) == 0)
            return std::to_string(bytes / static_cast<std::uint64_t>(factor)) + " " + name;
    return std::to_string(bytes) + " " + unit;
}

std::string show_number(std::string_view unit, std::uint64_t number)
{
    if (is_size(unit)) return show_size(number, unit == "bytes/s");
    if (unit == "ms" && number >= 10'000) return number_text(static_cast<double>(number) / 1e3, "s");
    if (unit == "percent") return std::to_string(number) + " %";
    return std::to_string(number) + (unit.empty() ? "" : " " + std::string(unit));
}

}  // namespace

Result<schema::Value> parse_parameter(const schema::ArgumentEntry& entry, std::string_view text)
{
    if (entry.type == "bool") {
        for (const std::string_view yes : {"on", "true", "yes"})
            if (text == yes) return schema::Value(true);
        for (const std::string_view no : {"off", "false", "no"})
            if (text == no) return schema::Value(false);
        return bad(entry, text, "say on or off");
    }
    if (entry.type.starts_with("uint") || entry.type == "size") return parse_number(entry, text);
    if (!entry.type.starts_with('[')) return schema::Value(text);
    auto json = qmp::parse_json(text);
    if (!json || json->as_array() == nullptr) return bad(entry, text, "a JSON array is needed");
    return json;
}

std::string show_parameter(const schema::ArgumentEntry& entry, const schema::Value& value)
{
    if (const bool* flag = value.as_bool()) return *flag ? "on" : "off";
    if (const std::string* text = value.as_string()) return text->empty() ? "-" : *text;
    if (const std::int64_t* number = value.as_int64(); number != nullptr && *number >= 0)
        return show_number(entry.unit, static_cast<std::uint64_t>(*number));
    if (const std::uint64_t* large = value.as_uint64()) return show_number(entry.unit, *large);
    return qmp::to_json(value);
}

std::string show_range(const schema::ArgumentEntry& entry)
{
    if (!entry.ranged) return std::string(entry.values);
    return show_parameter(entry, entry.min) + " to " + show_parameter(entry, entry.max);
}

}  // namespace colo::ctl
