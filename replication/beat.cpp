// SPDX-License-Identifier: Apache-2.0
#include "replication/beat.h"

#include "core/crc32c.h"
#include "replication/byte_io.h"

#include <algorithm>

namespace colo::replication {
namespace {

// Offsets of docs/protocol.md, "Heartbeat".
constexpr std::size_t kMagicAt = 0, kVersionAt = 4, kRoleAt = 6, kFlagsAt = 7, kCrcAt = 8, kPaddingAt = 12, kDomainAt = 16,
                      kSessionAt = 32, kGenerationAt = 40, kEpochAt = 48, kNumberAt = 56, kSentAt = 64, kEchoNumberAt = 72,
                      kEchoSentAt = 80, kProgressAt = 88, kReservedAt = 112;
static_assert(kReservedAt + 16 == kBeatSize);

std::uint32_t checksum(const std::uint8_t* at)
{
    static constexpr std::array<std::uint8_t, 4> kZero{};
    const std::uint32_t head = crc32c({at, kCrcAt}, 0);
    return crc32c({at + kPaddingAt, kBeatSize - kPaddingAt}, crc32c(kZero, head));
}

bool is_hex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

std::uint8_t hex_value(char c)
{
    if (c <= '9') return static_cast<std::uint8_t>(c - '0');
    return static_cast<std::uint8_t>((c | 0x20) - 'a' + 10);
}

bool is_dash_position(std::size_t i) { return i == 8 || i == 13 || i == 18 || i == 23; }

std::int64_t load_time(const std::uint8_t* from) { return static_cast<std::int64_t>(load_le<std::uint64_t>(from)); }
void store_time(std::uint8_t* to, std::int64_t us) { store_le(to, static_cast<std::uint64_t>(us)); }

}  // namespace

Result<DomainId> parse_domain_id(std::string_view uuid)
{
    const auto bad = [&] { return make_error(Errc::invalid, "'" + std::string(uuid.substr(0, 64)) + "' is not a UUID"); };
    if (uuid.size() != 36) return bad();
    DomainId id{};
    std::size_t digits = 0;
    for (std::size_t i = 0; i < uuid.size(); ++i) {
        if (is_dash_position(i)) {
            if (uuid[i] != '-') return bad();
            continue;
        }
        if (!is_hex(uuid[i])) return bad();
        id[digits / 2] = static_cast<std::uint8_t>(id[digits / 2] << 4 | hex_value(uuid[i]));
        ++digits;
    }
    return id;
}

std::string to_string(const DomainId& id)
{
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string text;
    for (const std::uint8_t byte : id) {
        if (is_dash_position(text.size())) text += '-';
        text += kDigits[byte >> 4];
        text += kDigits[byte & 15];
    }
    return text;
}

BeatBytes encode(const Beat& beat)
{
    BeatBytes out{};
    std::uint8_t* const at = out.data();
    store_le(at + kMagicAt, kBeatMagic);
    store_le(at + kVersionAt, kBeatVersion);
    at[kRoleAt] = static_cast<std::uint8_t>(beat.role);
    at[kFlagsAt] = beat.flags;
    std::copy(beat.domain.begin(), beat.domain.end(), at + kDomainAt);
    store_le(at + kSessionAt, beat.session);
    store_le(at + kGenerationAt, beat.generation);
    store_le(at + kEpochAt, beat.epoch);
    store_le(at + kNumberAt, beat.number);
    store_time(at + kSentAt, beat.sent_at_us);
    store_le(at + kEchoNumberAt, beat.echo_number);
    store_time(at + kEchoSentAt, beat.echo_sent_at_us);
    for (std::size_t i = 0; i < beat.progress.size(); ++i) store_le(at + kProgressAt + 8 * i, beat.progress[i]);
    store_le(at + kCrcAt, checksum(at));
    return out;
}

Result<Beat> decode_beat(ByteView datagram)
{
    const auto corrupt = [](const char* what) { return make_error(Errc::corrupt, std::string("beat: ") + what); };
    if (datagram.size() != kBeatSize) return corrupt("wrong size");
    const std::uint8_t* const at = datagram.data();
    if (load_le<std::uint32_t>(at + kMagicAt) != kBeatMagic) return corrupt("wrong magic");
    if (load_le<std::uint32_t>(at + kCrcAt) != checksum(at)) return corrupt("wrong checksum");
    const auto version = load_le<std::uint16_t>(at + kVersionAt);
    if (version != kBeatVersion)
        return make_error(Errc::unsupported, "beat: version " + std::to_string(version) + ", this side speaks " +
                                                 std::to_string(kBeatVersion));
    if (at[kRoleAt] < 1 || at[kRoleAt] > static_cast<std::uint8_t>(BeatRole::none)) return corrupt("unknown role");
    if ((at[kFlagsAt] & ~beat_flag::kAll) != 0) return corrupt("unknown flags");
    const auto is_zero = [](std::uint8_t b) { return b == 0; };
    if (!std::all_of(at + kPaddingAt, at + kDomainAt, is_zero) || !std::all_of(at + kReservedAt, at + kBeatSize, is_zero))
        return corrupt("reserved bytes are not zero");
    Beat beat;
    std::copy_n(at + kDomainAt, beat.domain.size(), beat.domain.begin());
    beat.session = load_le<std::uint64_t>(at + kSessionAt);
    beat.generation = load_le<std::uint64_t>(at + kGenerationAt);
    beat.role = static_cast<BeatRole>(at[kRoleAt]);
    beat.flags = at[kFlagsAt];
    beat.epoch = load_le<std::uint64_t>(at + kEpochAt);
    beat.number = load_le<std::uint64_t>(at + kNumberAt);
    beat.sent_at_us = load_time(at + kSentAt);
    beat.echo_number = load_le<std::uint64_t>(at + kEchoNumberAt);
    beat.echo_sent_at_us = load_time(at + kEchoSentAt);
    for (std::size_t i = 0; i < beat.progress.size(); ++i) beat.progress[i] = load_le<std::uint64_t>(at + kProgressAt + 8 * i);
    return beat;
}

}  // namespace colo::replication
