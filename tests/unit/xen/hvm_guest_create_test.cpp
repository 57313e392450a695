// SPDX-License-Identifier: Apache-2.0
// How a guest gets its domain: makes one, goes on with one of an earlier daemon, or leaves nothing behind.
#include "tests/unit/xen/hvm_guest_fixture.h"

#include <gmock/gmock.h>

#include <functional>

namespace colo::xen {
namespace {

using replication::GuestEventKind;
using replication::MemoryRegion;
using replication::StartMode;
using test::eventually;
using test::Trace;
using testing::Contains;
using testing::HasSubstr;
using testing::Not;

class HvmGuestCreate : public test::HvmGuestTest {};

TEST_F(HvmGuestCreate, OptionsAreChecked)
{
    for (auto member : {&HvmGuestOptions::name, &HvmGuestOptions::config_file, &HvmGuestOptions::run_directory}) {
        HvmGuestOptions bad = options;
        (bad.*member).clear();
        const auto made = make_hvm_guest(bad, host.ports());
        ASSERT_FALSE(made);
        EXPECT_EQ(made.error().code, Errc::invalid);
    }
    HvmPorts ports = host.ports();
    ports.toolstack.reset();
    HvmGuestOptions bad = options;
    bad.commands.create = "xl create";
    EXPECT_EQ(make_hvm_guest(bad, ports).error().code, Errc::invalid);
    EXPECT_TRUE(make_hvm_guest(options, ports));
}

TEST_F(HvmGuestCreate, BootMakesItAndLetsItRun)
{
    ASSERT_TRUE(create(StartMode::boot));
    EXPECT_EQ(host.taken(), (Trace{"create web", "unpause", "model-cable"}));
    const auto domain = host.find("web");
    ASSERT_TRUE(domain);
    EXPECT_EQ(pauses(*domain), 0);
    EXPECT_TRUE(guest->running());
    EXPECT_TRUE(recorded());
    EXPECT_EQ(guest->create(StartMode::boot, soon()).error().code, Errc::invalid);
}

TEST_F(HvmGuestCreate, DescriptionIsWhatBothSidesMustHaveAlike)
{
    boot();
    const replication::GuestDescription d = guest->description();
    EXPECT_EQ(d.kind, "xen-hvm");
    EXPECT_EQ(d.device_model, "7.2");
    EXPECT_EQ(d.vcpus, 1u);
    EXPECT_EQ(d.regions, (std::vector<MemoryRegion>{{0, 64}, {0xfeff8, 8}}));
    EXPECT_EQ(d.special_frames, std::vector<Gfn>{0xfeffc});
    ASSERT_EQ(d.nics.size(), 2u);
    EXPECT_EQ(d.nics[1].id, "net1");
    EXPECT_GT(guest->memory().resident_bytes(), 0u);
    // The operator's name of it does not count, what it has does.
    std::ofstream(options.config_file) << "type='hvm' # ours\nmemory=1\nname = \"other\"\n";
    host.remove(*host.find("web"));
    boot();
    EXPECT_EQ(guest->description().machine, d.machine);
    EXPECT_EQ(guest->description().cpu_policy, d.cpu_policy);
    std::ofstream(options.config_file) << "type = \"hvm\"\nmemory = 2\n";
    host.remove(*host.find("web"));
    boot();
    EXPECT_NE(guest->description().device_list, d.device_list);
}

TEST_F(HvmGuestCreate, CopyIsPausedExactlyOnce)
{
    for (const Duration warm_up : {Duration{0}, Duration{1000}}) {
        options.warm_up = warm_up;
        ASSERT_TRUE(create(StartMode::loadable));
        const auto copy = host.find("web--incoming");
        ASSERT_TRUE(copy);
        EXPECT_EQ(pauses(*copy), 1);
        EXPECT_FALSE(guest->running());
        EXPECT_THAT(host.taken(), Contains("model-stop"));
        ASSERT_TRUE(guest->resume(soon()));
        EXPECT_EQ(pauses(*copy), 0);
        EXPECT_TRUE(guest->running());
    }
}

// A context whose first CPU pages with PAE: one record, in which nothing else counts.
Bytes kernels_context()
{
    Bytes out(8 + 688);
    out[0] = 2;   // type: CPU
    out[4] = 688 & 255;
    out[5] = 688 >> 8;
    out[8 + 656 + 3] = 0x80;   // CR0.PG
    out[8 + 680] = 1 << 5;     // CR4.PAE
    return out;
}

TEST_F(HvmGuestCreate, MemoryIsLookedAtWhenAKernelRuns)
{
    options.warm_up = std::chrono::hours(1);
    std::thread firmware;
    constexpr Gfn kLate = 0xfc000;
    host.while_creating = [&] {
        const auto domain = *host.find("web--incoming");
        firmware = std::thread([&, domain] {
            // It was looked at often and nothing changed: the sign is the kernel.
            EXPECT_TRUE(eventually([&] { return host.with(domain, [](auto& d) { return d.control.infos; }) >= 20; }));
            host.with(domain, [](auto& d) { d.control.add_ram(kLate, 3); });
            host.with(domain, [](auto& d) { d.control.cpu_context = kernels_context(); });
        });
    };
    const auto made = create(StartMode::loadable);
    firmware.join();
    ASSERT_TRUE(made) << made.error().text;
    EXPECT_THAT(guest->description().regions, Contains(replication::MemoryRegion{kLate, 3}));
}

TEST_F(HvmGuestCreate, FramesThatNobodyLookedAtAreNotProtected)
{
    boot();
    ASSERT_TRUE(guest->dirty_log().start());
    guest->dirty_log().stop();
    host.with(*host.find("web"), [](auto& d) { d.control.add_ram(0xfc000, 1); });
    const auto started = guest->dirty_log().start();
    ASSERT_FALSE(started);
    EXPECT_EQ(started.error().code, Errc::refused);
    EXPECT_THAT(started.error().text, HasSubstr("xl_warm_up_ms"));
    EXPECT_FALSE(host.with(*host.find("web"), [](auto& d) { return d.control.log_is_on(); }));
}

TEST_F(HvmGuestCreate, GuestThatEndsWhileItStartsDoesNotRun)
{
    host.while_creating = [this] { shut_down(*host.find("web"), 3); };
    boot();
    EXPECT_FALSE(guest->running());
    EXPECT_TRUE(eventually([this] { return seen(GuestEventKind::panicked) == 1; }));
    EXPECT_FALSE(guest->running());
}

TEST_F(HvmGuestCreate, GoesOnWithTheDomainOfADaemonThatDied)
{
    boot();
    const DomainId domain = *host.find("web");
    guest.reset();
    host.with(domain, [](auto& d) {   // in the middle of a checkpoint, and somebody had paused it besides
        ASSERT_TRUE(d.control.enable_log());
        ASSERT_TRUE(d.control.pause());
        ASSERT_TRUE(d.control.pause());
    });
    ASSERT_TRUE(create(StartMode::boot));
    EXPECT_EQ(host.taken(), (Trace{"model-log", "disable", "model-cont", "unpause", "unpause", "model-cable"}));
    EXPECT_EQ(host.find("web"), domain);
    EXPECT_EQ(pauses(domain), 0);
    EXPECT_FALSE(host.with(domain, [](auto& d) { return d.control.log_is_on(); }));
    EXPECT_TRUE(guest->running());
    EXPECT_EQ(guest->description().kind, "xen-hvm");
}

TEST_F(HvmGuestCreate, ANumberThatIsAnothersNowIsNotOurs)
{
    boot();
    const DomainId domain = *host.find("web");
    guest.reset();
    host.with(domain, [](auto& d) { d.control.described.uuid[5] ^= 1; });
    const auto r = create(StartMode::boot);
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, Errc::refused);
    EXPECT_EQ(host.find("web"), domain);
}

TEST_F(HvmGuestCreate, OneThatCannotBeTakenOverAgainIsRefusedWithWhatToDo)
{
    boot();
    const DomainId domain = *host.find("web");
    host.no_model = true;
    const auto r = create(StartMode::boot);
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, Errc::guest_died);
    EXPECT_THAT(r.error().text, HasSubstr("xl destroy " + std::to_string(domain)));
    EXPECT_EQ(host.find("web"), domain);   // it may be at work
    host.no_model = false;
    EXPECT_TRUE(guest->create(StartMode::boot, soon()));   // nothing is in the way of another try
    EXPECT_EQ(host.find("web"), domain);
}

TEST_F(HvmGuestCreate, CopyOfADaemonThatDiedIsNeverGoneOnWith)
{
    follow();
    const DomainId copy = *host.find("web--incoming");
    boot();
    EXPECT_FALSE(host.find("web--incoming"));
    EXPECT_NE(*host.find("web"), copy);
    EXPECT_EQ(host.count(), 1u);
}

TEST_F(HvmGuestCreate, CopyThatTookOverIsGoneOnWithAndGetsItsName)
{
    follow();
    const DomainId copy = *host.find("web--incoming");
    ASSERT_TRUE(guest->resume(soon()));
    const DomainId other = host.make_domain("web", false);
    guest->took_over();
    ASSERT_TRUE(create(StartMode::boot));
    EXPECT_EQ(host.name_of(copy), "web--incoming");
    EXPECT_EQ(pauses(copy), 0);
    EXPECT_TRUE(guest->running());
    host.remove(other);
    EXPECT_TRUE(eventually([&] { return host.name_of(copy) == "web"; }));
}

TEST_F(HvmGuestCreate, DomainOfThatNameThatIsNotOursIsRefused)
{
    const DomainId other = host.make_domain("web", false);
    const auto r = create(StartMode::boot);
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, Errc::refused);
    EXPECT_THAT(r.error().text, HasSubstr("xl destroy " + std::to_string(other)));
    EXPECT_EQ(host.find("web"), other);
    EXPECT_EQ(host.taken(), Trace{});
    EXPECT_FALSE(recorded());
}

// Numbers begin anew when the host is started, and the operator's UUID is his: such a domain is none of ours.
TEST_F(HvmGuestCreate, RecordFromBeforeTheHostWasStartedIsNobodys)
{
    boot();
    const DomainId other = *host.find("web");
    guest.reset();
    const std::string file = options.run_directory + "/domain";
    std::string text{std::istreambuf_iterator<char>(std::ifstream(file).rdbuf()), {}};
    text.replace(text.find(*host_boot()), host_boot()->size(), "2b0e6a1e-8a39-4d1c-9a55-0c2c4e7f1a11");
    std::ofstream(file) << text;
    follow();
    EXPECT_EQ(host.find("web"), other);
    EXPECT_TRUE(host.find("web--incoming"));
}

// A store that does not answer is no proof that there is no domain of that name.
TEST_F(HvmGuestCreate, NothingIsMadeWhileNobodyKnowsWhetherTheNameIsFree)
{
    host.break_store();
    for (const StartMode mode : {StartMode::boot, StartMode::loadable}) {
        const auto r = create(mode);
        ASSERT_FALSE(r);
        EXPECT_EQ(r.error().code, Errc::closed) << r.error().text;
        EXPECT_EQ(host.taken(), Trace{});
        EXPECT_EQ(host.count(), 0u);
    }
}

// Opening it asks nothing.
struct SilentStore final : Store {
    explicit SilentStore(Errc c) : code(c) {}
    Result<std::optional<std::string>> read(const std::string&) override { return make_error(code, "xenstored does not answer"); }
    Result<std::vector<std::string>> list(const std::string&) override { return make_error(code, "xenstored does not answer"); }
    Errc code;
};

// As long as it does not answer, as on a host that has just booted, and not if it says no.
TEST_F(HvmGuestCreate, AStoreThatIsLateIsAskedAgain)
{
    for (const Errc code : {Errc::timed_out, Errc::closed}) {
        int asked = 0;
        HvmPorts ports = host.ports();
        ports.open_store = [&asked, code, open = ports.open_store]() -> Result<std::unique_ptr<Store>> {
            if (++asked < 2) return std::unique_ptr<Store>(std::make_unique<SilentStore>(code));
            return open();
        };
        guest.reset();
        guest = *make_hvm_guest(options, std::move(ports));
        EXPECT_EQ(guest->create(StartMode::boot, soon()).has_value(), code == Errc::timed_out);
        EXPECT_EQ(asked, code == Errc::timed_out ? 2 : 1);
    }
}

TEST_F(HvmGuestCreate, CopiesOfEarlierRunsAreDestroyed)
{
    follow();
    const DomainId first = *host.find("web--incoming");
    follow();   // known by the record
    const DomainId second = *host.find("web--incoming");
    EXPECT_NE(first, second);
    std::filesystem::remove(options.run_directory + "/domain");
    follow();   // known by its name
    EXPECT_NE(*host.find("web--incoming"), second);
    EXPECT_EQ(host.count(), 1u);
}

TEST_F(HvmGuestCreate, AfterAFailureNothingOfItIsLeft)
{
    const auto nothing_left = [&](const std::string& what, StartMode mode) {
        const auto r = create(mode);
        EXPECT_FALSE(r) << what;
        EXPECT_EQ(host.count(), 0u) << what;
        EXPECT_FALSE(recorded()) << what;
        EXPECT_FALSE(guest->running()) << what;
        EXPECT_EQ(guest->stop(soon()).error().code, Errc::guest_died) << what;
        host.no_model = host.no_probe = false;
        host.model_fails_at.clear();
        host.control_fails_at.clear();
        const auto again = guest->create(mode, soon());
        EXPECT_TRUE(again) << what << ": " << again.error().text;
        guest.reset();
        EXPECT_EQ(host.count(), 1u) << what;
        if (const auto domain = host.find("web")) host.remove(*domain);
        if (const auto domain = host.find("web--incoming")) host.remove(*domain);
        std::filesystem::remove(options.run_directory + "/domain");
    };
    for (const StartMode mode : {StartMode::boot, StartMode::loadable}) {
        host.no_model = true;
        nothing_left("no device model", mode);
        host.no_probe = true;
        nothing_left("no second channel", mode);
        host.model_fails_at = "model-cable";
        nothing_left("cable", mode);
        for (const char* call : {"unpause", "map", "param", "tsc", "cpu-policy", "info"}) {
            host.control_fails_at = call;
            nothing_left(call, mode);
        }
    }
    host.model_fails_at = "model-stop";
    nothing_left("stop", StartMode::loadable);
}

TEST_F(HvmGuestCreate, FailureOfTheToolstackIsHandedOn)
{
    host.fail["create"] = {Errc::failed};
    const auto r = create(StartMode::boot);
    ASSERT_FALSE(r);
    EXPECT_THAT(r.error().text, HasSubstr("make domain web: xl create: failed"));
    std::filesystem::remove(options.config_file);
    EXPECT_TRUE(guest->create(StartMode::boot, soon()));   // it was read once
    host.remove(*host.find("web"));
    EXPECT_THAT(create(StartMode::loadable).error().text, HasSubstr("xl_config"));
    std::ofstream(options.config_file) << "type = \"hvm\"\n";
    EXPECT_TRUE(guest->recreate(soon()));   // it is there by now
}

TEST_F(HvmGuestCreate, DomainOfAToolstackThatWasKilledIsNotLeft)
{
    host.fail_after["create"] = {Errc::timed_out};
    const auto r = create(StartMode::boot);
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, Errc::timed_out);
    EXPECT_EQ(host.count(), 0u);
    EXPECT_TRUE(guest->create(StartMode::boot, soon()));
}

TEST_F(HvmGuestCreate, OneWithoutARecordIsNotLeft)
{
    std::filesystem::create_directory(options.run_directory + "/domain");
    EXPECT_FALSE(create(StartMode::boot));
    EXPECT_EQ(host.count(), 0u);
}

TEST_F(HvmGuestCreate, KillBeforeIsOver)
{
    start_daemon();
    guest->kill();
    ASSERT_TRUE(guest->create(StartMode::loadable, soon()));
    EXPECT_EQ(host.count(), 1u);
    EXPECT_TRUE(guest->resume(soon()));
}

TEST_F(HvmGuestCreate, KillInTheMiddleIsNotLost)
{
    host.while_creating = [this] { guest->kill(); };
    const auto r = create(StartMode::boot);
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, Errc::guest_died);
    EXPECT_THAT(host.taken(), Not(Contains("unpause")));   // it never ran
    EXPECT_EQ(host.count(), 0u);
    EXPECT_FALSE(guest->running());
}

TEST_F(HvmGuestCreate, LaterDomainsMustBeWhatTheFirstWas)
{
    const auto refused = [&](const char* what, const std::function<void(test::FakeControl&)>& change) {
        boot();
        const replication::GuestDescription agreed = guest->description();
        // What the operator writes into his file meanwhile counts at the next start of the daemon.
        std::ofstream(options.config_file) << "type = \"hvm\"\nmemory = 4\n";
        ASSERT_TRUE(guest->reset(soon())) << what;
        host.while_creating = [&] { host.with(*host.find("web"), [&](auto& d) { change(d.control); }); };
        const auto r = guest->reset(soon());
        host.while_creating = nullptr;
        ASSERT_FALSE(r) << what;
        EXPECT_THAT(r.error().text, testing::AllOf(HasSubstr(what), HasSubstr("before"), HasSubstr("now")));
        EXPECT_EQ(guest->description().regions, agreed.regions);
        EXPECT_EQ(guest->description().cpu_policy, agreed.cpu_policy);
        EXPECT_EQ(guest->description().device_list, agreed.device_list);
        EXPECT_EQ(host.count(), 0u) << what;
        std::ofstream(options.config_file) << "type = \"hvm\"\nmemory = 1\n";
    };
    refused("memory map", [](auto& c) { c.add_ram(100, 3); });
    refused("CPU policy", [](auto& c) { c.policy.push_back(1); });
    refused("platform", [](auto& c) { c.clock.mode = 1; });
    refused("vCPUs", [](auto& c) { c.described.vcpus = 3; });
    refused("belongs to the host", [](auto& c) { c.params[Param::console_pfn] = 0xfeffd; });
}

}  // namespace
}  // namespace colo::xen
