// SPDX-License-Identifier: Apache-2.0
#include "replication/mapping.h"

#include "core/types.h"

#include <sys/mman.h>
#include <cerrno>
#include <string>

namespace colo::replication {

Result<Mapping> Mapping::reserve(std::size_t bytes)
{
    Mapping mapping;
    if (bytes == 0) return mapping;
    void* const at =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) return errno_error("reserve " + std::to_string(bytes >> 20) + " MiB", errno);
    // Pages are used one after the other, so huge ones save faults and TLB misses and waste nothing. Only advice.
    constexpr std::size_t kWorthIt = 16u << 20;
    if (bytes >= kWorthIt) (void)::madvise(at, bytes, MADV_HUGEPAGE);
    mapping.data_ = static_cast<std::uint8_t*>(at);
    mapping.size_ = bytes;
    return mapping;
}

void Mapping::populate()
{
    if (data_ == nullptr) return;
    // Page by page on purpose: one call for the whole range (MADV_POPULATE_WRITE) holds the address space for as long as it
    // takes, and every other thread that only wants to grow its heap waits: 0.7 s of a silent proxy were seen.
    for (std::size_t at = 0; at < size_; at += kPageSize) {
        volatile std::uint8_t* const byte = data_ + at;
        *byte = *byte;
    }
}

Mapping::~Mapping()
{
    if (data_ != nullptr) ::munmap(data_, size_);
}

}  // namespace colo::replication
