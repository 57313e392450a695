// SPDX-License-Identifier: Apache-2.0
// One state has one name: in the log, in a refusal and in the status.
#include "colo/daemon.h"
#include "schema/codec.h"

#include <gtest/gtest.h>

namespace colo::test {
namespace {

TEST(StateNames, TheNodesAreThoseOfTheReport)
{
    for (const Protection protection :
         {Protection::idle, Protection::unprotected, Protection::connecting, Protection::syncing, Protection::in_sync,
          Protection::deciding, Protection::outdated, Protection::abdicated, Protection::standby, Protection::failed}) {
        NodeStatus status;
        status.protection = protection;
        EXPECT_EQ(to_string(protection), schema::to_string(state_of(status, false)));
    }
}

// Two that answer each other move the clients to and fro; one that is not alone may be the one that was overtaken.
TEST(AddressClash, OnlyWhoIsAloneAnswers)
{
    for (const Protection alone : {Protection::unprotected, Protection::connecting, Protection::syncing}) {
        EXPECT_TRUE(address_clash(alone, 0).answer);
        EXPECT_EQ(address_clash(alone, 3).text, "our guest's address is used outside on NIC 3: an old primary still talks, or another machine has it");
    }
    for (const Protection unsure : {Protection::in_sync, Protection::deciding, Protection::outdated, Protection::abdicated}) {
        EXPECT_FALSE(address_clash(unsure, 0).answer);
        EXPECT_EQ(address_clash(unsure, 0).text, "our guest's address is used outside on NIC 0: the other side took over, or another machine has it");
    }
}

}  // namespace
}  // namespace colo::test
