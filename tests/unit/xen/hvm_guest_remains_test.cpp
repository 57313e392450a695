// SPDX-License-Identifier: Apache-2.0
// What a daemon that died, or a domain that is gone, leaves behind.
#include "tests/unit/xen/hvm_guest_fixture.h"

#include <gmock/gmock.h>

namespace colo::xen {
namespace {

using replication::StartMode;
using test::eventually;
using testing::HasSubstr;

class HvmGuestRemains : public test::HvmGuestTest {
protected:
    std::string record() const
    {
        std::ifstream in(options.run_directory + "/domain");
        return {std::istreambuf_iterator<char>(in), {}};
    }
    // The daemon is killed while its toolstack is at work: what there is of the domain by then stays, with the record.
    DomainId die_while_making(StartMode mode)
    {
        std::string then;
        host.while_creating = [&] { then = record(); };
        EXPECT_TRUE(create(mode));
        host.while_creating = nullptr;
        guest.reset();
        EXPECT_THAT(then, testing::StartsWith("making "));
        std::ofstream(options.run_directory + "/domain") << then;
        const auto left = host.find("web");
        return left ? *left : host.find("web--incoming").value_or(0);
    }
};

TEST_F(HvmGuestRemains, DomainThatWasBeingMadeIsDestroyedByTheNextDaemon)
{
    for (const StartMode mode : {StartMode::boot, StartMode::loadable}) {
        const DomainId half = die_while_making(mode);
        ASSERT_NE(half, 0u);
        const auto made = create(mode);
        ASSERT_TRUE(made) << made.error().text;
        EXPECT_EQ(host.count(), 1u);
        const char* name = mode == StartMode::boot ? "web" : "web--incoming";
        ASSERT_TRUE(host.find(name));
        EXPECT_NE(*host.find(name), half);
        guest.reset();
        host.remove(*host.find(name));
    }
}

TEST_F(HvmGuestRemains, OneWithoutANameYetIsFoundByItsUuid)
{
    host.dies_without_a_name = true;
    (void)die_while_making(StartMode::boot);
    EXPECT_EQ(host.count(), 1u);
    host.dies_without_a_name = false;
    ASSERT_TRUE(create(StartMode::boot));
    EXPECT_EQ(host.count(), 1u);
    EXPECT_TRUE(host.find("web"));
}

TEST_F(HvmGuestRemains, WhereNothingWasMadeNothingIsDestroyed)
{
    const DomainId half = die_while_making(StartMode::boot);
    host.remove(half);
    const DomainId other = host.make_domain("other", false);
    ASSERT_TRUE(create(StartMode::boot));
    EXPECT_EQ(host.name_of(other), "other");
    EXPECT_EQ(host.count(), 2u);
}

// The operator's own UUID may be that of a domain that is none of ours: the name decides.
TEST_F(HvmGuestRemains, OperatorsUuidIsKeptAndAnotherDomainThatHasItIsLeftAlone)
{
    std::ofstream(options.config_file) << "type = \"hvm\"\nuuid = \"2b0e6a1e-8a39-4d1c-9a55-0c2c4e7f1a11\"\n";
    const DomainId half = die_while_making(StartMode::boot);
    const Uuid uuid = host.with(half, [](auto& d) { return d.control.described.uuid; });
    EXPECT_EQ(uuid_text(uuid), "2b0e6a1e-8a39-4d1c-9a55-0c2c4e7f1a11");
    const DomainId other = host.make_domain("by-hand", false);
    host.with(other, [&](auto& d) { d.control.described.uuid = uuid; });
    ASSERT_TRUE(create(StartMode::boot));
    EXPECT_EQ(host.name_of(other), "by-hand");
    EXPECT_NE(*host.find("web"), half);
    EXPECT_EQ(host.count(), 2u);
}

TEST_F(HvmGuestRemains, RecordStaysWhileTheHalfCannotBeDestroyed)
{
    host.fail_after["create"] = {Errc::timed_out};
    host.fail["destroy"] = {Errc::failed};
    EXPECT_FALSE(create(StartMode::boot));
    EXPECT_EQ(host.count(), 1u);
    EXPECT_THAT(record(), testing::StartsWith("making "));
    ASSERT_TRUE(create(StartMode::boot));   // the next daemon has more luck
    EXPECT_EQ(host.count(), 1u);
}

TEST_F(HvmGuestRemains, WhatCannotBeLookedForIsNotMadeTwice)
{
    (void)die_while_making(StartMode::boot);
    host.fail["list"] = {Errc::limit};
    EXPECT_EQ(create(StartMode::boot).error().code, Errc::limit);
    EXPECT_EQ(host.count(), 1u);
    EXPECT_TRUE(guest->create(StartMode::boot, soon()));
}

TEST_F(HvmGuestRemains, CommandThatTakesAnotherUuidIsRefused)
{
    host.ignores_uuid = true;
    const auto r = create(StartMode::boot);
    ASSERT_FALSE(r);
    EXPECT_THAT(r.error().text, HasSubstr("xl_create"));
    EXPECT_EQ(host.count(), 0u);
    EXPECT_FALSE(recorded());
}

// ---- one that is dying ------------------------------------------------------------------------------------------------------

TEST_F(HvmGuestRemains, OneThatIsDyingIsWaitedFor)
{
    boot();
    const DomainId old = *host.find("web");
    const auto other = *host.ports().open_domain(old);
    const Gfn gfn = 0;
    int error = 0;
    auto mapping = other->map({&gfn, 1}, Access::read, {&error, 1});
    ASSERT_TRUE(mapping);
    guest.reset();
    host.remove(old);
    ASSERT_EQ(host.zombies(), 1u);
    start_daemon();
    const auto late = guest->create(StartMode::boot, now() + std::chrono::milliseconds(50));
    ASSERT_FALSE(late);
    EXPECT_EQ(late.error().code, Errc::timed_out);
    EXPECT_THAT(late.error().text, HasSubstr("still maps its memory"));
    EXPECT_FALSE(host.find("web"));
    std::thread end([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        mapping = Mapping();
    });
    const auto made = guest->create(StartMode::boot, soon());
    end.join();
    ASSERT_TRUE(made) << made.error().text;
    EXPECT_EQ(host.zombies(), 0u);
    EXPECT_TRUE(host.find("web"));
}

// ---- one that is gone -------------------------------------------------------------------------------------------------------

TEST_F(HvmGuestRemains, NothingIsHeldOfADomainThatIsGone)
{
    for (const bool destroyed_by_us : {false, true}) {
        boot();
        {
            const std::lock_guard lock(events_mutex);
            events.clear();
        }
        const DomainId victim = *host.find("web");
        ASSERT_TRUE(guest->dirty_log().start());
        ASSERT_TRUE(guest->cut_begin(soon()));
        Bytes page(kPageSize);
        const Gfn gfn = 3;
        replication::FrameStatus status{};
        ASSERT_TRUE(guest->memory().read({&gfn, 1}, page.data(), {&status, 1}));
        guest->let_go();   // it lives
        EXPECT_GT(host.with(victim, [](auto& d) { return d.control.mappings(); }), 0);
        destroyed_by_us ? guest->kill() : host.remove(victim);
        EXPECT_TRUE(eventually([this] { return seen(replication::GuestEventKind::gone) == 1; }));
        EXPECT_EQ(host.zombies(), 1u);
        guest->let_go();
        EXPECT_EQ(host.zombies(), 0u);
        EXPECT_EQ(host.with(victim, [](auto& d) { return d.handles.load(); }), 0);
        EXPECT_EQ(guest->memory().read({&gfn, 1}, page.data(), {&status, 1}).error().code, Errc::guest_died);
        EXPECT_EQ(guest->resume(soon()).error().code, Errc::guest_died);
        guest->kill();
        guest->let_go();
        ASSERT_TRUE(guest->recreate(soon()));
        EXPECT_EQ(host.count(), 1u);
        host.remove(host.find("web--incoming").value_or(0));
    }
}

TEST_F(HvmGuestRemains, DomainThatOutlivesItsDeviceModelIsStillKilled)
{
    boot();
    host.with(*host.find("web"), [](auto& d) { d.monitor.reset(); });
    EXPECT_TRUE(eventually([this] { return seen(replication::GuestEventKind::device_model_died) == 1; }));
    guest->let_go();
    guest->kill();
    EXPECT_TRUE(eventually([this] { return seen(replication::GuestEventKind::gone) == 1; }));
    guest->let_go();
    EXPECT_EQ(host.count() + host.zombies(), 0u);
}

}  // namespace
}  // namespace colo::xen
