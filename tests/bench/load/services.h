// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the test guest's services answer (tests/guest), as the client expects it.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace colo::load {

inline constexpr std::uint16_t kEchoPort = 7, kSinkPort = 9, kDifferingPort = 13, kSourcePort = 19;

// splitmix64; number i of a seed is also word i of the source's stream.
class Random {
public:
    explicit Random(std::uint64_t seed) : state_(seed) {}
    std::uint64_t next()
    {
        std::uint64_t x = state_ += 0x9e3779b97f4a7c15u;
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
        return x ^ (x >> 31);
    }

private:
    std::uint64_t state_;
};

// CRC-32 as in zlib, of pieces: start with 0.
std::uint32_t crc32(std::uint32_t crc, const std::uint8_t* data, std::size_t size);

// tcp/7: "<number of the line on this connection, from 0> <line>".
inline std::string echo_answer(std::uint64_t number, std::string_view request)
{
    return std::to_string(number) + " " + std::string(request);
}

// tcp/13: "<number> <64 hex digits>", the digits never the same twice.
bool differing_answer_valid(std::uint64_t number, std::string_view answer, std::string& last, std::string& reason);

}  // namespace colo::load
