// SPDX-License-Identifier: Apache-2.0
#include "colo/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>

namespace colo {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr const char* kMinimal = R"([domain]
name = "vm1"
uuid = "01234567-89AB-cdef-0123-456789abcdef"

[guest]
kernel = "/boot/vmlinuz"

[[heartbeat.path]]
local = "192.0.2.1:7000"
peer = "192.0.2.2:7000"

[arbiter]
kind = "manual"
)";

std::vector<std::string> problems_of(const std::string& toml, const std::vector<std::string>& overrides = {})
{
    std::vector<ConfigProblem> problems;
    parse_config(toml, "vm1.toml", overrides, problems);
    std::vector<std::string> texts;
    for (const ConfigProblem& problem : problems) texts.push_back(problem.text());
    return texts;
}

Config good(const std::string& toml, const std::vector<std::string>& overrides = {})
{
    std::vector<ConfigProblem> problems;
    Config config = parse_config(toml, "vm1.toml", overrides, problems);
    for (const ConfigProblem& problem : problems) ADD_FAILURE() << problem.text();
    return config;
}

std::string replaced(std::string text, const std::string& from, const std::string& to)
{
    const std::size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return text.replace(at, from.size(), to);
}

std::string read_file(const std::string& path)
{
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

TEST(Config, MinimalFileHasTheDefaults)
{
    const Config config = good(kMinimal);
    EXPECT_EQ(config.domain.uuid, "01234567-89ab-cdef-0123-456789abcdef") << "lower case";
    EXPECT_EQ(config.guest.memory_mib, 256u);
    EXPECT_EQ(config.guest.accelerator, AcceleratorSetting::automatic);
    EXPECT_EQ(config.heartbeat.interval_ms, 10u);
    EXPECT_EQ(config.heartbeat.loss_ms, 100u);
    EXPECT_EQ(config.heartbeat.lease_ms, 90u);
    EXPECT_EQ(config.qmp.socket, "/run/colo/vm1/qmp.sock");
    EXPECT_EQ(config.state.directory, "/var/lib/colo/vm1");
    ASSERT_EQ(config.heartbeat.paths.size(), 1u);
    EXPECT_EQ(config.heartbeat.paths[0].peer, "192.0.2.2:7000");
    EXPECT_THAT(config.nics, IsEmpty());
}

TEST(Config, EverySettingIsReadAndPrintedBack)
{
    const std::string all = read_file(std::string(COLO_SOURCE_DIR) + "/docs/example-domain.toml");
    ASSERT_FALSE(all.empty());
    const Config config = good(all);
    const std::string printed = to_toml(config);
    EXPECT_EQ(to_toml(good(printed)), printed);
    EXPECT_FALSE(config.nics.empty());
    EXPECT_NE(config.nics[0].mac, (std::array<std::uint8_t, 6>{}));
}

TEST(Config, PrintingKeepsEveryCharacter)
{
    const Config config = good(kMinimal, {"guest.append=a \"quoted\" \\ back\ttab \x7f end", "guest.cpu=Opteron_G5,-xop"});
    const std::string printed = to_toml(config);
    EXPECT_EQ(good(printed).guest.append, config.guest.append);
    EXPECT_EQ(good(printed).guest.cpu, "Opteron_G5,-xop");
}

TEST(Config, UnknownKeysAreRefusedWithPlaceAndSuggestion)
{
    const std::string toml = replaced(kMinimal, "kernel =", "memroy_mib = 5\nkernel =");
    EXPECT_THAT(problems_of(toml),
                ElementsAre("vm1.toml:6:1: unknown setting guest.memroy_mib; did you mean memory_mib?"));
    EXPECT_THAT(problems_of(std::string(kMinimal) + "[hartbeat]\nx = 1\n"),
                ElementsAre(HasSubstr("unknown section hartbeat; did you mean heartbeat?")));
    EXPECT_THAT(problems_of("x = 1\n" + std::string(kMinimal)), ElementsAre("vm1.toml:1:1: unknown setting x"));
    EXPECT_THAT(problems_of(replaced(kMinimal, "peer =", "port = 3\npeer =")),
                ElementsAre("vm1.toml:10:1: unknown setting heartbeat.path.port"));
}

TEST(Config, AllProblemsOfAFileAreReportedInTheOrderOfLines)
{
    const std::string toml = R"([domain]
name = 5
uuid = "not a uuid"
[guest]
kernel = "vmlinuz"
memory_mib = "lots"
vcpus = 65
accelerator = "kmv"
[heartbeat]
interval_ms = -1
[[heartbeat.path]]
local = "localhost:1"
[arbiter]
kind = "pacemaker"
color = 3
)";
    EXPECT_THAT(
        problems_of(toml),
        ElementsAre(
            HasSubstr("vm1.toml:2:8: domain.name must be text in quotation marks, not a number"),
            HasSubstr("vm1.toml:3:8: domain.uuid = \"not a uuid\": is not a UUID"),
            HasSubstr("vm1.toml:5:10: guest.kernel = \"vmlinuz\": must be an absolute path"),
            HasSubstr("vm1.toml:6:14: guest.memory_mib must be a whole number, not text"),
            HasSubstr("vm1.toml:7:9: guest.vcpus = 65 must be from 1 to 64"),
            HasSubstr("vm1.toml:8:15: guest.accelerator = \"kmv\" is not one of auto, tcg, kvm; did you mean \"kvm\"?"),
            HasSubstr("vm1.toml:10:15: heartbeat.interval_ms = -1 must be from 1 to 10000"),
            HasSubstr("heartbeat.path.0.peer is missing"),
            HasSubstr("vm1.toml:12:9: heartbeat.path.0.local = \"localhost:1\": is not IP:PORT"),
            HasSubstr("vm1.toml:14:8: arbiter.kind = \"pacemaker\": this version cannot let a cluster decide yet"),
            HasSubstr("vm1.toml:15:1: unknown setting arbiter.color")));
}

TEST(Config, SyntaxErrorHasItsPlace)
{
    const auto problems = problems_of("[domain]\nname = \n");
    ASSERT_EQ(problems.size(), 1u);
    EXPECT_THAT(problems[0], HasSubstr("vm1.toml:2:"));
    EXPECT_THAT(problems_of("[domain]\nname = \"a\"\nname = \"b\"\n"), testing::SizeIs(1)) << "a key twice";
}

TEST(Config, DisksAreRefused)
{
    EXPECT_THAT(
        problems_of(std::string(kMinimal) + "[[disk]]\nfile = \"/x\"\n"),
        ElementsAre("vm1.toml:14:1: [[disk]]: disks come later: this version replicates memory, CPU and devices only"));
}

TEST(Config, ArbiterHasNoDefaultAndItsSettingsMustFitItsKind)
{
    EXPECT_THAT(
        problems_of(replaced(kMinimal, "kind = \"manual\"", "")),
        ElementsAre("vm1.toml:12:1: arbiter.kind is missing and has no default; choose one of manual, command, lock"));
    EXPECT_THAT(problems_of(replaced(kMinimal, "[arbiter]\nkind = \"manual\"\n", "")),
                ElementsAre(HasSubstr("arbiter.kind is missing and has no default")));
    EXPECT_THAT(problems_of(replaced(kMinimal, "\"manual\"", "\"lock\"")),
                ElementsAre(HasSubstr("needs arbiter.directory")));
    EXPECT_THAT(
        problems_of(replaced(kMinimal, "\"manual\"", "\"command\"\ndirectory = \"/x\"")),
        ElementsAre(HasSubstr("needs arbiter.command"), HasSubstr("arbiter.directory contradicts arbiter.kind")));
    EXPECT_THAT(problems_of(replaced(kMinimal, "\"manual\"", "\"lock\"\ndirectory = \"/var/lib/colo/vm1\"")),
                ElementsAre(HasSubstr("must not be state.directory")));
    good(replaced(kMinimal, "\"manual\"", "\"lock\"\ndirectory = \"/srv/colo\""));
}

TEST(Config, ContradictoryTimesAreRefused)
{
    const auto with = [](const char* lines) {
        return problems_of(
            replaced(kMinimal, "[[heartbeat.path]]", std::string("[heartbeat]\n") + lines + "\n[[heartbeat.path]]"));
    };
    EXPECT_THAT(
        with("lease_ms = 100"),
        ElementsAre(HasSubstr("vm1.toml:9:12: heartbeat.lease_ms (100) must end before heartbeat.loss_ms (100)")));
    EXPECT_THAT(with("lease_ms = 98"), ElementsAre(HasSubstr("lease_ms x 1.03"))) << "1.03 x 98 > 100";
    EXPECT_THAT(with("lease_ms = 97"), IsEmpty());
    EXPECT_THAT(with("interval_ms = 31"), ElementsAre(HasSubstr("at least 3 x heartbeat.interval_ms (31)")));
    EXPECT_THAT(with("interval_ms = 34"), testing::SizeIs(2)) << "loss and lease both";
    EXPECT_THAT(with("progress_timeout_ms = 99"), ElementsAre(HasSubstr("must not be less than heartbeat.loss_ms")));
    EXPECT_THAT(problems_of(kMinimal, {"proxy.hold_min_ms=300"}),
                ElementsAre(HasSubstr("must not exceed proxy.hold_max_ms (200)")));
    EXPECT_THAT(problems_of(kMinimal, {"replication.checkpoint_interval_ms=10"}),
                ElementsAre(HasSubstr("must not exceed replication.checkpoint_interval_ms (10)")));
    EXPECT_THAT(problems_of(kMinimal, {"replication.compression=zlib", "replication.compression_level=10"}),
                ElementsAre(HasSubstr("from 0 to 9 for zlib")));
    EXPECT_THAT(problems_of(kMinimal, {"replication.compression=zstd", "replication.compression_level=0"}),
                ElementsAre(HasSubstr("from 1 to 20 for zstd")));
}

TEST(Config, InterfacesMustDiffer)
{
    const auto nic = [](const char* id, const char* mac, const char* wire) {
        return std::string("[[nic]]\nid = \"") + id + "\"\nmac = \"" + mac + "\"\nwire = \"" + wire + "\"\n";
    };
    const std::string first = nic("net0", "52:54:00:00:00:01", "tap:vm1@br0");
    const Config config = good(kMinimal + first + nic("net1", "52:54:00:00:00:0A", "packet:eth1"));
    EXPECT_EQ(config.nics[1].mac, (std::array<std::uint8_t, 6>{0x52, 0x54, 0, 0, 0, 0x0a}));
    EXPECT_THAT(problems_of(kMinimal + first + nic("net0", "52:54:00:00:00:01", "tap:vm1@br1")),
                ElementsAre(HasSubstr("nic.1.id = \"net0\" is already used by nic.0"), HasSubstr("nic.1.mac"),
                            HasSubstr("nic.1.wire")));
    EXPECT_THAT(problems_of(kMinimal + nic("n", "53:54:00:00:00:01", "tap:x")), ElementsAre(HasSubstr("multicast")));
    EXPECT_THAT(problems_of(kMinimal + nic("n", "52:54:00:00:00", "tap:x")),
                ElementsAre(HasSubstr("is not a MAC address")));
    EXPECT_THAT(problems_of(kMinimal + nic("n", "52:54:00:00:00:01", "eth0")),
                ElementsAre(HasSubstr("neither packet:INTERFACE nor tap:NAME")));
    EXPECT_THAT(problems_of(kMinimal + nic("n", "52:54:00:00:00:01", "tap:a-name-that-is-too-long")),
                ElementsAre(HasSubstr("no interface that can exist")));
}

TEST(Config, HeartbeatPathsMustMakeSense)
{
    EXPECT_THAT(problems_of(replaced(kMinimal, "192.0.2.2:7000", "192.0.2.1:7000")),
                ElementsAre(HasSubstr("peer is the same as")));
    EXPECT_THAT(problems_of(replaced(kMinimal, "192.0.2.2:7000", "[2001:db8::2]:7000")),
                ElementsAre(HasSubstr("both be IPv4 or both be IPv6")));
    const std::string path = "[[heartbeat.path]]\nlocal = \"192.0.2.1:7000\"\npeer = \"192.0.2.3:7000\"\n";
    EXPECT_THAT(problems_of(kMinimal + path), ElementsAre(HasSubstr("is already used by heartbeat.path.0")));
    std::string five = kMinimal;
    for (int i = 2; i <= 5; ++i)
        five += "[[heartbeat.path]]\nlocal = \"192.0.2.1:700" + std::to_string(i) + "\"\npeer = \"192.0.2.2:700" +
                std::to_string(i) + "\"\n";
    EXPECT_THAT(problems_of(five), ElementsAre(HasSubstr("there are 5 [[heartbeat.path]] sections; at most 4")));
    EXPECT_THAT(problems_of(replaced(
                    kMinimal, "[[heartbeat.path]]\nlocal = \"192.0.2.1:7000\"\npeer = \"192.0.2.2:7000\"\n", "")),
                ElementsAre(HasSubstr("[[heartbeat.path]] is missing; at least 1")));
}

TEST(Config, OverridesGoOnTopUnderTheSameChecks)
{
    const Config config = good(kMinimal, {"guest.memory_mib=512", "domain.name=vm2", "guest.memory_mib=1024",
                                          "heartbeat.path.0.peer=192.0.2.9:1", "nic.0.id=net0",
                                          "nic.0.mac=52:54:00:00:00:01", "nic.0.wire=tap:vm2", "guest.append=a=b c"});
    EXPECT_EQ(config.guest.memory_mib, 1024u) << "the last one wins";
    EXPECT_EQ(config.state.directory, "/var/lib/colo/vm2");
    EXPECT_EQ(config.heartbeat.paths[0].peer, "192.0.2.9:1");
    EXPECT_EQ(config.guest.append, "a=b c");
    ASSERT_EQ(config.nics.size(), 1u);
    EXPECT_EQ(config.nics[0].wire, "tap:vm2");
    // An override also repairs what the file has wrong.
    good(replaced(kMinimal, "\"manual\"", "\"nonsense\""), {"arbiter.kind=manual"});

    EXPECT_THAT(problems_of(kMinimal, {"guest.memory_mib=many", "guest.colour=red", "guest", "nic.7.id=x"}),
                ElementsAre("--set guest: is not of the form section.key=value",
                            "--set guest.memory_mib=many: guest.memory_mib must be a whole number from 32 to 1048576",
                            "--set guest.colour=red: unknown setting guest.colour",
                            "--set nic.7.id=x: unknown setting nic.7.id"));
}

TEST(Config, WrongShapesAreRefused)
{
    EXPECT_THAT(problems_of("guest = 5\n" + replaced(kMinimal, "[guest]\nkernel = \"/boot/vmlinuz\"\n", "")),
                testing::Contains(HasSubstr("guest must be a section, [guest], not a number")));
    EXPECT_THAT(problems_of(kMinimal + std::string("[nic]\nid = \"x\"\n")), ElementsAre(HasSubstr("[[nic]]")));
    EXPECT_THAT(problems_of(replaced(kMinimal, "kernel = \"/boot/vmlinuz\"", "kernel = \"\"")),
                ElementsAre(HasSubstr("guest.kernel must not be empty")));
    EXPECT_THAT(problems_of(kMinimal + std::string("[log]\nlevel = \"loud\"\n")),
                ElementsAre(HasSubstr("is not one of trace")));
    EXPECT_THAT(problems_of(kMinimal + std::string("[replication]\nlisten = \"unix:/x\"\n")),
                ElementsAre(HasSubstr("does not begin with tcp:")));
}

// What the control interface puts up with behind a port is a mistake in a file.
TEST(Config, NothingMayStandBehindThePortOfAnAddress)
{
    for (const char* rest : {",ipv5=on", ",ipv4=on", ",to=7780", ","}) {
        const std::string address = std::string("tcp:10.0.0.2:7777") + rest;
        EXPECT_THAT(problems_of(kMinimal + std::string("[replication]\nlisten = \"") + address + "\"\n"),
                    ElementsAre(testing::AllOf(testing::MatchesRegex("vm1.toml:[0-9]+:10: replication.listen = .*"),
                                               HasSubstr(std::string("has something behind the port (") + rest + ")"))));
        EXPECT_THAT(problems_of(kMinimal, {"peer.address=" + address}), ElementsAre(HasSubstr("behind the port")));
        EXPECT_THAT(problems_of(kMinimal, {"peer.address=" + address, "replication.listen=tcp:10.0.0.2:7777"}),
                    testing::SizeIs(1));
    }
}

TEST(Config, LoadReportsAMissingFileAndJoinsProblems)
{
    const auto missing = load_config("/nonexistent/vm.toml", {});
    ASSERT_FALSE(missing);
    EXPECT_THAT(missing.error().text, HasSubstr("/nonexistent/vm.toml"));
    const std::string path = testing::TempDir() + "colo-config-test.toml";
    std::ofstream(path) << replaced(kMinimal, "\"/boot/vmlinuz\"", "1");
    const auto refused = load_config(path, {"x.y=1"});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::invalid);
    EXPECT_THAT(refused.error().text, HasSubstr(path + ":6:10: "));
    EXPECT_THAT(refused.error().text, HasSubstr("\n--set x.y=1: unknown setting x.y"));
    std::remove(path.c_str());
}

// --check-config must not say ok to what the daemon refuses a moment later.
TEST(Config, GuestsThatTheDeviceModelRefusesAreRefusedWithTheirLine)
{
    const auto with = [](const std::string& line) { return replaced(kMinimal, "kernel =", line + "\nkernel ="); };
    EXPECT_THAT(problems_of(with("memory_mib = 31")),
                ElementsAre("vm1.toml:6:14: guest.memory_mib = 31 must be from 32 to 1048576"));
    for (const char* machine : {"pc", "q35", "pc-i440fx-", "pc-q35-7.2"})
        EXPECT_THAT(problems_of(with("machine = \"" + std::string(machine) + "\"")),
                    ElementsAre(testing::StartsWith("vm1.toml:6:11: guest.machine = ")));
    for (const char* cpu : {"host", "max", "host,-avx"})
        EXPECT_THAT(problems_of(with("cpu = \"" + std::string(cpu) + "\"")),
                    ElementsAre(testing::StartsWith("vm1.toml:6:7: guest.cpu = ")));
    good(with("memory_mib = 32\nmachine = \"pc-i440fx-6.2\"\ncpu = \"hostile\""));
}

std::string xen_domain(const std::string& settings)
{
    return replaced(kMinimal, "kernel = \"/boot/vmlinuz\"", "type = \"xen\"\n" + settings);
}

TEST(Config, DomainOfXen)
{
    const Config plain = good(xen_domain("xl_config = \"/etc/xen/vm1.cfg\""));
    EXPECT_EQ(plain.guest.type, GuestType::xen);
    EXPECT_EQ(plain.guest.xl_config, "/etc/xen/vm1.cfg");
    EXPECT_EQ(plain.guest.xl_create, "xl create -q -e {pause} {config}");
    EXPECT_EQ(plain.guest.xl_destroy, "xl destroy {domain}");
    EXPECT_EQ(plain.guest.xl_rename, "xl rename {domain} {name}");
    EXPECT_EQ(plain.guest.xl_warm_up_ms, 30'000u);
    const Config other = good(xen_domain("xl_config = \"/a\"\nxl_create = \"r {pause} {config}\"\nxl_destroy = \"d {domain}\"\n"
                                         "xl_rename = \"n {name} {domain}\"\nxl_warm_up_ms = 0"));
    EXPECT_EQ(other.guest.xl_create, "r {pause} {config}");
    EXPECT_EQ(other.guest.xl_rename, "n {name} {domain}");
    EXPECT_EQ(other.guest.xl_warm_up_ms, 0u);
    EXPECT_EQ(good(kMinimal).guest.type, GuestType::qemu);
}

TEST(Config, SettingsOfTheOtherKindOfGuestAreRefused)
{
    EXPECT_THAT(problems_of(xen_domain("")), ElementsAre(HasSubstr("xl_config")));
    for (const std::string key : {"kernel", "initrd"})
        EXPECT_THAT(problems_of(xen_domain("xl_config = \"/a\"\n" + key + " = \"/b\"")),
                    ElementsAre(HasSubstr("guest." + key + " contradicts guest.type: only type = \"qemu\" uses it")));
    EXPECT_THAT(problems_of(xen_domain("xl_config = \"/a\"\nappend = \"quiet\"")), ElementsAre(HasSubstr("guest.append")));
    EXPECT_THAT(problems_of(replaced(kMinimal, "kernel", "xl_config = \"/a\"\nkernel")),
                ElementsAre(HasSubstr("guest.xl_config contradicts guest.type: only type = \"xen\" uses it")));
    EXPECT_THAT(problems_of(replaced(kMinimal, "kernel", "type = \"lxc\"\nkernel")), ElementsAre(HasSubstr("guest.type")));
}

TEST(Config, CommandsOfTheToolstackNeedTheirParts)
{
    const auto with = [](const std::string& setting) { return problems_of(xen_domain("xl_config = \"/a\"\n" + setting)); };
    EXPECT_THAT(with("xl_create = \"xl create {pause}\""), ElementsAre(HasSubstr("guest.xl_create has no {config}")));
    EXPECT_THAT(with("xl_create = \"xl create {config}\""), ElementsAre(HasSubstr("guest.xl_create has no {pause}")));
    EXPECT_THAT(with("xl_destroy = \"xl destroy\""), ElementsAre(HasSubstr("guest.xl_destroy has no {domain}")));
    EXPECT_THAT(with("xl_rename = \"xl rename\""),
                ElementsAre(HasSubstr("guest.xl_rename has no {domain}"), HasSubstr("guest.xl_rename has no {name}")));
    EXPECT_THAT(with("xl_warm_up_ms = 600001"), ElementsAre(HasSubstr("xl_warm_up_ms")));
}

TEST(Config, DomainOfXenTakesTapsOnly)
{
    const auto with = [](const std::string& port) {
        return problems_of(xen_domain("xl_config = \"/a\"") + "\n[[nic]]\nid = \"net0\"\nmac = \"02:00:00:00:00:01\"\nwire = \"tap:vm1\"\n" + port);
    };
    EXPECT_THAT(with("frame_port = \"tap\"\n"), IsEmpty());
    EXPECT_THAT(with("frame_port = \"stream\"\n"), ElementsAre(HasSubstr("nic.0.frame_port must be \"tap\"")));
}

TEST(Config, ContradictionsAcrossSectionsAreRefused)
{
    EXPECT_THAT(problems_of(kMinimal, {"replication.pause_limit_ms=1000"}),
                ElementsAre(HasSubstr("must be less than heartbeat.progress_timeout_ms (1000)")));
    good(kMinimal, {"replication.pause_limit_ms=999"});
    EXPECT_THAT(problems_of(kMinimal, {"peer.address=tcp:192.0.2.1:9", "replication.listen=tcp:192.0.2.1:9"}),
                ElementsAre(HasSubstr("peer.address is this host's own replication.listen")));
    EXPECT_THAT(problems_of(kMinimal, {"peer.address=tcp:192.0.2.1:09", "replication.listen=tcp:[192.0.2.1]:9"}),
                ElementsAre(HasSubstr("peer.address is this host's own replication.listen")));
    EXPECT_THAT(problems_of(kMinimal, {"arbiter.fence_delay_ms=100"}),
                ElementsAre(HasSubstr("arbiter.fence_delay_ms (100) contradicts arbiter.kind")));
    good(kMinimal, {"arbiter.kind=command", "arbiter.command=/bin/true", "arbiter.fence_delay_ms=100"});
}

TEST(Config, ControlAddressesBeyondThisHostNeedPermission)
{
    const auto with = [](const std::string& address, const std::string& remote = "") {
        return std::string(kMinimal) + "[qmp]\n" + remote + "[[qmp.listen]]\naddress = \"" + address + "\"\n";
    };
    const std::string allow = "remote = \"allow\"\n";
    EXPECT_THAT(good(with("tcp:127.0.0.1:4444")).qmp.listen, testing::SizeIs(1));
    EXPECT_EQ(good(with("tcp:[::1]:4444")).qmp.remote, RemoteSetting::refuse);
    EXPECT_THAT(problems_of(with("tcp:192.0.2.1:4444")), ElementsAre(HasSubstr("remote = \"allow\"")));
    EXPECT_EQ(good(with("tcp:192.0.2.1:4444", allow)).qmp.listen[0].address, "tcp:192.0.2.1:4444");
    EXPECT_THAT(problems_of(with("tcp:some.host:4444", allow)), testing::SizeIs(1));
}

TEST(Config, NodeConfigTakesTheTimesOver)
{
    const NodeConfig node = node_config(
        good(kMinimal, {"heartbeat.loss_ms=200", "replication.pause_limit_ms=50", "replication.mode=lock-step"}));
    EXPECT_EQ(node.beat_loss, Duration{200'000});
    EXPECT_EQ(node.pause_bound, Duration{50'000});
    EXPECT_FALSE(node.allow_buffered);
    EXPECT_FALSE(node.always_buffered);
    EXPECT_TRUE(node_config(good(kMinimal, {"replication.mode=buffered"})).always_buffered);
    EXPECT_FALSE(node_config(good(kMinimal)).always_buffered);
    EXPECT_TRUE(node_config(good(kMinimal)).allow_buffered);
    EXPECT_EQ(node.domain_uuid, "01234567-89ab-cdef-0123-456789abcdef");
}

// Whatever a file contains, the answer is a list of problems or a configuration that prints and parses back.
TEST(Config, DamagedFilesAreRefusedOrMeanSomething)
{
    const std::string whole = read_file(std::string(COLO_SOURCE_DIR) + "/docs/example-domain.toml");
    ASSERT_FALSE(whole.empty());
    constexpr std::string_view kBytes = "[]{}=\"'\\\n#.,0123456789-+_abx\0\xff\x80";
    std::mt19937 random(20240607);
    int refused = 0, accepted = 0;
    for (int round = 0; round < 1000; ++round) {
        std::string damaged = whole;
        for (auto changes = 1 + random() % 4; changes > 0; --changes) {
            const std::size_t at = random() % damaged.size();
            switch (random() % 3) {
            case 0: damaged[at] = kBytes[random() % kBytes.size()]; break;
            case 1: damaged.insert(at, 1, kBytes[random() % kBytes.size()]); break;
            default: damaged.erase(at, random() % 20); break;
            }
        }
        std::vector<ConfigProblem> problems;
        const Config config = parse_config(damaged, "damaged.toml", {}, problems);
        for (const ConfigProblem& problem : problems) ASSERT_FALSE(problem.reason.empty());
        ++(problems.empty() ? accepted : refused);
        if (problems.empty()) {
            ASSERT_EQ(to_toml(good(to_toml(config))), to_toml(config)) << damaged;
        }
    }
    EXPECT_GT(refused, 100);
    EXPECT_GT(accepted, 100);  // most of the file is comments
    for (const char* bad :
         {"[[[1]]]", "[[=", "[[", "[", "[a.]", "[[a]", "x", "x =", "= 1", "\"", "'''", "x = [[[", "a.b.c = "})
        EXPECT_THAT(problems_of(bad), testing::SizeIs(1)) << bad;
    EXPECT_THAT(problems_of(std::string(100'000, '[')), testing::SizeIs(1));
    EXPECT_THAT(problems_of("x = " + std::string(100'000, '[')), testing::SizeIs(1));
}

// COLO_UPDATE_DOCS=1 writes the page anew.
TEST(Config, ReferencePageIsWhatTheProgramKnows)
{
    const std::string path = std::string(COLO_SOURCE_DIR) + "/docs/config.md";
    if (std::getenv("COLO_UPDATE_DOCS") != nullptr) std::ofstream(path) << config_reference();
    EXPECT_EQ(read_file(path), config_reference()) << "run colo_config_test with COLO_UPDATE_DOCS=1";
}

// The example names every section and every setting, so that nobody has to look for one.
TEST(Config, ExampleMentionsEverySetting)
{
    const std::string example = read_file(std::string(COLO_SOURCE_DIR) + "/docs/example-domain.toml");
    const std::string reference = config_reference();
    for (std::size_t at = reference.find("\n| `"); at != std::string::npos; at = reference.find("\n| `", at + 1)) {
        const std::string key = reference.substr(at + 4, reference.find('`', at + 4) - at - 4);
        EXPECT_THAT(example, HasSubstr(key + " = "));
    }
}

}  // namespace
}  // namespace colo
