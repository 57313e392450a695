// SPDX-License-Identifier: Apache-2.0

// coloctl's commands about migrations and jobs. A client only: named-in-tests: this file does not count.

#include "colo/ctl/progress.h"
#include "colo/ctl/units.h"
#include "coloctl_fixture.h"

#include <csignal>

namespace colo::test {
namespace {

namespace commands = schema::commands;
using schema::MigrationStatus;
using schema::Object;
using schema::Value;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// A daemon that answers what the test tells it: one migration, some jobs.
class Scripted {
public:
    explicit Scripted(const std::string& path) : live_(prepared(), path) { EXPECT_TRUE(live_.started()); }

    template <class Function>
    auto run(Function function)
    {
        return live_.run(std::move(function));
    }
    void set(MigrationStatus status, std::int64_t remaining = -1)
    {
        run([&] { put(status, remaining); });
    }
    std::vector<std::string> take_calls()
    {
        return run([&] { return std::exchange(calls_, {}); });
    }
    // How often the migration was looked at so far.
    int looks()
    {
        return run([&] { return looks_; });
    }
    void wait_looks(int more)
    {
        const int target = looks() + more;
        for (const Deadline deadline = soon(); now() < deadline && looks() < target;)
            std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    void put(MigrationStatus status, std::int64_t remaining)
    {
        info.status = status;
        info.ram.reset();
        if (remaining < 0) return;
        info.ram.emplace();
        info.ram->total = 1024 << 20;
        info.ram->remaining = remaining;
        info.ram->transferred = info.ram->total - remaining;
        info.ram->mbps = 800;
        info.ram->dirty_sync_count = 2;
    }

    schema::MigrationInfo info;
    std::vector<schema::JobInfo> jobs;
    std::string refusal;  // of everything that changes something; empty: accepted
    MigrationStatus after_migrate = MigrationStatus::setup;
    MigrationStatus after_cancel = MigrationStatus::cancelled;

private:
    template <class Command>
    void act(std::function<void(const typename Command::Arguments&)> action)
    {
        registry_.add<Command>([this, action](const auto& arguments, auto reply) {
            if (!refusal.empty()) return reply.fail(refusal);
            action(arguments);
            reply.succeed();
        });
    }
    template <class Command>
    void job(const std::string& name)
    {
        act<Command>([this, name](const auto& arguments) { calls_.push_back(name + " " + arguments.id); });
    }
    const qmp::Registry& prepared()
    {
        act<commands::Migrate>([this](const auto& arguments) {
            calls_.push_back("migrate " + arguments.uri + (arguments.resume.value_or(false) ? " resume" : ""));
            info.status = after_migrate;
        });
        act<commands::MigrateCancel>([this](const auto&) {
            calls_.push_back("cancel");
            info.status = after_cancel;
        });
        registry_.add<commands::QueryMigrate>([this](const auto&, auto reply) {
            ++looks_;
            reply.succeed(info);
        });
        registry_.add<commands::QueryJobs>([this](const auto&, auto reply) { reply.succeed(jobs); });
        job<commands::JobPause>("pause");
        job<commands::JobResume>("resume");
        job<commands::JobCancel>("cancel");
        job<commands::JobComplete>("complete");
        job<commands::JobFinalize>("finalize");
        job<commands::JobDismiss>("dismiss");
        return registry_;
    }

    qmp::Registry registry_;
    std::vector<std::string> calls_;
    int looks_ = 0;
    LiveServer live_;
};

class ColoctlMigration : public ColoctlTest {
protected:
    Scripted daemon_{socket_of("web1")};
};

TEST_F(ColoctlMigration, StartsAndFollowsInPlainLines)
{
    std::thread progress([&] {
        daemon_.wait_looks(2);
        daemon_.set(MigrationStatus::active, 768 << 20);
        daemon_.wait_looks(3);
        daemon_.set(MigrationStatus::active, 256 << 20);
        daemon_.wait_looks(3);
        daemon_.run([&] {
            daemon_.put(MigrationStatus::completed, 0);
            daemon_.info.total_time = 2500;
            daemon_.info.downtime = 12;
        });
    });
    const Outcome outcome = ctl("migrate web1 tcp:h:1");
    progress.join();
    EXPECT_EQ(outcome.status, 0) << outcome.out;
    // On a slow machine there are more lines, as some seconds pass.
    EXPECT_THAT(outcome.out,
                StartsWith("setup\nactive: 25 %, 256.0 MiB of 1.0 GiB, 95.4 MiB/s, pass 2, about 8.1 s left\n"));
    EXPECT_THAT(outcome.out, HasSubstr("\nactive: 75 %, 768.0 MiB of 1.0 GiB, 95.4 MiB/s, pass 2, about 2.7 s left\n"));
    EXPECT_THAT(outcome.out, EndsWith("\nweb1: completed after 2.5 s, down for 12.0 ms, 1.0 GiB sent\n"));
    EXPECT_THAT(daemon_.take_calls(), ElementsAre("migrate tcp:h:1"));
}

TEST_F(ColoctlMigration, ABarOnATerminal)
{
    daemon_.set(MigrationStatus::active, 512 << 20);
    std::thread progress([&] {
        daemon_.wait_looks(3);
        daemon_.set(MigrationStatus::completed);
    });
    const Outcome outcome = shell_on_terminal(command("migrate web1"), 60);
    progress.join();
    EXPECT_EQ(outcome.status, 0) << outcome.out;
    EXPECT_THAT(outcome.out, HasSubstr("\r[############............] 50 %, 512.0 MiB of 1.0 GiB, 95.4\033[K"));
    EXPECT_THAT(outcome.out, HasSubstr("\r\033[Kweb1: completed\r\n"));
    EXPECT_TRUE(daemon_.take_calls().empty());
}

TEST_F(ColoctlMigration, HowItEndsIsSaidOnce)
{
    daemon_.run([&] {
        daemon_.after_migrate = MigrationStatus::failed;
        daemon_.info.error_desc = "Failed to connect to 'h:1': Connection refused";
    });
    Outcome outcome = ctl("migrate web1 tcp:h:1");
    EXPECT_EQ(outcome.status, 1);
    EXPECT_EQ(
        outcome.out,
        "failed\ncoloctl: web1: the migration failed: Failed to connect to 'h:1': Connection refused (nobody listens "
        "there: has the other daemon been told to wait?)\n");
    daemon_.set(MigrationStatus::cancelled);
    outcome = ctl("migrate web1");
    EXPECT_EQ(outcome.status, 1);
    EXPECT_EQ(outcome.out, "cancelled\ncoloctl: web1: the migration was cancelled\n");
    daemon_.set(MigrationStatus::colo);
    outcome = ctl("migrate web1");
    EXPECT_EQ(outcome.status, 0);
    EXPECT_EQ(outcome.out, "colo\nweb1: protected from now on (COLO)\n");
    daemon_.run([&] { daemon_.info = {}; });
    outcome = ctl("migrate web1");
    EXPECT_EQ(outcome.status, 1);
    EXPECT_EQ(outcome.out, "coloctl: web1: there is no migration; name a URI to start one\n");
}

TEST_F(ColoctlMigration, RefusalsComeWithAdvice)
{
    daemon_.run([&] { daemon_.refusal = "There's a migration process in progress"; });
    Outcome outcome = ctl("migrate web1 tcp:h:1");
    EXPECT_EQ(outcome.status, 1);
    EXPECT_EQ(
        outcome.out,
        "coloctl: web1: There's a migration process in progress (follow it with 'coloctl migrate web1', end it with "
        "'--cancel')\n");
    outcome = ctl("-s '" + socket_of("web1") + "' migrate tcp:h:1");
    EXPECT_THAT(outcome.out, StartsWith("coloctl: daemon: There's a migration process in progress"));
    EXPECT_EQ(ctl("migrate nosuch tcp:h:1").status, 3);
}

TEST_F(ColoctlMigration, WaitsAreBounded)
{
    Outcome outcome = ctl("migrate web1 unix:/x --resume --wait 0");
    EXPECT_EQ(outcome.status, 0);
    EXPECT_EQ(outcome.out, "");
    EXPECT_THAT(daemon_.take_calls(), ElementsAre("migrate unix:/x resume"));
    outcome = ctl("migrate web1 --wait 0.1");
    EXPECT_EQ(outcome.status, 1);
    EXPECT_THAT(outcome.out, HasSubstr("coloctl: web1: still setup; it goes on\n"));
}

TEST_F(ColoctlMigration, StatesThatNeedSomebodySayWhatToDo)
{
    daemon_.set(MigrationStatus::pre_switchover);
    EXPECT_THAT(ctl("migrate web1 --wait 0.3").out,
                HasSubstr("coloctl: web1: waits before the switch-over; coloctl qmp web1 migrate-continue '{\"state\": "
                          "\"pre-switchover\"}' lets it go on\n"));
    daemon_.set(MigrationStatus::postcopy_paused);
    EXPECT_THAT(ctl("migrate web1 --wait 0.3").out, HasSubstr("'coloctl migrate web1 URI --resume'\n"));
}

TEST_F(ColoctlMigration, CancelOfTheOneUnderWay)
{
    daemon_.set(MigrationStatus::active, 1 << 20);
    const Outcome outcome = ctl("migrate web1 --cancel");
    EXPECT_EQ(outcome.status, 0) << outcome.out;
    EXPECT_THAT(outcome.out, HasSubstr("web1: cancelled, the guest stays here\n"));
    EXPECT_THAT(daemon_.take_calls(), ElementsAre("cancel"));
    EXPECT_EQ(ctl("migrate web1 tcp:h:1 --cancel").status, 2);
    EXPECT_EQ(ctl("migrate web1 --resume").status, 2);
}

// Ctrl-C once it is being followed; `exec` so that the process of the pipe is coloctl itself.
class ColoctlInterrupted : public ColoctlMigration {
protected:
    Outcome interrupt(const std::string& arguments)
    {
        daemon_.set(MigrationStatus::active, 512 << 20);
        const std::string pid_file = directory_.file("pid");
        std::thread signal([&] {
            daemon_.wait_looks(2);
            const Outcome pid = shell("cat '" + pid_file + "'");
            ::kill(std::stoi(pid.out), SIGINT);
        });
        const Outcome outcome =
            shell("sh -c 'echo $$ > \"" + pid_file + "\"; exec \"$@\"' sh env " + command(arguments));
        signal.join();
        return outcome;
    }
};

TEST_F(ColoctlInterrupted, GoesOnUnlessAsked)
{
    const Outcome outcome = interrupt("migrate web1");
    EXPECT_EQ(outcome.status, 130);
    EXPECT_THAT(outcome.out,
                HasSubstr("coloctl: web1: interrupted; the migration goes on, 'coloctl migrate web1' follows it "
                          "again\n"));
    EXPECT_TRUE(daemon_.take_calls().empty());
}

TEST_F(ColoctlInterrupted, CancelsIfAsked)
{
    const Outcome outcome = interrupt("migrate web1 --cancel-on-interrupt");
    EXPECT_EQ(outcome.status, 0) << outcome.out;
    EXPECT_THAT(outcome.out, HasSubstr("web1: cancelled, the guest stays here\n"));
    EXPECT_THAT(daemon_.take_calls(), ElementsAre("cancel"));
}

TEST_F(ColoctlMigration, TheEndAsJson)
{
    daemon_.set(MigrationStatus::completed, 0);
    const Outcome outcome = ctl("-o json migrate web1");
    EXPECT_EQ(outcome.status, 0);
    const auto value = qmp::parse_json(outcome.out);
    ASSERT_TRUE(value) << outcome.out;
    EXPECT_EQ(*value->find("schema-version"), Value(1));
    EXPECT_EQ(*value->find("migration")->find("status"), Value("completed"));
    const auto started = qmp::parse_json(ctl("-o json migrate web1 tcp:h:1 --wait 0").out);
    ASSERT_TRUE(started);
    EXPECT_EQ(*started->find("migration")->find("status"), Value("setup"));
}

TEST_F(ColoctlMigration, Jobs)
{
    EXPECT_EQ(ctl("jobs web1").out, "no jobs\n");
    daemon_.run([&] {
        daemon_.jobs = {{"save-2", schema::JobType::snapshot_save, schema::JobStatus::running, 1, 4, {}},
                        {"load-1", schema::JobType::snapshot_load, schema::JobStatus::concluded, 1, 1, "no such tag"}};
    });
    EXPECT_EQ(ctl("jobs web1").out,
              "JOB     TYPE           STATUS     PROGRESS  ERROR\n"
              "save-2  snapshot-save  running    25 %      -\n"
              "load-1  snapshot-load  concluded  100 %     no such tag\n");
    for (const char* verb : {"pause", "resume", "cancel", "complete", "finalize", "dismiss"}) {
        const Outcome outcome = ctl("jobs web1 " + std::string(verb) + " save-2");
        EXPECT_EQ(outcome.status, 0) << outcome.out;
        EXPECT_EQ(outcome.out, "");
        EXPECT_THAT(daemon_.take_calls(), ElementsAre(std::string(verb) + " save-2"));
    }
    EXPECT_EQ(ctl("-s '" + socket_of("web1") + "' jobs pause save-2").status, 0);
    EXPECT_THAT(daemon_.take_calls(), ElementsAre("pause save-2"));
    const auto value = qmp::parse_json(ctl("-o json jobs web1 pause save-2").out);
    ASSERT_TRUE(value);
    EXPECT_EQ(value->find("jobs")->as_array()->size(), 2u);

    daemon_.run([&] { daemon_.refusal = "Job not found"; });
    Outcome outcome = ctl("jobs web1 pause x");
    EXPECT_EQ(outcome.status, 1);
    EXPECT_EQ(outcome.out, "coloctl: x: Job not found ('coloctl jobs web1' lists those that there are)\n");
    for (const char* wrong : {"jobs web1 stop x", "jobs web1 pause", "jobs"}) EXPECT_EQ(ctl(wrong).status, 2) << wrong;
}

class ColoctlSettings : public ColoctlTest {
protected:
    std::unique_ptr<Daemon> daemon_ = daemon("web1");
};

TEST_F(ColoctlSettings, Capabilities)
{
    Outcome outcome = ctl("capabilities web1");
    EXPECT_EQ(outcome.status, 0);
    EXPECT_THAT(outcome.out,
                StartsWith("CAPABILITY               STATE  WHAT IT DOES\nxbzrle                   off    "));
    EXPECT_THAT(outcome.out,
                HasSubstr("x-colo                   off    stay in COLO after the first copy (unstable)\n"));
    EXPECT_EQ(lines(outcome.out), 19u);  // block is not built in
    outcome = ctl("capabilities web1 events=on multifd=on");
    EXPECT_EQ(outcome.status, 0) << outcome.out;
    EXPECT_EQ(outcome.out, "");
    EXPECT_THAT(ctl("capabilities web1").out, HasSubstr("multifd                  on "));
    outcome = ctl("-s '" + socket_of("web1") + "' -o json capabilities events=off");
    const auto value = qmp::parse_json(outcome.out);
    ASSERT_TRUE(value) << outcome.out;
    const schema::Array& all = *value->find("capabilities")->as_array();
    EXPECT_NE(std::ranges::find(all, Value(Object{{"capability", "multifd"}, {"state", true}})), all.end());
    EXPECT_NE(std::ranges::find(all, Value(Object{{"capability", "events"}, {"state", false}})), all.end());

    outcome = ctl("capabilities web1 nope=on");
    EXPECT_EQ(outcome.status, 1);
    EXPECT_EQ(outcome.out,
              "coloctl: web1: Parameter 'capability' does not accept value 'nope' ('coloctl capabilities web1' "
              "lists those that there are)\n");
    for (const char* wrong : {"events", "events=1", "=on", "events=on events=off"})
        EXPECT_EQ(ctl("capabilities web1 " + std::string(wrong)).status, 2) << wrong;
}

TEST_F(ColoctlSettings, Parameters)
{
    Outcome outcome =
        ctl("parameters web1 max-bandwidth=100MiB/s downtime-limit=0.5s compress-wait-thread=off "
            "xbzrle-cache-size=128MiB cpu-throttle-initial=30% multifd-compression=zstd tls-hostname=h "
            "block-bitmap-mapping='[]' compress-threads=4");
    EXPECT_EQ(outcome.status, 0) << outcome.out;
    EXPECT_EQ(outcome.out, "");
    const schema::MigrationParameters set = daemon_->live.run([&] { return daemon_->control.settings().parameters(); });
    EXPECT_EQ(set.max_bandwidth, 104857600u);
    EXPECT_EQ(set.downtime_limit, 500u);
    EXPECT_EQ(set.compress_wait_thread, false);
    EXPECT_EQ(set.xbzrle_cache_size, 134217728u);
    EXPECT_EQ(set.cpu_throttle_initial, 30);
    EXPECT_EQ(set.multifd_compression, schema::MultiFDCompression::zstd);
    EXPECT_EQ(set.tls_hostname, "h");
    EXPECT_EQ(set.block_bitmap_mapping->size(), 0u);

    outcome = ctl("parameters web1");
    EXPECT_EQ(outcome.status, 0);
    EXPECT_THAT(outcome.out, StartsWith("PARAMETER "));
    EXPECT_EQ(lines(outcome.out), 29u);
    const auto row = [&](std::string_view name) {
        const std::size_t start = outcome.out.find("\n" + std::string(name) + " ") + 1;
        std::string line = outcome.out.substr(start, outcome.out.find('\n', start) - start);
        for (std::size_t at; (at = line.find("   ")) != line.npos;) line.erase(at, 1);
        return line;
    };
    EXPECT_EQ(row("max-bandwidth"), "max-bandwidth  100 MiB/s *  128 MiB/s");
    EXPECT_EQ(row("downtime-limit"), "downtime-limit  500 ms *  300 ms  0 ms to 2000 s");
    EXPECT_EQ(row("announce-rounds"), "announce-rounds  5 packets  5 packets  0 packets to 1000 packets");
    EXPECT_EQ(row("multifd-compression"), "multifd-compression  zstd *  none  none zlib zstd");
    EXPECT_EQ(row("compress-wait-thread"), "compress-wait-thread  off *  on");

    const auto value = qmp::parse_json(ctl("-o json parameters web1 max-bandwidth=5").out);
    ASSERT_TRUE(value);
    EXPECT_EQ(*value->find("parameters")->find("max-bandwidth"), Value(5));
    outcome = ctl("parameters web1 compress-level=10");
    EXPECT_EQ(outcome.status, 1);
    EXPECT_EQ(outcome.out, "coloctl: web1: Parameter 'compress_level' expects a value between 0 and 9\n");
    outcome = ctl("parameters web1 downtime-limit=10MiB");
    EXPECT_EQ(outcome.status, 2);
    EXPECT_EQ(outcome.out, "coloctl: usage: parameters: downtime-limit: '10MiB': write it as 300ms or 2s\n");
    for (const char* wrong :
         {"nope=1", "compress-wait-thread=5", "max-bandwidth=fast", "max-bandwidth=-1", "downtime-limit="})
        EXPECT_EQ(ctl("parameters web1 " + std::string(wrong)).status, 2) << wrong;
}

TEST_F(ColoctlSettings, ProtectWithoutWaitingAsJson)
{
    daemon_->live.run([&] { daemon_->service.report.state = schema::ProtectionState::connecting; });
    const Outcome outcome = ctl("-o json protect web1 --wait 0");
    EXPECT_EQ(outcome.status, 0);
    const auto value = qmp::parse_json(outcome.out);
    ASSERT_TRUE(value) << outcome.out;
    EXPECT_EQ(*value->find("report")->find("state"), Value("connecting"));
}

TEST_F(ColoctlSettings, ProtectShowsHowFarTheCopyIs)
{
    daemon_->live.run([&] {
        daemon_->service.report.state = schema::ProtectionState::synchronizing;
        daemon_->service.facts.ram.total = 1000 << 20;
        daemon_->service.facts.ram.remaining = 100 << 20;
        daemon_->service.facts.ram.mbps = 80;
    });
    std::thread progress([&] {
        for (const Deadline deadline = soon(); now() < deadline;
             std::this_thread::sleep_for(std::chrono::milliseconds(2)))
            if (daemon_->live.run([&] { return !daemon_->service.take_calls().empty(); })) break;
        const int looks = daemon_->live.run([&] {
            daemon_->control.outgoing(TransferPhase::active, {});
            return daemon_->service.status_reports;
        });
        for (const Deadline deadline = soon(); now() < deadline;
             std::this_thread::sleep_for(std::chrono::milliseconds(2)))
            if (daemon_->live.run([&] { return daemon_->service.status_reports; }) >= looks + 2) break;
        daemon_->live.run([&] { daemon_->service.report.state = schema::ProtectionState::protected_; });
    });
    const Outcome outcome = ctl("protect web1");
    progress.join();
    EXPECT_EQ(outcome.status, 0) << outcome.out;
    EXPECT_THAT(outcome.out, StartsWith("active: 90 %, 900.0 MiB of 1000.0 MiB, 9.5 MiB/s, about 10.5 s left\n"));
    EXPECT_THAT(outcome.out, HasSubstr("\nweb1: primary protected"));
}

const schema::ArgumentEntry& parameter(std::string_view name)
{
    return *std::ranges::find(schema::argument_table("migrate-set-parameters"), name, &schema::ArgumentEntry::name);
}

TEST(Units, AreReadExactly)
{
    const auto read = [](std::string_view name, std::string_view text) {
        const auto value = ctl::parse_parameter(parameter(name), text);
        return value ? *value : Value("refused: " + value.error().text);
    };
    EXPECT_EQ(read("max-bandwidth", "18446744073709551615"), Value(~std::uint64_t{0}));
    EXPECT_EQ(read("max-bandwidth", "1.5GiB/s"), Value(1610612736));
    EXPECT_EQ(read("max-bandwidth", "1GB"), Value(1000000000));
    EXPECT_EQ(read("max-bandwidth", "10 MiB"), Value(10485760));
    EXPECT_EQ(read("max-bandwidth", "10K"), Value(10240));
    EXPECT_EQ(read("downtime-limit", "2min"), Value(120000));
    EXPECT_EQ(read("downtime-limit", "2000us"), Value(2));
    EXPECT_EQ(read("x-checkpoint-delay", "0.25s"), Value(250));
    EXPECT_EQ(read("max-cpu-throttle", "50 %"), Value(50));
    EXPECT_EQ(read("multifd-channels", "8"), Value(8));
    EXPECT_EQ(read("tls-creds", ""), Value(""));
    for (const auto& [name, text] :
         std::initializer_list<std::pair<const char*, const char*>>{{"max-bandwidth", "1.5"},
                                                                    {"max-bandwidth", "10mib"},
                                                                    {"max-bandwidth", "20EiB"},
                                                                    {"max-bandwidth", "99999999TiB"},
                                                                    {"downtime-limit", "1us"},
                                                                    {"downtime-limit", "5/s"},
                                                                    {"xbzrle-cache-size", "1MiB/s"},
                                                                    {"multifd-channels", "8%"},
                                                                    {"compress-level", "nan"},
                                                                    {"compress-level", "-1"},
                                                                    {"compress-level", "1e3"},
                                                                    {"block-bitmap-mapping", "{}"}})
        EXPECT_THAT(*read(name, text).as_string(), StartsWith("refused: " + std::string(name))) << text;
}

TEST(Units, AreShownSoThatTheyCanBeGivenBack)
{
    for (const schema::ArgumentEntry& entry : schema::argument_table("migrate-set-parameters"))
        if (!entry.default_json.empty() && entry.default_json != "\"\"") {
            const Value usual = *qmp::parse_json(entry.default_json);
            std::string shown = ctl::show_parameter(entry, usual);
            for (const char* word : {" packets", " threads", " channels"})
                if (shown.ends_with(word)) shown.resize(shown.size() - std::string_view(word).size());
            const auto back = ctl::parse_parameter(entry, shown);
            ASSERT_TRUE(back) << back.error().text;
            EXPECT_EQ(*back, usual) << entry.name;
        }
}

TEST(Progress, TextAndBar)
{
    const ctl::Transfer transfer{300 << 20, 1200 << 20, 10e6, 1};
    EXPECT_EQ(ctl::transfer_text(transfer), "25 %, 300.0 MiB of 1.2 GiB, 9.5 MiB/s, about 94.4 s left");
    EXPECT_EQ(ctl::transfer_text({}), "0 %, 0 B of 0 B");
    EXPECT_EQ(ctl::transfer_text({5, 5, 100, 3}), "100 %, 5 B of 5 B, 100 B/s, pass 3");
    EXPECT_EQ(ctl::transfer_bar(transfer, 200), "[######..................] " + ctl::transfer_text(transfer));
    EXPECT_EQ(ctl::transfer_bar({7, 5, 0, 0}, 10), "[#########");
}

}  // namespace
}  // namespace colo::test
