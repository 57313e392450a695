// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/xen/fake_model.h"
#include "xen/cpu_context.h"

#include <gtest/gtest.h>

#include <xen/xen.h>
#include <xen/hvm/save.h>

#include <cstring>

namespace colo::xen {
namespace {

void add(Bytes& context, std::uint16_t type, const void* record, std::uint32_t size)
{
    hvm_save_descriptor head{};
    head.typecode = type;
    head.length = size;
    const auto append = [&](const void* data, std::size_t length) {
        const auto* bytes = static_cast<const std::uint8_t*>(data);
        context.insert(context.end(), bytes, bytes + length);
    };
    append(&head, sizeof head);
    append(record, size);
}

Bytes context_with(std::uint64_t cr0, std::uint64_t cr4)
{
    Bytes out;
    const hvm_save_header header{};
    add(out, HVM_SAVE_CODE(HEADER), &header, sizeof header);
    hvm_hw_cpu cpu{};
    cpu.cr0 = cr0;
    cpu.cr4 = cr4;
    add(out, HVM_SAVE_CODE(CPU), &cpu, sizeof cpu);
    add(out, HVM_SAVE_CODE(END), nullptr, 0);
    return out;
}

constexpr std::uint64_t kProtected = 1, kPaging = std::uint64_t{1} << 31, kPse = 1 << 4, kPae = 1 << 5;

TEST(KernelInContext, OnlyAKernelPagesWithPae)
{
    EXPECT_TRUE(runs_kernel(context_with(kProtected | kPaging, kPae | kPse)));
    EXPECT_FALSE(runs_kernel(context_with(0, 0))) << "real mode";
    EXPECT_FALSE(runs_kernel(context_with(kProtected, kPae))) << "about to page";
    EXPECT_FALSE(runs_kernel(context_with(kProtected | kPaging, kPse))) << "a test of hvmloader";
}

TEST(KernelInContext, TheFirstCpuCounts)
{
    Bytes context = context_with(0, 0);
    context.resize(context.size() - sizeof(hvm_save_descriptor));
    hvm_hw_cpu second{};
    second.cr0 = kProtected | kPaging;
    second.cr4 = kPae;
    add(context, HVM_SAVE_CODE(CPU), &second, sizeof second);
    EXPECT_FALSE(runs_kernel(context));
}

TEST(KernelInContext, WhatIsNoContextRunsNothing)
{
    EXPECT_FALSE(runs_kernel({}));
    const Bytes whole = context_with(kProtected | kPaging, kPae);
    const std::size_t cpu_ends = whole.size() - sizeof(hvm_save_descriptor);
    for (std::size_t size = 0; size < cpu_ends; ++size) {
        const Bytes part(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));   // a copy: the end of it is the end of the memory
        EXPECT_FALSE(runs_kernel(part)) << size;
    }
    Bytes short_record;
    add(short_record, HVM_SAVE_CODE(CPU), whole.data(), 100);
    EXPECT_FALSE(runs_kernel(short_record));
}

TEST(CpuContext, EveryTruncationIsFound)
{
    const Bytes good = test::cpu_context();
    ASSERT_TRUE(check_context(good));
    for (std::size_t n = 0; n < good.size(); ++n) EXPECT_FALSE(check_context(ByteView(good).first(n))) << n;
    Bytes longer = good;
    longer.push_back(0);
    EXPECT_FALSE(check_context(longer));
}

TEST(CpuContext, StateOfAVcpuThatTheDomainHasNotIsFound)
{
    constexpr std::size_t kTypes[] = {HVM_SAVE_CODE(CPU), HVM_SAVE_CODE(LAPIC), HVM_SAVE_CODE(LAPIC_REGS), HVM_SAVE_CODE(MTRR), CPU_XSAVE_CODE,
                                     HVM_SAVE_CODE(VIRIDIAN_VCPU), HVM_SAVE_CODE(VMCE_VCPU), HVM_SAVE_CODE(TSC_ADJUST), CPU_MSR_CODE};
    for (const std::size_t type : kTypes) {
        Bytes context;
        add(context, static_cast<std::uint16_t>(type), "", 0);
        context[2] = 1;   // of the second one
        EXPECT_TRUE(check_vcpus(context, 2)) << type;
        EXPECT_FALSE(check_vcpus(context, 1)) << type;
    }
    Bytes platform;
    add(platform, HVM_SAVE_CODE(IOAPIC), "", 0);
    platform[2] = 1;
    EXPECT_TRUE(check_vcpus(platform, 1));
}

TEST(CpuContext, LengthsAreNotTrusted)
{
    Bytes bad = test::cpu_context();
    bad[4] = bad[5] = bad[6] = bad[7] = 0xff;
    EXPECT_EQ(check_context(bad).error().code, Errc::corrupt);
    Bytes none;
    test::add_record(none, 1, {0x86, 0x12, 0x38, 0x54});
    test::add_record(none, 0, {});
    EXPECT_EQ(check_context(none).error().code, Errc::corrupt);   // no CPU
    EXPECT_EQ(check_context(Bytes(kMaxContext + 1)).error().code, Errc::limit);
}

}  // namespace
}  // namespace colo::xen
