// SPDX-License-Identifier: Apache-2.0
// What is done with a domain once there is one.
#include "tests/unit/xen/hvm_guest_fixture.h"

#include <gmock/gmock.h>

#include <cerrno>
#include <functional>

namespace colo::xen {
namespace {

using replication::DeviceState;
using replication::GuestEventKind;
using replication::StartMode;
using test::cpu_context;
using test::eventually;
using test::model_state;
using test::Trace;
using testing::HasSubstr;

class HvmGuest : public test::HvmGuestTest {
protected:
    // The last domain that was made.
    DomainId domain()
    {
        const auto found = host.find("web");
        return found ? *found : host.find("web--incoming").value_or(0);
    }
    bool log_is_on()
    {
        return host.with(domain(), [](auto& d) { return d.control.log_is_on(); });
    }
    bool model_log_is_on()
    {
        return host.with(domain(), [](auto& d) { return d.model->log_on; });
    }
};

TEST_F(HvmGuest, CutSaveResume)
{
    boot();
    ASSERT_TRUE(guest->cut_begin(soon()));
    EXPECT_FALSE(guest->running());
    const auto state = guest->cut_save(soon());
    ASSERT_TRUE(state);
    EXPECT_EQ(state->devices, model_state());
    EXPECT_EQ(state->cpu_context, cpu_context());
    EXPECT_TRUE(guest->verify(*state));
    ASSERT_TRUE(guest->resume(soon()));
    EXPECT_TRUE(guest->running());
    EXPECT_EQ(host.taken(), (Trace{"pause", "model-stop-and-save", "context", "model-saved", "model-cont", "unpause"}));
    EXPECT_LE(guest->last_cut_times().stop_sent, guest->last_cut_times().cont_done);
    ASSERT_TRUE(guest->stop(soon()));
    EXPECT_FALSE(guest->running());
    EXPECT_EQ(pauses(domain()), 1);
}

// Whoever asked for the cut may leave it at that, as with a guest that is off: no save is left under way.
TEST_F(HvmGuest, CutWhoseMapCannotBeReadHasEnded)
{
    boot();
    host.with(domain(), [](auto& d) { d.control.fail["gfn-limit"] = {EPERM}; });
    EXPECT_EQ(guest->cut_begin(soon()).error().code, Errc::refused);
    EXPECT_EQ(host.taken(), (Trace{"pause", "model-stop-and-save", "model-saved"}));
    EXPECT_EQ(pauses(domain()), 1);
    ASSERT_TRUE(guest->resume(soon()));
    EXPECT_EQ(pauses(domain()), 0);
}

TEST_F(HvmGuest, OneThatWentOffBeforeTheCutStaysOff)
{
    boot();
    shut_down(domain(), 0);
    ASSERT_TRUE(guest->cut_begin(soon()));
    ASSERT_TRUE(guest->resume(soon()));
    EXPECT_FALSE(guest->running());
    EXPECT_TRUE(eventually([this] { return seen(GuestEventKind::power_off) == 1; }));
    EXPECT_FALSE(guest->running());
}

TEST_F(HvmGuest, OneThatRebootsIsMadeAnewUnderItsName)
{
    boot();
    ASSERT_TRUE(guest->dirty_log().start());
    const DomainId before = domain();
    ASSERT_TRUE(guest->carry_out_reset(true, soon()));   // none is owed
    EXPECT_EQ(domain(), before);
    shut_down(before, 1);
    ASSERT_TRUE(eventually([this] { return seen(GuestEventKind::reset) == 1; }));
    ASSERT_TRUE(guest->carry_out_reset(true, soon()));
    EXPECT_NE(domain(), before);
    EXPECT_EQ(host.count(), 1u);
    EXPECT_EQ(host.name_of(domain()), "web");
    EXPECT_TRUE(guest->running());
    EXPECT_TRUE(log_is_on());   // the session goes on, with everything dirty
    // One that an operator had paused stays so.
    shut_down(domain(), 1);
    ASSERT_TRUE(guest->carry_out_reset(false, soon()));
    EXPECT_FALSE(guest->running());
    EXPECT_EQ(pauses(domain()), 1);
    // Off is off.
    const DomainId off = domain();
    shut_down(off, 0);
    ASSERT_TRUE(guest->carry_out_reset(true, soon()));
    EXPECT_EQ(domain(), off);
    ASSERT_TRUE(guest->reset(soon()));
    EXPECT_NE(domain(), off);
    EXPECT_EQ(host.count(), 1u);
}

TEST_F(HvmGuest, ResetThatLeavesNoDomainIsTheEndOfIt)
{
    boot();
    host.fail["create"] = {Errc::failed};
    EXPECT_FALSE(guest->reset(soon()));
    EXPECT_EQ(host.count(), 0u);
    EXPECT_EQ(seen(GuestEventKind::device_model_died), 1u);
}

TEST_F(HvmGuest, ACopyIsNotMadeAnew)
{
    follow();
    const DomainId before = domain();
    shut_down(before, 1);
    EXPECT_FALSE(guest->carry_out_reset(true, soon()));
    EXPECT_EQ(domain(), before);
}

TEST_F(HvmGuest, LoadRevivesACopyThatWentOff)
{
    follow();
    const DeviceState state{model_state(), cpu_context(9)};
    const auto ends = [&](std::size_t count) { return eventually([&] { return seen(GuestEventKind::power_off) == count; }); };
    for (std::size_t round = 0; round < 3; ++round) {
        ASSERT_TRUE(guest->resume(soon()));
        shut_down(domain(), 0);
        ASSERT_TRUE(ends(2 * round + 1)) << round;
        ASSERT_TRUE(guest->stop(soon()));
        ASSERT_TRUE(guest->load(state, soon()));
        EXPECT_FALSE(host.with(domain(), [](auto& d) { return d.control.described.shut_down; }));
        // Off again at once: no look may have come in between, and yet that is an end of its own.
        shut_down(domain(), 0);
        ASSERT_TRUE(ends(2 * round + 2)) << round;
        ASSERT_TRUE(guest->load(state, soon()));
    }
    EXPECT_EQ(host.with(domain(), [](auto& d) { return d.model->loaded; }), model_state());
    EXPECT_EQ(host.with(domain(), [](auto& d) { return d.control.cpu_context; }), cpu_context(9));
}

TEST_F(HvmGuest, RefusedStateIsNotLoaded)
{
    follow();
    EXPECT_EQ(guest->load({Bytes(20, 1), cpu_context()}, soon()).error().code, Errc::corrupt);
    EXPECT_EQ(host.taken(), Trace{});
}

TEST_F(HvmGuest, RecreateAfterAKill)
{
    follow();
    const DomainId first = domain();
    guest->kill();
    EXPECT_TRUE(eventually([this] { return seen(GuestEventKind::device_model_died) == 1; }));
    EXPECT_EQ(host.count(), 0u);
    EXPECT_EQ(guest->resume(soon()).has_value(), false);
    ASSERT_TRUE(guest->recreate(soon()));
    EXPECT_NE(domain(), first);
    EXPECT_EQ(pauses(domain()), 1);
    // And at once, before anybody can have seen it.
    guest->kill();
    ASSERT_TRUE(guest->recreate(soon()));
    EXPECT_EQ(host.count(), 1u);
    EXPECT_TRUE(guest->resume(soon()));
    EXPECT_TRUE(guest->running());
}

TEST_F(HvmGuest, RecreateWithoutAKillReplacesTheDomain)
{
    follow();
    const DomainId first = domain();
    ASSERT_TRUE(guest->recreate(soon()));
    EXPECT_NE(domain(), first);
    EXPECT_EQ(host.count(), 1u);
    EXPECT_EQ(seen(GuestEventKind::device_model_died), 0u);
}

TEST_F(HvmGuest, RecreateOfNothingIsRefused)
{
    start_daemon();
    EXPECT_EQ(guest->recreate(soon()).error().code, Errc::invalid);
}

TEST_F(HvmGuest, RecreateThatFailedCanBeTriedAgain)
{
    follow();
    host.fail["create"] = {Errc::failed};
    EXPECT_FALSE(guest->recreate(soon()));
    EXPECT_EQ(host.count(), 0u);
    EXPECT_EQ(guest->stop(soon()).error().code, Errc::guest_died);
    EXPECT_TRUE(guest->recreate(soon()));
}

TEST_F(HvmGuest, KilledDomainDoesNothingAnyMoreEvenIfTheToolstackCannotDestroyIt)
{
    boot();
    const DomainId victim = domain();
    host.fail["destroy"] = {Errc::failed};
    guest->kill();
    EXPECT_TRUE(eventually([this] { return seen(GuestEventKind::device_model_died) == 1; }));
    EXPECT_FALSE(guest->running());
    EXPECT_EQ(pauses(victim), 1);
    ASSERT_TRUE(guest->recreate(soon()));   // has another try at it
    EXPECT_EQ(host.count(), 1u);
}

TEST_F(HvmGuest, TakesTheNameOverOnceTheOtherOneIsGone)
{
    follow();
    const DomainId copy = domain();
    const DomainId other = host.make_domain("web", false);
    guest->took_over();
    guest->took_over();
    host.remove(other);
    EXPECT_TRUE(eventually([&] { return host.name_of(copy) == "web"; }));
    // It follows again some day: then it is a copy, until it takes over once more.
    ASSERT_TRUE(guest->recreate(soon()));
    EXPECT_FALSE(host.find("web"));
    ASSERT_TRUE(host.find("web--incoming"));
    guest->took_over();
    EXPECT_TRUE(eventually([&] { return host.find("web").has_value(); }));
}

TEST_F(HvmGuest, BootedOneHasItsNameAlready)
{
    boot();
    host.fail["rename"] = {Errc::failed};   // would be taken by a call
    guest->took_over();
    guest.reset();
    EXPECT_EQ(host.fail["rename"].size(), 1u);
}

TEST_F(HvmGuest, DirtyLogIsBothLogs)
{
    boot();
    ASSERT_TRUE(guest->dirty_log().start());
    EXPECT_TRUE(log_is_on());
    EXPECT_TRUE(model_log_is_on());
    EXPECT_EQ(guest->dirty_log().method(), "xen-logdirty");
    replication::PageSet dirty;
    ASSERT_TRUE(guest->dirty_log().fetch_and_clear(dirty, false));
    EXPECT_EQ(dirty.count(), 64u + 8 - 1);   // all but the special frame
    host.with(domain(), [](auto& d) { d.control.guest_write(5, 1); });
    dirty = {};
    ASSERT_TRUE(guest->dirty_log().peek(dirty));
    EXPECT_TRUE(dirty.contains(5));
    EXPECT_EQ(dirty.count(), 1u);
    guest->dirty_log().stop();
    EXPECT_FALSE(log_is_on());
    EXPECT_FALSE(model_log_is_on());
}

// What the device model wrote may be missing in it.
TEST_F(HvmGuest, Inv08_NoCheckpointIsMadeWhileTheLogIsDoubtful)
{
    boot();
    ASSERT_TRUE(guest->dirty_log().start());
    replication::PageSet dirty;
    ASSERT_TRUE(guest->dirty_log().fetch_and_clear(dirty, false));
    ASSERT_TRUE(guest->cut_begin(soon()));
    host.with(domain(), [](auto& d) { EXPECT_TRUE(d.control.disable_log()); });   // another tool
    EXPECT_EQ(guest->dirty_log().fetch_and_clear(dirty, true).error().code, Errc::limit);
    EXPECT_FALSE(guest->cut_save(soon()));
    ASSERT_TRUE(guest->resume(soon()));
    host.taken();
    EXPECT_FALSE(guest->cut_begin(soon()));
    EXPECT_EQ(host.taken(), Trace{}) << "and the guest does not stand still for it";
    guest->dirty_log().stop();
    ASSERT_TRUE(guest->dirty_log().start());   // as for another first copy: what was told meanwhile is as unknown as before
    EXPECT_FALSE(guest->cut_begin(soon()));
}

TEST_F(HvmGuest, DirtyLogOfADomainThatCannotBeProtectedIsRefused)
{
    boot();
    host.with(domain(), [](auto& d) { d.control.params[Param::callback_irq] = 1; });   // its drivers came later
    const auto started = guest->dirty_log().start();
    ASSERT_FALSE(started);
    EXPECT_EQ(started.error().code, Errc::unsupported);
    EXPECT_THAT(started.error().text, HasSubstr("nopv"));
    EXPECT_FALSE(log_is_on());
    EXPECT_FALSE(model_log_is_on());
}

TEST_F(HvmGuest, DirtyLogThatComesOnByHalvesIsOff)
{
    boot();
    host.with(domain(), [](auto& d) { d.control.fail["enable"] = {EPERM, EPERM}; });
    EXPECT_FALSE(guest->dirty_log().start());
    EXPECT_FALSE(model_log_is_on());
    host.with(domain(), [](auto& d) { d.model->fail_at = "model-log"; });
    EXPECT_THAT(guest->dirty_log().start().error().text, HasSubstr("dirty log of the device model"));
    EXPECT_FALSE(log_is_on());
}

TEST_F(HvmGuest, DirtyLogGoesOnWithTheNextDomain)
{
    follow();
    ASSERT_TRUE(guest->dirty_log().start());
    ASSERT_TRUE(guest->recreate(soon()));
    EXPECT_TRUE(log_is_on());
    EXPECT_TRUE(model_log_is_on());
}

TEST_F(HvmGuest, MemoryIsWrittenAndRead)
{
    follow();
    const Bytes page(kPageSize, 0x5a);
    const replication::PageWrite write{3, page.data()};
    ASSERT_TRUE(guest->memory().write({&write, 1}));
    EXPECT_EQ(host.with(domain(), [](auto& d) { return d.control.content(3); }), 0x5a);
    Bytes back(kPageSize);
    const Gfn gfn = 3;
    replication::FrameStatus status{};
    ASSERT_TRUE(guest->memory().read({&gfn, 1}, back.data(), {&status, 1}));
    EXPECT_EQ(back, page);
    guest->kill();
    EXPECT_TRUE(eventually([this] { return seen(GuestEventKind::device_model_died) == 1; }));
}

TEST_F(HvmGuest, ServicesForOperatorsGoToTheDeviceModel)
{
    boot();
    ASSERT_TRUE(guest->powerdown(soon()));
    ASSERT_TRUE(guest->save_device_state(options.run_directory + "/state", false, soon()));
    ASSERT_TRUE(guest->set_global_dirty_log(true, soon()));
    EXPECT_EQ(host.taken(), (Trace{"model-powerdown", "model-save-to", "model-log"}));
    const std::string file = options.run_directory + "/saved";
    const Bytes bytes = model_state();
    std::ofstream(file, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    EXPECT_EQ(guest->load_device_state(file, soon()).error().code, Errc::invalid);   // it runs
    ASSERT_TRUE(guest->stop(soon()));
    ASSERT_TRUE(guest->load_device_state(file, soon()));
    EXPECT_EQ(host.with(domain(), [](auto& d) { return d.model->loaded; }), bytes);
}

TEST_F(HvmGuest, WithoutADomainEveryCallSaysSo)
{
    start_daemon();
    guest->probe();
    guest->took_over();
    for (const Errc code : {guest->cut_begin(soon()).error().code, guest->cut_save(soon()).error().code, guest->resume(soon()).error().code,
                            guest->stop(soon()).error().code, guest->load({}, soon()).error().code, guest->powerdown(soon()).error().code,
                            guest->dirty_log().start().error().code})
        EXPECT_EQ(code, Errc::guest_died);
}

TEST_F(HvmGuest, DirtyLogThatIsStoppedInTheMiddleOfASaveIsOffInTheEnd)
{
    using Step = std::function<bool()>;
    const std::vector<Step> ends = {[this] { return guest->cut_save(soon()).has_value(); }, [this] { return guest->resume(soon()).has_value(); },
                                    [this] { return guest->stop(soon()).has_value(); }};
    boot();
    for (const Step& end : ends) {
        ASSERT_TRUE(guest->dirty_log().start());
        ASSERT_TRUE(guest->cut_begin(soon()));
        guest->dirty_log().stop();
        EXPECT_FALSE(log_is_on());
        EXPECT_TRUE(model_log_is_on());   // it takes no command now
        ASSERT_TRUE(end());
        EXPECT_FALSE(model_log_is_on());
        ASSERT_TRUE(guest->resume(soon()));
    }
    // Started again meanwhile, it stays on.
    ASSERT_TRUE(guest->dirty_log().start());
    ASSERT_TRUE(guest->cut_begin(soon()));
    guest->dirty_log().stop();
    EXPECT_FALSE(guest->dirty_log().start());
    ASSERT_TRUE(guest->resume(soon()));
    ASSERT_TRUE(guest->dirty_log().start());
    ASSERT_TRUE(guest->cut_begin(soon()));
    ASSERT_TRUE(guest->resume(soon()));
    EXPECT_TRUE(log_is_on());
    EXPECT_TRUE(model_log_is_on());
}

TEST_F(HvmGuest, PauseOfAnOperatorIsToldAndCheckpointsGoOn)
{
    boot();
    const auto other = *host.ports().open_domain(domain());
    ASSERT_TRUE(other->pause());
    EXPECT_TRUE(eventually([this] { return seen(GuestEventKind::paused_outside) == 1; }));
    EXPECT_TRUE(guest->held());
    EXPECT_FALSE(guest->running());
    for (int round = 0; round < 3; ++round) {
        ASSERT_TRUE(guest->cut_begin(soon()));
        ASSERT_TRUE(guest->cut_save(soon()));
        ASSERT_TRUE(guest->resume(soon()));
        EXPECT_EQ(pauses(domain()), 1);
        EXPECT_TRUE(guest->held());
        EXPECT_FALSE(guest->running());
    }
    ASSERT_TRUE(other->unpause());
    EXPECT_TRUE(eventually([this] { return seen(GuestEventKind::resumed_outside) == 1; }));
    EXPECT_TRUE(guest->running());
    EXPECT_FALSE(guest->held());
    EXPECT_EQ(seen(GuestEventKind::paused_outside), 1u);
}

TEST_F(HvmGuest, PauseOfAnOperatorStaysOnACopyThatIsLoaded)
{
    follow();
    const auto other = *host.ports().open_domain(domain());
    ASSERT_TRUE(other->pause());   // while it stands still anyway
    for (int round = 0; round < 3; ++round) {
        ASSERT_TRUE(guest->stop(soon()));
        ASSERT_TRUE(guest->load({model_state(), cpu_context(9)}, soon()));
        ASSERT_TRUE(guest->resume(soon()));
        EXPECT_TRUE(guest->held());   // at once: nobody may take it for a copy that does not run after its load
        EXPECT_EQ(pauses(domain()), 1);
    }
    ASSERT_TRUE(other->unpause());
    EXPECT_TRUE(eventually([this] { return guest->running(); }));
    EXPECT_EQ(pauses(domain()), 0);
}

}  // namespace
}  // namespace colo::xen
