// SPDX-License-Identifier: Apache-2.0
#include "colo/config_text.h"

#include "colo/channel.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <numeric>

namespace colo::config {
namespace {

bool is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}
bool is_word(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_' ||
           c == '.';
}
bool is_name(std::string_view text, std::size_t longest)
{
    return !text.empty() && text.size() <= longest && text.front() != '.' && text.front() != '-' &&
           std::all_of(text.begin(), text.end(), is_word);
}

void lower(std::string& text)
{
    for (char& c : text)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
}

std::string check_uuid(std::string& value)
{
    bool good = value.size() == 36;
    for (std::size_t i = 0; good && i < value.size(); ++i) {
        const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        good = dash ? value[i] == '-' : is_hex(value[i]);
    }
    if (!good) return "is not a UUID (8-4-4-4-12 hexadecimal digits; `uuidgen` makes one)";
    lower(value);
    if (value.find_first_not_of("0-") == std::string::npos) return "is the nil UUID; `uuidgen` makes one";
    return {};
}

std::string check_mac(std::string& value)
{
    const auto mac = parse_mac(value);
    if (!mac) return "is not a MAC address (six pairs of hexadecimal digits with colons)";
    lower(value);
    if (((*mac)[0] & 1) != 0) return "is a multicast address; an interface needs a unicast one";
    if (*mac == std::array<std::uint8_t, 6>{}) return "is the zero address";
    return {};
}

std::string check_wire(std::string_view value)
{
    constexpr std::size_t kInterfaceNameMax = 15;
    if (value.starts_with("packet:")) {
        if (is_name(value.substr(7), kInterfaceNameMax)) return {};
    } else if (value.starts_with("tap:")) {
        const std::string_view rest = value.substr(4);
        const std::size_t at = rest.find('@');
        const bool bridge_good = at == std::string_view::npos || is_name(rest.substr(at + 1), kInterfaceNameMax);
        if (bridge_good && is_name(rest.substr(0, at), kInterfaceNameMax)) return {};
    } else {
        return "is neither packet:INTERFACE nor tap:NAME[@BRIDGE]";
    }
    return "names no interface that can exist (1 to 15 letters, digits, '-', '_', '.')";
}

std::string check_path(std::string_view value, std::size_t longest)
{
    if (value.front() != '/') return "must be an absolute path: the daemon does not depend on where it was started";
    if (value.size() > longest) return "is longer than " + std::to_string(longest) + " characters";
    if (value.find('\0') != std::string_view::npos || value.find('\n') != std::string_view::npos)
        return "contains a line break or a zero";
    return {};
}

// Without the options that clients of the control interface may give: they would be left out of account where it matters
// (peer.address against replication.listen), and nobody should find that out in a failover.
std::string check_tcp_uri(std::string& value)
{
    const auto uri = parse_tcp_uri(value);
    if (!uri) return uri.error().text;
    if (const std::size_t comma = value.find(','); comma != std::string::npos)
        return "has something behind the port (" + value.substr(comma, 200) + "); the configuration takes tcp:HOST:PORT alone";
    value = to_string(*uri);  // two spellings of one port compare equal
    return {};
}

}  // namespace

std::optional<std::array<std::uint8_t, 6>> parse_mac(std::string_view text)
{
    std::array<std::uint8_t, 6> mac{};
    if (text.size() != 17) return std::nullopt;
    for (std::size_t i = 0; i < 6; ++i) {
        const char* const at = text.data() + i * 3;
        if (!is_hex(at[0]) || !is_hex(at[1]) || (i < 5 && at[2] != ':')) return std::nullopt;
        std::from_chars(at, at + 2, mac[i], 16);
    }
    return mac;
}

bool is_udp_endpoint(std::string_view text)
{
    const std::size_t colon = text.rfind(':');
    if (colon == std::string_view::npos) return false;
    std::string host(text.substr(0, colon));
    const std::string_view port_text = text.substr(colon + 1);
    std::uint16_t port = 0;
    const auto [end, status] = std::from_chars(port_text.data(), port_text.data() + port_text.size(), port);
    if (status != std::errc{} || end != port_text.data() + port_text.size() || port == 0) return false;
    in6_addr address{};
    if (host.size() > 2 && host.front() == '[' && host.back() == ']')
        return inet_pton(AF_INET6, host.substr(1, host.size() - 2).c_str(), &address) == 1;
    return inet_pton(AF_INET, host.c_str(), &address) == 1;
}

std::string check_text(TextKind kind, std::string& value)
{
    constexpr std::size_t kLongest = 4096;
    if (value.size() > kLongest) return "is longer than 4096 characters";
    if (value.empty()) return {};  // whether it may be empty is the caller's question
    switch (kind) {
    case TextKind::free:
        if (value.find('\0') != std::string::npos || value.find('\n') != std::string::npos)
            return "contains a line break or a zero";
        return {};
    case TextKind::name:
        if (!is_name(value, 64))
            return "must be 1 to 64 letters, digits, '-', '_' or '.', not beginning with '-' or '.'";
        return {};
    case TextKind::uuid: return check_uuid(value);
    case TextKind::mac: return check_mac(value);
    case TextKind::wire: return check_wire(value);
    case TextKind::tcp_uri: return check_tcp_uri(value);
    case TextKind::udp_endpoint:
        if (!is_udp_endpoint(value))
            return "is not IP:PORT or [IP6]:PORT (a name is not enough: heartbeats must not wait for a look-up)";
        return {};
    case TextKind::path: return check_path(value, 4000);
    case TextKind::socket_path: return check_path(value, 107);
    case TextKind::log_level:
        for (const std::string_view level : {"trace", "debug", "info", "warn", "error"})
            if (value == level) return {};
        return "is not one of trace, debug, info, warn, error";
    }
    return "has an unknown kind";
}

std::string_view describe(TextKind kind)
{
    switch (kind) {
    case TextKind::free: return "text";
    case TextKind::name: return "name";
    case TextKind::uuid: return "UUID";
    case TextKind::mac: return "MAC address";
    case TextKind::wire: return "wire";
    case TextKind::tcp_uri: return "TCP address";
    case TextKind::udp_endpoint: return "UDP address";
    case TextKind::path:
    case TextKind::socket_path: return "absolute path";
    case TextKind::log_level: return "level";
    }
    return "text";
}

std::string_view closest(std::string_view word, const std::vector<std::string>& candidates)
{
    std::string_view best;
    std::size_t best_distance = 3;  // two typing errors at most
    if (word.size() > 64) return best;
    for (const std::string& candidate : candidates) {
        std::vector<std::size_t> row(candidate.size() + 1);
        std::iota(row.begin(), row.end(), std::size_t{0});
        for (std::size_t i = 1; i <= word.size(); ++i) {
            std::size_t diagonal = std::exchange(row[0], i);
            for (std::size_t k = 1; k <= candidate.size(); ++k) {
                const std::size_t change = diagonal + (word[i - 1] == candidate[k - 1] ? 0 : 1);
                diagonal = std::exchange(row[k], std::min({row[k] + 1, row[k - 1] + 1, change}));
            }
        }
        if (row.back() < best_distance) {
            best_distance = row.back();
            best = candidate;
        }
    }
    return best;
}

}  // namespace colo::config
