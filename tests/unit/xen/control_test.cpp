// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/xen/fake_control.h"
#include "xen/control.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace colo::xen {
namespace {

using test::FakeControl;

TEST(XenControl, ErrorsOfTheHypervisorKeepTheirMeaning)
{
    const std::pair<int, Errc> meanings[] = {{ESRCH, Errc::guest_died}, {EBUSY, Errc::refused},      {EPERM, Errc::refused},
                                             {ENOMEM, Errc::limit},     {EINVAL, Errc::invalid},     {EOPNOTSUPP, Errc::unsupported},
                                             {ENOENT, Errc::unsupported}, {EFAULT, Errc::failed},    {ENODATA, Errc::invalid}};
    for (const auto& [err, code] : meanings) {
        const Error error = hypercall_error("domain 3: map", err);
        EXPECT_EQ(error.code, code) << err;
        EXPECT_EQ(error.text.find("domain 3: map: "), 0u) << error.text;
    }
}

TEST(XenControl, WithoutXenOpeningADomainSaysWhatIsMissing)
{
    const auto control = open_domain(1);
    if (control) GTEST_SKIP() << "this is a dom0 with a domain 1";
    EXPECT_EQ(control.error().text.find("domain 1: "), 0u) << control.error().text;
}

TEST(XenControl, MappingUnmapsExactlyOnce)
{
    FakeControl control;
    control.add_ram(0, 4);
    const Gfn gfns[] = {0, 1, 9};
    int errors[3];
    auto mapping = control.map(gfns, Access::read_write, errors);
    ASSERT_TRUE(mapping);
    EXPECT_EQ(errors[0], 0);
    EXPECT_EQ(errors[2], EINVAL);
    mapping->data()[kPageSize] = 0x5a;
    EXPECT_EQ(control.content(1), 0x5a);
    Mapping moved = std::move(*mapping);
    Mapping other;
    other = std::move(moved);
    EXPECT_EQ(moved.data(), nullptr);
    EXPECT_EQ(control.unmaps, 0);
    other = Mapping();
    EXPECT_EQ(control.unmaps, 1);
}

TEST(XenControl, MappingKeepsShowingTheFrameItWasMadeOf)
{
    FakeControl control;
    control.add_ram(0, 1);
    control.guest_write(0, 1);
    const Gfn gfn = 0;
    int error = 0;
    auto mapping = control.map({&gfn, 1}, Access::read, {&error, 1});
    ASSERT_TRUE(mapping);
    control.exchange(0, 2);
    EXPECT_EQ(mapping->data()[0], 1);
    EXPECT_EQ(control.content(0), 2);
}

TEST(XenControl, RefusedContextAndWriteOnceParameters)
{
    FakeControl control;
    EXPECT_EQ(control.set_context(Bytes{1}).error().code, Errc::invalid);   // it runs
    ASSERT_TRUE(control.pause());
    control.fail["set-context"] = {EINVAL};
    EXPECT_FALSE(control.set_context(Bytes{9}));
    EXPECT_EQ(*control.context(), (Bytes{1, 2, 3, 4}));
    ASSERT_TRUE(control.set_context(Bytes{9}));
    EXPECT_EQ(*control.context(), Bytes{9});
    ASSERT_TRUE(control.set_param(Param::viridian, 1));
    ASSERT_TRUE(control.set_param(Param::viridian, 1));
    EXPECT_FALSE(control.set_param(Param::viridian, 3));
    EXPECT_EQ(*control.param(Param::viridian), 1u);
}

}  // namespace
}  // namespace colo::xen
