// SPDX-License-Identifier: Apache-2.0
#include "colo/handlers/refusals.h"
#include "handlers_fixture.h"

#include <fcntl.h>

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
    // With the request that names it: the store's numbers of monitors are its own business.
    void name_descriptor()
    {
        std::vector<qmp::Fd> fds;
        fds.emplace_back(::open("/dev/null", O_RDWR | O_CLOEXEC));
        monitor_.session().feed(R"({"execute": "getfd", "arguments": {"fdname": "x"}})", std::move(fds));
        EXPECT_EQ(monitor_.send("").size(), 1u);
    }
    void arrange(const Refusal& row)
    {
        const bool tls = row.what == Refused::tls || row.what == Refused::tls_incoming;
        if (tls) must("migrate-set-parameters", std::string(R"({"tls-creds": ")") + row.name + "\"}");
        const bool colo = row.situation == Situation::running_colo || row.situation == Situation::waiting_colo ||
                          row.situation == Situation::running_colo_pausing;
        if (colo) enable("x-colo");
        if (row.situation == Situation::running_colo_pausing) enable("pause-before-switchover");
        if (row.situation == Situation::running_xbzrle) enable("xbzrle");
        if (row.what == Refused::scheme_fd) name_descriptor();
        if (row.situation == Situation::waiting || row.situation == Situation::waiting_colo)
            service_.state = RunState::inmigrate;
        // Whether the daemon refuses is its own affair; that a client sees it as it was said is checked here.
        const bool daemon = row.situation == Situation::standby || row.situation == Situation::following ||
                            row.situation == Situation::stopped || row.situation == Situation::postmigrate;
        if (daemon) service_.outcome = refusal_error(row.what);
        if (row.situation == Situation::standby) service_.state = RunState::inmigrate;
        if (row.situation == Situation::stopped) service_.state = RunState::paused;
        if (row.situation == Situation::postmigrate) service_.state = RunState::postmigrate;
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
    if (!service_.outcome) return;  // the daemon was asked, of course
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
    for (int what = 0; what <= static_cast<int>(Refused::session_state); ++what) refusal(static_cast<Refused>(what));
}

// Goes to every bound of the list and one beyond.
TEST_F(RefusalListTest, LimitsAreWhatAClientSees)
{
    std::size_t row = 0;
    const auto beyond = [&](const std::string& command, const std::string& arguments) {
        ASSERT_LT(row, limits().size());
        const Limit& limit = limits()[row++];
        EXPECT_EQ(error(command, arguments), limit_text(limit)) << limit.item;
    };
    const auto bound = [&] { return limits()[row].bound; };
    const auto send_null = [&](const std::string& request) {
        std::vector<qmp::Fd> fds;
        fds.emplace_back(::open("/dev/null", O_RDWR | O_CLOEXEC));
        monitor_.session().feed(request, std::move(fds));
        const auto answers = monitor_.send("");
        EXPECT_EQ(answers.size(), 1u);
        const Value* failure = answers.front().find("error");
        return failure != nullptr ? *failure->find("desc")->as_string() : std::string();
    };
    const auto refused_fd = [&](const std::string& request) {
        const Limit& limit = limits()[row++];
        EXPECT_EQ(send_null(request), limit_text(limit)) << limit.item;
    };
    for (std::size_t i = 0; i < bound(); ++i) EXPECT_EQ(send_null(R"({"execute": "add-fd"})"), "");
    refused_fd(R"({"execute": "add-fd"})");
    must("remove-fd", R"({"fdset-id": 0})");
    refused_fd(R"({"execute": "getfd", "arguments": {"fdname": ")" + std::string(bound() + 1, 'n') + "\"}}");
    refused_fd(R"({"execute": "add-fd", "arguments": {"opaque": ")" + std::string(bound() + 1, 'n') + "\"}}");
    const auto remove = [](const std::string& id, const std::string& tag, const std::string& devices) {
        return R"({"job-id": ")" + id + R"(", "tag": ")" + tag + R"(", "devices": [)" + devices + "]}";
    };
    for (std::size_t i = 0; i < bound(); ++i) must("snapshot-delete", remove("j" + std::to_string(i), "t", ""));
    beyond("snapshot-delete", remove("more", "t", ""));
    must("job-dismiss", R"({"id": "j0"})");
    beyond("snapshot-delete", remove("more", std::string(bound() + 1, 't'), ""));
    beyond("snapshot-save",
           R"({"job-id": "more", "tag": "t", "devices": [], "vmstate": ")" + std::string(bound() + 1, 'v') + "\"}");
    std::string devices = "\"d\"";
    for (std::size_t i = 0; i < bound(); ++i) devices += ", \"d\"";
    beyond("snapshot-delete", remove("more", "t", devices));
    EXPECT_EQ(row, limits().size());
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
