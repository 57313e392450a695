// SPDX-License-Identifier: Apache-2.0
#include "replication/delta.h"

#include "replication/byte_io.h"

namespace colo::replication {
namespace {

constexpr std::size_t kWord = 8;
constexpr std::size_t kWords = kPageSize / kWord;
constexpr std::size_t kLineWords = 8;
constexpr std::size_t kRunHeader = 4;

std::uint64_t difference(const std::uint8_t* a, const std::uint8_t* b, std::size_t word)
{
    return load_le<std::uint64_t>(a + word * kWord) ^ load_le<std::uint64_t>(b + word * kWord);
}

bool line_differs(const std::uint8_t* a, const std::uint8_t* b, std::size_t word)
{
    std::uint64_t any = 0;
    for (std::size_t i = 0; i < kLineWords; ++i) any |= difference(a, b, word + i);
    return any != 0;
}

// First differing word at or after `word`.
std::size_t skip_equal(const std::uint8_t* a, const std::uint8_t* b, std::size_t word)
{
    while (word < kWords) {
        if (word % kLineWords == 0 && !line_differs(a, b, word)) {
            word += kLineWords;
            continue;
        }
        if (difference(a, b, word) != 0) break;
        ++word;
    }
    return word;
}

}  // namespace

std::size_t encode_delta(const std::uint8_t* base, const std::uint8_t* page, std::uint8_t* out)
{
    std::size_t size = 0, end = 0;
    for (;;) {
        const std::size_t first = skip_equal(base, page, end);
        if (first == kWords) return size;
        const std::size_t skipped = first - end;
        end = first + 1;
        while (end < kWords && difference(base, page, end) != 0) ++end;
        const std::size_t bytes = (end - first) * kWord;
        if (size + kRunHeader + bytes > kMaxDeltaBytes) return 0;
        store_le(out + size, static_cast<std::uint16_t>(skipped));
        store_le(out + size + 2, static_cast<std::uint16_t>(end - first));
        std::memcpy(out + size + kRunHeader, page + first * kWord, bytes);
        size += kRunHeader + bytes;
    }
}

bool is_valid_delta(ByteView delta)
{
    std::size_t word = 0;
    while (!delta.empty()) {
        if (delta.size() < kRunHeader) return false;
        const std::size_t skip = load_le<std::uint16_t>(delta.data());
        const std::size_t count = load_le<std::uint16_t>(delta.data() + 2);
        if (count == 0 || skip + count > kWords - word || delta.size() - kRunHeader < count * kWord) return false;
        word += skip + count;
        delta = delta.subspan(kRunHeader + count * kWord);
    }
    return true;
}

void apply_delta(ByteView delta, std::uint8_t* page)
{
    while (!delta.empty()) {
        page += load_le<std::uint16_t>(delta.data()) * kWord;
        const std::size_t bytes = load_le<std::uint16_t>(delta.data() + 2) * kWord;
        std::memcpy(page, delta.data() + kRunHeader, bytes);
        page += bytes;
        delta = delta.subspan(kRunHeader + bytes);
    }
}

}  // namespace colo::replication
