// SPDX-License-Identifier: Apache-2.0
#include "qmp/utf8.h"

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

    std::size_t length = 0;
    std::int32_t code_point = 0;
    if ((lead & 0xe0) == 0xc0) {
        length = 2;
        code_point = lead & 0x1f;
    } else if ((lead & 0xf0) == 0xe0) {
        length = 3;
        code_point = lead & 0x0f;
    } else if ((lead & 0xf8) == 0xf0) {
        length = 4;
        code_point = lead & 0x07;
    } else {
        return -1;
    }
    if (text.size() - start < length) return -1;
    for (std::size_t i = start + 1; i < start + length; ++i) {
        if ((byte(i) & 0xc0) != 0x80) return -1;
        code_point = (code_point << 6) | (byte(i) & 0x3f);
    }
    constexpr std::int32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
    const bool zero_as_two_bytes = length == 2 && code_point == 0;
    if ((code_point < kSmallest[length] && !zero_as_two_bytes) || !is_character(code_point)) return -1;
    position = start + length;
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
