// SPDX-License-Identifier: Apache-2.0
#include "engine_model.h"

#include "fake_guest.h"
#include "replication/chunk.h"
#include "replication/engine.h"

#include <deque>
#include <random>

namespace colo::replication::test {
namespace {

class Model {
public:
    Model(std::uint64_t seed, ModelCoverage& coverage)
        : random_(seed), coverage_(coverage), description_(small_guest()), primary_(description_, chance(2)),
          secondary_(description_, true)
    {
    }

    std::string run()
    {
        for (int i = 0; i < 30 && failure_.empty(); ++i) {
            if (!stager_) start_session();
            one_epoch();
        }
        return failure_;
    }

private:
    std::uint64_t below(std::uint64_t n) { return random_() % n; }
    bool chance(std::uint64_t one_in) { return below(one_in) == 0; }

    void fail(const std::string& what)
    {
        if (failure_.empty()) failure_ = "epoch " + std::to_string(epoch_) + ": " + what;
    }
    template <class T>
    bool ok(const char* what, const Result<T>& result)
    {
        if (!result) fail(std::string(what) + ": " + result.error().text);
        return static_cast<bool>(result);
    }

    // ---- what the guests do ----

    void scribble(FakeGuest& guest)
    {
        Gfn gfn = 0;
        do gfn = below(description_.gfn_limit());
        while (!is_ram(gfn));
        std::uint8_t* const page = guest.touch(gfn);
        switch (below(6)) {
        case 0: std::memset(page, 0, kPageSize); break;
        case 1: break;   // dirty, but the same content
        case 2:
            for (std::size_t i = 0; i < kPageSize; i += 8) store(page + i);
            break;
        case 3:
            if (&guest == &primary_ && stager_ && stager_->shadow(gfn) != nullptr)
                std::memcpy(page, stager_->shadow(gfn), kPageSize);   // back to what S has
            break;
        case 4: guest.balloon_out(gfn); break;
        default:
            for (int i = 0; i < 3; ++i) store(page + 8 * below(kPageSize / 8));
        }
    }
    void store(std::uint8_t* at)
    {
        const std::uint64_t word = random_();
        std::memcpy(at, &word, sizeof word);
    }
    bool is_ram(Gfn gfn) const
    {
        for (const MemoryRegion& r : description_.regions)
            if (gfn >= r.first && gfn < r.first + r.pages) return true;
        return false;
    }
    void run_primary() { for (std::uint64_t n = below(8); n > 0; --n) scribble(primary_); }

    // ---- session and transport ----

    void start_session()
    {
        CaptureOptions options;
        options.compression = static_cast<Compression>(1 + below(3));
        options.delta_cache_bytes = below(260) * kPageSize;
        options.pages_per_chunk = static_cast<std::uint32_t>(1 + below(20));
        options.arena_pages = 256;
        engine_ = make_capture_engine(primary_, options);
        auto stager = make_stager(description_, {});
        if (!ok("make stager", stager)) return;
        stager_ = std::move(*stager);
        channels_.assign(1 + below(3), {});
        epoch_ = staged_ = 0;
        pipelined_ = false;
        ++coverage_.sessions;
    }

    // The guest runs on while a chunk is handed over: between clearing and copying, between copying and sending.
    ChunkSink sink()
    {
        return [this](ByteView chunk) -> Result<void> {
            run_primary();
            const std::size_t channel = below(channels_.size());
            channels_[channel].queue.emplace_back(chunk.begin(), chunk.end());
            ++channels_[channel].sent;
            if (chance(2)) deliver_one();
            return {};
        };
    }
    void deliver_one()
    {
        const std::size_t index = below(channels_.size());
        auto& channel = channels_[index];
        if (channel.queue.empty()) return;
        Bytes chunk = std::move(channel.queue.front());
        channel.queue.pop_front();
        const auto header = decode_chunk_header(chunk);
        if (header->epoch > stager_->open_epoch()) {   // before its Begin: held back, as engine.h demands
            channel.queue.push_front(std::move(chunk));
            return;
        }
        if (header->order < last_order_) ++coverage_.reordered;
        last_order_ = header->order;
        if (corrupt_next_) {
            corrupt_next_ = false;
            chunk[below(chunk.size())] ^= static_cast<std::uint8_t>(1 << below(8));
            (void)stager_->add_chunk(index, chunk);   // noticed here or by verify()
            return;
        }
        ok("add chunk", stager_->add_chunk(index, chunk));
    }
    void deliver_all()
    {
        for (auto& channel : channels_)
            while (!channel.queue.empty() && failure_.empty()) deliver_one();
    }

    // ---- one epoch ----

    void one_epoch()
    {
        if (!pipelined_ && !begin_primary()) return;
        pipelined_ = false;
        if (!begin_secondary() || !precapture()) return;
        if (chance(6)) return abort_epoch();
        if (!cut()) return;
        run_primary();
        if (chance(6)) return abort_epoch();
        if (!ok("flush", engine_->flush_residue(sink()))) return;
        note_stats();
        check_nothing_lost();
        const Epoch cut_epoch = epoch_;
        const Manifest manifest = make_manifest();
        if (chance(3)) start_next_early();
        finish(cut_epoch, manifest);
    }

    bool begin_primary()
    {
        ++epoch_;
        return ok("begin", engine_->begin_epoch(epoch_, staged_));
    }
    bool begin_secondary()
    {
        for (auto& channel : channels_) channel.sent = 0;
        corrupt_next_ = chance(8);
        corrupted_ = corrupt_next_;
        return ok("begin staging", stager_->begin(epoch_, staged_, channels_.size()));
    }
    bool precapture()
    {
        for (std::uint64_t rounds = below(4); rounds > 0; --rounds) {
            run_primary();
            if (chance(15)) {
                primary_.dirty_log().next_error =
                    make_error(chance(2) ? Errc::limit : Errc::failed, "injected");
                log_failed_ = true;
                ++coverage_.log_failures;
            }
            const auto done = engine_->precapture(sink(), chance(2) ? 0 : 1 + below(40));
            if (!done && log_failed_) {
                log_failed_ = false;
                abort_epoch();
                return false;
            }
            log_failed_ = primary_.dirty_log().next_error.has_value();
            if (!ok("pre-capture", done)) return false;
        }
        primary_.dirty_log().next_error.reset();
        log_failed_ = false;
        return true;
    }
    bool cut()
    {
        run_primary();
        if (!ok("capture residue", engine_->capture_residue(false))) return false;
        run_primary();   // the save writes memory
        if (!ok("capture again", engine_->capture_residue(true))) return false;
        at_cut_.clear();
        absent_at_cut_ = primary_.memory().absent;
        for_each_frame(description_, [&](Gfn gfn) {
            const std::uint8_t* const page = primary_.memory().page(gfn);
            at_cut_.emplace_back(page, page + kPageSize);
        });
        return true;
    }
    Manifest make_manifest()
    {
        Manifest manifest;
        manifest.base = staged_;
        for (const auto& channel : channels_) manifest.chunks_per_channel.push_back(channel.sent);
        const auto totals = engine_->totals();
        manifest.pages = totals.pages;
        manifest.digest = totals.digest;
        manifest.released = totals.released;
        for (const Gfn gfn : totals.released)
            if (absent_at_cut_.count(gfn) == 0) fail("frame " + std::to_string(gfn) + " was not given up");
        return manifest;
    }

    void abort_epoch()
    {
        ++coverage_.aborted;
        engine_->aborted(epoch_);
        if (chance(2)) deliver_one();
        stager_->drop(epoch_);
        deliver_all();   // what was still under way comes too late and has no effect
        corrupt_next_ = false;
        check_nothing_lost();
        check_shadow("after an abort");
    }

    // The next epoch is opened and fetched for before the answer to the last one (R6).
    void start_next_early()
    {
        ++coverage_.pipelined;
        if (!ok("begin early", engine_->begin_epoch(epoch_ + 1, epoch_))) return;
        ++epoch_;
        pipelined_ = true;
        run_primary();
        const auto taken = engine_->precapture(sink(), 0);
        if (ok("fetch early", taken) && *taken != 0) fail("emitted against a base that is not staged");
        run_primary();
        check_nothing_lost();
    }

    void finish(Epoch cut_epoch, const Manifest& manifest)
    {
        deliver_all();
        if (!failure_.empty()) return;
        const bool touched = corrupted_ && !corrupt_next_;
        const bool verified = stager_->complete(manifest) && stager_->verify(cut_epoch, manifest).has_value();
        if (!verified) {
            if (!touched) return fail("verification failed without corruption");
            ++coverage_.corrupted;
            return lose_session();
        }
        stager_->commit(cut_epoch);
        engine_->staged(cut_epoch);
        staged_ = cut_epoch;
        ++coverage_.committed;
        reference_ = at_cut_;
        check_shadow("after STAGED");
        check_nothing_lost();
        if (chance(3)) return;   // buffered: not applied now
        apply();
    }
    void lose_session()
    {
        engine_.reset();
        stager_.reset();
        reference_.clear();
        corrupt_next_ = false;
    }
    void apply()
    {
        for (std::uint64_t n = below(8); n > 0; --n) scribble(secondary_);   // S's own, speculative writes
        PageSet own;
        ok("own dirty", secondary_.dirty_log().fetch_and_clear(own, true));
        ok("write guest", stager_->write_guest(secondary_.memory(), own, first_apply_ || chance(10)));
        first_apply_ = false;
        for (std::uint64_t n = below(3); n > 0; --n) scribble(secondary_);   // the load writes memory
        PageSet touched;
        ok("touched", secondary_.dirty_log().fetch_and_clear(touched, true));
        ok("rewrite", stager_->rewrite(secondary_.memory(), touched));
        ++coverage_.applied;
        std::size_t i = 0;
        for_each_frame(description_, [&](Gfn gfn) {
            if (std::memcmp(secondary_.memory().page(gfn), reference_[i++].data(), kPageSize) != 0)
                fail("S's frame " + std::to_string(gfn) + " is not P's at the cut (Inv09)");
        });
        for (const Gfn gfn : description_.special_frames)
            if (secondary_.memory().written.count(gfn) != 0) fail("a special frame was written");
    }

    // ---- invariants ----

    void check_shadow(const char* when)
    {
        std::size_t i = 0;
        for_each_frame(description_, [&](Gfn gfn) {
            const std::uint8_t* const expected = reference_.empty() ? zero_page() : reference_[i++].data();
            if (std::memcmp(stager_->shadow(gfn), expected, kPageSize) != 0)
                fail("shadow of frame " + std::to_string(gfn) + " is wrong " + when);
        });
        for (const Gfn gfn : description_.special_frames)
            if (stager_->shadow(gfn) != nullptr) fail("a special frame has a shadow");
    }
    // Inv08: where P differs from what S has STAGED, somebody still knows that the frame is dirty.
    void check_nothing_lost()
    {
        const PageSet owned = engine_->owned();
        for_each_frame(description_, [&](Gfn gfn) {
            if (std::memcmp(primary_.memory().page(gfn), stager_->shadow(gfn), kPageSize) == 0) return;
            if (!owned.contains(gfn) && !primary_.dirty_log().dirty.contains(gfn))
                fail("dirty bit of frame " + std::to_string(gfn) + " is lost (Inv08)");
        });
    }
    void note_stats()
    {
        const CaptureStats stats = engine_->stats();
        coverage_.zero += stats.zero;
        coverage_.unchanged += stats.unchanged;
        coverage_.delta += stats.delta;
        coverage_.full += stats.full;
    }

    struct Channel {
        std::deque<Bytes> queue;
        std::uint64_t sent = 0;
    };
    std::mt19937_64 random_;
    ModelCoverage& coverage_;
    GuestDescription description_;
    FakeGuest primary_, secondary_;
    std::unique_ptr<CaptureEngine> engine_;
    std::unique_ptr<Stager> stager_;
    std::vector<Channel> channels_;
    std::vector<Bytes> at_cut_, reference_;   // by frame in order: P at the newest cut, P at the last STAGED cut
    std::set<Gfn> absent_at_cut_;
    Epoch epoch_ = 0, staged_ = 0;
    std::uint32_t last_order_ = 0;
    bool pipelined_ = false, first_apply_ = true, log_failed_ = false;
    bool corrupt_next_ = false, corrupted_ = false;
    std::string failure_;
};

}  // namespace

std::string run_engine_model(std::uint64_t seed, ModelCoverage& coverage) { return Model(seed, coverage).run(); }

}  // namespace colo::replication::test
