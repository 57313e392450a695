// SPDX-License-Identifier: Apache-2.0
#pragma once

// The memory engine. Primary: CaptureEngine turns dirty frames into chunks. Secondary: Stager turns chunks back into
// pages, keeps the shadow, and writes the guest. Both are passive (no thread, no socket, no clock) and not thread-safe:
// the owner serialises calls. Rules kept here: R6 (dirty bits belong to the epoch in which they were fetched; clear
// before copy; pre-captured pages name their base; P's cache advances at STAGED only) and the page part of R1.
//
// One engine and one stager serve one session. Both are made anew for the next one.
//
// A page channel may deliver a chunk before the control channel delivers the Begin of its epoch. The stager cannot keep
// it: the owner reads its header (decode_chunk_header in chunk.h), and while header.epoch > stager.open_epoch() it holds
// the chunk and does not read that channel further. Chunks of older epochs go in and are dropped and counted.

#include "core/error.h"
#include "core/types.h"
#include "replication/guest.h"
#include "replication/message.h"
#include "replication/page_set.h"

#include <functional>
#include <memory>

namespace colo::replication {

enum class Compression : std::uint8_t { none = 1, zlib, zstd };

struct CaptureOptions {
    Compression compression = Compression::none;
    int level = 1;
    std::uint64_t delta_cache_bytes = 64u << 20;   // xbzrle-cache-size; content at the last STAGED
    std::uint32_t pages_per_chunk = 128;
    std::uint32_t arena_pages = 32768;             // residue copied inside the pause
};

// Header of a chunk, first bytes of every PageChunk frame; the frame around it carries session, sequence and CRC.
struct ChunkHeader {
    Epoch epoch = 0;
    Epoch base = 0;
    std::uint32_t order = 0;          // rises within the epoch: where two chunks carry a frame, the higher one wins,
                                      // whatever channel was faster
    std::uint32_t pages = 0;
    std::uint32_t raw_bytes = 0;      // bounded before allocation
    Compression compression = Compression::none;
};

struct CaptureStats {
    std::uint64_t fetched = 0;        // dirty frames fetched
    std::uint64_t zero = 0, unchanged = 0, delta = 0, full = 0;   // frames by class
    std::uint64_t not_sent = 0;       // of these: S has the content already, no record was needed
    std::uint64_t raw_bytes = 0, sent_bytes = 0;   // records before compression; chunks as handed to the sink
    std::uint32_t rounds = 0;         // pre-capture rounds: calls that fetched
    std::uint64_t residue = 0;        // frames copied inside the pause
};

// Takes one encoded chunk; may block for flow control (bounded by the owner's deadline) or fail.
using ChunkSink = std::function<Result<void>(ByteView chunk)>;

class CaptureEngine {
public:
    virtual ~CaptureEngine() = default;

    // First epoch of a session (base 0): the dirty log is started and every frame counts as dirty; S's shadow is zero.
    // The owner stops the log when it drops the engine. An aborted first epoch is followed by another one with base 0.
    // Otherwise base is the last STAGED epoch, or the one that is in flight (flushed, neither staged nor aborted): then
    // precapture() fetches but emits nothing until staged(base), because deltas need a base that S has.
    // Errc::invalid: number not above every earlier one (R7), wrong base, or an epoch is still open. Errc::unsupported,
    // here and wherever the log is fetched: frames outside of the described regions were written; for good.
    virtual Result<void> begin_epoch(Epoch epoch, Epoch base) = 0;

    // Fetch-and-clear, then copy and emit, at most max_pages (0 = all fetched). Frames not emitted stay owned by this
    // epoch. Returns the number of frames taken from the backlog. The guest runs. A backlog of max_pages or more is
    // worked off without another fetch. After an error (guest gone, sink failed) the epoch can only be aborted.
    virtual Result<std::uint64_t> precapture(const ChunkSink& sink, std::uint64_t max_pages) = 0;
    // Frames known dirty for this epoch and not yet emitted (after the last fetch).
    virtual std::uint64_t backlog() const = 0;

    // Inside the pause: fetch (final) and copy everything still owned into the arena. No encoding, no sink.
    // `rescan`: after the save, fetch again and copy what the save itself wrote. Errc::limit: more frames than the arena
    // holds; abort, and pre-capture more before the next cut.
    virtual Result<void> capture_residue(bool rescan) = 0;

    // After resume: encode and emit the arena. Then totals() is final for this epoch.
    virtual Result<void> flush_residue(const ChunkSink& sink) = 0;
    struct Totals {
        std::uint64_t pages = 0;
        std::uint64_t digest = 0;
        std::vector<Gfn> released;
    };
    virtual Totals totals() const = 0;
    virtual CaptureStats stats() const = 0;   // of the current epoch

    // Answers about an epoch that is not open or in flight are ignored.
    virtual void staged(Epoch epoch) = 0;     // drops only the set fetched for this epoch; advances the delta cache
    virtual void aborted(Epoch epoch) = 0;    // every bit goes back to the next epoch
    virtual void set_options(const CaptureOptions& options) = 0;   // takes effect with the next epoch
    virtual PageSet owned() const = 0;        // for tests: frames whose newest content S does not have STAGED
};
std::unique_ptr<CaptureEngine> make_capture_engine(Guest& guest, const CaptureOptions& options);

// From this fill on the secondary asks for a cut: what the epoch still dirties until then needs room as well.
inline constexpr double kStagingTrigger = 0.8;

struct StagerLimits {
    std::uint64_t staging_bytes = 0;   // 0: as much as RAM
};

class Stager {
public:
    virtual ~Stager() = default;

    // base 0: first epoch, every frame starts as zero, and staging may use the room of the whole shadow. Allowed until
    // something was committed. Errc::invalid: wrong base, number not above every earlier one, or an epoch is open.
    virtual Result<void> begin(Epoch epoch, Epoch base, std::size_t channels) = 0;
    virtual Epoch open_epoch() const = 0;      // the newest that was begun, also after its drop() or commit()
    // Chunks of an epoch that is not open, or with a base that is not the last committed epoch, are counted and dropped.
    // Errc::corrupt and Errc::limit (staging full) leave everything as it was before.
    virtual Result<void> add_chunk(std::size_t channel, ByteView chunk) = 0;
    virtual std::uint64_t dropped_chunks() const = 0;
    // Nothing of the epoch remains.
    virtual void drop(Epoch epoch) = 0;
    // True once every chunk that the manifest names has arrived.
    virtual bool complete(const Manifest& manifest) const = 0;
    // R1: counts, digest. Errc::corrupt names what differs.
    virtual Result<void> verify(Epoch epoch, const Manifest& manifest) const = 0;
    // First epoch only (else nothing happens): writes what was staged since the last call into the guest, which never ran
    // and may not run before the commit. The first apply then has only the rest to write. Returns the number of frames.
    virtual Result<std::uint64_t> prefill(GuestMemory& memory) = 0;
    // Irrevocable: the shadow becomes the content of `epoch`. Infallible by construction (memory was reserved).
    virtual void commit(Epoch epoch) = 0;
    virtual Epoch committed() const = 0;

    // Frames in which the guest may differ from the shadow: committed since the guest was last written. After the first
    // epoch: all of RAM that was not prefilled, because a fresh guest is not all zero (firmware).
    virtual const PageSet& stale() const = 0;
    // Writes stale() U own_dirty from the shadow. `everything`: all frames (fresh guest after recreate). Returns the
    // number of frames. stale() is empty afterwards, or unchanged after an error. Special frames are never written.
    virtual Result<std::uint64_t> write_guest(GuestMemory& memory, const PageSet& own_dirty, bool everything) = 0;
    // Frames that the device load itself touched: written again from the shadow.
    virtual Result<void> rewrite(GuestMemory& memory, const PageSet& touched) = 0;
    virtual const std::uint8_t* shadow(Gfn gfn) const = 0;   // nullptr outside RAM
    virtual double fill() const = 0;                          // staging use, 0..1; 0 in the first epoch
    virtual std::uint64_t staged_pages() const = 0;           // of the open epoch
};
// What shadow and staging take at most.
std::uint64_t stager_bytes(const GuestDescription& guest, const StagerLimits& limits);
// Reserves shadow and staging at once; Errc::limit says how much was missing. Physical memory is taken as content
// arrives (a zero frame needs none), always before STAGED: commit() only exchanges references.
Result<std::unique_ptr<Stager>> make_stager(const GuestDescription& guest, const StagerLimits& limits);

}  // namespace colo::replication
