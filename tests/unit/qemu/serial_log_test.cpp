// SPDX-License-Identifier: Apache-2.0
#include "qemu/serial_log.h"

#include "core/clock.h"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace colo::qemu {
namespace {

class SerialLogTest : public testing::Test {
protected:
    void SetUp() override
    {
        ASSERT_NE(::mkdtemp(directory.data()), nullptr);
        int fds[2];
        ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        ours = Fd(fds[0]);
        guest = Fd(fds[1]);
    }
    ~SerialLogTest() override { std::filesystem::remove_all(directory); }
    std::string file() const { return directory + "/serial.log"; }
    static std::string slurp(const std::string& path)
    {
        std::ifstream in(path);
        return {std::istreambuf_iterator<char>(in), {}};
    }
    // As QEMU does it: without waiting. False: nobody reads.
    bool write(const std::string& text)
    {
        std::string_view rest = text;
        while (!rest.empty()) {
            const ssize_t n = ::send(guest.get(), rest.data(), rest.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
            if (n > 0) rest.remove_prefix(static_cast<std::size_t>(n));
            pollfd p{guest.get(), POLLOUT, 0};
            if (n < 0 && ::poll(&p, 1, 20'000) != 1) return false;
        }
        return true;
    }

    std::string directory = testing::TempDir() + "serial-log.XXXXXX";
    Fd ours, guest;
};

TEST_F(SerialLogTest, KeepsWhatTheGuestWrote)
{
    std::ofstream(file()) << "of an earlier guest";
    {
        const auto log = SerialLog::start(std::move(ours), file());
        ASSERT_TRUE(log) << log.error().text;
        ASSERT_TRUE(write("hello\nworld\n"));
    }
    EXPECT_EQ(slurp(file()), "hello\nworld\n");
    EXPECT_FALSE(std::filesystem::exists(file() + ".1"));
}

TEST_F(SerialLogTest, AGuestThatWritesForEverTakesNoMoreThanTheLimit)
{
    constexpr std::uint64_t kLimit = 64u << 10;
    std::string all;
    {
        const auto log = SerialLog::start(std::move(ours), file(), kLimit);
        ASSERT_TRUE(log) << log.error().text;
        for (int i = 0; i < 100'000; ++i) {
            const std::string line = "line " + std::to_string(i) + "\n";
            ASSERT_TRUE(write(line));
            all += line;
            if (i % 10'000 == 0) {
                EXPECT_LE(slurp(file()).size() + slurp(file() + ".1").size(), kLimit);
            }
        }
    }
    const std::string kept = slurp(file() + ".1") + slurp(file());
    EXPECT_LE(kept.size(), kLimit);
    EXPECT_GE(kept.size(), kLimit / 2);
    EXPECT_EQ(kept, all.substr(all.size() - kept.size())) << "the newest";
}

TEST_F(SerialLogTest, AFileThatCannotBeWrittenDoesNotHoldTheGuestUp)
{
    const auto log = SerialLog::start(std::move(ours), "/dev/full");
    ASSERT_TRUE(log) << log.error().text;
    ASSERT_TRUE(write(std::string(4u << 20, 'x')));
}

// A pipe without a reader is what a file system that hangs looks like: open() does not return.
TEST_F(SerialLogTest, AFileSystemThatHangsHoldsNobodyUp)
{
    const std::string pipe = file();
    ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
    {
        const auto log = SerialLog::start(std::move(ours), pipe);
        ASSERT_TRUE(log) << log.error().text;
    }
    // It answers at last: the thread goes on from there, and ends.
    const Fd reader(::open(pipe.c_str(), O_RDONLY));
    ASSERT_TRUE(reader);
    char text[16];
    EXPECT_EQ(::read(reader.get(), text, sizeof text), 0) << "closed by the thread, and nothing written";
}

TEST_F(SerialLogTest, EndsWithTheGuestAndWithUs)
{
    auto log = SerialLog::start(std::move(ours), file());
    ASSERT_TRUE(log);
    ASSERT_TRUE(write("last words"));
    guest.reset();
    log->reset();
    EXPECT_EQ(slurp(file()), "last words");
    EXPECT_FALSE(SerialLog::start(Fd(), directory + "/no/such/directory"));
}

}  // namespace
}  // namespace colo::qemu
