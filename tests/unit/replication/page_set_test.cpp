// SPDX-License-Identifier: Apache-2.0
#include "replication/page_set.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace colo::replication {
namespace {

TEST(PageSet, AgreesWithAnOrdinarySet)
{
    std::mt19937_64 random(7);
    for (int run = 0; run < 200; ++run) {
        PageSet set(random() % 300), other;
        std::set<Gfn> model, other_model;
        for (int step = 0; step < 60; ++step) {
            const Gfn gfn = random() % 400;
            switch (random() % 7) {
            case 0: set.add(gfn), model.insert(gfn); break;
            case 1: set.remove(gfn), model.erase(gfn); break;
            case 2: other.add(gfn), other_model.insert(gfn); break;
            case 3: {
                const std::uint64_t n = random() % 150;
                set.add_range(gfn, n);
                for (Gfn g = gfn; g < gfn + n; ++g) model.insert(g);
                break;
            }
            case 4: set.merge(other), model.insert(other_model.begin(), other_model.end()); break;
            case 5:
                set.subtract(other);
                for (const Gfn g : other_model) model.erase(g);
                break;
            default:
                if (random() % 8 != 0) break;
                set.intersect(other);
                std::erase_if(model, [&](Gfn g) { return other_model.count(g) == 0; });
            }
            ASSERT_EQ(set.to_vector(), std::vector<Gfn>(model.begin(), model.end()));
            ASSERT_EQ(set.count(), model.size());
            ASSERT_EQ(set.empty(), model.empty());
            const Gfn from = random() % 500;
            const auto expected = model.lower_bound(from);
            const auto next = set.next(from);
            ASSERT_EQ(next.has_value(), expected != model.end());
            if (next) {
                ASSERT_EQ(*next, *expected);
            }
            ASSERT_EQ(set.contains(from), model.count(from) == 1);
        }
    }
}

TEST(PageSet, EqualityIgnoresCapacity)
{
    PageSet small(10), large(10'000);
    small.add(3);
    large.add(3);
    EXPECT_TRUE(small == large);
    large.add(9'999);
    EXPECT_FALSE(small == large);
    large.clear();
    EXPECT_TRUE(large == PageSet());
}

TEST(PageSet, FindsTheFirstMemberThatAnotherSetLacks)
{
    PageSet set(100), other(64);
    set.add(3);
    other.add_range(0, 10);
    EXPECT_EQ(set.first_outside(other), std::nullopt);
    set.add(99);
    EXPECT_EQ(set.first_outside(other), 99u);
    set.add(12);
    EXPECT_EQ(set.first_outside(other), 12u);
}

}  // namespace
}  // namespace colo::replication
