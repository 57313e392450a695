// SPDX-License-Identifier: Apache-2.0
// The embedded guest on a QEMU that answers as it is told to.
#include "qemu/embedded_guest.h"

#include "core/clock.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sched.h>
#include <sys/stat.h>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace colo::qemu {
namespace {

using testing::HasSubstr;

Deadline soon()
{
    return now() + std::chrono::seconds(20);
}

// Of the calling thread (0) or another one.
bool is_real_time(int thread)
{
    const int policy = ::sched_getscheduler(thread) & ~SCHED_RESET_ON_FORK;
    return policy == SCHED_FIFO || policy == SCHED_RR;
}

class EmbeddedGuestTest : public testing::Test {
protected:
    void make(const std::string& append, replication::StartMode mode = replication::StartMode::boot)
    {
        ASSERT_NE(::mkdtemp(directory.data()), nullptr);
        EmbeddedGuestOptions options;
        options.name = "fake";
        options.run_directory = directory;
        options.qemu_binary = FAKE_QEMU;
        options.memory_mib = 32;
        options.kernel = "/dev/null";
        options.append = append;
        options.accelerator = "tcg";
        options.dirty_log = "compare";
        options.device_load = "snapshot";
        auto made = make_embedded_guest(std::move(options));
        ASSERT_TRUE(made) << made.error().text;
        guest = std::move(*made);
        const auto created = guest->create(mode, soon());
        ASSERT_TRUE(created) << created.error().text;
    }
    ~EmbeddedGuestTest() override
    {
        guest.reset();
        std::filesystem::remove_all(directory);
    }
    std::string commands()
    {
        guest.reset();  // what is still in the socket is stored
        std::ifstream in(directory + "/serial.log");
        return {std::istreambuf_iterator<char>(in), {}};
    }
    void whole_cut()
    {
        const auto begun = guest->cut_begin(soon());
        ASSERT_TRUE(begun) << begun.error().text;
        const auto saved = guest->cut_save(soon());
        ASSERT_TRUE(saved) << saved.error().text;
        EXPECT_TRUE(guest->verify(*saved));
        const auto resumed = guest->resume(soon());
        ASSERT_TRUE(resumed) << resumed.error().text;
        EXPECT_TRUE(guest->running());
    }

    std::string directory = testing::TempDir() + "embedded-guest.XXXXXX";
    std::unique_ptr<EmbeddedGuest> guest;
};

TEST_F(EmbeddedGuestTest, Inv12_AStopThatIsRefusedLeavesARunningGuest)
{
    make("refuse=stop:1");
    const auto begun = guest->cut_begin(soon());
    ASSERT_FALSE(begun);
    EXPECT_EQ(begun.error().code, Errc::refused);
    EXPECT_THAT(begun.error().text, HasSubstr("told to refuse"));
    EXPECT_FALSE(is_real_time(0));
    const auto resumed = guest->resume(soon());
    ASSERT_TRUE(resumed) << resumed.error().text;
    EXPECT_TRUE(guest->running());
    whole_cut();
    EXPECT_EQ(commands(),
              "qmp_capabilities\nqmp_capabilities\nxen-save-devices-state\ncont\nstop\ncont\nstop\n"
              "xen-save-devices-state\ncont\n");
}

// Stop and save go out in one write then: the save's answer is owed although nobody wants it any more.
TEST_F(EmbeddedGuestTest, Inv12_AStopThatIsRefusedWithTheSaveBehindItLeavesARunningGuest)
{
    make("refuse=stop:1", replication::StartMode::loadable);
    ASSERT_FALSE(guest->cut_begin(soon()));
    const auto resumed = guest->resume(soon());
    ASSERT_TRUE(resumed) << resumed.error().text;
    EXPECT_TRUE(guest->running());
    whole_cut();
}

TEST_F(EmbeddedGuestTest, R9_ACutOfAGuestThatIsOffGivesThePriorityBack)
{
    make("");
    const int qemu = guest->device_model_pid();
    ASSERT_TRUE(guest->cut_begin(soon()));
    if (!is_real_time(0)) GTEST_SKIP() << "real-time priority is not permitted here";
    EXPECT_TRUE(is_real_time(qemu));
    ASSERT_TRUE(guest->cut_save(soon()));
    ASSERT_TRUE(guest->stop(soon()));
    EXPECT_FALSE(is_real_time(0));
    EXPECT_FALSE(is_real_time(qemu));
    EXPECT_FALSE(guest->running());
    whole_cut();
}

TEST_F(EmbeddedGuestTest, AStopEndsACutWhoseSaveNobodyWaitedFor)
{
    for (const auto mode : {replication::StartMode::boot, replication::StartMode::loadable}) {
        directory = testing::TempDir() + "embedded-guest.XXXXXX";
        make("", mode);
        ASSERT_TRUE(guest->cut_begin(soon()));
        const auto stopped = guest->stop(soon());
        ASSERT_TRUE(stopped) << stopped.error().text;
        EXPECT_FALSE(is_real_time(0));
        whole_cut();
        guest.reset();
        std::filesystem::remove_all(directory);
    }
}

// Nobody may ever write into it.
TEST_F(EmbeddedGuestTest, Inv13_DeviceStateIsNeitherReadFromNorWrittenToWhatIsNoFile)
{
    make("", replication::StartMode::loadable);
    const std::string fifo = directory + "/fifo";
    ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
    for (const std::string& name : {fifo, directory, std::string("/dev/zero")}) {
        const auto loaded = guest->load_device_state(name, soon());
        ASSERT_FALSE(loaded) << name;
        EXPECT_THAT(loaded.error().text, HasSubstr("not a regular file"));
        const auto saved = guest->save_device_state(name, false, soon());
        ASSERT_FALSE(saved) << name;
        EXPECT_THAT(saved.error().text, HasSubstr("not a regular file"));
    }
    EXPECT_FALSE(guest->load_device_state(directory + "/nothing", soon()));
    EXPECT_TRUE(guest->save_device_state(directory + "/new", false, soon()));
}

TEST_F(EmbeddedGuestTest, ADeviceStateThatIsTooLargeIsRefusedUnread)
{
    make("", replication::StartMode::loadable);
    const std::string file = directory + "/state";
    std::ofstream(file).close();
    std::filesystem::resize_file(file, std::uintmax_t{1} << 40);
    const auto loaded = guest->load_device_state(file, soon());
    ASSERT_FALSE(loaded);
    EXPECT_EQ(loaded.error().code, Errc::limit) << loaded.error().text;
}

}  // namespace
}  // namespace colo::qemu
