// SPDX-License-Identifier: Apache-2.0
#include "qemu/device_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <optional>

namespace colo::qemu {
namespace {

constexpr std::uint32_t kMagic = 0x5145564d;
constexpr std::uint32_t kVersion = 3;
constexpr std::uint8_t kEnd = 0x00, kFull = 0x04, kConfiguration = 0x07, kFooter = 0x7e;
constexpr std::size_t kFooterSize = 5;
constexpr std::size_t kMaxSections = 1024;

std::uint32_t u32_at(ByteView blob, std::size_t at)
{
    return static_cast<std::uint32_t>(blob[at]) << 24 | static_cast<std::uint32_t>(blob[at + 1]) << 16 |
           static_cast<std::uint32_t>(blob[at + 2]) << 8 | static_cast<std::uint32_t>(blob[at + 3]);
}

struct Header {
    std::uint32_t id = 0;
    StateSection section;
    std::size_t size = 0;
};

// A section header at `at`, if one can stand there: printable name, not empty.
std::optional<Header> header_at(ByteView blob, std::size_t at)
{
    if (blob.size() < at + 6 || blob[at] != kFull) return {};
    Header header;
    header.id = u32_at(blob, at + 1);
    const std::size_t length = blob[at + 5];
    header.size = 6 + length + 8;
    if (length == 0 || blob.size() < at + header.size) return {};
    const auto* name = reinterpret_cast<const char*>(blob.data() + at + 6);
    header.section.name.assign(name, length);
    if (!std::all_of(header.section.name.begin(), header.section.name.end(), [](char c) { return c > ' ' && c < 127; })) return {};
    header.section.instance = u32_at(blob, at + 6 + length);
    header.section.version = u32_at(blob, at + 10 + length);
    return header;
}

// Offset of the footer of section `id` at or after `from`.
std::optional<std::size_t> find_footer(ByteView blob, std::size_t from, std::uint32_t id)
{
    for (std::size_t at = from; at + kFooterSize < blob.size(); ++at) {
        const void* hit = std::memchr(blob.data() + at, kFooter, blob.size() - kFooterSize - at);
        if (hit == nullptr) return {};
        at = static_cast<std::size_t>(static_cast<const std::uint8_t*>(hit) - blob.data());
        if (u32_at(blob, at + 1) != id) continue;
        const std::size_t next = at + kFooterSize;
        if (next + 1 == blob.size() && blob[next] == kEnd) return at;
        if (const auto header = header_at(blob, next); header && header->id != id) return at;
    }
    return {};
}

}  // namespace

Result<StateSections> parse_device_state(ByteView blob)
{
    if (blob.size() > kMaxDeviceState) return make_error(Errc::limit, fmt::format("device state of {} bytes", blob.size()));
    if (blob.size() < 9) return make_error(Errc::corrupt, fmt::format("device state of {} bytes only", blob.size()));
    if (u32_at(blob, 0) != kMagic) return make_error(Errc::corrupt, "device state does not begin with QEVM");
    if (u32_at(blob, 4) != kVersion)
        return make_error(Errc::corrupt, fmt::format("device state has stream version {}, not 3", u32_at(blob, 4)));
    if (blob[8] == kConfiguration)
        return make_error(Errc::corrupt, "device state has a configuration section: QEMU runs without migration.send-configuration=off");
    StateSections sections;
    for (std::size_t at = 8; at < blob.size();) {
        if (blob[at] == kEnd && at + 1 == blob.size() && !sections.empty()) return sections;
        const auto header = header_at(blob, at);
        if (!header || sections.size() == kMaxSections)
            return make_error(Errc::corrupt, fmt::format("device state: no section header at offset {}", at));
        const auto footer = find_footer(blob, at + header->size, header->id);
        if (!footer)
            return make_error(Errc::corrupt, fmt::format("device state: section {} has no end", header->section.name));
        sections.push_back(header->section);
        sections.back().bytes = *footer - at - header->size;
        at = *footer + kFooterSize;
    }
    return make_error(Errc::corrupt, "device state: no end mark");
}

Result<void> check_sections(const StateSections& accepted, const StateSections& offered)
{
    const std::size_t common = std::min(accepted.size(), offered.size());
    for (std::size_t i = 0; i < common; ++i) {
        const StateSection &mine = accepted[i], &theirs = offered[i];
        if (mine.name != theirs.name || mine.instance != theirs.instance)
            return make_error(Errc::refused, fmt::format("device state: section {} is {}#{}, here it is {}#{}", i, theirs.name,
                                                         theirs.instance, mine.name, mine.instance));
        if (mine.version != theirs.version)
            return make_error(Errc::refused, fmt::format("device state: section {} has version {}, here it is {}", theirs.name,
                                                         theirs.version, mine.version));
    }
    if (accepted.size() != offered.size())
        return make_error(Errc::refused,
                          fmt::format("device state: {} sections, here {}; the first more is {}", offered.size(), accepted.size(),
                                      (accepted.size() > common ? accepted[common] : offered[common]).name));
    return {};
}

}  // namespace colo::qemu
