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

}  // namespace
}  // namespace colo::test
