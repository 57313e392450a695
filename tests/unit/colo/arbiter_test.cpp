// SPDX-License-Identifier: Apache-2.0
#include "colo/arbiter.h"

#include "core/clock.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

namespace colo {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using State = Observation::State;

constexpr const char* kUuid = "01234567-89ab-cdef-0123-456789abcdef";
const std::string kHostA(32, 'a'), kHostB(32, 'b');

Deadline soon()
{
    return now() + Duration{20'000'000};
}

class ArbiterTest : public testing::Test {
protected:
    ArbiterTest()
    {
        std::string pattern = testing::TempDir() + "colo-arbiter-XXXXXX";
        path_ = mkdtemp(pattern.data());
    }
    ~ArbiterTest() override { fs::remove_all(path_); }
    ArbiterSettings settings(ArbiterKind kind, const std::string& host = kHostA) const
    {
        ArbiterSettings s;
        s.kind = kind;
        s.directory = kind == ArbiterKind::lock ? path_ : "";
        s.domain_name = "vm1";
        s.domain_uuid = kUuid;
        s.host_id = host;
        s.timeout = Duration{20'000'000};
        return s;
    }
    std::unique_ptr<Arbiter> lock(const std::string& host) const { return make(settings(ArbiterKind::lock, host)); }
    std::unique_ptr<Arbiter> command(const std::string& text, Duration timeout = Duration{20'000'000}) const
    {
        ArbiterSettings s = settings(ArbiterKind::command);
        s.command = text;
        s.timeout = timeout;
        return make(s);
    }
    static std::unique_ptr<Arbiter> make(const ArbiterSettings& s)
    {
        auto arbiter = make_arbiter(s);
        EXPECT_TRUE(arbiter) << arbiter.error().text;
        return std::move(*arbiter);
    }
    std::string lock_path(Generation g) const { return path_ + "/" + kUuid + "." + std::to_string(g); }
    static std::string read(const std::string& path)
    {
        std::ifstream file(path, std::ios::binary);
        return {std::istreambuf_iterator<char>(file), {}};
    }
    std::string path_;
};

using LockArbiter = ArbiterTest;
using CommandArbiter = ArbiterTest;

TEST_F(LockArbiter, Inv17_FirstIsGrantedSecondIsRefusedAndTheFirstMayAskAgain)
{
    const auto a = lock(kHostA), b = lock(kHostB);
    EXPECT_EQ(a->observe(5, soon()).state, State::free);
    EXPECT_EQ(a->request({5, Role::secondary, ""}, soon()).outcome, GrantOutcome::granted);
    const GrantResult refused = b->request({5, Role::primary, ""}, soon());
    EXPECT_EQ(refused.outcome, GrantOutcome::refused);
    EXPECT_THAT(refused.reason, HasSubstr(kHostA));
    EXPECT_EQ(a->request({5, Role::secondary, ""}, soon()).outcome, GrantOutcome::granted);
    EXPECT_EQ(lock(kHostA)->request({5, Role::secondary, ""}, soon()).outcome, GrantOutcome::granted)
        << "after a restart too";
    EXPECT_EQ(a->observe(5, soon()).state, State::ours);
    EXPECT_EQ(b->observe(5, soon()).state, State::theirs);
    EXPECT_EQ(b->request({6, Role::primary, ""}, soon()).outcome, GrantOutcome::granted)
        << "another generation is another question";
    for (const fs::directory_entry& entry : fs::directory_iterator(path_))
        EXPECT_THAT(entry.path().filename().string(), testing::Not(HasSubstr(".tmp")));
}

TEST_F(LockArbiter, AStaleLockIsFoundBeforeTheFailoverNeedsIt)
{
    const auto a = lock(kHostA), b = lock(kHostB);
    EXPECT_TRUE(failover_possible(*a, 5, soon()));
    ASSERT_EQ(b->request({5, Role::secondary, ""}, soon()).outcome, GrantOutcome::granted);
    for (Arbiter* each : {a.get(), b.get()}) {
        const auto possible = failover_possible(*each, 5, soon());
        ASSERT_FALSE(possible);
        EXPECT_THAT(possible.error().text, testing::AllOf(HasSubstr("generation 5"), HasSubstr("remove")));
    }
    EXPECT_TRUE(failover_possible(*a, 6, soon()));
    fs::remove_all(path_);
    EXPECT_TRUE(failover_possible(*a, 5, soon())) << "not known is not a refusal";
}

TEST_F(CommandArbiter, ADecisionThatHasFallenDoesNotShoot)
{
    const std::string mark = path_ + "/shot";
    const auto arbiter = command("touch " + mark);
    GrantRequest request{5, Role::secondary, ""};
    request.wanted = [] { return false; };
    EXPECT_EQ(arbiter->request(request, soon()).outcome, GrantOutcome::unknown);
    EXPECT_FALSE(fs::exists(mark));
    request.wanted = [] { return true; };
    EXPECT_EQ(arbiter->request(request, soon()).outcome, GrantOutcome::granted);
    EXPECT_TRUE(fs::exists(mark));
}

TEST_F(LockArbiter, DomainsDoNotMeet)
{
    ArbiterSettings other = settings(ArbiterKind::lock, kHostB);
    other.domain_uuid = "11111111-2222-3333-4444-555555555555";
    EXPECT_EQ(lock(kHostA)->request({5, Role::secondary, ""}, soon()).outcome, GrantOutcome::granted);
    EXPECT_EQ(make(other)->request({5, Role::primary, ""}, soon()).outcome, GrantOutcome::granted);
}

// Two processes race for each of 1000 generations.
TEST_F(LockArbiter, Inv17_RaceOfTwoProcessesHasExactlyOneWinnerEachTime)
{
    constexpr Generation kGenerations = 1000;
    const auto race = [&](const std::string& host, const std::string& result) {
        const auto arbiter = lock(host);
        while (!fs::exists(path_ + "/start")) std::this_thread::yield();
        std::ofstream out(result);
        for (Generation g = 1; g <= kGenerations; ++g)
            out << static_cast<int>(arbiter->request({g, Role::primary, ""}, soon()).outcome) << "\n";
        out.close();
        _exit(out.good() ? 0 : 1);
    };
    std::vector<pid_t> children;
    for (const std::string& host : {kHostA, kHostB}) {
        const pid_t child = fork();
        ASSERT_GE(child, 0);
        if (child == 0) race(host, path_ + "/result-" + host);
        children.push_back(child);
    }
    std::ofstream(path_ + "/start") << "go";
    for (const pid_t child : children) {
        int status = 0;
        ASSERT_EQ(waitpid(child, &status, 0), child);
        ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    std::ifstream a(path_ + "/result-" + kHostA), b(path_ + "/result-" + kHostB);
    const auto judge = lock(kHostA);
    for (Generation g = 1; g <= kGenerations; ++g) {
        int from_a = -1, from_b = -1;
        ASSERT_TRUE(a >> from_a && b >> from_b);
        const bool a_won = from_a == static_cast<int>(GrantOutcome::granted),
                   b_won = from_b == static_cast<int>(GrantOutcome::granted);
        ASSERT_NE(a_won, b_won) << "generation " << g;
        ASSERT_EQ(a_won ? from_b : from_a, static_cast<int>(GrantOutcome::refused)) << "generation " << g;
        ASSERT_EQ(judge->observe(g, soon()).state, a_won ? State::ours : State::theirs);
    }
}

TEST_F(LockArbiter, DirectoryThatIsAwayIsUnknownNotRefused)
{
    const auto a = lock(kHostA);
    fs::remove_all(path_);
    const GrantResult result = a->request({5, Role::secondary, ""}, soon());
    EXPECT_EQ(result.outcome, GrantOutcome::unknown);
    EXPECT_THAT(result.reason, HasSubstr(path_));
    EXPECT_EQ(a->observe(5, soon()).state, State::unknown);
    EXPECT_FALSE(a->settings_digest(soon()));
    fs::create_directory(path_);
    EXPECT_EQ(a->request({5, Role::secondary, ""}, soon()).outcome, GrantOutcome::granted);
}

TEST_F(LockArbiter, DamagedLockFileIsUnknown)
{
    const auto a = lock(kHostA);
    ASSERT_EQ(a->request({5, Role::secondary, ""}, soon()).outcome, GrantOutcome::granted);
    const std::string good = read(lock_path(5));
    for (const std::string& bad :
         {std::string(), good.substr(0, good.size() / 2), std::string(10'000, 'x'), good + "x"}) {
        std::ofstream(lock_path(5)) << bad;
        EXPECT_EQ(a->request({5, Role::secondary, ""}, soon()).outcome, GrantOutcome::unknown);
        EXPECT_EQ(a->observe(5, soon()).state, State::unknown);
    }
    std::ofstream(lock_path(6)) << good;  // a copy under another generation grants nothing
    EXPECT_EQ(a->request({6, Role::secondary, ""}, soon()).outcome, GrantOutcome::unknown);
}

// A FIFO in the place of a file blocks open(2) as dead storage does.
TEST_F(LockArbiter, StorageThatHangsIsUnknownWithinTheDeadlineAndStaysBounded)
{
    const auto a = lock(kHostA);
    ASSERT_EQ(mkfifo(lock_path(5).c_str(), 0600), 0);
    for (int i = 0; i < 3; ++i) {
        const GrantResult result = a->request({5, Role::secondary, ""}, now() + Duration{50'000});
        EXPECT_EQ(result.outcome, GrantOutcome::unknown);
        EXPECT_THAT(result.reason, HasSubstr("does not answer"));
    }
    EXPECT_EQ(a->request({6, Role::secondary, ""}, now() + Duration{50'000}).outcome, GrantOutcome::unknown)
        << "still stuck";
    // The storage answers again (somebody opens the other end): the next request works.
    std::ofstream(lock_path(5)).close();
    fs::remove(lock_path(5));
    EXPECT_EQ(a->request({6, Role::secondary, ""}, soon()).outcome, GrantOutcome::granted);
}

TEST_F(LockArbiter, CancelEndsAHangingRequest)
{
    const auto a = lock(kHostA);
    ASSERT_EQ(mkfifo(lock_path(5).c_str(), 0600), 0);
    std::thread canceller([&] {
        for (int i = 0; i < 100; ++i) {
            a->cancel();
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
    });
    EXPECT_EQ(a->request({5, Role::secondary, ""}, kNever).outcome, GrantOutcome::unknown);
    canceller.join();
    std::ofstream(lock_path(5)).close();
}

TEST_F(LockArbiter, DigestTellsDirectoriesApart)
{
    const auto a = lock(kHostA), b = lock(kHostB);
    const auto from_a = a->settings_digest(soon()), from_b = b->settings_digest(soon());
    ASSERT_TRUE(from_a && from_b);
    EXPECT_EQ(*from_a, *from_b);
    EXPECT_THAT(*from_a, testing::StartsWith("lock:"));
    fs::create_directory(path_ + "/other");
    ArbiterSettings elsewhere = settings(ArbiterKind::lock);
    elsewhere.directory = path_ + "/other";
    const auto other = make(elsewhere)->settings_digest(soon());
    ASSERT_TRUE(other);
    EXPECT_NE(*other, *from_a);
}

TEST_F(LockArbiter, SettingsThatCannotWorkAreRefused)
{
    ArbiterSettings s = settings(ArbiterKind::lock);
    s.directory = "relative";
    EXPECT_FALSE(make_arbiter(s));
    s = settings(ArbiterKind::lock);
    s.host_id.clear();
    EXPECT_FALSE(make_arbiter(s));
    s = settings(ArbiterKind::command);
    EXPECT_FALSE(make_arbiter(s)) << "no command";
}

TEST_F(CommandArbiter, ExitStatusIsTheAnswer)
{
    const GrantRequest request{5, Role::secondary, "tcp:192.0.2.1:9100"};
    EXPECT_EQ(command("exit 0")->request(request, soon()).outcome, GrantOutcome::granted);
    EXPECT_EQ(command("exit 10")->request(request, soon()).outcome, GrantOutcome::refused);
    for (const char* failing : {"exit 1", "exit 2", "exit 11", "exit 255", "kill -9 $$", "/nonexistent/fence"})
        EXPECT_EQ(command(failing)->request(request, soon()).outcome, GrantOutcome::unknown) << failing;
    const GrantResult failed = command("echo 'no route to the power switch' >&2; exit 1")->request(request, soon());
    EXPECT_THAT(failed.reason, HasSubstr("exit status 1: no route to the power switch"));
}

TEST_F(CommandArbiter, EnvironmentNamesTheQuestion)
{
    const std::string out = path_ + "/environment";
    const auto arbiter = command("env | grep '^COLO_' | sort > " + out);
    ASSERT_EQ(arbiter->request({5, Role::secondary, "tcp:192.0.2.1:9100"}, soon()).outcome, GrantOutcome::granted);
    EXPECT_EQ(read(out),
              std::string(
                  "COLO_DOMAIN=vm1\nCOLO_GENERATION=5\nCOLO_PEER=tcp:192.0.2.1:9100\nCOLO_ROLE=secondary\nCOLO_UUID=") +
                  kUuid + "\n");
}

TEST_F(CommandArbiter, LateCommandIsKilledWithItsChildren)
{
    const std::string pids = path_ + "/pids";
    int seen = 0;
    // On a busy machine the command may not have begun when its time is over: more time then.
    for (Duration timeout{200'000}; seen != 2 && timeout.count() < 20'000'000; timeout *= 2) {
        const auto arbiter =
            command("sleep 1000 & echo $! > " + pids + "; echo $$ >> " + pids + "; echo waiting; wait", timeout);
        const GrantResult result = arbiter->request({5, Role::secondary, ""}, soon());
        ASSERT_EQ(result.outcome, GrantOutcome::unknown);
        ASSERT_THAT(result.reason, HasSubstr("did not end in time"));
        const std::string text = read(pids);
        seen = static_cast<int>(std::count(text.begin(), text.end(), '\n'));
    }
    EXPECT_EQ(seen, 2);
    std::ifstream file(pids);
    int pid = 0;
    while (file >> pid) {
        // Gone or a zombie of init; never running.
        const Deadline until = soon();
        const auto running = [&] {
            const std::string stat = read("/proc/" + std::to_string(pid) + "/stat");
            return !stat.empty() && stat.find(") Z") == std::string::npos;
        };
        while (running() && now() < until) std::this_thread::sleep_for(std::chrono::milliseconds(10));
        EXPECT_FALSE(running()) << pid;
    }
}

TEST_F(CommandArbiter, CancelKillsTheCommand)
{
    const auto arbiter = command("sleep 1000", Duration{100'000'000});
    std::thread canceller([&] {
        for (int i = 0; i < 100; ++i) {
            arbiter->cancel();
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
    });
    const GrantResult result = arbiter->request({5, Role::secondary, ""}, kNever);
    canceller.join();
    EXPECT_EQ(result.outcome, GrantOutcome::unknown);
    EXPECT_THAT(result.reason, HasSubstr("cancelled"));
}

TEST_F(CommandArbiter, MuchOutputNeitherBlocksNorGrows)
{
    const GrantResult result =
        command("yes no | head -c 3000000; echo; echo the end; exit 3")->request({5, Role::secondary, ""}, soon());
    EXPECT_EQ(result.outcome, GrantOutcome::unknown);
    EXPECT_THAT(result.reason, HasSubstr("the end"));
    EXPECT_LT(result.reason.size(), 700u);
}

TEST_F(CommandArbiter, BackgroundChildDoesNotHoldTheAnswerUp)
{
    const std::string pid_file = path_ + "/pid";
    const GrantResult result =
        command("sleep 60 & echo $! > " + pid_file + "; exit 0")->request({5, Role::secondary, ""}, soon());
    EXPECT_EQ(result.outcome, GrantOutcome::granted);
    kill(std::stoi(read(pid_file)), SIGKILL);
}

TEST_F(ArbiterTest, ManualNeverGrantsByItself)
{
    const auto arbiter = make(settings(ArbiterKind::manual));
    const GrantResult result = arbiter->request({5, Role::secondary, ""}, soon());
    EXPECT_EQ(result.outcome, GrantOutcome::unknown);
    EXPECT_THAT(result.reason, HasSubstr("x-colo-lost-heartbeat"));
    EXPECT_EQ(*arbiter->settings_digest(soon()), "manual");
}

}  // namespace
}  // namespace colo
