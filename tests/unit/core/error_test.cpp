// SPDX-License-Identifier: Apache-2.0
#include "core/error.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <stdexcept>

namespace colo {
namespace {

Result<int> half(int n)
{
    if (n % 2 != 0) return make_error(Errc::invalid, "odd");
    return n / 2;
}

TEST(Error, ResultCarriesValueOrError)
{
    EXPECT_EQ(*half(4), 2);
    const auto bad = half(3);
    ASSERT_FALSE(bad);
    EXPECT_EQ(bad.error(), (Error{Errc::invalid, "odd"}));
    EXPECT_THROW((void)bad.value(), std::logic_error);   // a caller's bug, loudly
}

TEST(Error, ErrnoMapsToWhatACallerCanActOn)
{
    EXPECT_EQ(errno_error("read", ETIMEDOUT).code, Errc::timed_out);
    EXPECT_EQ(errno_error("read", ECONNRESET).code, Errc::closed);
    EXPECT_EQ(errno_error("read", EPIPE).code, Errc::closed);
    EXPECT_EQ(errno_error("open", EACCES).code, Errc::refused);
    EXPECT_EQ(errno_error("mmap", ENOMEM).code, Errc::limit);
    EXPECT_EQ(errno_error("ioctl", ENOSYS).code, Errc::unsupported);
    EXPECT_EQ(errno_error("open /x", ENOENT), (Error{Errc::failed, "open /x: No such file or directory"}));
}

TEST(Error, ContextGoesInFrontAndKeepsTheCode)
{
    EXPECT_EQ(with_context("save", make_error(Errc::timed_out, "no reply")), (Error{Errc::timed_out, "save: no reply"}));
}

TEST(Error, EveryCodeHasAName)
{
    for (int c = 1; c <= static_cast<int>(Errc::cancelled); ++c)
        EXPECT_STRNE(to_string(static_cast<Errc>(c)), "unknown") << c;
}

}  // namespace
}  // namespace colo
