// SPDX-License-Identifier: Apache-2.0
#include "qmp/utf8.h"

#include <bit>

namespace colo::qmp {

bool is_character(std::int32_t code_point)
{
    if (code_point < 0 || code_point > 0x10ffff) return false;
    if (code_point >= 0xd800 && code_point <= 0xdfff) return false;
    if (code_point >= 0xfdd0 && code_point <= 0xfdef) return false;
    return (code_point & 0xfffe) != 0xfffe;
}

std::int32_t read_code_point(std::string_view text, std::size_t& position)
{
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const std::size_t start = position++;
    const unsigned char lead = byte(start);
    if (lead < 0x80) return lead;

    // The number of leading ones; sequences of five and six bytes never hold a character.
    const auto length = static_cast<std::size_t>(std::countl_one(lead));
    if (length < 2 || length > 6) return -1;
    std::int32_t code_point = lead & (0x7f >> length);
    for (; position < start + length; ++position) {
        if (position >= text.size() || (byte(position) & 0xc0) != 0x80) return -1;
        code_point = (code_point << 6) | (byte(position) & 0x3f);
    }
    constexpr std::int32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
    if (length > 4) return -1;
    const bool zero_as_two_bytes = length == 2 && code_point == 0;
    if ((code_point < kSmallest[length] && !zero_as_two_bytes) || !is_character(code_point)) return -1;
    return code_point;
}

void append_code_point(std::string& out, std::int32_t code_point)
{
    const auto put = [&](std::int32_t bits) { out.push_back(static_cast<char>(bits)); };
    if (code_point < 0x80) {
        put(code_point);
    } else if (code_point < 0x800) {
        put(0xc0 | (code_point >> 6));
        put(0x80 | (code_point & 0x3f));
    } else if (code_point < 0x10000) {
        put(0xe0 | (code_point >> 12));
        put(0x80 | ((code_point >> 6) & 0x3f));
        put(0x80 | (code_point & 0x3f));
    } else {
        put(0xf0 | (code_point >> 18));
        put(0x80 | ((code_point >> 12) & 0x3f));
        put(0x80 | ((code_point >> 6) & 0x3f));
        put(0x80 | (code_point & 0x3f));
    }
}

}  // namespace colo::qmp
