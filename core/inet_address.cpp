// SPDX-License-Identifier: Apache-2.0
#include "core/inet_address.h"

#include <charconv>

namespace colo {
namespace {

constexpr std::size_t kHostMax = 253;  // of a name in the DNS

Error wrong(std::string text)
{
    return make_error(Errc::invalid, std::move(text));
}

struct Parts {
    std::string_view host, port, options;  // options: empty or with a comma in front
};

Result<Parts> split(std::string_view text)
{
    const bool any = text.starts_with(':'), brackets = text.starts_with('[');
    const Error error = wrong(std::string("error parsing ") +
                              (any        ? "port in "
                               : brackets ? "IPv6 "
                                          : "") +
                              "address '" + std::string(text.substr(0, kShownMax)) + "'");
    const std::size_t end = text.find(brackets ? ']' : ':');
    if (end == std::string_view::npos) return error;
    Parts parts;
    parts.host = brackets ? text.substr(1, end - 1) : text.substr(0, end);
    std::string_view rest = text.substr(brackets ? end + 1 : end);
    if ((parts.host.empty() && !any) || parts.host.size() > kHostMax || !rest.starts_with(':')) return error;
    rest.remove_prefix(1);
    parts.port = rest.substr(0, rest.find(','));
    parts.options = rest.substr(parts.port.size());
    if (parts.port.empty()) return error;
    return parts;
}

template <class Number>
bool parse_number(std::string_view text, Number& number)
{
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), number);
    return !text.empty() && status == std::errc{} && end == text.data() + text.size();
}

Result<InetAddress> check_endpoint(const Parts& parts)
{
    const auto unresolvable = [&](const char* why) {
        return wrong("address resolution failed for " + std::string(parts.host) + ":" +
                     std::string(parts.port.substr(0, kShownMax)) + ": " + why);
    };
    InetAddress result;
    result.host = parts.host;
    if (!parse_number(parts.port, result.port)) return unresolvable("a port is a number from 0 to 65535");
    if (result.host.find_first_of("[]/ \t\r\n@,=") != std::string::npos || result.host.find('\0') != std::string::npos)
        return unresolvable("this is no name of a host");
    return result;
}

Result<std::optional<std::uint16_t>> parse_to(std::string_view options)
{
    constexpr std::string_view kName = ",to=";
    const std::size_t at = options.find(kName);
    if (at == std::string_view::npos) return std::optional<std::uint16_t>();
    std::string_view value = options.substr(at + kName.size());
    value = value.substr(0, value.find(','));
    std::uint16_t port = 0;
    if (!parse_number(value, port)) return wrong("error parsing to= argument");
    return std::optional(port);
}

Result<std::optional<bool>> parse_flag(std::string_view options, const std::string& name)
{
    const std::size_t at = options.find("," + name);
    if (at == std::string_view::npos) return std::optional<bool>();
    const std::string_view value = options.substr(at + 1 + name.size());
    const auto is = [value](std::string_view text) {
        return value == text || (value.starts_with(text) && value.substr(text.size()).starts_with(','));
    };
    if (is("") || is("=on")) return std::optional(true);
    if (is("=off")) return std::optional(false);
    return wrong("error parsing '" + name + "' flag '" + std::string(value.substr(0, kShownMax)) + "'");
}

}  // namespace

Result<InetAddress> parse_inet_address(std::string_view text)
{
    const auto parts = split(text);
    if (!parts) return parts.error();
    const auto to = parse_to(parts->options);
    if (!to) return to.error();
    InetAddress options;
    struct Flag {
        const char* name;
        std::optional<bool>* value;
    };
    for (const Flag& flag :
         {Flag{"ipv4", &options.ipv4}, Flag{"ipv6", &options.ipv6}, Flag{"keep-alive", &options.keep_alive}}) {
        const auto value = parse_flag(parts->options, flag.name);
        if (!value) return value.error();
        *flag.value = *value;
    }
    if (options.ipv4 == std::optional(false) && options.ipv6 == std::optional(false))
        return wrong("Cannot disable IPv4 and IPv6 at same time");
    auto result = check_endpoint(*parts);
    if (!result) return result;
    options.host = std::move(result->host);
    options.port = result->port;
    options.to = *to;
    return options;
}

}  // namespace colo
