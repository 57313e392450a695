// SPDX-License-Identifier: Apache-2.0
#include "colo/node_hello.h"
#include "node_pair.h"

#include <gmock/gmock.h>

namespace colo::test {
namespace {

using testing::HasSubstr;

replication::Hello good_hello()
{
    return make_hello(small_config(), PersistentState{}, 5, small_guest(), {});
}

std::string refusal(const replication::Hello& hello)
{
    const auto r = check_hello(small_config(), small_guest(), {}, hello);
    return r ? "" : r.error().text;
}

TEST(NodeHello, Inv32_EqualSidesAgreeOnAVersion)
{
    const auto version = check_hello(small_config(), small_guest(), {}, good_hello());
    ASSERT_TRUE(version);
    EXPECT_EQ(*version, 1);
}

TEST(NodeHello, Inv32_EveryDifferenceIsToldWithBothValues)
{
    struct Case {
        const char* what;
        std::function<void(replication::Hello&)> change;
        std::vector<const char*> expected;
    };
    const Case cases[] = {
        {"uuid", [](auto& h) { h.domain_uuid = "other"; }, {"UUID", "\"other\"", "01234567"}},
        {"version", [](auto& h) { h.version_min = h.version_max = 9; }, {"versions 9 to 9", "1 to 1", "same release"}},
        {"beat", [](auto& h) { h.beat_interval_us = 7; }, {"heartbeat interval", "7 us", "10000 us", "[heartbeat]"}},
        {"loss", [](auto& h) { h.beat_loss_us = 7; }, {"loss time", "7 us"}},
        {"lease", [](auto& h) { h.lease_us = 7; }, {"lease", "7 us", "90000 us"}},
        {"arbiter", [](auto& h) { h.arbiter = "lock:elsewhere"; }, {"arbiter", "lock:elsewhere", "lock:desk"}},
        {"kind", [](auto& h) { h.guest.kind = "xen-hvm"; }, {"kind of guest", "xen-hvm", "sim"}},
        {"accelerator", [](auto& h) { h.guest.accelerator = "kvm"; }, {"accelerator", "kvm"}},
        {"machine", [](auto& h) { h.guest.machine = "q35"; }, {"machine type", "q35", "desk"}},
        {"cpu", [](auto& h) { h.guest.cpu_policy = "host"; }, {"CPU", "host"}},
        {"device model", [](auto& h) { h.guest.device_model = "9.0"; }, {"device model", "9.0"}},
        {"devices", [](auto& h) { h.guest.device_list = "x"; }, {"device list"}},
        {"boot", [](auto& h) { h.guest.boot_digest = "x"; }, {"boots from", "identical kernel"}},
        {"vcpus", [](auto& h) { h.guest.vcpus = 4; }, {"virtual CPUs", "\"4\"", "\"1\""}},
        {"memory", [](auto& h) { h.guest.regions[0].pages = 32; }, {"memory", "128 KiB", "64 KiB"}},
        {"nics", [](auto& h) { h.guest.nics.clear(); }, {"number of NICs", "\"0\"", "\"1\""}},
        {"mac", [](auto& h) { h.guest.nics[0].mac[5] = 9; }, {"MAC", "02:00:00:00:00:09", "02:00:00:00:00:01"}},
        {"offload", [](auto& h) { h.guest.nics[0].offload_features = 3; }, {"offloads", "net0"}},
        {"session", [](auto& h) { h.session = 0; }, {"session"}},
        {"channels", [](auto& h) { h.page_channels = 0; }, {"page channel"}},
    };
    for (const Case& c : cases) {
        replication::Hello hello = good_hello();
        c.change(hello);
        const std::string text = refusal(hello);
        for (const char* part : c.expected) EXPECT_THAT(text, HasSubstr(part)) << c.what;
    }
}

TEST(NodeHello, FrequenciesOfAGuestsClockMayDifferBySoMuchThatItCanBeSet)
{
    replication::GuestDescription own = small_guest();
    own.tsc_khz = 2'000'000;
    for (const std::uint32_t khz : {0u, 1'999'100u, 2'000'000u, 2'001'000u}) {
        replication::GuestDescription primary = own;
        primary.tsc_khz = khz;
        EXPECT_EQ(first_difference(primary, own), "") << khz;
        EXPECT_EQ(first_difference(own, primary), "") << khz;
    }
    for (const std::uint32_t khz : {1u, 1'998'900u, 2'001'002u, 0xffffffffu}) {
        replication::GuestDescription primary = own;
        primary.tsc_khz = khz;
        EXPECT_THAT(first_difference(primary, own), HasSubstr("2000000 kHz")) << khz;
        EXPECT_THAT(first_difference(own, primary), HasSubstr("time stamp counter")) << khz;
    }
}

TEST(NodeHello, RemediesFitTheKindOfGuest)
{
    struct Case {
        std::function<void(replication::GuestDescription&)> change;
        const char* xen;
        const char* qemu;
    };
    const Case cases[] = {
        {[](auto& g) { g.device_list = "others"; }, "compare the files of guest.xl_config", "same devices in the same order"},
        {[](auto& g) { g.cpu_policy = "1"; }, "xl info", "guest.cpu"},
        {[](auto& g) { g.machine = "hvm"; }, "tsc_mode", "guest.machine"},
        {[](auto& g) { g.device_model = "7.2"; }, "qemu-system-xen", "same version"},
        {[](auto& g) { g.vcpus = 9; }, "maxvcpus", "guest.vcpus"},
        {[](auto& g) { g.regions[0].pages = 1; }, "xl_warm_up_ms", "guest.memory_mib"},
    };
    for (const bool xen : {true, false})
        for (const Case& c : cases) {
            replication::GuestDescription own = small_guest();
            if (xen) own.kind = "xen-hvm";
            replication::GuestDescription primary = own;
            c.change(primary);
            const std::string text = first_difference(primary, own);
            EXPECT_THAT(text, HasSubstr(xen ? c.xen : c.qemu));
            EXPECT_THAT(text, testing::Not(HasSubstr(xen ? "guest.memory_mib" : "xl")));
        }
}

TEST(NodeHello, Inv32_TooLittleMemoryIsRefusedWithBothFigures)
{
    replication::Hello hello = good_hello();
    hello.memory_needed = 300u << 20;
    const auto r = check_hello(small_config(), small_guest(), {0, 100u << 20}, hello);
    ASSERT_FALSE(r);
    EXPECT_THAT(r.error().text, HasSubstr("needs 300 MiB"));
    EXPECT_THAT(r.error().text, HasSubstr("has 100 MiB"));
    EXPECT_TRUE(check_hello(small_config(), small_guest(), {0, 300u << 20}, hello));
    EXPECT_TRUE(check_hello(small_config(), small_guest(), {300u << 20, 0}, hello)) << "not known is not too little";
    // How much is staged is the secondary's own setting.
    EXPECT_TRUE(check_hello(small_config(), small_guest(), {90u << 20, 100u << 20}, hello));
    EXPECT_FALSE(check_hello(small_config(), small_guest(), {400u << 20, 350u << 20}, hello));
}

TEST(NodeHello, Inv32_MemoryIsCheckedBeforeTheGuestIsTouched)
{
    Desk desk;
    desk.start();
    desk.a.node->copy_memory({3u << 20, 1u << 20});  // of its own host: how little the primary has does not matter
    desk.b.node->copy_memory({3u << 20, 2u << 20});
    desk.connect(5);
    EXPECT_EQ(desk.a.status().protection, Protection::unprotected);
    EXPECT_THAT(desk.a.failed_session, HasSubstr("needs 3 MiB"));
    EXPECT_THAT(desk.a.failed_session, HasSubstr("has 2 MiB"));
    EXPECT_FALSE(desk.b.did("open"));
    EXPECT_EQ(desk.b.count("standby"), 1) << "the guest of the standby is kept as it is";
    EXPECT_EQ(desk.b.status().protection, Protection::standby);
    // Measured anew for each session.
    desk.b.node->copy_memory({3u << 20, 3u << 20});
    desk.connect(6);
    EXPECT_EQ(desk.a.status().protection, Protection::in_sync);
}

TEST(NodeHello, Inv32_BothSidesSayWhatACopyTakesAndWhatThereIs)
{
    EXPECT_EQ(make_hello(small_config(), PersistentState{}, 5, small_guest(), {77, 88}).memory_needed, 77u);
    Desk desk;
    desk.start();
    desk.b.node->copy_memory({77, 88});
    desk.connect(5);
    EXPECT_EQ(desk.b.memory_told, 88u);
}

TEST(NodeHello, SaysHowManyPageChannelsWereDialled)
{
    Desk desk;
    desk.start();
    desk.a.node->set_page_channels(7);
    desk.connect(5);
    EXPECT_EQ(desk.a.channels_told, 7);
    EXPECT_EQ(desk.a.status().protection, Protection::in_sync);
}

TEST(NodeHello, Inv32_RefusedPrimaryServesOnAndSaysWhy)
{
    Desk desk;
    desk.start();
    desk.a.connected = desk.b.connected = true;
    replication::GuestDescription other = small_guest();
    other.vcpus = 2;
    desk.b.node->open_secondary_session(other, desk.now);
    desk.a.node->open_primary_session(5, small_guest(), desk.now);
    desk.run();
    EXPECT_EQ(desk.a.status().protection, Protection::unprotected);
    EXPECT_THAT(desk.a.failed_session, HasSubstr("virtual CPUs"));
    EXPECT_EQ(desk.b.status().protection, Protection::standby);
    EXPECT_FALSE(desk.b.did("open"));
    EXPECT_EQ(desk.a.count("boot"), 1);
    EXPECT_FALSE(desk.a.did("output hold"));
    // And a later, matching attempt works.
    desk.connect(6);
    EXPECT_EQ(desk.a.status().protection, Protection::in_sync);
}

TEST(NodeHello, HigherGenerationOfEitherSideIsTakenAndStored)
{
    Desk desk;
    PersistentState old;
    old.domain_uuid = small_config().domain_uuid;
    old.generation = 7;
    desk.a.node->start(PersistentState{}, StartIntent::primary, desk.now);
    desk.b.node->start(old, StartIntent::secondary, desk.now);
    desk.run();
    desk.connect(9);
    EXPECT_EQ(desk.a.status().generation, 7u);
    EXPECT_EQ(desk.a.stored.generation, 7u);
    EXPECT_EQ(desk.b.stored.generation, 7u);
    EXPECT_EQ(desk.a.status().protection, Protection::in_sync);
}

}  // namespace
}  // namespace colo::test
