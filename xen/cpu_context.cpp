// SPDX-License-Identifier: Apache-2.0
#include "xen/cpu_context.h"

#include <cstddef>
#include <cstring>

namespace colo::xen {
namespace {

constexpr std::size_t kHead = 8;
constexpr std::uint16_t kCpu = 2;
// Of the CPU's record: 512 bytes of FPU registers, 16 general ones, instruction pointer and flags lie before them.
constexpr std::size_t kCr0 = 512 + 18 * 8, kCr4 = kCr0 + 3 * 8;
constexpr std::uint64_t kPaging = 1u << 31, kPae = 1u << 5;

std::uint64_t word(ByteView bytes, std::size_t at)
{
    std::uint64_t out = 0;
    std::memcpy(&out, &bytes[at], sizeof out);
    return out;
}

}  // namespace

bool runs_kernel(ByteView context)
{
    for (std::size_t at = 0; context.size() - at >= kHead;) {
        std::uint16_t type = 0;
        std::uint32_t length = 0;
        std::memcpy(&type, &context[at], sizeof type);
        std::memcpy(&length, &context[at + 4], sizeof length);
        at += kHead;
        if (length > context.size() - at) return false;
        if (type == kCpu && length >= kCr4 + 8)
            return (word(context, at + kCr0) & kPaging) != 0 && (word(context, at + kCr4) & kPae) != 0;
        at += length;
    }
    return false;
}

}  // namespace colo::xen
