// SPDX-License-Identifier: Apache-2.0
// The three dirty logs against a child process that writes random pages, compared with the truth.
#include "qemu/dirty_log.h"

#include "core/clock.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <random>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace colo::qemu {
namespace {

using replication::PageSet;
constexpr std::uint64_t kPages = 2048;

// A child that maps the RAM and writes pages that it is told by a pipe, one byte of answer each.
class Writer {
public:
    explicit Writer(const GuestRam& ram)
    {
        EXPECT_EQ(::pipe(to_), 0);
        EXPECT_EQ(::pipe(from_), 0);
        pid_ = ::fork();
        if (pid_ == 0) run(ram.fd());
        ::close(to_[0]);
        ::close(from_[1]);
        Hello hello{};
        EXPECT_EQ(::read(from_[0], &hello, sizeof hello), static_cast<ssize_t>(sizeof hello));
        address_ = hello.address;
        const Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
        if (hello.userfaultfd >= 0)
            userfaultfd_ = Fd(static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd.get(), hello.userfaultfd, 0)));
    }
    ~Writer()
    {
        ::close(to_[1]);
        ::close(from_[0]);
        ::waitpid(pid_, nullptr, 0);
    }
    void write(Gfn gfn, std::uint8_t value)
    {
        const std::uint64_t order = gfn << 8 | value;
        char answer = 0;
        ASSERT_EQ(::write(to_[1], &order, sizeof order), static_cast<ssize_t>(sizeof order));
        ASSERT_EQ(::read(from_[0], &answer, 1), 1);
    }
    DirtyTarget target() const { return {pid_, address_, kPages, userfaultfd_.get()}; }

private:
    struct Hello {
        std::uint64_t address;
        int userfaultfd;
    };
    [[noreturn]] void run(int fd)
    {
        ::close(to_[1]);
        void* at = ::mmap(nullptr, kPages * kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        auto* memory = static_cast<volatile std::uint8_t*>(at);
        Hello hello{};
        hello.address = reinterpret_cast<std::uint64_t>(at);
        hello.userfaultfd = static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY));
        bool alive = ::write(from_[1], &hello, sizeof hello) > 0;
        std::uint64_t order = 0;
        while (alive && ::read(to_[0], &order, sizeof order) == static_cast<ssize_t>(sizeof order)) {
            memory[(order >> 8) * kPageSize + 17] = static_cast<std::uint8_t>(order);
            alive = ::write(from_[1], "x", 1) == 1;
        }
        ::_exit(0);
    }
    int to_[2]{}, from_[2]{};
    pid_t pid_ = 0;
    std::uint64_t address_ = 0;
    Fd userfaultfd_;
};

class DirtyLogTest : public ::testing::TestWithParam<DirtyMethod> {
protected:
    void SetUp() override
    {
        if (const auto works = test_dirty_method(GetParam()); !works) GTEST_SKIP() << works.error().text;
        ram_ = *GuestRam::create("qemu-unit-dirty", kPages);
        writer_ = std::make_unique<Writer>(*ram_);
        log_ = *make_dirty_log(GetParam(), writer_->target(), *ram_);
        ASSERT_TRUE(log_->start());
    }
    PageSet fetch(bool final = true)
    {
        PageSet set(kPages);
        const auto r = log_->fetch_and_clear(set, final);
        EXPECT_TRUE(r) << r.error().text;
        return set;
    }

    std::unique_ptr<GuestRam> ram_;
    std::unique_ptr<Writer> writer_;
    std::unique_ptr<replication::DirtyLog> log_;
};

TEST_P(DirtyLogTest, EverythingIsDirtyOnceThenNothing)
{
    EXPECT_EQ(fetch(false).count(), kPages);
    EXPECT_EQ(fetch().count(), 0u);
    ASSERT_TRUE(log_->start());
    EXPECT_EQ(fetch(false).count(), kPages);
}

TEST_P(DirtyLogTest, Inv08_NoWrittenPageIsMissed)
{
    std::mt19937 random(3);
    fetch();
    for (int round = 0; round < 20; ++round) {
        PageSet truth(kPages);
        for (int i = 0; i < 200; ++i) {
            const Gfn gfn = random() % kPages;
            writer_->write(gfn, static_cast<std::uint8_t>(ram_->data()[gfn * kPageSize + 17] + 1));
            truth.add(gfn);
        }
        PageSet missed = truth;
        missed.subtract(fetch());
        EXPECT_EQ(missed.count(), 0u);
        EXPECT_EQ(fetch().count(), 0u);
    }
}

TEST_P(DirtyLogTest, OurOwnWritesAreNotDirty)
{
    fetch();
    const Bytes page(kPageSize, 9);
    const replication::PageWrite writes[] = {{7, page.data()}, {8, nullptr}};
    ASSERT_TRUE(ram_->write(writes));
    EXPECT_EQ(fetch().count(), 0u);
}

// X -> Y, captured as Y, -> X again: the other side holds Y, so the page is dirty.
TEST_P(DirtyLogTest, APageThatReturnsToItsOldContentAfterItsCaptureIsDirty)
{
    fetch();
    writer_->write(3, 1);
    const PageSet first = fetch(false);   // soft-dirty reports nothing while the guest runs
    std::vector<std::uint8_t> page(kPageSize);
    replication::FrameStatus status{};
    const Gfn gfn = 3;
    writer_->write(3, 2);
    ASSERT_TRUE(ram_->read({&gfn, 1}, page.data(), {&status, 1}));
    EXPECT_EQ(page[17], 2);
    writer_->write(3, 1);
    EXPECT_TRUE(fetch().contains(3));
}

// A measurement looks at the log and at pages beside a session: not one bit may be gone afterwards.
TEST_P(DirtyLogTest, Inv08_LookingTakesNothingAway)
{
    PageSet looked(kPages);
    ASSERT_TRUE(log_->peek(looked));
    EXPECT_EQ(looked.count(), kPages);
    EXPECT_EQ(fetch(false).count(), kPages);
    looked.clear();
    for (const Gfn gfn : {3, 4, 700}) writer_->write(gfn, 1);
    ASSERT_TRUE(log_->peek(looked));
    std::vector<std::uint8_t> page(kPageSize);
    replication::FrameStatus status{};
    const Gfn gfn = 3;
    ASSERT_TRUE(ram_->peek({&gfn, 1}, page.data(), {&status, 1}));
    EXPECT_EQ(page[17], 1);
    ASSERT_TRUE(log_->peek(looked));
    EXPECT_EQ(looked.count(), 3u);
    EXPECT_EQ(fetch(), looked);
    looked.clear();
    ASSERT_TRUE(log_->peek(looked));
    EXPECT_TRUE(looked.empty());
}

INSTANTIATE_TEST_SUITE_P(Methods, DirtyLogTest, ::testing::Values(DirtyMethod::uffd_wp, DirtyMethod::soft_dirty, DirtyMethod::compare),
                         [](const auto& test) {
                             std::string name = to_string(test.param);
                             std::erase(name, '-');
                             return name;
                         });

TEST(DirtySelection, AutoTakesTheBestThatWorksAndSaysWhyNotTheOthers)
{
    const auto selection = select_dirty_log("auto");
    ASSERT_TRUE(selection);
    EXPECT_EQ(selection->method == DirtyMethod::uffd_wp, selection->why.empty());
    EXPECT_TRUE(test_dirty_method(selection->method));
}

TEST(DirtySelection, AForcedMethodIsTakenOrRefusedWithTheReason)
{
    for (const DirtyMethod method : {DirtyMethod::uffd_wp, DirtyMethod::soft_dirty, DirtyMethod::compare}) {
        const auto works = test_dirty_method(method);
        const auto selection = select_dirty_log(to_string(method));
        ASSERT_EQ(works.has_value(), selection.has_value()) << to_string(method);
        if (selection) EXPECT_EQ(selection->method, method);
        else EXPECT_NE(selection.error().text.find(works.error().text), std::string::npos) << selection.error().text;
    }
    EXPECT_EQ(select_dirty_log("magic").error().code, Errc::invalid);
}

TEST(GuestRamTest, BoundsAndViews)
{
    auto ram = *GuestRam::create("qemu-unit-ram", 16);
    const replication::PageWrite outside[] = {{3, nullptr}, {16, nullptr}};
    ram->data()[3 * kPageSize] = 5;
    EXPECT_EQ(ram->write(outside).error().code, Errc::invalid);
    EXPECT_EQ(ram->data()[3 * kPageSize], 5) << "a refused write changes nothing";
    const Gfn gfns[] = {3, 99};
    std::vector<std::uint8_t> out(2 * kPageSize, 1);
    replication::FrameStatus status[2];
    ASSERT_TRUE(ram->read(gfns, out.data(), status));
    EXPECT_EQ(out[0], 5);
    EXPECT_EQ(status[1], replication::FrameStatus::absent);
    EXPECT_EQ(ram->view(16), nullptr);
    EXPECT_EQ(ram->view(3)[0], 5);
    ASSERT_TRUE(ram->zero());
    EXPECT_EQ(ram->view(3)[0], 0);
}

}  // namespace
}  // namespace colo::qemu
