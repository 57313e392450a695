// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/load/services.h"

#include <cstring>

namespace colo::load {
namespace {

using Table = std::array<std::array<std::uint32_t, 256>, 8>;

Table make_table()
{
    Table table{};
    for (std::uint32_t i = 0; i < 256; ++i) {
        std::uint32_t c = i;
        for (int bit = 0; bit < 8; ++bit) c = (c >> 1) ^ ((c & 1) != 0 ? 0xedb88320u : 0);
        table[0][i] = c;
    }
    for (std::size_t i = 0; i < 256; ++i)
        for (std::size_t k = 1; k < 8; ++k) table[k][i] = (table[k - 1][i] >> 8) ^ table[0][table[k - 1][i] & 0xff];
    return table;
}

}  // namespace

std::uint32_t crc32(std::uint32_t crc, const std::uint8_t* data, std::size_t size)
{
    static const Table table = make_table();
    crc = ~crc;
    for (; size >= 8; data += 8, size -= 8) {
        std::uint64_t word = 0;
        std::memcpy(&word, data, 8);
        word ^= crc;
        crc = 0;
        for (std::size_t k = 0; k < 8; ++k) crc ^= table[7 - k][word >> (8 * k) & 0xff];
    }
    for (; size > 0; ++data, --size) crc = (crc >> 8) ^ table[0][(crc ^ *data) & 0xff];
    return ~crc;
}

bool differing_answer_valid(std::uint64_t number, std::string_view answer, std::string& last, std::string& reason)
{
    const std::string head = std::to_string(number) + " ";
    if (answer.substr(0, head.size()) != head) {
        reason = "answer does not begin with its number " + std::to_string(number);
        return false;
    }
    const std::string_view digits = answer.substr(head.size());
    if (digits.size() != 64 || digits.find_first_not_of("0123456789abcdef") != std::string_view::npos) {
        reason = "answer does not have 64 hexadecimal digits";
        return false;
    }
    if (digits == last) {
        reason = "the same digits twice";
        return false;
    }
    last = digits;
    return true;
}

}  // namespace colo::load
