// SPDX-License-Identifier: Apache-2.0
#include "xen/cpu_context.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <optional>

namespace colo::xen {
namespace {

constexpr std::size_t kHead = 8;   // u16 type, u16 instance, u32 length
constexpr std::uint16_t kEnd = 0, kHeader = 1, kCpu = 2;
constexpr std::uint32_t kMagic = 0x54381286;   // at the beginning of the header
// Of the CPU's record: 512 bytes of FPU registers, 16 general ones, instruction pointer and flags lie before them.
constexpr std::size_t kCr0 = 512 + 18 * 8, kCr4 = kCr0 + 3 * 8;
constexpr std::uint64_t kPaging = 1u << 31, kPae = 1u << 5;

// Records of which each vCPU has its own: CPU, both of the LAPIC, MTRR, XSAVE and what follows but the platform's.
constexpr std::uint16_t kOfEachVcpu[] = {2, 5, 6, 14, 16, 17, 18, 19, 20};

struct Record {
    std::uint16_t type = 0, instance = 0;
    ByteView body;
};

// The one that begins at `at`, which is moved behind it; nullopt: there is no head of one any more.
Result<std::optional<Record>> next_record(ByteView context, std::size_t& at)
{
    if (context.size() - at < kHead) return std::optional<Record>();
    Record record;
    std::uint32_t length = 0;
    std::memcpy(&record.type, &context[at], sizeof record.type);
    std::memcpy(&length, &context[at + 4], sizeof length);
    std::memcpy(&record.instance, &context[at + 2], sizeof record.instance);
    at += kHead;
    if (length > context.size() - at) return make_error(Errc::corrupt, "is longer than the rest");
    record.body = context.subspan(at, length);
    at += length;
    return std::optional(record);
}

template <class Word>
Word word(ByteView bytes, std::size_t at)
{
    Word out = 0;
    std::memcpy(&out, &bytes[at], sizeof out);
    return out;
}

bool is_header(const Record& record) { return record.type == kHeader && record.body.size() >= 4 && word<std::uint32_t>(record.body, 0) == kMagic; }

}  // namespace

Result<void> check_context(ByteView context)
{
    if (context.size() > kMaxContext) return make_error(Errc::limit, fmt::format("CPU context of {} bytes", context.size()));
    std::size_t at = 0, cpus = 0;
    for (std::size_t number = 0;; ++number) {
        const auto record = next_record(context, at);
        if (!record) return make_error(Errc::corrupt, fmt::format("CPU context: record {} {}", number, record.error().text));
        if (!*record) return make_error(Errc::corrupt, fmt::format("CPU context of {} bytes without an end", context.size()));
        if (number == 0 && !is_header(**record)) return make_error(Errc::corrupt, "CPU context: it does not begin with its header");
        cpus += (*record)->type == kCpu;
        if ((*record)->type != kEnd) continue;
        if (at != context.size() || cpus == 0) return make_error(Errc::corrupt, "CPU context: ends too early, or has no CPU");
        return {};
    }
}

Result<void> check_vcpus(ByteView context, std::uint32_t vcpus)
{
    for (std::size_t at = 0;;) {
        const auto record = next_record(context, at);
        if (!record) return make_error(Errc::corrupt, "CPU context: a record " + record.error().text);
        if (!*record) return {};
        const Record& one = **record;
        const bool of_vcpu = std::find(std::begin(kOfEachVcpu), std::end(kOfEachVcpu), one.type) != std::end(kOfEachVcpu);
        if (of_vcpu && one.instance >= vcpus)
            return make_error(Errc::corrupt, fmt::format("CPU context: state of vCPU {}, and the domain has {}", one.instance, vcpus));
    }
}

bool runs_kernel(ByteView context)
{
    for (std::size_t at = 0;;) {
        const auto record = next_record(context, at);
        if (!record || !*record) return false;
        const ByteView body = (*record)->body;
        if ((*record)->type == kCpu && body.size() >= kCr4 + 8)
            return (word<std::uint64_t>(body, kCr0) & kPaging) != 0 && (word<std::uint64_t>(body, kCr4) & kPae) != 0;
    }
}

}  // namespace colo::xen
