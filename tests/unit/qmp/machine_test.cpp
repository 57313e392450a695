// SPDX-License-Identifier: Apache-2.0
// system_reset, system_powerdown, and the events RESET, POWERDOWN, SHUTDOWN, SUSPEND, WAKEUP.
#include "handlers_fixture.h"

namespace colo::test {
namespace {

using qmp::test::json;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST_F(HandlersTest, ButtonsAreAnsweredAndTheEffectIsAnEvent)
{
    must("system_reset");
    must("system_powerdown");
    EXPECT_THAT(service_.take_calls(), ElementsAre("system-reset", "system-powerdown"));
    EXPECT_THAT(events_.take(), IsEmpty());
    control_.reset(false, schema::ShutdownCause::host_qmp_system_reset);
    control_.power_button();
    control_.shutdown(true, schema::ShutdownCause::guest_shutdown);
    control_.reset(true, schema::ShutdownCause::guest_reset);
    EXPECT_THAT(events_.take(), ElementsAre("RESET false host-qmp-system-reset", "POWERDOWN",
                                            "SHUTDOWN true guest-shutdown", "RESET true guest-reset"));
}

TEST_F(HandlersTest, APanicIsTold)
{
    control_.panicked();
    EXPECT_THAT(events_.take(), ElementsAre("GUEST_PANICKED pause"));
    service_.state = schema::RunState::guest_panicked;
    EXPECT_EQ(result("query-status"), json(R"({"running": false, "singlestep": false, "status": "guest-panicked"})"));
    must("stop");
    EXPECT_THAT(service_.take_calls(), IsEmpty());
}

TEST_F(HandlersTest, ButtonsAreRefusedWithTheReason)
{
    service_.outcome = make_error(Errc::refused, "This side is the secondary");
    EXPECT_EQ(error("system_reset"), "This side is the secondary");
    EXPECT_EQ(error("system_powerdown"), "This side is the secondary");
    EXPECT_EQ(error("system_reset", R"({"x": 1})"), "Parameter 'x' is unexpected");
}

TEST_F(HandlersTest, AnAnswerOfAButtonMayComeLater)
{
    service_.hold = true;
    EXPECT_THAT(monitor_.send(R"({"execute": "system_reset", "id": 1})"), IsEmpty());
    service_.finish({});
    EXPECT_THAT(monitor_.send(""), ElementsAre(qmp::test::with_id(qmp::test::empty_answer(), 1)));
}

TEST_F(HandlersTest, SleepOfTheGuest)
{
    service_.state = schema::RunState::suspended;
    control_.suspended();
    EXPECT_EQ(result("query-status"), json(R"({"running": false, "singlestep": false, "status": "suspended"})"));
    control_.woken();
    EXPECT_THAT(events_.take(), ElementsAre("SUSPEND", "WAKEUP"));
}

// POWERDOWN, SUSPEND and WAKEUP have no member "data".
TEST_F(HandlersTest, EventsWithoutData)
{
    control_.power_button();
    control_.suspended();
    control_.woken();
    ASSERT_EQ(events_.entries.size(), 3u);
    for (const auto& entry : events_.entries) EXPECT_FALSE(entry.data) << entry.name;
}

}  // namespace
}  // namespace colo::test
