// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/error.h"

#include <cstddef>
#include <cstdint>
#include <utility>

namespace colo::replication {

// Anonymous private memory, zero until written. Owned, movable.
class Mapping {
public:
    Mapping() = default;
    // MAP_NORESERVE: address space now, memory when touched.
    static Result<Mapping> reserve(std::size_t bytes);
    // Touches every page, so that later writes never fault.
    void populate();

    Mapping(Mapping&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    Mapping& operator=(Mapping&& other) noexcept
    {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }
    ~Mapping();

    std::uint8_t* data() { return data_; }
    const std::uint8_t* data() const { return data_; }
    std::size_t size() const { return size_; }

private:
    std::uint8_t* data_ = nullptr;
    std::size_t size_ = 0;
};

}  // namespace colo::replication
