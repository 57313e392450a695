// SPDX-License-Identifier: Apache-2.0
#include "xen/domain_record.h"

#include <fmt/format.h>

#include <cerrno>
#include <charconv>
#include <fstream>
#include <sstream>
#include <sys/random.h>

namespace colo::xen {
namespace {

// Xen has 15 bits for it, and the last ones have a meaning of their own.
constexpr std::uint32_t kMaxDomain = 0x7fef;
constexpr const char* kStates[] = {"making", "copy", "live"};

int nibble(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

}  // namespace

std::string uuid_text(const Uuid& uuid)
{
    std::string out;
    for (std::size_t i = 0; i < uuid.size(); ++i) out += fmt::format("{}{:02x}", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
    return out;
}

std::optional<Uuid> parse_uuid(std::string_view text)
{
    Uuid out{};
    std::size_t digits = 0;
    for (const char c : text) {
        if (c == '-') continue;
        const int value = nibble(c);
        if (value < 0 || digits == 2 * out.size()) return std::nullopt;
        out[digits / 2] = static_cast<std::uint8_t>(out[digits / 2] << 4 | value);
        ++digits;
    }
    if (digits != 2 * out.size()) return std::nullopt;
    return out;
}

Result<Uuid> new_uuid()
{
    Uuid out{};
    if (::getrandom(out.data(), out.size(), 0) != static_cast<ssize_t>(out.size())) return errno_error("getrandom", errno);
    out[6] = static_cast<std::uint8_t>((out[6] & 0x0f) | 0x40);   // RFC 4122: random
    out[8] = static_cast<std::uint8_t>((out[8] & 0x3f) | 0x80);
    return out;
}

Result<std::string> host_boot()
{
    constexpr const char* kFile = "/proc/sys/kernel/random/boot_id";
    std::ifstream in(kFile);
    std::string id;
    if (!(in >> id)) return make_error(Errc::failed, fmt::format("{} cannot be read", kFile));
    return id;
}

std::string record_text(const DomainRecord& record)
{
    const char* state = kStates[static_cast<std::size_t>(record.state)];
    if (record.state == DomainRecord::State::making) return fmt::format("{} {} {} {}\n", state, uuid_text(record.uuid), record.boot, record.name);
    return fmt::format("{} {} {} {}\n", state, uuid_text(record.uuid), record.boot, record.domain);
}

std::optional<DomainRecord> parse_record(std::string_view text)
{
    if (!text.ends_with('\n')) return std::nullopt;   // half of one
    std::istringstream in{std::string(text)};
    std::string state, uuid, last, more;
    DomainRecord out;
    if (!(in >> state >> uuid >> out.boot >> last) || in >> more) return std::nullopt;
    const auto parsed = parse_uuid(uuid);
    if (!parsed) return std::nullopt;
    out.uuid = *parsed;
    if (state == kStates[0]) {
        out.name = last;
        return out;
    }
    if (state != kStates[1] && state != kStates[2]) return std::nullopt;
    out.state = state == kStates[1] ? DomainRecord::State::copy : DomainRecord::State::live;
    const auto [end, error] = std::from_chars(last.data(), last.data() + last.size(), out.domain);
    if (error != std::errc() || end != last.data() + last.size() || out.domain == 0 || out.domain > kMaxDomain) return std::nullopt;
    return out;
}

}  // namespace colo::xen
