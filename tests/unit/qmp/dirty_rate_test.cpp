// SPDX-License-Identifier: Apache-2.0
// calc-dirty-rate and query-dirty-rate: order of the checks, texts, which members are there when.
#include "handlers_fixture.h"

namespace colo::test {
namespace {

using qmp::test::json;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr const char* kMeasuring = "the dirty rate is already being measured.";

TEST_F(HandlersTest, DirtyRateBeforeTheFirstMeasurement)
{
    EXPECT_EQ(result("query-dirty-rate"), json(R"({"status": "unstarted", "start-time": 0, "calc-time": 0,
                                                   "sample-pages": 0, "mode": "page-sampling"})"));
}

TEST_F(HandlersTest, DirtyRateChecksInOrder)
{
    // All that can be wrong at once; the first check wins.
    const char* wrong = R"({"calc-time": 61, "sample-pages": 1, "mode": "dirty-ring"})";
    service_.rate.status = schema::DirtyRateStatus::measuring;
    EXPECT_EQ(error("calc-dirty-rate", wrong), kMeasuring);
    service_.rate.status = schema::DirtyRateStatus::measured;
    EXPECT_EQ(error("calc-dirty-rate", wrong), "calc-time is out of range[1, 60].");
    EXPECT_EQ(error("calc-dirty-rate", R"({"calc-time": 60, "sample-pages": 1, "mode": "dirty-ring"})"),
              "either sample-pages or dirty-ring can be specified.");
    for (const char* samples : {"127", "16385", "-1", "0"})
        EXPECT_EQ(error("calc-dirty-rate", std::string(R"({"calc-time": 1, "sample-pages": )") + samples + "}"),
                  "sample-pages is out of range[128, 16384].")
            << samples;
    EXPECT_EQ(error("calc-dirty-rate", R"({"calc-time": 1, "sample-pages": 127, "mode": "dirty-bitmap"})"),
              "sample-pages is out of range[128, 16384].");
    EXPECT_EQ(error("calc-dirty-rate", R"({"calc-time": 1, "mode": "dirty-ring"})"),
              "mode dirty-ring is not enabled, use other method instead.");
    for (const char* time : {"0", "-1", "61", "9223372036854775807"})
        EXPECT_EQ(error("calc-dirty-rate", std::string(R"({"calc-time": )") + time + "}"),
                  "calc-time is out of range[1, 60].")
            << time;
    EXPECT_THAT(service_.take_calls(), IsEmpty());
    EXPECT_EQ(error("calc-dirty-rate"), "Parameter 'calc-time' is missing");
    EXPECT_EQ(error("calc-dirty-rate", R"({"calc-time": 1.0})"),
              "Invalid parameter type for 'calc-time', expected: integer");
    EXPECT_EQ(error("calc-dirty-rate", R"({"calc-time": 1, "mode": "x"})"),
              "Parameter 'mode' does not accept value 'x'");
    service_.outcome = make_error(Errc::refused, "ask the primary");
    EXPECT_EQ(error("calc-dirty-rate", R"({"calc-time": 1})"), "ask the primary");
}

TEST_F(HandlersTest, DirtyRateIsMeasuringFromTheAnswerOn)
{
    must("calc-dirty-rate", R"({"calc-time": 60})");
    EXPECT_EQ(result("query-dirty-rate"), json(R"({"status": "measuring", "start-time": 0, "calc-time": 60,
                                                   "sample-pages": 512, "mode": "page-sampling"})"));
    EXPECT_EQ(error("calc-dirty-rate", R"({"calc-time": 1})"), kMeasuring);
    service_.rate.status = schema::DirtyRateStatus::measured;
    service_.rate.dirty_rate = 17;
    EXPECT_EQ(result("query-dirty-rate"),
              json(R"({"dirty-rate": 17, "status": "measured", "start-time": 0, "calc-time": 60,
                                                   "sample-pages": 512, "mode": "page-sampling"})"));
    must("calc-dirty-rate", R"({"calc-time": 1, "sample-pages": 16384, "mode": "dirty-bitmap"})");
    EXPECT_EQ(*result("query-dirty-rate").find("status"), schema::Value("measuring"));
    EXPECT_EQ(result("query-dirty-rate").find("dirty-rate"), nullptr);
    service_.rate.status = schema::DirtyRateStatus::measured;
    service_.dirty_ring = true;
    must("calc-dirty-rate", R"({"calc-time": 1, "mode": "dirty-ring"})");
    EXPECT_THAT(service_.take_calls(),
                ElementsAre("calc-dirty-rate page-sampling 60 512", "calc-dirty-rate dirty-bitmap 1 16384",
                            "calc-dirty-rate dirty-ring 1 512"));
}

}  // namespace
}  // namespace colo::test
