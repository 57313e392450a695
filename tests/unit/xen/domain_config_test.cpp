// SPDX-License-Identifier: Apache-2.0
#include "xen/domain_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace colo::xen {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr const char* kOperators = "type = \"hvm\"\nmemory = 128\nname = \"old\"\non_crash = \"restart\"";

DomainConfigOptions options(std::size_t nics = 0)
{
    DomainConfigOptions out{"web", "/run/colo/web/model.sock", "/run/colo/web/probe.sock", {}, {}};
    for (std::size_t i = 0; i < nics; ++i) out.nics.push_back({"net" + std::to_string(i), {2, 0, 0, 0, 0xab, static_cast<std::uint8_t>(i)}, -1});
    return out;
}

std::string config(std::string_view operators = kOperators, const DomainConfigOptions& o = options())
{
    const auto made = domain_config(operators, o);
    EXPECT_TRUE(made) << made.error().text;
    return made ? *made : "";
}

std::string error_of(std::string_view operators, const DomainConfigOptions& o = options())
{
    const auto made = domain_config(operators, o);
    EXPECT_FALSE(made) << operators << "\n" << *made;
    if (made) return "";
    EXPECT_EQ(made.error().code, Errc::invalid);
    return made.error().text;
}

TEST(DomainConfig, OperatorsFileComesFirstAndOursWins)
{
    const std::string out = config();
    EXPECT_THAT(out, testing::StartsWith(std::string(kOperators) + "\n"));   // its last line had no end
    EXPECT_GT(out.rfind("name = \"web\"\n"), out.rfind("name = \"old\""));
    EXPECT_GT(out.rfind("on_crash = \"preserve\"\n"), out.rfind("on_crash = \"restart\""));
    for (const char* end : {"on_poweroff", "on_reboot", "on_watchdog", "on_crash", "on_soft_reset"})
        EXPECT_THAT(out, HasSubstr(std::string("\n") + end + " = \"preserve\"\n"));
}

TEST(DomainConfig, DeviceModelServesUsOnTwoSockets)
{
    EXPECT_THAT(config(), HasSubstr("\ndevice_model_args_hvm = [ \"-chardev\", \"socket,id=colo-control,path=/run/colo/web/model.sock,server=on,wait=off\", "
                                    "\"-mon\", \"chardev=colo-control,mode=control\", \"-chardev\", "
                                    "\"socket,id=colo-probe,path=/run/colo/web/probe.sock,server=on,wait=off\", \"-mon\", "
                                    "\"chardev=colo-probe,mode=control\" ]\n"));
}

TEST(DomainConfig, EachInterfaceHasItsHubSlotAndAddress)
{
    const std::string out = config(kOperators, options(2));
    EXPECT_THAT(out, HasSubstr("\"-netdev\", \"hubport,id=net0,hubid=0\""));
    EXPECT_THAT(out, HasSubstr("virtio-net-pci,id=nic-net0,netdev=net0,mac=02:00:00:00:ab:00,"));
    EXPECT_THAT(out, HasSubstr("addr=0x8\""));
    EXPECT_THAT(out, HasSubstr("\"-netdev\", \"hubport,id=net1,hubid=1\""));
    EXPECT_THAT(out, HasSubstr("virtio-net-pci,id=nic-net1,netdev=net1,mac=02:00:00:00:ab:01,"));
    EXPECT_THAT(out, HasSubstr("addr=0x9\""));
}

TEST(DomainConfig, VifIsRefusedHoweverItIsWritten)
{
    for (const char* vif : {"vif = ['bridge=br0']", "vif=[\n  'bridge=br0',\n]", "  vif = [ # ours\n'mac=..' ]", "memory=1; vif = ['']", "vif += ['']",
                            "a = [\n1 ]\nvif=['']", "name = \"#\"; vif=['']", "b = 'it\\'s'; vif=['x']"})
        EXPECT_THAT(error_of(vif), HasSubstr("[[nic]]")) << vif;
    for (const char* none : {"vif = [ ]", "vif=[\n]", "# vif = ['bridge=br0']", "a = \"vif = []\"", "a = [\n'vif=x' ]", "vifs = ['x']", "a=1 # it's\nb=2"})
        (void)config(none);
}

TEST(DomainConfig, WhatNoCheckpointHasIsRefused)
{
    for (const auto& [text, reason] : std::vector<std::pair<const char*, const char*>>{
             {"disk = ['/dev/vg/web,raw,xvda,rw']", "a disk"},
             {"nestedhvm = 1", "nestedhvm"},
             {"usbdev = ['type=hostdev,hostbus=1,hostaddr=3']", "USB"},
             {"usbdevice = 'host:1.3'", "USB"},
             {"vga = \"stdvga\"", "vga"},
             {"device_model_args = ['-netdev', 'user,id=x', '-device', 'e1000,netdev=x']", "-netdev"},
             {"device_model_args_hvm = [\"--drive\", \"file=/a\"]", "--drive"},
             {"device_model_args_pv = [\"-virtfs\", \"x\"]", "-virtfs"},
             {"device_model_args = ['-device', 'usb-host,hostbus=1']", "usb-host"},
             {"device_model_args = ['--device', 'driver=vfio-pci,host=1']", "vfio-pci"},
             {"device_model_args = ['-readconfig', '/etc/x']", "-readconfig"},
             {"device_model_args += [ '-hda',\n 'x' ]", "-hda"}})
        EXPECT_THAT(error_of(text), HasSubstr(reason)) << text;
    for (const char* good : {"nestedhvm = 0", "nestedhvm = \"0\"", "usbdev = []", "usbdevice = 'tablet'", "vga = 'none'", "disk = []",
                             "device_model_args = ['-rtc', 'base=utc']", "device_model_args = ['-device', 'virtio-rng-pci', '-name', 'net']"})
        (void)config(good);
    EXPECT_THAT(config(), HasSubstr("\nvga = \"none\"\n"));   // xl would add one
}

TEST(DomainConfig, TheKeyThatTheOperatorLeavesIsOurs)
{
    const char* both = "device_model_args = [ \"-a\" ]\ndevice_model_args_hvm = [ \"-b\" ]\n";
    EXPECT_THAT(error_of(both), HasSubstr("both"));
    EXPECT_THAT(error_of("device_model_args += [\n\"-a\"]; device_model_args_hvm=['-b']"), HasSubstr("both"));
    EXPECT_THAT(config("device_model_args = [ \"-a\" ]\n"), HasSubstr("\ndevice_model_args_hvm = [ \"-chardev\""));
    const std::string other = config("device_model_args_hvm = [\n  \"-b\"\n]\n");
    EXPECT_THAT(other, HasSubstr("\ndevice_model_args = [ \"-chardev\""));
    EXPECT_THAT(other, Not(HasSubstr("device_model_args_hvm = [ \"-chardev\"")));
}

TEST(DomainConfig, WhatCannotBeQuotedIsRefused)
{
    for (const char* name : {"", "a b", "a\"b", "a'b", "a\\b", "a\nb", "\xc3\xa4"}) {
        DomainConfigOptions o = options();
        o.name = name;
        EXPECT_THAT(error_of(kOperators, o), HasSubstr("a name")) << name;
    }
    DomainConfigOptions o = options();
    o.probe_socket = "/run/my vms/probe.sock";
    EXPECT_THAT(error_of(kOperators, o), HasSubstr("an argument"));
    o = options();
    o.control_socket = "/run/a,server=off/model.sock";   // a comma would end the path
    EXPECT_THAT(config(kOperators, o), HasSubstr("path=/run/a,,server=off/model.sock,server=on"));
    EXPECT_EQ(domain_config(std::string(kMaxDomainConfig + 1, '#'), options()).error().code, Errc::limit);
}

TEST(DomainConfig, ComparableIsWhatCountsOnBothSides)
{
    const std::string one = comparable_config("# here\nname = \"a\"\nmemory=128\n\nextra = \"x  y\" # z\ndisk = [\n 'a',\n 'b' ]\n");
    EXPECT_EQ(one, comparable_config("memory = 128; name='b'\r\n\textra=\"x  y\"\ndisk=['a','b']"));
    EXPECT_NE(one, comparable_config("memory = 128\nextra=\"x y\"\ndisk=['a','b']"));
    EXPECT_NE(comparable_config("disk = [\n'a'\n]"), comparable_config("disk = [\n'b'\n]"));
    EXPECT_EQ(comparable_config(""), "");
    EXPECT_EQ(comparable_config("a = 'open\nb = 1"), "a='open\nb=1\n");
}

TEST(DomainConfig, UuidIsOursOrTheOperators)
{
    DomainConfigOptions o = options();
    EXPECT_THAT(config(kOperators, o), Not(HasSubstr("uuid")));
    o.uuid = "2b0e6a1e-8a39-4d1c-9a55-0c2c4e7f1a11";
    const std::string out = config("uuid = \"11111111-1111-1111-1111-111111111111\"\n", o);
    EXPECT_GT(out.rfind("uuid = \"2b0e6a1e-8a39-4d1c-9a55-0c2c4e7f1a11\"\n"), out.rfind("uuid = \"1111"));
    const auto none = config_uuid(kOperators);
    ASSERT_TRUE(none);
    EXPECT_FALSE(*none);
    for (const char* text : {"uuid='2B0E6A1E-8A39-4D1C-9A55-0C2C4E7F1A11'", "uuid=\"0\"\nuuid = \"2b0e6a1e8a394d1c9a550c2c4e7f1a11\" # ours"}) {
        const auto uuid = config_uuid(text);
        ASSERT_TRUE(uuid) << text;
        ASSERT_TRUE(*uuid);
        EXPECT_EQ(uuid_text(**uuid), o.uuid);
    }
    EXPECT_EQ(config_uuid("uuid = \"web\"").error().code, Errc::invalid);
}

}  // namespace
}  // namespace colo::xen
