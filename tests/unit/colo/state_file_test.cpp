// SPDX-License-Identifier: Apache-2.0
#include "colo/state_file.h"

#include "core/crc32c.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

namespace colo {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr const char* kUuid = "01234567-89ab-cdef-0123-456789abcdef";

PersistentState sample()
{
    PersistentState state;
    state.domain_uuid = kUuid;
    state.generation = 12;
    state.role = Role::secondary;
    state.session = 0xfedcba9876543210;
    state.in_session = true;
    state.eligible = true;
    state.outdated = false;
    state.reason = "staged the first epoch";
    return state;
}

class StateFile : public testing::Test {
protected:
    StateFile()
    {
        std::string pattern = testing::TempDir() + "colo-state-XXXXXX";
        path_ = mkdtemp(pattern.data());
    }
    ~StateFile() override { fs::remove_all(path_); }
    std::string state_path() const { return path_ + "/state"; }
    std::string read() const
    {
        std::ifstream file(state_path(), std::ios::binary);
        return {std::istreambuf_iterator<char>(file), {}};
    }
    void write(const std::string& text) const { std::ofstream(state_path(), std::ios::binary) << text; }
    std::unique_ptr<StateDirectory> open() const
    {
        auto directory = StateDirectory::open(path_, kUuid);
        EXPECT_TRUE(directory) << directory.error().text;
        return directory ? std::move(*directory) : nullptr;
    }
    std::string path_;
};

TEST_F(StateFile, FreshDirectoryHasNoRole)
{
    const auto directory = open();
    const auto state = directory->load();
    ASSERT_TRUE(state);
    EXPECT_EQ(state->role, Role::none);
    EXPECT_EQ(state->generation, 0u);
    EXPECT_EQ(state->domain_uuid, kUuid);
    EXPECT_FALSE(state->outdated);
}

TEST_F(StateFile, WhatIsStoredIsLoadedAfterARestart)
{
    for (const Role role : {Role::none, Role::primary, Role::secondary})
        for (int bits = 0; bits < 8; ++bits) {
            PersistentState state = sample();
            state.role = role;
            state.in_session = (bits & 1) != 0;
            state.eligible = (bits & 2) != 0;
            state.outdated = (bits & 4) != 0;
            ASSERT_TRUE(open()->store(state));
            const auto loaded = open()->load();
            ASSERT_TRUE(loaded) << loaded.error().text;
            EXPECT_EQ(*loaded, state);
        }
}

TEST_F(StateFile, ReasonStaysOnItsLine)
{
    PersistentState state = sample();
    state.reason = "first\nsecond\tcrc32c 00000000\n" + std::string(5000, 'x');
    ASSERT_TRUE(open()->store(state));
    const auto loaded = open()->load();
    ASSERT_TRUE(loaded) << loaded.error().text;
    EXPECT_THAT(loaded->reason, testing::StartsWith("first second crc32c 00000000 x"));
    EXPECT_EQ(loaded->reason.size(), 1024u);
    state.reason.clear();
    ASSERT_TRUE(open()->store(state));
    EXPECT_EQ(open()->load()->reason, "");
}

TEST_F(StateFile, EveryTruncationIsRefused)
{
    ASSERT_TRUE(open()->store(sample()));
    const std::string whole = read();
    for (std::size_t size = 0; size < whole.size(); ++size) {
        write(whole.substr(0, size));
        const auto loaded = open()->load();
        ASSERT_FALSE(loaded) << "cut to " << size << " bytes";
        EXPECT_EQ(loaded.error().code, Errc::corrupt);
    }
}

TEST_F(StateFile, EveryFlippedBitIsRefused)
{
    const std::string whole = encode_state(sample());
    for (std::size_t bit = 0; bit < whole.size() * 8; ++bit) {
        std::string damaged = whole;
        damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
        const auto decoded = decode_state(damaged);
        ASSERT_FALSE(decoded) << "bit " << bit;
        EXPECT_EQ(decoded.error().code, Errc::corrupt) << "bit " << bit;
    }
}

TEST_F(StateFile, RefusalSaysWhatToDo)
{
    const auto directory = open();
    write("rubbish\n");
    const auto loaded = directory->load();
    ASSERT_FALSE(loaded);
    EXPECT_THAT(loaded.error().text, HasSubstr(state_path()));
    EXPECT_THAT(loaded.error().text, HasSubstr("move the file away"));
    EXPECT_FALSE(directory->store(sample())) << "a damaged state is not overwritten: its generation is not known";
}

TEST_F(StateFile, FileOfANewerVersionAndOfAnotherDomainAreRefused)
{
    PersistentState other = sample();
    other.domain_uuid = "11111111-2222-3333-4444-555555555555";
    EXPECT_FALSE(open()->store(other));
    write(encode_state(other));
    const auto foreign = open()->load();
    ASSERT_FALSE(foreign);
    EXPECT_EQ(foreign.error().code, Errc::refused);

    std::string newer = encode_state(sample());
    newer.replace(newer.find("colo-state 1"), 12, "colo-state 2");
    newer.erase(newer.rfind("crc32c "));
    const std::uint32_t crc = crc32c({reinterpret_cast<const std::uint8_t*>(newer.data()), newer.size()});
    write(newer + fmt::format("crc32c {:08x}\n", crc));
    const auto unknown = open()->load();
    ASSERT_FALSE(unknown);
    EXPECT_EQ(unknown.error().code, Errc::unsupported);
    EXPECT_FALSE(open()->store(sample())) << "nor is it overwritten";
}

TEST_F(StateFile, CrashBeforeTheRenameLeavesTheOldState)
{
    ASSERT_TRUE(open()->store(sample()));
    // What a crash in the middle of a store leaves behind, whole or half.
    PersistentState next = sample();
    next.generation = 13;
    const std::string text = encode_state(next);
    std::ofstream(path_ + "/.state.state.4711.0") << text;
    std::ofstream(path_ + "/.state.state.4711.1") << text.substr(0, 20);
    const auto directory = open();
    EXPECT_EQ(directory->load()->generation, 12u);
    EXPECT_FALSE(fs::exists(path_ + "/.state.state.4711.0"));
    EXPECT_FALSE(fs::exists(path_ + "/.state.state.4711.1"));
    ASSERT_TRUE(directory->store(next));
    EXPECT_EQ(directory->load()->generation, 13u);
}

// SIGKILL at random moments of an endless series of stores: what is left is always one of the states that were stored.
TEST_F(StateFile, KilledInTheMiddleLeavesAWholeState)
{
    Generation newest = 0;
    for (int round = 0; round < 20 || (newest == 0 && round < 500); ++round) {
        const pid_t child = fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
            auto directory = StateDirectory::open(path_, kUuid);
            if (!directory) _exit(1);
            PersistentState state = sample();
            for (state.generation = newest;; ++state.generation)
                if (!(*directory)->store(state)) _exit(2);
        }
        usleep(static_cast<useconds_t>(3000 + round * 777));
        kill(child, SIGKILL);
        int status = 0;
        ASSERT_EQ(waitpid(child, &status, 0), child);
        ASSERT_TRUE(WIFSIGNALED(status)) << WEXITSTATUS(status);
        const auto loaded = open()->load();
        ASSERT_TRUE(loaded) << loaded.error().text;
        EXPECT_GE(loaded->generation, newest);
        newest = loaded->generation;
    }
    EXPECT_GT(newest, 0u);
}

TEST_F(StateFile, TwoDaemonsNeverShareADirectory)
{
    const auto first = open();
    const auto second = StateDirectory::open(path_, kUuid);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, Errc::refused);
    EXPECT_THAT(second.error().text, HasSubstr("in use by another colod"));
}

TEST_F(StateFile, HostIdentityIsMadeOnceAndDiffers)
{
    const std::string id = open()->host_id();
    EXPECT_EQ(id.size(), 32u);
    EXPECT_EQ(open()->host_id(), id);
    const auto other = StateDirectory::open(path_ + "/deeper/below", kUuid);
    ASSERT_TRUE(other);
    EXPECT_NE((*other)->host_id(), id);
    std::ofstream(path_ + "/host-id") << "damaged\n";
    EXPECT_FALSE(StateDirectory::open(path_, kUuid));
}

TEST_F(StateFile, GenerationNeverFalls)
{
    PersistentState state = sample();
    ASSERT_TRUE(open()->store(state));
    state.generation = 11;
    const auto directory = open();
    EXPECT_FALSE(directory->store(state));
    state.generation = 14;
    ASSERT_TRUE(directory->store(state));
    state.generation = 13;
    EXPECT_FALSE(directory->store(state));
    EXPECT_EQ(directory->load()->generation, 14u);
}

TEST_F(StateFile, DirectoryThatCannotBeMadeIsReported)
{
    std::ofstream(path_ + "/file") << "x";
    const auto directory = StateDirectory::open(path_ + "/file/below", kUuid);
    ASSERT_FALSE(directory);
    EXPECT_THAT(directory.error().text, HasSubstr(path_ + "/file"));
    EXPECT_FALSE(StateDirectory::open("relative", kUuid));
}

}  // namespace
}  // namespace colo
