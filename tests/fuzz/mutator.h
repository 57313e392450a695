// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the ordinary test run needs to feed fuzz targets: the kept corpus and seeded mutations of it.

#include "core/types.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string_view>
#include <vector>

namespace colo::fuzz {

inline std::vector<Bytes> corpus_of(const std::filesystem::path& folder)
{
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(folder))
        files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    std::vector<Bytes> corpus;
    for (const auto& file : files) {
        std::ifstream in(file, std::ios::binary);
        corpus.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
    }
    return corpus;
}

class Mutator {
public:
    explicit Mutator(std::uint64_t seed) : random_(seed) {}
    Bytes mutate(const Bytes& input, const Bytes& other)
    {
        Bytes out = input;
        for (std::uint64_t n = 1 + below(4); n > 0; --n) step(out, other);
        return out;
    }

private:
    std::uint64_t below(std::uint64_t n) { return n == 0 ? 0 : random_() % n; }
    void step(Bytes& out, const Bytes& other)
    {
        const std::size_t at = below(out.size());
        const auto position = out.begin() + static_cast<std::ptrdiff_t>(at);
        switch (below(7)) {
        case 0: out.resize(at); break;
        case 1: out.insert(position, below(20), static_cast<std::uint8_t>(random_())); break;
        case 2: out.erase(position, position + static_cast<std::ptrdiff_t>(below(std::min<std::size_t>(20, out.size() - at)))); break;
        case 3: {   // splice
            const std::size_t from = below(other.size());
            out.resize(at);
            out.insert(out.end(), other.begin() + static_cast<std::ptrdiff_t>(from), other.end());
            break;
        }
        case 4: {   // a number that is often a border
            static constexpr std::uint8_t kBorders[] = {0, 1, 0x7f, 0x80, 0xff, 0x10, 0x20};
            for (std::size_t i = at; i < std::min(out.size(), at + (std::size_t{1} << below(4))); ++i) out[i] = kBorders[below(7)];
            break;
        }
        default:
            if (!out.empty()) out[at] ^= static_cast<std::uint8_t>(1 << below(8));
        }
    }
    std::mt19937_64 random_;
};

}  // namespace colo::fuzz
