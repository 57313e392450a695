// SPDX-License-Identifier: Apache-2.0
// What the operator reads: a state says why, and a remedy can be typed as it stands.
#include "node_pair.h"

#include <gmock/gmock.h>

namespace colo::test {
namespace {

using ::testing::HasSubstr;

constexpr Duration kMs{1000};

TEST(NodeTexts, ASideThatStartsSaysWhatItIsAbout)
{
    Desk desk;
    desk.a.hold("boot");
    desk.b.hold("standby");
    desk.start();
    EXPECT_EQ(desk.a.status().protection, Protection::idle);
    EXPECT_THAT(desk.a.status().reason, HasSubstr("is being booted"));
    EXPECT_EQ(desk.b.status().protection, Protection::idle);
    EXPECT_THAT(desk.b.status().reason, HasSubstr("is being prepared"));
    EXPECT_EQ(desk.a.count("now waiting"), 1) << "the log says it, too";
    EXPECT_EQ(desk.b.count("now waiting"), 1);
    desk.a.release("boot");
    desk.b.release("standby");
    EXPECT_EQ(desk.a.status().protection, Protection::unprotected);
    EXPECT_EQ(desk.b.status().protection, Protection::standby);
}

TEST(NodeTexts, ARemedyNamesTheDomain)
{
    Desk desk;
    desk.protect();
    const PersistentState left = desk.a.stored;
    desk.a.restart(small_config());
    desk.a.node->start(left, StartIntent::primary, desk.now);
    desk.run();
    EXPECT_THAT(desk.a.status().reason, HasSubstr("`coloctl failover desk --accept-data-loss`"));

    PersistentState outdated = left;
    outdated.outdated = true;
    outdated.reason = "overtaken";
    desk.a.restart(small_config());
    desk.a.node->start(outdated, StartIntent::primary, desk.now);
    desk.run();
    const auto refused = desk.a.node->lost_heartbeat(desk.now);
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().text, HasSubstr("`coloctl failover desk --accept-data-loss`"));
}

TEST(NodeTexts, TheOperatorWhoDecidesIsToldWhatToType)
{
    NodeConfig config = small_config();
    config.arbiter = ArbiterKind::manual;
    Desk desk(config);
    desk.protect();
    desk.cut_link();
    desk.advance(5000 * kMs);
    ASSERT_EQ(desk.b.status().protection, Protection::deciding);
    EXPECT_THAT(desk.b.status().reason, HasSubstr("`coloctl failover desk`"));
}

}  // namespace
}  // namespace colo::test
