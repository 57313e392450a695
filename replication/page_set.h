// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.h"

#include <bit>
#include <cstddef>
#include <optional>
#include <vector>

namespace colo::replication {

// A set of guest frames as a dense bitmap over [0, limit). 128 KiB cover the 0xff000 gfns of a small Xen HVM domain.
// Not thread-safe. Adding a gfn beyond the limit grows the set: the gfn space of a guest can grow.
class PageSet {
public:
    PageSet() = default;
    explicit PageSet(Gfn limit) : words_((limit + 63) / 64) {}

    void add(Gfn gfn)
    {
        if (gfn / 64 >= words_.size()) words_.resize(gfn / 64 + 1);
        words_[gfn / 64] |= std::uint64_t{1} << (gfn % 64);
    }
    void add_range(Gfn first, std::uint64_t count)
    {
        if (count == 0) return;
        const Gfn last = first + count - 1;
        add(last);   // grows
        for (std::size_t i = first / 64; i <= last / 64; ++i) {
            const Gfn from = i == first / 64 ? first % 64 : 0;
            const Gfn to = i == last / 64 ? last % 64 : 63;
            words_[i] |= ~std::uint64_t{0} << from & ~std::uint64_t{0} >> (63 - to);
        }
    }
    void remove(Gfn gfn)
    {
        if (gfn / 64 < words_.size()) words_[gfn / 64] &= ~(std::uint64_t{1} << (gfn % 64));
    }
    bool contains(Gfn gfn) const
    {
        return gfn / 64 < words_.size() && (words_[gfn / 64] >> (gfn % 64) & 1) != 0;
    }
    void merge(const PageSet& other)
    {
        if (other.words_.size() > words_.size()) words_.resize(other.words_.size());
        for (std::size_t i = 0; i < other.words_.size(); ++i) words_[i] |= other.words_[i];
    }
    void subtract(const PageSet& other)
    {
        const std::size_t n = words_.size() < other.words_.size() ? words_.size() : other.words_.size();
        for (std::size_t i = 0; i < n; ++i) words_[i] &= ~other.words_[i];
    }
    void intersect(const PageSet& other)
    {
        for (std::size_t i = 0; i < words_.size(); ++i) words_[i] &= i < other.words_.size() ? other.words_[i] : 0;
    }
    void clear() { words_.assign(words_.size(), 0); }
    bool empty() const
    {
        for (const std::uint64_t w : words_)
            if (w != 0) return false;
        return true;
    }
    std::size_t count() const
    {
        std::size_t n = 0;
        for (const std::uint64_t w : words_) n += static_cast<std::size_t>(std::popcount(w));
        return n;
    }
    // Calls visit(gfn) in rising order.
    template <class Visit>
    void for_each(Visit&& visit) const
    {
        for (std::size_t i = 0; i < words_.size(); ++i)
            for (std::uint64_t w = words_[i]; w != 0; w &= w - 1)
                visit(static_cast<Gfn>(i * 64 + static_cast<std::size_t>(std::countr_zero(w))));
    }
    // The smallest member that is not below `from`.
    std::optional<Gfn> next(Gfn from) const
    {
        for (std::size_t i = from / 64; i < words_.size(); ++i) {
            std::uint64_t w = words_[i];
            if (i == from / 64) w &= ~std::uint64_t{0} << (from % 64);
            if (w != 0) return static_cast<Gfn>(i * 64 + static_cast<std::size_t>(std::countr_zero(w)));
        }
        return std::nullopt;
    }
    // The smallest member that `other` does not have.
    std::optional<Gfn> first_outside(const PageSet& other) const
    {
        for (std::size_t i = 0; i < words_.size(); ++i)
            if (const std::uint64_t w = words_[i] & ~(i < other.words_.size() ? other.words_[i] : 0); w != 0)
                return static_cast<Gfn>(i * 64 + static_cast<std::size_t>(std::countr_zero(w)));
        return std::nullopt;
    }
    std::vector<Gfn> to_vector() const
    {
        std::vector<Gfn> v;
        for_each([&](Gfn g) { v.push_back(g); });
        return v;
    }
    // Equal as sets; trailing empty words do not count.
    friend bool operator==(const PageSet& a, const PageSet& b)
    {
        const auto& small = a.words_.size() < b.words_.size() ? a.words_ : b.words_;
        const auto& large = a.words_.size() < b.words_.size() ? b.words_ : a.words_;
        for (std::size_t i = 0; i < large.size(); ++i)
            if (large[i] != (i < small.size() ? small[i] : 0)) return false;
        return true;
    }

private:
    std::vector<std::uint64_t> words_;
};

}  // namespace colo::replication
