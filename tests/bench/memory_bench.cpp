// SPDX-License-Identifier: Apache-2.0
// What one page costs: pre-capture (fetch, classify, encode) on the primary, the copy inside the pause, and staging, commit
// and writing on the secondary. Every iteration handles the pages given as argument; items per second are pages.
#include "replication/engine.h"
#include "tests/unit/replication/fake_guest.h"

#include <benchmark/benchmark.h>

#include <memory>
#include <random>

namespace {

using namespace colo;
using namespace colo::replication;
using test::FakeGuest;

enum class Content { zero, unchanged, delta, full };

constexpr Gfn kFrames = 48 * 1024;   // 192 MiB, far beyond any cache

GuestDescription bench_guest()
{
    GuestDescription guest;
    guest.regions = {{0, kFrames}};
    return guest;
}

// A primary whose first epoch is staged, its chunks of the epoch under measurement, and a secondary that follows.
class Bench {
public:
    Bench(Content content, std::uint64_t pages, Compression compression)
        : content_(content), pages_(pages), guest_(bench_guest(), true)
    {
        CaptureOptions options;
        options.compression = compression;
        options.delta_cache_bytes = 2 * kFrames * kPageSize;
        options.arena_pages = 32768;
        engine_ = make_capture_engine(guest_, options);
        stager_ = *make_stager(guest_.description(), {});
        for (Gfn g = 0; g < kFrames; ++g) fill(g);
        begin();
        must(engine_->precapture(sink(), 0));
        finish();
    }

    void dirty()
    {
        for (std::uint64_t i = 0; i < pages_; ++i) {
            const Gfn gfn = i * 37 % kFrames;   // spread over memory
            std::uint8_t* const page = guest_.touch(gfn);
            switch (content_) {
            case Content::zero: std::memset(page, 0, kPageSize); break;
            case Content::unchanged: break;
            case Content::delta: for (int k = 0; k < 4; ++k) page[random_() % kPageSize] ^= 0x5a; break;
            case Content::full: fill(gfn); break;
            }
        }
    }
    void begin()
    {
        must(engine_->begin_epoch(epoch_ + 1, epoch_));
        must(stager_->begin(epoch_ + 1, epoch_, 1));
        ++epoch_;
        used_ = 0;
    }
    void precapture() { must(engine_->precapture(sink(), 0)); }
    void residue() { must(engine_->capture_residue(false)); }
    void stage() { for (std::size_t i = 0; i < used_; ++i) must(stager_->add_chunk(0, chunks_[i])); }
    // To the end of the epoch, outside of what is measured.
    void finish(bool staged = false)
    {
        if (!residue_done_) must(engine_->capture_residue(false));
        residue_done_ = false;
        must(engine_->flush_residue(sink()));
        if (!staged) stage();
        Manifest manifest;
        manifest.base = epoch_ == 1 ? 0 : epoch_ - 1;
        manifest.chunks_per_channel = {used_};
        manifest.pages = engine_->totals().pages;
        manifest.digest = engine_->totals().digest;
        must(stager_->verify(epoch_, manifest));
        stager_->commit(epoch_);
        engine_->staged(epoch_);
    }
    void note_residue_done() { residue_done_ = true; }
    CaptureEngine& engine() { return *engine_; }
    Stager& stager() { return *stager_; }
    FakeGuest& guest() { return guest_; }

private:
    template <class T>
    static void must(const Result<T>& result)
    {
        if (!result) throw std::runtime_error(result.error().text);
    }
    void fill(Gfn gfn)
    {
        std::uint8_t* const page = guest_.touch(gfn);
        for (std::size_t i = 0; i < kPageSize; i += 8) {
            const std::uint64_t word = random_() >> 20;   // compresses somewhat
            std::memcpy(page + i, &word, 8);
        }
    }
    // Buffers are used again, as those of a socket would be.
    ChunkSink sink()
    {
        return [this](ByteView c) -> Result<void> {
            if (used_ == chunks_.size()) chunks_.emplace_back();
            chunks_[used_++].assign(c.begin(), c.end());
            return {};
        };
    }

    Content content_;
    std::uint64_t pages_;
    FakeGuest guest_;
    std::unique_ptr<CaptureEngine> engine_;
    std::unique_ptr<Stager> stager_;
    std::vector<Bytes> chunks_;
    std::mt19937_64 random_{1};
    Epoch epoch_ = 0;
    std::size_t used_ = 0;   // of chunks_
    bool residue_done_ = false;
};

template <class Measured>
void run(benchmark::State& state, Content content, Compression compression, Measured&& measured)
{
    Bench bench(content, static_cast<std::uint64_t>(state.range(0)), compression);
    for (auto _ : state) {
        state.PauseTiming();
        if (content == Content::zero) {   // zero is only worth a record if it was not zero before
            bench.begin();
            Bench* const b = &bench;
            for (std::int64_t i = 0; i < state.range(0); ++i) b->guest().touch(static_cast<Gfn>(i) * 37 % kFrames)[0] = 1;
            bench.precapture();
            bench.finish();
        }
        bench.dirty();
        bench.begin();
        measured(bench, state);
        state.ResumeTiming();
    }
    state.SetItemsProcessed(state.iterations() * state.range(0));
    state.SetBytesProcessed(state.iterations() * state.range(0) * static_cast<std::int64_t>(kPageSize));
}

void precapture(benchmark::State& state, Content content, Compression compression)
{
    run(state, content, compression, [](Bench& bench, benchmark::State& s) {
        s.ResumeTiming();
        bench.precapture();
        s.PauseTiming();
        bench.finish();
    });
}

void residue(benchmark::State& state)
{
    run(state, Content::delta, Compression::none, [](Bench& bench, benchmark::State& s) {
        s.ResumeTiming();
        bench.residue();
        s.PauseTiming();
        bench.note_residue_done();
        bench.finish();
    });
}

void stage(benchmark::State& state, Content content, Compression compression)
{
    run(state, content, compression, [](Bench& bench, benchmark::State& s) {
        bench.precapture();
        s.ResumeTiming();
        bench.stage();
        s.PauseTiming();
        bench.finish(true);
    });
}

// Guest RAM of the secondary: nothing but memory.
class PlainMemory final : public GuestMemory {
public:
    Result<void> read(std::span<const Gfn>, std::uint8_t*, std::span<FrameStatus>) override
    {
        return make_error(Errc::unsupported, "not needed");
    }
    Result<void> write(std::span<const PageWrite> pages) override
    {
        for (const PageWrite& w : pages)
            if (w.data != nullptr) std::memcpy(bytes_.data() + w.gfn * kPageSize, w.data, kPageSize);
        return {};
    }
    std::uint64_t resident_bytes() const override { return bytes_.size(); }
    const std::uint8_t* view(Gfn) const override { return nullptr; }

private:
    Bytes bytes_ = Bytes(kFrames * kPageSize, 1);
};

void apply(benchmark::State& state)
{
    PlainMemory secondary;
    run(state, Content::full, Compression::none, [&](Bench& bench, benchmark::State& s) {
        if (!bench.stager().write_guest(secondary, PageSet(), false)) s.SkipWithError("write");   // what is older
        bench.precapture();
        bench.finish();
        s.ResumeTiming();
        if (!bench.stager().write_guest(secondary, PageSet(), false)) s.SkipWithError("write");
        s.PauseTiming();
    });
}

BENCHMARK_CAPTURE(precapture, zero, Content::zero, Compression::none)->Arg(1000)->UseRealTime();
BENCHMARK_CAPTURE(precapture, unchanged, Content::unchanged, Compression::none)->Arg(1000)->UseRealTime();
BENCHMARK_CAPTURE(precapture, delta, Content::delta, Compression::none)->Arg(1000)->UseRealTime();
BENCHMARK_CAPTURE(precapture, full, Content::full, Compression::none)->Arg(1000)->UseRealTime();
BENCHMARK_CAPTURE(precapture, delta_zstd, Content::delta, Compression::zstd)->Arg(1000)->UseRealTime();
BENCHMARK_CAPTURE(precapture, full_zstd, Content::full, Compression::zstd)->Arg(1000)->UseRealTime();
BENCHMARK(residue)->Arg(40)->Arg(100)->Arg(1000)->UseRealTime();
BENCHMARK_CAPTURE(stage, zero, Content::zero, Compression::none)->Arg(1000)->UseRealTime();
BENCHMARK_CAPTURE(stage, delta, Content::delta, Compression::none)->Arg(1000)->UseRealTime();
BENCHMARK_CAPTURE(stage, full, Content::full, Compression::none)->Arg(1000)->UseRealTime();
BENCHMARK_CAPTURE(stage, full_zstd, Content::full, Compression::zstd)->Arg(1000)->UseRealTime();
BENCHMARK(apply)->Arg(1000)->UseRealTime();

}  // namespace

BENCHMARK_MAIN();
