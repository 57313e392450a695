// SPDX-License-Identifier: Apache-2.0
#include "core/log.h"

#include <gtest/gtest.h>

namespace colo {
namespace {

TEST(Log, AFileThatCannotBeOpenedIsAReasonNotAnException)
{
    const auto refused = log::init({"info", "/dev/null/colod.log", "web1"});
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().text.find("log.file: "), std::string::npos) << refused.error().text;
    EXPECT_NE(refused.error().text.find("/dev/null/colod.log"), std::string::npos) << refused.error().text;
    EXPECT_EQ(refused.error().text.find('\n'), std::string::npos) << "one line";
    EXPECT_TRUE(log::init({}));
}

}  // namespace
}  // namespace colo
