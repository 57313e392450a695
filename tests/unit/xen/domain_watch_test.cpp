// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/xen/fake_host.h"
#include "tests/unit/xen/hvm_guest_fixture.h"
#include "xen/domain_watch.h"

#include <gmock/gmock.h>

#include <cerrno>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace colo::xen {
namespace {

using replication::GuestEvent;
using replication::GuestEventKind;
using test::eventually;
using testing::HasSubstr;

class DomainWatchTest : public testing::Test {
protected:
    DomainWatchTest() : domain(host.make_domain("web", false)) {}
    ~DomainWatchTest() override { watch.reset(); }

    DomainWatchOptions options()
    {
        const HvmPorts ports = host.ports();
        DomainWatchOptions out;
        out.control = *ports.open_domain(domain);
        out.model = *ports.connect_probe("", now());
        out.toolstack = ports.toolstack;
        out.on_event = [this](GuestEvent event) {
            const std::lock_guard lock(mutex);
            events.push_back(std::move(event));
        };
        out.progress_us = &progress_us;
        out.running = &running;
        out.look_every = std::chrono::milliseconds(1);
        out.retry_first = out.retry_last = std::chrono::milliseconds(1);
        out.intent = &intent;
        out.held = &held;
        return out;
    }
    void start(DomainWatchOptions with)
    {
        auto started = DomainWatch::start(std::move(with));
        ASSERT_TRUE(started) << started.error().text;
        watch = std::move(*started);
    }
    void start() { start(options()); }
    std::vector<GuestEvent> seen()
    {
        const std::lock_guard lock(mutex);
        return events;
    }
    // The one event that comes.
    GuestEvent event()
    {
        EXPECT_TRUE(eventually([this] { return !seen().empty(); }));
        return seen().empty() ? GuestEvent{} : seen().front();
    }
    void shut_down(std::uint8_t reason)
    {
        host.with(domain, [&](auto& d) {
            d.control.described.shut_down = true;
            d.control.described.shutdown_reason = reason;
        });
    }
    int looks()
    {
        return host.with(domain, [](auto& d) { return d.control.infos; });
    }
    // Whatever it has to say now, it has said then.
    void let_it_look()
    {
        const int before = looks();
        EXPECT_TRUE(eventually([&] { return looks() >= before + 3; }));
    }
    void model_says(const std::string& text)
    {
        host.with(domain, [&](auto& d) { EXPECT_EQ(::write(d.monitor.get(), text.data(), text.size()), static_cast<ssize_t>(text.size())); });
    }
    std::string model_hears()
    {
        char buffer[4096];
        const ssize_t n = host.with(domain, [&](auto& d) { return ::recv(d.monitor.get(), buffer, sizeof buffer, MSG_DONTWAIT); });
        return n > 0 ? std::string(buffer, static_cast<std::size_t>(n)) : std::string();
    }

    test::FakeHost host;
    DomainId domain;
    std::mutex mutex;
    std::vector<GuestEvent> events;
    std::atomic<std::int64_t> progress_us = 0;
    std::atomic<bool> running = true, held = false;
    Intent intent;
    std::unique_ptr<DomainWatch> watch;
};

TEST_F(DomainWatchTest, EachEndIsToldOnce)
{
    const std::vector<std::pair<std::uint8_t, GuestEventKind>> ends = {{0, GuestEventKind::power_off}, {1, GuestEventKind::reset},
                                                                       {3, GuestEventKind::panicked},
                                                                       {4, GuestEventKind::panicked},  {5, GuestEventKind::power_off}};
    for (const auto& [reason, kind] : ends) {
        events.clear();
        running = true;
        start();
        shut_down(reason);
        EXPECT_EQ(event().kind, kind) << int{reason};
        EXPECT_FALSE(running);
        let_it_look();
        EXPECT_EQ(seen().size(), 1u) << int{reason};
        EXPECT_FALSE(watch->gone());
        watch.reset();
        host.with(domain, [](auto& d) { d.control.described.shut_down = false; });
    }
}

TEST_F(DomainWatchTest, RevivedOneCanEndOnceMore)
{
    start();
    shut_down(0);
    (void)event();
    const auto control = *host.ports().open_domain(domain);
    host.with(domain, [](auto& d) { d.control.fail["revive"] = {EPERM}; });
    EXPECT_FALSE(watch->revive(*control));
    let_it_look();
    EXPECT_EQ(seen().size(), 1u);
    ASSERT_TRUE(watch->revive(*control));
    shut_down(3);
    EXPECT_TRUE(eventually([this] { return seen().size() == 2; }));
    EXPECT_EQ(seen().back().kind, GuestEventKind::panicked);
}

TEST_F(DomainWatchTest, DestroyedBehindOurBack)
{
    for (const bool dying : {true, false}) {
        events.clear();
        running = true;
        start();
        host.with(domain, [&](auto& d) { (dying ? d.control.described.dying : d.control.died) = true; });
        EXPECT_EQ(event().kind, GuestEventKind::device_model_died);
        EXPECT_THAT(seen().front().detail, HasSubstr("somebody destroyed it"));
        EXPECT_FALSE(running);
        EXPECT_TRUE(watch->gone());
        watch.reset();
    }
}

TEST_F(DomainWatchTest, HypervisorThatIsBusyIsAskedAgain)
{
    host.with(domain, [](auto& d) { d.control.fail["info"] = {EBUSY, EPERM, ENOMEM}; });
    start();
    let_it_look();
    let_it_look();
    EXPECT_TRUE(seen().empty());
    EXPECT_TRUE(running);
}

TEST_F(DomainWatchTest, EndOfTheDeviceModelsProcess)
{
    auto child = qemu::Process::start({.argv = {"sleep", "1000"}}, now() + std::chrono::seconds(60));
    ASSERT_TRUE(child) << child.error().text;
    DomainWatchOptions with = options();
    with.model_pidfd = qemu::Fd(static_cast<int>(::syscall(SYS_pidfd_open, (*child)->pid(), 0)));
    ASSERT_TRUE(with.model_pidfd);
    start(std::move(with));
    let_it_look();
    EXPECT_TRUE(seen().empty());
    (*child)->kill();
    EXPECT_EQ(event().kind, GuestEventKind::device_model_died);
    EXPECT_FALSE(running);
}

TEST_F(DomainWatchTest, ChannelThatEndsOrTalksNonsense)
{
    for (const char* text : {"", "SSH-2.0\r\n", "{\"return\": {}}\r\n"}) {
        events.clear();
        start();
        if (*text == '\0') host.with(domain, [](auto& d) { d.monitor.reset(); });
        else model_says(text);
        EXPECT_EQ(event().kind, GuestEventKind::device_model_died) << text;
        EXPECT_THAT(seen().front().detail, HasSubstr("device model: ")) << text;
        watch.reset();
    }
}

TEST_F(DomainWatchTest, AnswerToAProbeIsProgress)
{
    start();
    let_it_look();
    EXPECT_EQ(progress_us, 0);
    watch->probe();
    std::string heard;
    EXPECT_TRUE(eventually([&] { return !(heard += model_hears()).empty(); }));
    EXPECT_EQ(heard, R"({"execute":"query-status"})");
    watch->probe();   // one that does not answer is not asked again
    let_it_look();
    EXPECT_EQ(model_hears(), "");
    EXPECT_EQ(progress_us, 0);
    model_says("{\"return\": {\"status\": \"running\"}}\r\n");
    EXPECT_TRUE(eventually([this] { return progress_us > 0; }));
    EXPECT_TRUE(seen().empty());
}

TEST_F(DomainWatchTest, DestroyIsToldWhenItIsGone)
{
    start();
    watch->destroy();
    EXPECT_EQ(event().kind, GuestEventKind::device_model_died);
    EXPECT_EQ(seen().front().detail, "destroyed");
    EXPECT_EQ(host.count(), 0u);
    watch->destroy();
    watch.reset();
    ASSERT_EQ(seen().size(), 2u);
    EXPECT_EQ(seen().back().kind, GuestEventKind::gone);
}

TEST_F(DomainWatchTest, DestroyThatFailsIsNoneAndTheDomainStandsStill)
{
    host.fail["destroy"].assign(100000, Errc::timed_out);
    start();
    // What the toolstack says may be wrong, but a hypervisor that does not answer is no proof that the domain is gone.
    host.with(domain, [](auto& d) { d.control.fail["info"].assign(100000, EBUSY); });
    watch->destroy();
    EXPECT_THAT(event().detail, HasSubstr("the toolstack cannot"));
    EXPECT_FALSE(running);
    EXPECT_EQ(host.with(domain, [](auto& d) { return d.control.pauses(); }), 1);
}

// It has the memory and the name that the next one needs, and an operator who lets it go lets an outdated one go.
TEST_F(DomainWatchTest, DestroyIsTriedUntilItIsDoneAndTheDomainStandsStillMeanwhile)
{
    host.fail["destroy"].assign(100000, Errc::timed_out);
    start();
    watch->destroy();
    EXPECT_THAT(event().detail, HasSubstr("the toolstack cannot"));
    ASSERT_TRUE((*host.ports().open_domain(domain))->unpause());
    EXPECT_TRUE(eventually([this] { return host.with(domain, [](auto& d) { return d.control.pauses(); }) == 1; }));
    host.with(domain, [this](auto&) { host.fail["destroy"].clear(); });
    EXPECT_TRUE(eventually([this] { return host.count() == 0; }));
    watch.reset();
    ASSERT_EQ(seen().size(), 2u);
    EXPECT_EQ(seen().back().kind, GuestEventKind::gone);
}

TEST_F(DomainWatchTest, DestroyOfOneThatIsGoneSucceeds)
{
    host.fail_after["destroy"] = {Errc::failed};
    start();
    watch->destroy();
    EXPECT_EQ(event().detail, "destroyed");
}

TEST_F(DomainWatchTest, EndCarriesOutWhatWasAskedFor)
{
    for (int i = 0; i < 50; ++i) {
        if (i > 0) domain = host.make_domain("web", false);
        start();
        if (i % 2 == 1) {   // also behind the end of the device model
            host.with(domain, [](auto& d) { d.monitor.reset(); });
            ASSERT_TRUE(eventually([this] { return watch->gone(); }));
        }
        watch->destroy();
        watch.reset();
        ASSERT_EQ(host.count(), 0u) << i;
    }
}

TEST_F(DomainWatchTest, RenameIsTriedUntilTheNameIsFree)
{
    domain = host.make_domain("web--incoming", false);
    host.fail["rename"] = {Errc::timed_out, Errc::failed};
    start();
    watch->rename("web");
    EXPECT_TRUE(eventually([this] {
        const auto left = host.with(domain, [this](auto&) { return host.fail["rename"].size(); });
        return left == 0;
    }));
    EXPECT_EQ(host.name_of(domain), "web--incoming");
    host.remove(*host.find("web"));
    EXPECT_TRUE(eventually([this] { return host.name_of(domain) == "web"; }));
    EXPECT_TRUE(seen().empty());
}

TEST_F(DomainWatchTest, EndDoesNotWaitForAName)
{
    domain = host.make_domain("web--incoming", false);
    start();
    watch->rename("web");
    let_it_look();
    watch.reset();
    EXPECT_EQ(host.name_of(domain), "web--incoming");
}

TEST_F(DomainWatchTest, DomainThatOutlivesItsDeviceModelIsGoneLater)
{
    start();
    host.with(domain, [](auto& d) { d.monitor.reset(); });
    EXPECT_EQ(event().kind, GuestEventKind::device_model_died);
    let_it_look();
    EXPECT_FALSE(watch->domain_gone());
    EXPECT_EQ(seen().size(), 1u);
    host.remove(domain);
    EXPECT_TRUE(eventually([this] { return seen().size() == 2; }));
    EXPECT_EQ(seen().back().kind, GuestEventKind::gone);
    EXPECT_TRUE(watch->domain_gone());
}

TEST_F(DomainWatchTest, NextTriesForANameComeLaterAndLater)
{
    domain = host.make_domain("web--incoming", false);
    host.fail["rename"].assign(1000, Errc::failed);
    DomainWatchOptions with = options();
    with.retry_last = std::chrono::hours(1);
    const Time began = now();
    start(std::move(with));
    watch->rename("web");
    const auto tries = [this] { return host.with(domain, [this](auto&) { return 1000 - host.fail["rename"].size(); }); };
    EXPECT_TRUE(eventually([&] { return tries() == 8; }));
    EXPECT_GE(now() - began, Duration{127'000});   // 1 + 2 + ... + 64 ms lie between eight
}

TEST_F(DomainWatchTest, PauseOfAnotherToolIsToldAndSoIsItsEnd)
{
    const auto other = *host.ports().open_domain(domain);
    intent.set(true);
    start();
    ASSERT_TRUE(other->pause());
    EXPECT_EQ(event().kind, GuestEventKind::paused_outside);
    EXPECT_THAT(seen().front().detail, HasSubstr("xl unpause " + std::to_string(domain)));
    EXPECT_TRUE(held);
    ASSERT_TRUE(other->pause());
    let_it_look();
    EXPECT_EQ(seen().size(), 1u);   // it is no other than before
    ASSERT_TRUE(other->unpause());
    ASSERT_TRUE(other->unpause());
    EXPECT_TRUE(eventually([this] { return seen().size() == 2; }));
    EXPECT_EQ(seen().back().kind, GuestEventKind::resumed_outside);
    EXPECT_FALSE(held);
}

// xl save and xl migrate stop a guest by "suspending" it. It did not go off: it goes on here (save -c), or xl destroys it.
TEST_F(DomainWatchTest, SuspendedByTheToolstackIsHeldAndNotOff)
{
    start();
    intent.set(true);
    shut_down(2);
    ASSERT_TRUE(eventually([this] { return seen().size() == 1; }));
    EXPECT_EQ(seen().front().kind, GuestEventKind::seized_outside);
    EXPECT_THAT(seen().front().detail, HasSubstr("xl save"));
    EXPECT_TRUE(held);
    EXPECT_TRUE(running) << "as far as we decide about it";
    host.with(domain, [](auto& d) { d.control.described.shut_down = false; });
    ASSERT_TRUE(eventually([this] { return seen().size() == 2; }));
    EXPECT_EQ(seen().back().kind, GuestEventKind::resumed_outside);
    EXPECT_FALSE(held);
    shut_down(0);   // and an end is one
    ASSERT_TRUE(eventually([this] { return seen().size() == 3; }));
    EXPECT_EQ(seen().back().kind, GuestEventKind::power_off);
}

// An operator's stop meanwhile, or a cut: a pause may be ours then, a suspension never is.
TEST_F(DomainWatchTest, AToolIsSeenToTakeAndLeaveADomainThatIsStopped)
{
    start();
    intent.set(false);
    shut_down(2);
    ASSERT_TRUE(eventually([this] { return seen().size() == 1; }));
    EXPECT_EQ(seen().back().kind, GuestEventKind::seized_outside);
    host.with(domain, [](auto& d) {
        d.control.described.shut_down = false;
        d.control.described.paused = true;
    });
    ASSERT_TRUE(eventually([this] { return seen().size() == 2; }));
    EXPECT_EQ(seen().back().kind, GuestEventKind::resumed_outside);
    EXPECT_FALSE(held);
    let_it_look();
    EXPECT_EQ(seen().size(), 2u);
}

TEST_F(DomainWatchTest, OurOwnPausesAreNotThoseOfOthers)
{
    const auto own = *host.ports().open_domain(domain);
    start();
    for (int i = 0; i < 200; ++i) {
        intent.set(false);
        ASSERT_TRUE(own->pause());
        if (i % 20 == 0) let_it_look();
        ASSERT_TRUE(own->unpause());
        intent.set(true);
        if (i % 20 == 10) let_it_look();
    }
    EXPECT_TRUE(seen().empty());
    EXPECT_FALSE(held);
}

}  // namespace
}  // namespace colo::xen
