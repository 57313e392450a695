// SPDX-License-Identifier: Apache-2.0
#include "colo/stopped_as.h"

#include <gtest/gtest.h>

namespace colo {
namespace {

using schema::RunState;

TEST(StoppedAs, ASaveShowsUntilItsEnd)
{
    StoppedAs stopped;
    EXPECT_EQ(stopped.value(), RunState::paused);
    stopped.begin_save(true);
    EXPECT_EQ(stopped.value(), RunState::save_vm);
    stopped.resumed();
    stopped.end_save();
    EXPECT_EQ(stopped.value(), RunState::paused);
}

TEST(StoppedAs, OverlappingSavesShowUntilTheLastOneEnds)
{
    for (const bool still_running : {true, false}) {  // when the second one is asked for, the first may have begun
        StoppedAs stopped;
        stopped.begin_save(true);
        stopped.begin_save(still_running);
        stopped.resumed();
        stopped.end_save();
        EXPECT_EQ(stopped.value(), RunState::save_vm) << "the second one stops the guest now";
        stopped.resumed();
        stopped.end_save();
        EXPECT_EQ(stopped.value(), RunState::paused);
    }
}

TEST(StoppedAs, AStopMeanwhileHasTheLastWord)
{
    StoppedAs stopped;
    stopped.begin_save(true);
    stopped.begin_save(true);
    stopped.stop(RunState::finish_migrate);
    EXPECT_EQ(stopped.value(), RunState::finish_migrate);
    stopped.end_save();
    stopped.end_save();
    EXPECT_EQ(stopped.value(), RunState::finish_migrate);
}

TEST(StoppedAs, SavingAStoppedGuestChangesNothing)
{
    StoppedAs stopped;
    stopped.stop(RunState::postmigrate);
    stopped.begin_save(false);
    EXPECT_EQ(stopped.value(), RunState::postmigrate);
    stopped.end_save();
    EXPECT_EQ(stopped.value(), RunState::postmigrate);
}

}  // namespace
}  // namespace colo
