// SPDX-License-Identifier: Apache-2.0
#include "colo/handlers/refusals.h"
#include "handlers_fixture.h"

#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>

namespace colo::test {
namespace {

using schema::RunState;
using schema::Value;

// Makes the request of one row in the situation of the row.
class RefusalsTest : public HandlersTest, public ::testing::WithParamInterface<std::size_t> {
protected:
    void arrange(const Refusal& row)
    {
        const bool tls = row.what == Refused::tls || row.what == Refused::tls_incoming;
        if (tls) must("migrate-set-parameters", std::string(R"({"tls-creds": ")") + row.name + "\"}");
        if (row.situation == Situation::running_colo || row.situation == Situation::waiting_colo) enable("x-colo");
        if (row.situation == Situation::waiting || row.situation == Situation::waiting_colo)
            service_.state = RunState::inmigrate;
        if (row.situation == Situation::postcopy_active || row.situation == Situation::postcopy_paused) {
            for (const auto phase : {TransferPhase::setup, TransferPhase::active, TransferPhase::postcopy_active}) {
                control_.outgoing(phase, {});
                control_.incoming(phase, {});
            }
            if (row.situation == Situation::postcopy_paused) {
                control_.outgoing(TransferPhase::postcopy_paused, {});
                control_.incoming(TransferPhase::postcopy_paused, {});
            }
        }
    }
};

TEST_P(RefusalsTest, IsWhatAClientSees)
{
    const Refusal& row = refusals()[GetParam()];
    const std::string text = refusal_text(row, row.name);
    arrange(row);
    const Value migration = result("query-migrate");
    const Value capabilities = result("query-migrate-capabilities");
    const bool refused_at_once = row.shown == Shown::answer || row.shown == Shown::answer_and_status;
    if (refused_at_once)
        EXPECT_EQ(error(row.command, row.arguments), text);
    else
        must(row.command, row.arguments);
    if (row.shown == Shown::status || row.shown == Shown::answer_and_status) {
        const Value info = result("query-migrate");
        EXPECT_EQ(*info.find("status"), Value("failed"));
        EXPECT_EQ(*info.find("error-desc"), Value(text));
    } else {
        EXPECT_EQ(result("query-migrate"), migration);
    }
    if (row.shown == Shown::job) {
        EXPECT_EQ(*result("query-jobs").as_array()->front().find("error"), Value(text));
    }
    EXPECT_EQ(result("query-migrate-capabilities"), capabilities);
    for (const std::string& call : service_.calls) EXPECT_EQ(call, "stop restore-vm");  // of a load
}

INSTANTIATE_TEST_SUITE_P(EveryRow, RefusalsTest, ::testing::Range(std::size_t{0}, refusals().size()));

using RefusalListTest = HandlersTest;

TEST_F(RefusalListTest, EveryCapabilityWorksOrIsListed)
{
    for (std::size_t i = 0; i < schema::kMigrationCapabilityCount; ++i) {
        const auto capability = static_cast<schema::MigrationCapability>(i);
        const bool on = control_.settings().set_capabilities({{capability, true}}, {}).has_value();
        EXPECT_EQ(on, refusal(capability) == nullptr) << to_string(capability);
        if (on) enable(std::string(to_string(capability)), false);
    }
}

TEST_F(RefusalListTest, EveryKindHasARowWithAReason)
{
    std::set<std::string> items;
    for (const Refusal& row : refusals()) {
        EXPECT_TRUE(items.insert(row.item).second) << row.item;
        EXPECT_NE(std::string_view(row.reason), "");
        EXPECT_EQ(refusal_text(row, row.name).find('%'), std::string::npos);
    }
    for (int what = 0; what <= static_cast<int>(Refused::disks); ++what) refusal(static_cast<Refused>(what));
}

// COLO_UPDATE_DOCS=1 writes the page anew.
TEST_F(RefusalListTest, PageIsWhatTheProgramDoes)
{
    const std::string path = COLO_SOURCE_DIR "/docs/refusals.md";
    if (std::getenv("COLO_UPDATE_DOCS") != nullptr) std::ofstream(path) << refusals_page();
    std::ifstream file(path);
    std::stringstream text;
    text << file.rdbuf();
    EXPECT_EQ(text.str(), refusals_page()) << "run qmp_handlers_test with COLO_UPDATE_DOCS=1";
}

}  // namespace
}  // namespace colo::test
