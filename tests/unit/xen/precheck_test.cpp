// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/xen/fake_control.h"
#include "tests/unit/xen/fake_store.h"
#include "xen/precheck.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>

namespace colo::xen {
namespace {

using test::FakeControl;
using test::FakeStore;

class PrecheckTest : public testing::Test {
protected:
    PrecheckTest()
    {
        control.add_ram(0, 10);
        store.nodes = {{"/libxl/7/type", "hvm"},
                       {"/libxl/7/dm-version", "qemu_xen"},
                       {"/local/domain/0/name", "Domain-0"},
                       {"/local/domain/0/device-model/7/state", "running"},
                       {"/local/domain/7/name", "web"},
                       {"/local/domain/7/memory/static-max", "131072"},
                       {"/local/domain/7/memory/target", "122880"},
                       {"/local/domain/7/memory/videoram", "8192"},
                       {"/local/domain/7/device/vkbd/0/state", "1"},
                       {"/local/domain/7/device/suspend/event-channel", ""}};
    }
    std::vector<Finding> look()
    {
        return precheck(control, store, [this](const std::string& file) { return socket && file == "/var/run/xen/qmp-libxl-7"; });
    }
    // The names of the checks that say no.
    std::vector<std::string> bad()
    {
        std::vector<std::string> out;
        for (const Finding& finding : look()) {
            EXPECT_FALSE(finding.text.empty()) << finding.check;
            if (!finding.ok) out.push_back(finding.check);
        }
        return out;
    }
    std::string text(const std::string& check)
    {
        const auto findings = look();
        const auto found = std::find_if(findings.begin(), findings.end(), [&](const Finding& f) { return f.check == check; });
        return found == findings.end() ? "" : found->text;
    }
    using Names = std::vector<std::string>;
    FakeControl control;
    FakeStore store;
    bool socket = true;
};

TEST_F(PrecheckTest, PlainHvmDomainPasses)
{
    EXPECT_EQ(bad(), Names());
    EXPECT_TRUE(refuse(look()));
    EXPECT_EQ(look().size(), 9u);
}

TEST_F(PrecheckTest, Inv32_EachReasonIsNamedAlone)
{
    control.described.hvm = control.described.hap = false;
    control.fail["param"] = {EINVAL};   // parameters are for HVM domains only
    EXPECT_EQ(bad(), Names{"type"});
    EXPECT_NE(text("type").find("PV domain"), std::string::npos);
    control.described.hvm = control.described.hap = true;
    control.fail.clear();
    store.nodes["/libxl/7/type"] = "pvh";
    EXPECT_NE(text("type").find("PVH domain"), std::string::npos);
    store.nodes["/libxl/7/type"] = "hvm";
    control.described.hap = false;
    EXPECT_EQ(bad(), Names{"paging"});
    control.described.hap = true;
    control.numa_nodes = 2;
    EXPECT_EQ(bad(), Names{"vnuma"});
    control.numa_nodes = 0;
    control.clock.mode = 3;
    EXPECT_EQ(bad(), Names{"tsc"});
    control.clock.mode = 0;
    store.nodes["/libxl/7/device/pci/0/state"] = "1";
    EXPECT_EQ(bad(), Names{"passthrough"});
    store.nodes.erase("/libxl/7/device/pci/0/state");
    for (const char* target : {"65536", "131072", "262144", "18446744073709551615", "-1", "", "7x"}) {
        store.nodes["/local/domain/7/memory/target"] = target;
        EXPECT_EQ(bad(), Names{"memory"}) << target;
    }
    store.nodes["/local/domain/7/memory/target"] = "122880";
    control.described.shut_down = true;
    EXPECT_EQ(bad(), Names{"state"});
    EXPECT_NE(text("state").find("start it again"), std::string::npos);
    control.described.shutdown_reason = 2;
    EXPECT_NE(text("state").find("xl save"), std::string::npos) << "it is only being saved";
    control.described.shut_down = false;
    EXPECT_EQ(bad(), Names());
}

TEST_F(PrecheckTest, PvDriversAreFoundByTheirCallbackOrTheirDevices)
{
    control.params[Param::callback_irq] = 0x20000000000000f3;
    EXPECT_EQ(bad(), Names{"drivers"});
    control.params.clear();
    store.nodes["/local/domain/7/device/vif/0/state"] = "4";
    EXPECT_EQ(bad(), Names{"drivers"});
    EXPECT_NE(text("drivers").find("vif/0"), std::string::npos);
    store.nodes["/local/domain/7/device/vif/0/state"] = "1";   // offered, not taken
    EXPECT_EQ(bad(), Names());
}

TEST_F(PrecheckTest, DeviceModel)
{
    socket = false;
    EXPECT_EQ(bad(), Names{"device-model"});
    EXPECT_NE(text("device-model").find("qmp-libxl-7"), std::string::npos);
    socket = true;
    store.nodes["/local/domain/7/image/device-model-domid"] = "8";
    EXPECT_EQ(bad(), Names{"device-model"});
    store.nodes.erase("/local/domain/7/image/device-model-domid");
    store.nodes["/libxl/7/dm-version"] = "qemu_xen_traditional";
    EXPECT_EQ(bad(), Names{"device-model"});
    store.nodes["/libxl/7/dm-version"] = "qemu_xen";
    store.nodes.erase("/local/domain/0/device-model/7/state");
    EXPECT_EQ(bad(), Names{"device-model"});
}

TEST_F(PrecheckTest, WhatCannotBeAskedIsNotOkAndTheRestIsAskedAllTheSame)
{
    control.fail["tsc"] = {EPERM};
    EXPECT_EQ(bad(), Names{"tsc"});
    store.broken = true;
    EXPECT_EQ(bad(), (Names{"type", "drivers", "passthrough", "memory", "device-model"}));
    control.died = true;
    EXPECT_EQ(bad().size(), 9u);
    const auto refused = refuse(look());
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::unsupported);
    EXPECT_NE(refused.error().text.find("and 6 more"), std::string::npos) << refused.error().text;
}

TEST_F(PrecheckTest, WhatTheGuestWroteIsShownWithoutItsControlCharacters)
{
    store.nodes["/libxl/7/type"] = "a\x1b[2J" + std::string(5000, 'x');
    const std::string shown = text("type");
    EXPECT_NE(shown.find("'a?[2J"), std::string::npos) << shown;
    EXPECT_LT(shown.size(), 200u);
}

TEST_F(PrecheckTest, DomainsAreFoundByNameAndById)
{
    store.nodes["/local/domain/12/name"] = "7";       // a name that looks like an id
    store.nodes["/local/domain/13/name"] = "db";
    store.nodes["/local/domain/nonsense/name"] = "x";
    EXPECT_EQ(*find_domain(store, "web"), 7u);
    EXPECT_EQ(*find_domain(store, "7"), 7u);
    EXPECT_EQ(*find_domain(store, "db"), 13u);
    for (const char* name : {"Domain-0", "0", "x", "nonsense", "99"}) {
        const auto none = find_domain(store, name);
        ASSERT_FALSE(none) << name;
        EXPECT_EQ(none.error().code, Errc::invalid);
        EXPECT_NE(none.error().text.find("web (7)"), std::string::npos) << none.error().text;
    }
    store.nodes["/local/domain/14/memory/target"] = "1";   // on its way, and without a name yet
    EXPECT_EQ(find_domain(store, "").error().code, Errc::invalid);
    store.broken = true;
    EXPECT_EQ(find_domain(store, "web").error().code, Errc::closed);
}

}  // namespace
}  // namespace colo::xen
