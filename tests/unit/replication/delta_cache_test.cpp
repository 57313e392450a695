// SPDX-License-Identifier: Apache-2.0
#include "replication/delta_cache.h"

#include "replication/chunk.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>

namespace colo::replication {
namespace {

Bytes page_of(std::uint64_t seed)
{
    Bytes page(kPageSize, 1);
    std::memcpy(page.data(), &seed, sizeof seed);
    return page;
}

bool holds(DeltaCache& cache, Gfn gfn, const Bytes& expected)
{
    const std::uint8_t* const base = cache.base(gfn);
    return base != nullptr && std::memcmp(base, expected.data(), kPageSize) == 0;
}

TEST(DeltaCache, ContentCountsOnlyOnceStaged)
{
    auto cache = *DeltaCache::make(10, 100 * kPageSize);
    EXPECT_EQ(cache.base(3), zero_page());
    cache.set(3, page_of(1).data());
    EXPECT_EQ(cache.base(3), zero_page());
    cache.revert();
    EXPECT_EQ(cache.base(3), zero_page());
    cache.set(3, page_of(1).data());
    cache.advance();
    EXPECT_TRUE(holds(cache, 3, page_of(1)));
    cache.set(3, page_of(2).data());
    cache.set(3, page_of(3).data());   // emitted again in the same epoch
    EXPECT_TRUE(holds(cache, 3, page_of(1)));
    cache.advance();
    EXPECT_TRUE(holds(cache, 3, page_of(3)));
    cache.set(3, page_of(4).data());
    cache.set_unchanged(3);
    cache.advance();
    EXPECT_TRUE(holds(cache, 3, page_of(3)));
    cache.set_zero(3);
    cache.advance();
    EXPECT_EQ(cache.base(3), zero_page());
    EXPECT_EQ(cache.cached_pages(), 0u);
    cache.forget_all();
    EXPECT_EQ(cache.base(3), nullptr);
}

TEST(DeltaCache, AFullCacheKeepsTheWorkingSetOfItsSize)
{
    constexpr Gfn kPages = 32;
    auto cache = *DeltaCache::make(1000, kPages * kPageSize);
    for (std::uint64_t epoch = 1; epoch <= 4; ++epoch) {
        for (Gfn g = 0; g < kPages; ++g) cache.set(g, page_of(epoch * 1000 + g).data());
        cache.advance();
        for (Gfn g = 0; g < kPages; ++g) EXPECT_TRUE(holds(cache, g, page_of(epoch * 1000 + g))) << epoch << " " << g;
    }
    EXPECT_EQ(cache.cached_pages(), kPages);
}

TEST(DeltaCache, OldContentMakesPlace)
{
    auto cache = *DeltaCache::make(1000, 8 * kPageSize);
    for (Gfn g = 0; g < 8; ++g) cache.set(g, page_of(g).data());
    cache.advance();
    for (int round = 0; round < 4; ++round) {   // new frames come, the old ones are no longer asked for
        for (Gfn g = 100; g < 104; ++g) cache.set(g, page_of(g).data());
        cache.advance();
    }
    for (Gfn g = 100; g < 104; ++g) EXPECT_TRUE(holds(cache, g, page_of(g)));
}

// Whatever it forgets, it never answers with anything but the content at the last STAGED epoch.
TEST(DeltaCache, NeverWrongOnlyForgetful)
{
    std::mt19937_64 random(17);
    for (int run = 0; run < 60; ++run) {
        constexpr Gfn kFrames = 40;
        auto cache = *DeltaCache::make(kFrames, (random() % 60) * kPageSize);
        std::map<Gfn, Bytes> staged, next;
        std::uint64_t known = 0;
        for (int step = 0; step < 400; ++step) {
            const Gfn gfn = random() % kFrames;
            switch (random() % 8) {
            case 0: cache.set_zero(gfn), next[gfn] = Bytes(kPageSize, 0); break;
            case 1: cache.set_unchanged(gfn), next.erase(gfn); break;
            case 2:
                if (random() % 6 != 0) break;
                cache.advance();
                for (auto& [g, page] : next) staged[g] = page;
                next.clear();
                break;
            case 3:
                if (random() % 12 == 0) cache.revert(), next.clear();
                break;
            default: {
                const Bytes page = page_of(random());
                cache.set(gfn, page.data());
                next[gfn] = page;
            }
            }
            const Gfn asked = random() % kFrames;
            const std::uint8_t* const base = cache.base(asked);
            if (base == nullptr) continue;
            ++known;
            const auto it = staged.find(asked);
            ASSERT_EQ(std::memcmp(base, it == staged.end() ? zero_page() : it->second.data(), kPageSize), 0);
        }
        EXPECT_GT(known, 0u);
    }
}

// set_unchanged is only ever called where the base is known; with a stolen base it cannot be.
TEST(DeltaCache, WithoutRoomTheBaseGivesWay)
{
    auto cache = *DeltaCache::make(10, kPageSize);
    cache.set(1, page_of(1).data());
    cache.advance();
    cache.set(1, page_of(2).data());
    EXPECT_EQ(cache.base(1), nullptr);   // replaced in place
    cache.advance();
    EXPECT_TRUE(holds(cache, 1, page_of(2)));
    cache.set(1, page_of(3).data());
    cache.revert();                      // the only copy of the base is gone
    EXPECT_EQ(cache.base(1), nullptr);
}

}  // namespace
}  // namespace colo::replication
