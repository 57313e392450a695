// SPDX-License-Identifier: Apache-2.0
// The secondary's worker with real chunks of a fake primary.
#include "colo/secondary_worker.h"
#include "tests/unit/daemon/fake_guest.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>

namespace colo::test {
namespace {

class NoSeal final : public SecondarySeal {
public:
    Result<void> seal(Deadline) override { return {}; }
    Result<void> applied(Epoch, const replication::ProxySection&, bool, Deadline) override { return {}; }
};

class SecondaryWorkerTest : public ::testing::Test {
protected:
    void note(const std::string& what)
    {
        const std::lock_guard lock(mutex);
        told.push_back(what);
        changed.notify_all();
    }
    bool wait_for(const std::string& what)
    {
        std::unique_lock lock(mutex);
        return changed.wait_for(lock, std::chrono::seconds(20),
                                [&] { return std::count(told.begin(), told.end(), what) != 0; });
    }
    long count(const std::string& what)
    {
        const std::lock_guard lock(mutex);
        return std::count(told.begin(), told.end(), what);
    }
    void dirty(Gfn gfn)
    {
        ++primary.ram()[gfn * kPageSize];
        primary.log().dirty.add(gfn);
    }
    // One epoch of the primary: what `dirty` was called for since the last one.
    void send(Epoch epoch, Epoch base)
    {
        ASSERT_TRUE(engine->begin_epoch(epoch, base));
        worker->stage_begin(epoch, base);
        std::uint64_t chunks = 0;
        const auto sink = [&](ByteView chunk) -> Result<void> {
            ++chunks;
            return worker->chunk(0, chunk);
        };
        for (int i = 0; i < 2; ++i) ASSERT_TRUE(engine->precapture(sink, 0));
        ASSERT_TRUE(engine->capture_residue(false));
        ASSERT_TRUE(engine->capture_residue(true));
        ASSERT_TRUE(engine->flush_residue(sink));
        replication::Manifest manifest;
        manifest.base = base;
        manifest.chunks_per_channel = {chunks};
        manifest.pages = engine->totals().pages;
        manifest.digest = engine->totals().digest;
        worker->stage_finish(epoch, manifest);
        ASSERT_TRUE(wait_for("complete " + std::to_string(epoch)));
        worker->commit(epoch);
        engine->staged(epoch);
    }
    void SetUp() override
    {
        replication::CaptureOptions options;
        options.pages_per_chunk = 1;
        engine = replication::make_capture_engine(primary, options);
        SecondaryWorker::Callbacks callbacks;
        callbacks.standby_ready = [this](Result<void> r) { note(r ? "standby" : "no standby"); };
        callbacks.staging_full = [this](Epoch e) { note("full " + std::to_string(e)); };
        callbacks.stage_complete = [this](Epoch e, Result<void> r) {
            note((r ? "complete " : "bad ") + std::to_string(e));
        };
        callbacks.apply_done = [this](Epoch e, Result<void> r, const ApplyOutput&) {
            note((r ? "applied " : "failed ") + std::to_string(e));
        };
        callbacks.failed = [this](const Error& e) { note("broken: " + e.text); };
        worker = std::make_unique<SecondaryWorker>(guest_worker, guest, seal, std::move(callbacks));
    }

    std::mutex mutex;
    std::condition_variable changed;
    std::vector<std::string> told;
    Trace primary_trace, trace;
    FakeClock clock;
    FakeGuest primary{primary_trace, clock}, guest{trace, clock};
    NoSeal seal;
    Worker guest_worker{"guest"};
    std::unique_ptr<replication::CaptureEngine> engine;
    std::unique_ptr<SecondaryWorker> worker;
};

TEST_F(SecondaryWorkerTest, StagingThatIsNearlyFullIsToldOnceAnEpoch)
{
    worker->open({5 * kPageSize}, 1);
    for (Gfn gfn = 0; gfn < 16; ++gfn) dirty(gfn);
    send(1, 0);
    EXPECT_EQ(count("full 1"), 0) << "the first copy uses the shadow's room";
    for (Gfn gfn = 0; gfn < 3; ++gfn) dirty(gfn);
    send(2, 1);
    EXPECT_EQ(count("full 2"), 0);
    for (Gfn gfn = 0; gfn < 5; ++gfn) dirty(gfn);
    send(3, 2);
    EXPECT_EQ(count("full 3"), 1);
    for (Gfn gfn = 0; gfn < 4; ++gfn) dirty(gfn);
    send(4, 3);
    EXPECT_EQ(count("full 4"), 1);
}

TEST_F(SecondaryWorkerTest, TheCopyGoesWithItsGuestAndWhenThisSideServes)
{
    const Duration brief{50'000};
    for (const bool serves : {false, true}) {
        worker->open({}, 1);
        dirty(1);
        engine = replication::make_capture_engine(primary, {});
        send(1, 0);
        worker->apply({1, replication::Mode::buffered, false}, Duration{20'000'000});
        ASSERT_TRUE(wait_for("applied 1"));
        if (serves)
            worker->release_memory();
        else
            worker->prepare_standby(true, Duration{20'000'000});
        if (!serves) {
            ASSERT_TRUE(wait_for("standby"));
        }
        for (int i = 0; i < 400 && count("failed 1") == 0; ++i) {
            worker->apply({1, replication::Mode::buffered, false}, brief);
            std::this_thread::sleep_for(std::chrono::milliseconds(60));
        }
        EXPECT_GT(count("failed 1"), 0) << "the copy is still there";
        const std::lock_guard lock(mutex);
        told.clear();
    }
}

}  // namespace
}  // namespace colo::test
