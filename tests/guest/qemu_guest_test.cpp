// SPDX-License-Identifier: Apache-2.0
// The embedded guest with a real QEMU and the test guest inside it.
#include "tests/guest/test_guest.h"

#include "qemu/device_state.h"
#include "qemu/dirty_log.h"

#include <gtest/gtest.h>

#include <csignal>
#include <cstring>
#include <fstream>
#include <thread>
#include <unistd.h>

namespace colo::test {
namespace {

using replication::DeviceState;
using replication::Guest;
using replication::GuestEventKind;
using replication::PageSet;
using replication::StartMode;

#define ASSERT_OK(expression)                                     \
    do {                                                          \
        const auto result_ = (expression);                        \
        ASSERT_TRUE(result_) << result_.error().text;             \
    } while (false)

constexpr long kBoot = 180000, kStep = 20000;   // ms; generous: the machine may be busy

// All RAM as seen through the guest port.
Bytes read_all(Guest& guest)
{
    const std::uint64_t pages = guest.description().ram_pages();
    Bytes ram(pages * kPageSize);
    std::vector<Gfn> gfns(pages);
    for (Gfn g = 0; g < pages; ++g) gfns[g] = g;
    std::vector<replication::FrameStatus> status(pages);
    EXPECT_TRUE(guest.memory().read(gfns, ram.data(), status));
    return ram;
}

PageSet fetch(Guest& guest)
{
    PageSet set(guest.description().gfn_limit());
    const auto r = guest.dirty_log().fetch_and_clear(set, true);
    EXPECT_TRUE(r) << r.error().text;
    return set;
}

PageSet differing(const Bytes& a, const Bytes& b)
{
    PageSet set(a.size() / kPageSize);
    for (std::size_t i = 0; i < a.size() / kPageSize; ++i)
        if (std::memcmp(a.data() + i * kPageSize, b.data() + i * kPageSize, kPageSize) != 0) set.add(i);
    return set;
}

void write_pages(Guest& guest, const PageSet& set, const Bytes& content)
{
    std::vector<replication::PageWrite> writes;
    set.for_each([&](Gfn g) { writes.push_back({g, content.data() + g * kPageSize}); });
    ASSERT_OK(guest.memory().write(writes));
}

DeviceState cut(Guest& guest)
{
    const auto begun = guest.cut_begin(in_ms(kStep));
    EXPECT_TRUE(begun) << begun.error().text;
    auto state = guest.cut_save(in_ms(kStep));
    EXPECT_TRUE(state) << state.error().text;
    return state ? *state : DeviceState{};
}

TEST(QemuGuest, BootsAndDescribesItself)
{
    TestGuest a("a", "", nullptr);
    Guest& guest = a.make();
    ASSERT_OK(guest.create(StartMode::boot, in_ms(kBoot)));
    EXPECT_TRUE(guest.running());
    EXPECT_GT(guest.device_model_pid(), 0);
    ASSERT_TRUE(a.wait_serial("COLO-GUEST-READY", kBoot)) << a.serial();
    const auto& d = guest.description();
    EXPECT_EQ(d.kind, "qemu");
    EXPECT_EQ(d.accelerator, "tcg");
    EXPECT_EQ(d.ram_pages(), 192u << 8);
    EXPECT_EQ(d.gfn_limit(), 192u << 8);
    EXPECT_FALSE(d.device_model.empty());
    const Time before = guest.last_progress();
    guest.probe();
    const Deadline deadline = in_ms(kStep);
    while (guest.last_progress() <= before && now() < deadline) ::usleep(1000);
    EXPECT_GT(guest.last_progress(), before);

    // What QEMU service commands ask for.
    const std::string file = a.options.run_directory + "/state";
    ASSERT_OK(guest.save_device_state(file, false, in_ms(kStep)));
    EXPECT_TRUE(guest.running());
    ASSERT_OK(guest.stop(in_ms(kStep)));
    ASSERT_OK(guest.stop(in_ms(kStep)));   // idempotent
    EXPECT_FALSE(guest.running());
    for (int i = 0; i < 2; ++i) ASSERT_OK(guest.save_device_state(file, true, in_ms(kStep)));   // QEMU by itself dies of the second one
    ASSERT_OK(guest.load_device_state(file, in_ms(kStep)));
    EXPECT_FALSE(guest.load_device_state("/no/such/file", in_ms(kStep)));
    ASSERT_OK(guest.resume(in_ms(kStep)));
    for (const bool on : {false, false, true, true, false})   // QEMU by itself dies of an "off" that was never on
        ASSERT_OK(guest.set_global_dirty_log(on, in_ms(kStep)));
    EXPECT_TRUE(guest.running());
}

class QemuDirtyLog : public ::testing::TestWithParam<const char*> {};

TEST_P(QemuDirtyLog, Inv08_EveryPageThatChangedIsReported)
{
    if (const auto works = qemu::select_dirty_log(GetParam()); !works) GTEST_SKIP() << works.error().text;
    TestGuest a("a", "colo.dirty=20 colo.wset=24 colo.smc=1 colo.exec=1", nullptr);
    a.options.dirty_log = GetParam();
    Guest& guest = a.make();
    ASSERT_OK(guest.create(StartMode::boot, in_ms(kBoot)));
    EXPECT_EQ(guest.dirty_log().method(), GetParam());
    ASSERT_TRUE(a.wait_serial("COLO-GUEST-READY", kBoot)) << a.serial();
    ASSERT_OK(guest.dirty_log().start());
    cut(guest);
    EXPECT_EQ(fetch(guest).count(), guest.description().ram_pages());
    Bytes before = read_all(guest);
    std::size_t changed = 0;
    for (int round = 0; round < 12; ++round) {
        ASSERT_OK(guest.resume(in_ms(kStep)));
        ::usleep(100000);
        cut(guest);
        const PageSet reported = fetch(guest);
        const Bytes after = read_all(guest);
        PageSet missed = differing(before, after);
        changed += missed.count();
        missed.subtract(reported);
        EXPECT_EQ(missed.count(), 0u) << "round " << round;
        EXPECT_LT(reported.count(), guest.description().ram_pages());
        before = after;
    }
    EXPECT_GT(changed, 100u);
}

INSTANTIATE_TEST_SUITE_P(Methods, QemuDirtyLog, ::testing::Values("uffd-wp", "soft-dirty", "compare"), [](const auto& test) {
    std::string name = test.param;
    std::erase(name, '-');
    return name;
});

// A and B as the service runs them: B runs between the checkpoints, each apply writes only the union of both dirty sets.
class Pair {
public:
    Pair(const std::string& more, Tap* tap_a, Tap* tap_b, const std::string& device_load) : a("a", more, tap_a), b("b", more, tap_b)
    {
        for (TestGuest* side : {&a, &b}) side->options.device_load = device_load;
    }
    void start()
    {
        ASSERT_OK(a.make().create(StartMode::boot, in_ms(kBoot)));
        ASSERT_OK(b.make().create(StartMode::loadable, in_ms(kBoot)));
        ASSERT_TRUE(a.wait_serial("COLO-GUEST-READY", kBoot)) << a.serial();
        for (TestGuest* side : {&a, &b}) ASSERT_OK(side->guest().dirty_log().start());
    }
    // Leaves both stopped and equal.
    void checkpoint()
    {
        state = cut(a.guest());
        PageSet set = fetch(a.guest());
        ASSERT_OK(b.guest().stop(in_ms(kStep)));
        set.merge(fetch(b.guest()));
        const Bytes content = read_all(a.guest());
        write_pages(b.guest(), set, content);
        ASSERT_EQ(differing(content, read_all(b.guest())).count(), 0u) << "the union of dirty sets was not enough";
        ASSERT_OK(b.guest().load(state, in_ms(kStep)));
        write_pages(b.guest(), fetch(b.guest()), content);
        ASSERT_EQ(differing(content, read_all(b.guest())).count(), 0u) << "the load changed RAM unseen";
    }
    void run()
    {
        ASSERT_OK(a.guest().resume(in_ms(kStep)));
        ASSERT_OK(b.guest().resume(in_ms(kStep)));
    }
    TestGuest a, b;
    DeviceState state;   // of the last checkpoint
};

class QemuLoad : public ::testing::TestWithParam<const char*> {};

TEST_P(QemuLoad, Inv11_Inv09_TheOtherSideGoesOnFromTheCheckpoint)
{
    const std::string method = GetParam();
    if (!have_private_network()) GTEST_SKIP() << "needs a network namespace and /dev/net/tun";
    Tap tap_a("cqa"), tap_b("cqb");
    tap_a.select();
    Pair pair("colo.dirty=10 colo.wset=16 colo.smc=1 colo.exec=1", &tap_a, &tap_b, method);
    if (method == "xen-load") {
        const auto choice = pair.a.make().create(StartMode::boot, in_ms(kBoot));
        if (!choice) {
            EXPECT_EQ(choice.error().code, Errc::unsupported);
            EXPECT_NE(choice.error().text.find("xen-load"), std::string::npos);
            GTEST_SKIP() << "refused, as it must be where QEMU does not survive it: " << choice.error().text;
        }
        GTEST_SKIP() << "this QEMU survives xen-load-devices-state; the pair needs a fresh start";
    }
    ASSERT_NO_FATAL_FAILURE(pair.start());
    LineClient echo(7);
    EXPECT_EQ(echo.ask("hello"), "0 hello");
    for (int i = 0; i < 6; ++i) {
        ASSERT_NO_FATAL_FAILURE(pair.checkpoint());
        ASSERT_NO_FATAL_FAILURE(pair.run());
        ::usleep(150000);
    }
    EXPECT_EQ(echo.ask("still A"), "1 still A");
    ASSERT_NO_FATAL_FAILURE(pair.checkpoint());
    pair.a.guest().kill();
    tap_b.select();   // first: a bridge without a port loses its carrier and what it knows of neighbours
    tap_a.unselect();
    ASSERT_OK(pair.b.guest().resume(in_ms(kStep)));
    EXPECT_EQ(echo.ask("now B"), "2 now B") << "the connection lives on";
    const long long written = guest_status("pages_written");
    ::usleep(500000);
    EXPECT_GT(guest_status("pages_written"), written);
    EXPECT_EQ(guest_status("pages_bad"), 0);
    EXPECT_EQ(guest_status("code_bad"), 0);
    EXPECT_EQ(guest_status("exec_bad"), 0);
    EXPECT_TRUE(pair.a.wait_event(GuestEventKind::device_model_died, kStep));
    EXPECT_EQ(pair.b.events().size(), 0u);
}

INSTANTIATE_TEST_SUITE_P(Methods, QemuLoad, ::testing::Values("snapshot", "xen-load"), [](const auto& test) {
    std::string name = test.param;
    std::erase(name, '-');
    return name;
});

// R5: what QEMU does with input that arrives while it is stopped. It pulls one frame at most out of the tap; the others stay
// there for whoever seals. The pulled one is delivered after `cont`, even if a load lies in between.
TEST(QemuGuest, R5_AStoppedQemuPullsAtMostOneFrame)
{
    if (!have_private_network()) GTEST_SKIP() << "needs a network namespace and /dev/net/tun";
    Tap tap_a("cqa"), tap_b("cqb");
    tap_a.select();
    Pair pair("", &tap_a, &tap_b, "snapshot");
    ASSERT_NO_FATAL_FAILURE(pair.start());
    UdpClient udp(7);
    fix_guest_neighbour(pair.a.options.nics[0].mac);   // no ARP among the frames that are counted
    EXPECT_EQ(udp.ask("before", 20000), "0 before");
    ASSERT_NO_FATAL_FAILURE(pair.checkpoint());
    pair.a.guest().kill();
    tap_b.select();   // first: a bridge without a port loses its carrier and what it knows of neighbours
    tap_a.unselect();
    for (int i = 0; i < 5; ++i) udp.send("while stopped " + std::to_string(i));
    ::usleep(200000);
    const int left = tap_b.take_all();
    EXPECT_GE(left, 4);
    EXPECT_LE(left, 5);
    ASSERT_OK(pair.b.guest().load(pair.state, in_ms(kStep)));
    ASSERT_OK(pair.b.guest().resume(in_ms(kStep)));
    const std::string answer = udp.receive(3000);
    EXPECT_EQ(answer, left == 5 ? "" : "1 while stopped 0");
    EXPECT_EQ(udp.receive(300), "") << "and no other one";
    EXPECT_EQ(udp.ask("after", 20000), left == 5 ? "1 after" : "2 after") << "the port goes on";
}

// R1: what can be refused before the guest is touched is; what only QEMU finds leaves recreate() + load.
TEST(QemuGuest, Inv20_ARefusedLoadIsFollowedByAFreshDeviceModel)
{
    Pair pair("", nullptr, nullptr, "snapshot");
    ASSERT_NO_FATAL_FAILURE(pair.start());
    ASSERT_NO_FATAL_FAILURE(pair.checkpoint());
    const DeviceState good = [&] {
        EXPECT_TRUE(pair.a.guest().resume(in_ms(kStep)));
        return cut(pair.a.guest());
    }();
    const Bytes ram = read_all(pair.a.guest());
    Guest& b = pair.b.guest();
    ASSERT_OK(b.verify(good));

    DeviceState truncated = good;
    truncated.devices.resize(truncated.devices.size() / 2);
    EXPECT_EQ(b.load(truncated, in_ms(kStep)).error().code, Errc::corrupt);
    ASSERT_OK(b.stop(in_ms(kStep)));   // not touched: it still answers

    // Four bytes too many at the end of the CPU's section: every check of ours passes, QEMU's does not.
    DeviceState bad = good;
    const std::string cpu = "\x03" "cpu";
    auto at = std::search(bad.devices.begin(), bad.devices.end(), cpu.begin(), cpu.end());
    ASSERT_NE(at, bad.devices.end());
    const std::uint32_t id_offset = static_cast<std::uint32_t>(at - bad.devices.begin()) - 4;
    Bytes footer = {0x7e};
    footer.insert(footer.end(), bad.devices.begin() + id_offset, bad.devices.begin() + id_offset + 4);
    at = std::search(at, bad.devices.end(), footer.begin(), footer.end());
    bad.devices.insert(at, {1, 2, 3, 4});
    ASSERT_OK(b.verify(bad));
    const auto refused = b.load(bad, in_ms(kStep));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::refused) << refused.error().text;

    const int old_pid = b.device_model_pid();
    b.kill();
    ASSERT_OK(b.recreate(in_ms(kBoot)));
    EXPECT_NE(b.device_model_pid(), old_pid);
    const Bytes fresh = read_all(b);
    PageSet everything(b.description().gfn_limit());
    everything.add_range(0, b.description().ram_pages());
    EXPECT_EQ(fetch(b).count(), b.description().ram_pages()) << "the dirty log starts again with the new device model";
    write_pages(b, everything, ram);
    ASSERT_OK(b.load(good, in_ms(kStep)));
    write_pages(b, fetch(b), ram);
    EXPECT_EQ(differing(ram, read_all(b)).count(), 0u);
    ASSERT_OK(b.resume(in_ms(kStep)));
    const auto running_pages = [&] { return fetch(b).count(); };
    const Deadline deadline = in_ms(kStep);
    while (running_pages() == 0 && now() < deadline) ::usleep(10000);
    EXPECT_TRUE(b.running());
    EXPECT_LT(now(), deadline) << "the guest writes no memory";
}

TEST(QemuGuest, Inv13_AFrozenDeviceModelEndsInADeadline)
{
    TestGuest a("a", "", nullptr);
    Guest& guest = a.make();
    ASSERT_OK(guest.create(StartMode::boot, in_ms(kBoot)));
    ASSERT_EQ(::kill(guest.device_model_pid(), SIGSTOP), 0);
    const Time before = now();
    const auto begun = guest.cut_begin(in_ms(300));
    ASSERT_FALSE(begun);
    EXPECT_EQ(begun.error().code, Errc::timed_out) << begun.error().text;
    EXPECT_GE(now() - before, std::chrono::milliseconds(300));
    EXPECT_FALSE(guest.resume(in_ms(300)));
    guest.kill();
    EXPECT_TRUE(a.wait_event(GuestEventKind::device_model_died, kStep));
    ASSERT_OK(guest.recreate(in_ms(kBoot)));
    ASSERT_OK(guest.resume(in_ms(kStep)));
    EXPECT_TRUE(guest.running());
}

TEST(QemuGuest, AKilledDeviceModelIsReportedAndSaidSo)
{
    TestGuest a("a", "", nullptr);
    Guest& guest = a.make();
    ASSERT_OK(guest.create(StartMode::boot, in_ms(kBoot)));
    ASSERT_EQ(::kill(guest.device_model_pid(), SIGKILL), 0);
    ASSERT_TRUE(a.wait_event(GuestEventKind::device_model_died, kStep));
    EXPECT_NE(a.events()[0].detail.find("signal 9"), std::string::npos) << a.events()[0].detail;
    EXPECT_FALSE(guest.running());
    const auto begun = guest.cut_begin(in_ms(kStep));
    ASSERT_FALSE(begun);
    EXPECT_EQ(begun.error().code, Errc::guest_died) << begun.error().text;
    EXPECT_FALSE(guest.resume(in_ms(kStep)));
    EXPECT_FALSE(guest.stop(in_ms(kStep)));
}

// A device model that is none: says nothing, garbage, or goes away.
TEST(QemuGuest, AFalseDeviceModelIsAnErrorWithinTheDeadline)
{
    const auto create_with = [](const std::string& script) {
        TestGuest a("a", "", nullptr);
        const std::string path = a.options.run_directory + "/qemu";
        std::ofstream(path) << "#!/bin/sh\n" << script << "\n";
        ::chmod(path.c_str(), 0755);
        a.options.qemu_binary = path;
        const auto r = a.make().create(StartMode::loadable, in_ms(1500));
        EXPECT_FALSE(r);
        return r ? Error{} : r.error();
    };
    EXPECT_EQ(create_with("exec sleep 1000").code, Errc::timed_out);
    EXPECT_EQ(create_with("echo nonsense >&4; exec sleep 1000").code, Errc::corrupt);
    const Error gone = create_with("echo 'no such machine' >&2; exit 3");
    EXPECT_EQ(gone.code, Errc::closed);
    EXPECT_NE(gone.text.find("status 3"), std::string::npos) << gone.text;
    EXPECT_NE(gone.text.find("no such machine"), std::string::npos) << gone.text;
}

// R9: power events are outputs, not failures.
class QemuPower : public ::testing::TestWithParam<std::pair<const char*, GuestEventKind>> {};

TEST_P(QemuPower, IsReported)
{
    if (!have_private_network()) GTEST_SKIP() << "needs a network namespace and /dev/net/tun";
    Tap tap("cqa");
    tap.select();
    TestGuest a("a", "", &tap);
    Guest& guest = a.make();
    ASSERT_OK(guest.create(StartMode::boot, in_ms(kBoot)));
    ASSERT_TRUE(a.wait_serial("COLO-GUEST-READY", kBoot)) << a.serial();
    LineClient control(2000);
    EXPECT_EQ(control.ask(GetParam().first), "ok");
    ASSERT_TRUE(a.wait_event(GetParam().second, kBoot));
    EXPECT_EQ(a.events()[0].kind, GetParam().second) << a.events()[0].detail;
    EXPECT_FALSE(a.wait_event(GuestEventKind::device_model_died, 200)) << "QEMU stays";
    if (GetParam().second == GuestEventKind::reset) {
        const std::size_t first = a.serial().find("COLO-GUEST-READY");
        const Deadline deadline = in_ms(kBoot);
        while (a.serial().find("COLO-GUEST-READY", first + 1) == std::string::npos && now() < deadline) ::usleep(20000);
        EXPECT_LT(now(), deadline) << "it boots again by itself";
        EXPECT_TRUE(guest.running());
    } else {
        EXPECT_FALSE(guest.running());
        // A secondary must be able to take over the powered-off state, too.
        const DeviceState state = cut(guest);
        EXPECT_TRUE(guest.verify(state));
    }
}

INSTANTIATE_TEST_SUITE_P(Events, QemuPower,
                         ::testing::Values(std::pair{"poweroff", GuestEventKind::power_off}, std::pair{"reboot", GuestEventKind::reset},
                                           std::pair{"panic", GuestEventKind::panicked}),
                         [](const auto& test) { return std::string(test.param.first); });

TEST(QemuGuest, R9_ButtonsOfTheMachine)
{
    TestGuest a("a", "", nullptr);
    Guest& guest = a.make();
    ASSERT_OK(guest.create(StartMode::boot, in_ms(kBoot)));
    ASSERT_TRUE(a.wait_serial("COLO-GUEST-READY", kBoot)) << a.serial();
    ASSERT_OK(guest.reset(in_ms(kStep)));
    ASSERT_TRUE(a.wait_event(GuestEventKind::reset, kStep));
    EXPECT_TRUE(a.events()[0].by_host);
    EXPECT_TRUE(guest.running());
    const std::size_t first = a.serial().find("COLO-GUEST-READY");
    const Deadline deadline = in_ms(kBoot);
    while (a.serial().find("COLO-GUEST-READY", first + 1) == std::string::npos && now() < deadline) ::usleep(20000);
    ASSERT_LT(now(), deadline) << "it boots again by itself";

    // Pressed again, as one does: a guest that has just come up may not listen yet.
    bool off = false;
    for (const Deadline until = in_ms(kBoot); !off && now() < until;) {
        ASSERT_OK(guest.powerdown(in_ms(kStep)));
        ASSERT_TRUE(a.wait_event(GuestEventKind::power_button, kStep));
        off = a.wait_event(GuestEventKind::power_off, 5000);
    }
    ASSERT_TRUE(off) << a.serial();
    EXPECT_FALSE(guest.running());
    ASSERT_OK(guest.resume(in_ms(kStep)));
    EXPECT_FALSE(guest.running()) << "off stays off";
    ASSERT_OK(guest.reset(in_ms(kStep)));
    EXPECT_FALSE(guest.running()) << "reset, and waits";
    ASSERT_OK(guest.resume(in_ms(kStep)));
    EXPECT_TRUE(guest.running());
}

// The copy's own guest powered off: QEMU stays in that state whatever is loaded, and must not count as running.
TEST(QemuGuest, R9_ACopyThatPoweredItselfOffNeedsANewDeviceModel)
{
    if (!have_private_network()) GTEST_SKIP() << "needs a network namespace and /dev/net/tun";
    Tap tap_a("cqa"), tap_b("cqb");
    tap_b.select();
    Pair pair("", &tap_a, &tap_b, "snapshot");
    ASSERT_NO_FATAL_FAILURE(pair.start());
    ASSERT_NO_FATAL_FAILURE(pair.checkpoint());
    ASSERT_NO_FATAL_FAILURE(pair.run());
    Guest& b = pair.b.guest();
    {
        LineClient control(2000);
        EXPECT_EQ(control.ask("poweroff"), "ok");
    }
    ASSERT_TRUE(pair.b.wait_event(GuestEventKind::power_off, kBoot));
    const DeviceState state = cut(pair.a.guest());
    const Bytes ram = read_all(pair.a.guest());
    ASSERT_OK(b.stop(in_ms(kStep)));
    Result<void> applied = b.load(state, in_ms(kStep));
    if (applied) applied = b.resume(in_ms(kStep));
    EXPECT_FALSE(applied) << "applied, but it will never run";
    b.kill();
    ASSERT_OK(b.recreate(in_ms(kBoot)));
    PageSet everything;
    everything.add_range(0, b.description().ram_pages());
    write_pages(b, everything, ram);
    ASSERT_OK(b.load(state, in_ms(kStep)));
    ASSERT_OK(b.resume(in_ms(kStep)));
    EXPECT_TRUE(b.running());
}

TEST(QemuGuest, AKillWhileItIsMadeIsNotLost)
{
    TestGuest a("a", "", nullptr);
    Guest& guest = a.make();
    ASSERT_OK(guest.create(StartMode::loadable, in_ms(kBoot)));
    std::thread killer([&] {
        while (guest.device_model_pid() != 0) ::usleep(100);   // recreate() has dropped the old one
        guest.kill();
    });
    const auto made = guest.recreate(in_ms(kBoot));
    killer.join();
    ASSERT_FALSE(made);
}

TEST(QemuGuest, TheAcceleratorIsOnlyKvmWhereItReallyRunsTheGuest)
{
    TestGuest a("a", "", nullptr);
    a.options.accelerator = "auto";
    a.options.kvm_test_time = std::chrono::seconds(4);
    a.options.life_sign = "COLO-GUEST-READY";
    qemu::EmbeddedGuest& guest = a.make();
    ASSERT_OK(guest.create(StartMode::boot, in_ms(kBoot)));
    ASSERT_TRUE(a.wait_serial("COLO-GUEST-READY", kBoot)) << "whatever was chosen runs";
    if (guest.choices().accelerator == "kvm") GTEST_SKIP() << "KVM works here";
    EXPECT_FALSE(guest.choices().accelerator_why.empty());
    TestGuest again("a2", "", nullptr);
    again.options = a.options;  // same run directory
    ASSERT_OK(again.make().create(StartMode::loadable, in_ms(kBoot)));
    EXPECT_EQ(again.guest().description().accelerator, "tcg");
    again.options.accelerator = "kvm";
    const auto forced = again.make().create(StartMode::loadable, in_ms(kBoot));
    ASSERT_FALSE(forced);
    EXPECT_EQ(forced.error().code, Errc::unsupported) << forced.error().text;
}

}  // namespace
}  // namespace colo::test
