// SPDX-License-Identifier: Apache-2.0
#include "core/breakage.h"
#include "replication/dirty_ledger.h"
#include "replication/encode.h"
#include "replication/wire.h"

#include <algorithm>
#include <cstring>
#include <string>

namespace colo::replication {
namespace {

constexpr std::size_t kReadBatch = 128;          // frames per GuestMemory::read where there is no view
constexpr std::uint32_t kRescanRoom = 1024;      // arena pages beyond RAM size, for frames read a second time

// Pages copied inside the pause. Memory is there and touched before the pause begins.
class Arena {
public:
    Result<void> resize(std::uint32_t pages, Gfn gfn_limit)
    {
        if (pages == capacity_) return {};
        auto memory = Mapping::reserve(std::size_t{pages} * kPageSize);
        if (!memory) return with_context("arena", memory.error());
        memory_ = std::move(*memory);
        memory_.populate();
        capacity_ = pages;
        gfns_.reserve(pages);
        status_.resize(pages);
        slot_of_.assign(gfn_limit, 0);
        return {};
    }
    void clear() { gfns_.clear(); }
    std::size_t used() const { return gfns_.size(); }
    std::size_t room() const { return capacity_ - gfns_.size(); }
    std::uint8_t* at(std::size_t slot) { return memory_.data() + slot * kPageSize; }

    // The slot for this frame: the one it has, or a new one.
    std::size_t slot_for(Gfn gfn)
    {
        const std::size_t slot = slot_of_[gfn];
        return slot < gfns_.size() && gfns_[slot] == gfn ? slot : append(gfn);
    }
    std::size_t append(Gfn gfn)
    {
        slot_of_[gfn] = static_cast<std::uint32_t>(gfns_.size());
        gfns_.push_back(gfn);
        status_[gfns_.size() - 1] = FrameStatus::ok;
        return gfns_.size() - 1;
    }
    Gfn gfn(std::size_t slot) const { return gfns_[slot]; }
    bool is_newest(std::size_t slot) const { return slot_of_[gfns_[slot]] == slot; }
    FrameStatus status(std::size_t slot) const { return status_[slot]; }
    std::span<const Gfn> gfns_from(std::size_t slot) const { return std::span(gfns_).subspan(slot); }
    std::span<FrameStatus> status_from(std::size_t slot) { return std::span(status_).subspan(slot, gfns_.size() - slot); }

private:
    Mapping memory_;
    std::uint32_t capacity_ = 0;
    std::vector<Gfn> gfns_;                 // by slot
    std::vector<FrameStatus> status_;       // by slot
    std::vector<std::uint32_t> slot_of_;    // by gfn; valid only if gfns_ agrees, so that clear() costs nothing
};

class Capture final : public CaptureEngine {
public:
    Capture(Guest& guest, const CaptureOptions& options);

    Result<void> begin_epoch(Epoch epoch, Epoch base) override;
    Result<std::uint64_t> precapture(const ChunkSink& sink, std::uint64_t max_pages) override;
    std::uint64_t backlog() const override { return ledger_.backlog().count(); }
    Result<void> capture_residue(bool rescan) override;
    Result<void> flush_residue(const ChunkSink& sink) override;
    Totals totals() const override;
    CaptureStats stats() const override { return encoder_.stats(); }
    void staged(Epoch epoch) override;
    void aborted(Epoch epoch) override;
    void set_options(const CaptureOptions& options) override { wanted_ = options; reconfigure_ = true; }
    PageSet owned() const override { return ledger_.owned(); }

private:
    enum class Phase : std::uint8_t { idle, open, residue, failed };

    Result<void> check_begin(Epoch epoch, Epoch base) const;
    Result<void> configure();
    Result<void> start_session();
    Result<void> fetch(bool final);
    bool base_is_staged() const { return base_ == staged_ || broken(Breakage::stale_base_accepted); }
    Result<std::uint64_t> emit_backlog(const ChunkSink& sink, std::uint64_t max_pages);
    Result<void> emit_read(const ChunkSink& sink);
    Result<void> emit(Gfn gfn, const std::uint8_t* page, FrameStatus status, const ChunkSink& sink);
    Result<void> copy_to_arena();
    Error fail(Error error);
    Error wrong_phase(const char* what) const;

    Guest& guest_;
    CaptureOptions wanted_;
    bool reconfigure_ = true;
    PageSet ram_;                       // frames that are copied at all: RAM without special frames
    PageSet known_;                     // ... and the special ones, of which the log may tell
    Gfn gfn_limit_;
    std::uint64_t ram_pages_;
    DirtyLedger ledger_;
    DeltaCache cache_;
    ChunkEncoder encoder_;
    Arena arena_;
    Phase phase_ = Phase::idle;
    Epoch epoch_ = 0, base_ = 0;        // newest that was begun
    Epoch in_flight_ = 0;               // flushed, neither staged nor aborted; 0: none
    Epoch staged_ = 0;
    bool log_started_ = false;
    // The guest has memory that S does not know. Its bits are read and gone, so no epoch of this session is complete
    // again.
    std::optional<Error> grown_;
    PageSet fetched_;                   // scratch of fetch()
    PageSet last_copied_;               // Breakage::copy_before_clear only
    PageSet released_;                  // frames that P gave up, newest status of this epoch
    Gfn cursor_ = 0;                    // where pre-capture goes on, so that low frames do not starve high ones
    std::vector<Gfn> read_gfns_;
    Bytes read_pages_;
    std::vector<FrameStatus> read_status_;
};

PageSet copied_frames(const GuestDescription& guest)
{
    PageSet ram(guest.gfn_limit());
    for (const MemoryRegion& region : guest.regions) ram.add_range(region.first, region.pages);
    for (const Gfn gfn : guest.special_frames) ram.remove(gfn);
    return ram;
}

PageSet known_frames(const GuestDescription& guest)
{
    PageSet known = copied_frames(guest);
    for (const Gfn gfn : guest.special_frames) known.add(gfn);
    return known;
}

Error growth(Gfn gfn)
{
    return make_error(Errc::unsupported, "frame " + std::to_string(gfn) +
                                             " was written, but it lies outside of the memory that was "
                                             "described when the session began: the guest's memory has grown");
}

Capture::Capture(Guest& guest, const CaptureOptions& options)
    : guest_(guest),
      wanted_(options),
      ram_(copied_frames(guest.description())),
      known_(known_frames(guest.description())),
      gfn_limit_(guest.description().gfn_limit()),
      ram_pages_(ram_.count()),
      encoder_(gfn_limit_),
      fetched_(gfn_limit_),
      released_(gfn_limit_)
{
    read_gfns_.reserve(kReadBatch);
    read_status_.resize(kReadBatch);
}

Error Capture::wrong_phase(const char* what) const
{
    return make_error(Errc::invalid, std::string(what) + ": epoch " + std::to_string(epoch_) +
                                         (phase_ == Phase::failed ? " failed and must be aborted" : " is not at this step"));
}

Error Capture::fail(Error error)
{
    phase_ = Phase::failed;
    return error;
}

// ---- begin ------------------------------------------------------------------------------------------------------------

Result<void> Capture::check_begin(Epoch epoch, Epoch base) const
{
    const auto invalid = [&](const std::string& why) {
        return make_error(Errc::invalid, "begin epoch " + std::to_string(epoch) + ": " + why);
    };
    if (phase_ != Phase::idle) return invalid("epoch " + std::to_string(epoch_) + " is still open");
    if (epoch == 0 || (epoch <= epoch_ && !broken(Breakage::epoch_reused_after_abort)))
        return invalid("the last one was " + std::to_string(epoch_));
    if (base == 0 ? staged_ != 0 || in_flight_ != 0 : base != (in_flight_ != 0 ? in_flight_ : staged_))
        return invalid("base " + std::to_string(base) + ", but " + std::to_string(staged_) + " is staged");
    return {};
}

Result<void> Capture::configure()
{
    auto cache = DeltaCache::make(gfn_limit_, wanted_.delta_cache_bytes);
    if (!cache) return cache.error();
    const auto arena_pages = static_cast<std::uint32_t>(
        std::min<std::uint64_t>(wanted_.arena_pages, ram_pages_ + kRescanRoom));
    if (auto r = arena_.resize(arena_pages, gfn_limit_); !r) return r;
    if (staged_ != 0) cache->forget_all();
    cache_ = std::move(*cache);
    encoder_.configure(wanted_);
    reconfigure_ = false;
    return {};
}

// Every frame is owned by the first epoch. The bits are fetched here, so that each is cleared before its frame is copied.
Result<void> Capture::start_session()
{
    if (log_started_) guest_.dirty_log().stop();   // an aborted first epoch
    if (auto r = guest_.dirty_log().start(); !r) return with_context("start dirty log", r.error());
    log_started_ = true;
    if (auto r = fetch(false); !r) return r;
    ledger_.fetched(ram_);
    return {};
}

Result<void> Capture::begin_epoch(Epoch epoch, Epoch base)
{
    if (auto r = check_begin(epoch, base); !r) return r;
    if (grown_) return *grown_;
    // The cache of an epoch in flight is still needed; new options wait for the next epoch then.
    if (reconfigure_ && in_flight_ == 0)
        if (auto r = configure(); !r) return r;
    if (base == 0) {
        ledger_.clear();
        cache_.reset();
    }
    ledger_.open(epoch);
    encoder_.begin_epoch(epoch, base);
    arena_.clear();
    released_.clear();
    epoch_ = epoch;
    base_ = base;
    phase_ = Phase::open;
    if (base == 0)
        if (auto r = start_session(); !r) return fail(r.error());
    return {};
}

// ---- fetch and pre-capture --------------------------------------------------------------------------------------------

Result<void> Capture::fetch(bool final)
{
    fetched_.clear();
    const auto result = guest_.dirty_log().fetch_and_clear(fetched_, final);
    if (broken(Breakage::copy_before_clear)) {
        fetched_.subtract(last_copied_);
        last_copied_.clear();
    }
    const auto strange = result ? fetched_.first_outside(known_) : std::nullopt;
    if (strange) grown_ = growth(*strange);
    if (result)
        fetched_.intersect(ram_);
    else
        fetched_ = ram_;   // bits may have been cleared without being reported
    encoder_.stats().fetched += fetched_.count();
    ledger_.fetched(fetched_);
    if (grown_) return fail(*grown_);
    if (!result && result.error().code != Errc::limit) return fail(with_context("fetch dirty frames", result.error()));
    return {};
}

Result<void> Capture::emit(Gfn gfn, const std::uint8_t* page, FrameStatus status, const ChunkSink& sink)
{
    if (status == FrameStatus::failed) return make_error(Errc::failed, "frame " + std::to_string(gfn) + " cannot be read");
    if (status == FrameStatus::absent) {
        released_.add(gfn);
        page = zero_page();
    } else {
        released_.remove(gfn);
    }
    return encoder_.add(cache_, gfn, page, sink);
}

Result<void> Capture::emit_read(const ChunkSink& sink)
{
    if (read_gfns_.empty()) return {};
    read_pages_.resize(kReadBatch * kPageSize);
    const std::span<FrameStatus> status = std::span(read_status_).first(read_gfns_.size());
    if (auto r = guest_.memory().read(read_gfns_, read_pages_.data(), status); !r) return r;
    for (std::size_t i = 0; i < read_gfns_.size(); ++i)
        if (auto r = emit(read_gfns_[i], read_pages_.data() + i * kPageSize, status[i], sink); !r) return r;
    read_gfns_.clear();
    return {};
}

Result<std::uint64_t> Capture::emit_backlog(const ChunkSink& sink, std::uint64_t max_pages)
{
    const PageSet& backlog = ledger_.backlog();
    const GuestMemory& memory = guest_.memory();
    std::uint64_t taken = 0;
    read_gfns_.clear();
    for (bool wrapped = false; taken < max_pages;) {
        const auto gfn = backlog.next(cursor_);
        if (!gfn) {
            if (wrapped) break;
            wrapped = true;
            cursor_ = 0;
            continue;
        }
        cursor_ = *gfn + 1;
        ledger_.copied(*gfn);
        ++taken;
        if (broken(Breakage::copy_before_clear)) last_copied_.add(*gfn);
        if (const std::uint8_t* page = memory.view(*gfn)) {
            if (auto r = emit(*gfn, page, FrameStatus::ok, sink); !r) return r.error();
            continue;
        }
        read_gfns_.push_back(*gfn);
        if (read_gfns_.size() == kReadBatch)
            if (auto r = emit_read(sink); !r) return r.error();
    }
    if (auto r = emit_read(sink); !r) return r.error();
    if (auto r = encoder_.flush(sink); !r) return r.error();
    return taken;
}

Result<std::uint64_t> Capture::precapture(const ChunkSink& sink, std::uint64_t max_pages)
{
    if (phase_ != Phase::open) return wrong_phase("pre-capture");
    if (max_pages == 0 || ledger_.backlog().count() < max_pages) {
        ++encoder_.stats().rounds;
        if (auto r = fetch(false); !r) return r.error();
    }
    if (!base_is_staged()) return std::uint64_t{0};
    auto taken = emit_backlog(sink, max_pages == 0 ? gfn_limit_ : max_pages);
    if (!taken) return fail(taken.error());
    return taken;
}

// ---- inside the pause -------------------------------------------------------------------------------------------------

Result<void> Capture::copy_to_arena()
{
    const GuestMemory& memory = guest_.memory();
    const std::size_t first_read = arena_.used();
    const std::size_t frames = ledger_.backlog().count();
    if (frames > arena_.room())
        return make_error(Errc::limit, std::to_string(frames) + " frames are left for the pause, the arena has room for " +
                                           std::to_string(arena_.room()));
    std::size_t reads = 0;
    ledger_.backlog().for_each([&](Gfn gfn) {
        if (const std::uint8_t* page = memory.view(gfn)) {
            std::memcpy(arena_.at(arena_.slot_for(gfn)), page, kPageSize);
        } else {
            arena_.append(gfn);
            ++reads;
        }
    });
    ledger_.copied_all();
    encoder_.stats().residue = arena_.used();
    if (reads == 0) return {};
    // Guests either have a view of every frame or of none, so the new slots are exactly those to read.
    if (reads != arena_.used() - first_read) return make_error(Errc::failed, "guest has views of some frames only");
    return guest_.memory().read(arena_.gfns_from(first_read), arena_.at(first_read), arena_.status_from(first_read));
}

Result<void> Capture::capture_residue(bool rescan)
{
    if (phase_ != (rescan ? Phase::residue : Phase::open)) return wrong_phase("capture residue");
    if (!base_is_staged())
        return make_error(Errc::invalid, "capture residue: base " + std::to_string(base_) + " is not staged yet");
    if (auto r = fetch(true); !r) return r;
    if (auto r = copy_to_arena(); !r) return fail(r.error());
    phase_ = Phase::residue;
    return {};
}

Result<void> Capture::flush_residue(const ChunkSink& sink)
{
    if (phase_ != Phase::residue) return wrong_phase("flush residue");
    for (std::size_t slot = 0; slot < arena_.used(); ++slot) {
        if (!arena_.is_newest(slot)) continue;
        if (auto r = emit(arena_.gfn(slot), arena_.at(slot), arena_.status(slot), sink); !r) return fail(r.error());
    }
    if (auto r = encoder_.flush(sink); !r) return fail(r.error());
    in_flight_ = epoch_;
    phase_ = Phase::idle;
    return {};
}

CaptureEngine::Totals Capture::totals() const
{
    Totals totals{encoder_.pages(), encoder_.digest(), released_.to_vector()};
    // What does not fit stays populated, as zero, on the secondary: it costs memory there and nothing else.
    if (totals.released.size() > kMaxReleased) totals.released.resize(kMaxReleased);
    return totals;
}

// ---- outcome ----------------------------------------------------------------------------------------------------------

void Capture::staged(Epoch epoch)
{
    if (epoch == 0 || epoch != in_flight_) return;
    ledger_.staged(epoch);
    cache_.advance();
    staged_ = epoch;
    in_flight_ = 0;
}

void Capture::aborted(Epoch epoch)
{
    if (epoch == 0) return;
    if (epoch == in_flight_) {
        in_flight_ = 0;
        if (phase_ != Phase::idle) phase_ = Phase::failed;   // the open epoch was based on it
    } else if (epoch == epoch_ && phase_ != Phase::idle) {
        phase_ = Phase::idle;
        if (in_flight_ != 0) return ledger_.aborted(epoch);   // the cache belongs to the one in flight
    } else {
        return;
    }
    ledger_.aborted(epoch);
    cache_.revert();
}

}  // namespace

std::unique_ptr<CaptureEngine> make_capture_engine(Guest& guest, const CaptureOptions& options)
{
    return std::make_unique<Capture>(guest, options);
}

}  // namespace colo::replication
