// SPDX-License-Identifier: Apache-2.0
#include "replication/dirty_ledger.h"

#include <gtest/gtest.h>

namespace colo::replication {
namespace {

PageSet set_of(std::initializer_list<Gfn> gfns)
{
    PageSet set;
    for (const Gfn g : gfns) set.add(g);
    return set;
}

TEST(DirtyLedger, StagedDropsOnlyItsOwnSet)
{
    DirtyLedger ledger;
    ledger.open(1);
    ledger.fetched(set_of({1, 2}));
    ledger.copied_all();
    ledger.open(2);
    ledger.fetched(set_of({2, 3}));   // after the cut of 1, before its STAGED
    ledger.staged(1);
    EXPECT_EQ(ledger.owned(), set_of({2, 3}));
    EXPECT_EQ(ledger.backlog(), set_of({2, 3}));
}

TEST(DirtyLedger, Inv08_AbortReturnsEveryBit)
{
    DirtyLedger ledger;
    ledger.open(1);
    ledger.fetched(set_of({1, 2}));
    ledger.copied(1);
    ledger.aborted(1);
    EXPECT_EQ(ledger.owned(), set_of({1, 2}));
    ledger.open(2);
    EXPECT_EQ(ledger.backlog(), set_of({1, 2}));   // also the one that had been copied
    ledger.fetched(set_of({3}));
    ledger.aborted(2);
    ledger.aborted(2);                             // a second time changes nothing
    ledger.open(3);
    EXPECT_EQ(ledger.owned(), set_of({1, 2, 3}));
    ledger.staged(3);
    EXPECT_TRUE(ledger.owned().empty());
}

TEST(DirtyLedger, AnAbortUnderAYoungerEpochGoesToIt)
{
    DirtyLedger ledger;
    ledger.open(1);
    ledger.fetched(set_of({1}));
    ledger.copied_all();
    ledger.open(2);
    ledger.fetched(set_of({2}));
    ledger.aborted(1);
    EXPECT_EQ(ledger.backlog(), set_of({1, 2}));
    EXPECT_EQ(ledger.owned(), set_of({1, 2}));
}

TEST(DirtyLedger, AFrameFetchedAgainIsCopiedAgain)
{
    DirtyLedger ledger;
    ledger.open(1);
    ledger.fetched(set_of({1}));
    ledger.copied(1);
    EXPECT_TRUE(ledger.backlog().empty());
    ledger.fetched(set_of({1}));
    EXPECT_EQ(ledger.backlog(), set_of({1}));
}

}  // namespace
}  // namespace colo::replication
