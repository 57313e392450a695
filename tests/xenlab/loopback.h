// SPDX-License-Identifier: Apache-2.0
#pragma once

// Checkpoints of one running HVM domain into another one that runs, too, on the same host: all that xen/ has, in the order of a
// real epoch (colo/cut.cpp, colo/apply.cpp), without a network between. For programs that run in dom0: the first error ends them.

#include "core/clock.h"
#include "hypercalls.h"
#include "xen/dirty_log.h"
#include "xen/domain_cut.h"
#include "xen/guest_memory.h"
#include "xen/precheck.h"

#include <cstdlib>
#include <string>
#include <type_traits>

namespace colo::xen {

void print(const std::string& line);

template <class T>
T must(Result<T> result)
{
    if (!result) {
        print("FAILED " + result.error().text);
        std::exit(1);
    }
    if constexpr (!std::is_void_v<T>) return std::move(*result);
}

inline Deadline soon() { return now() + std::chrono::seconds(20); }
inline double ms(Duration duration) { return static_cast<double>(duration.count()) / 1000; }

// One domain and all that belongs to it.
struct Side {
    // `hurry`: cuts of it as the daemon makes them, with priority for the device model.
    Side(const std::string& name, bool hurry);
    void must_be_alive(const std::string& role);

    std::unique_ptr<Control> control;
    std::unique_ptr<DeviceModel> model;
    MemoryLayout layout;
    std::unique_ptr<DomainMemory> memory;
    std::unique_ptr<LogDirty> log;
    std::unique_ptr<DomainCut> cut;
};

// Of the primary, from the call that pauses it to the end of the one that lets it go on.
struct CutFigures {
    Duration stopped{}, stop{}, residue{}, save{}, rescan{}, resume{};
    Time resumed{};
    std::size_t ahead_frames = 0, residue_frames = 0, rescan_frames = 0;   // ahead: copied before the pause
    Duration copying{};                                                    // of all of them: reading guest memory, without the log
    HypercallCount calls_ahead{}, calls_stopped{};
    int pauses_repeated = 0;
    std::size_t device_bytes = 0, context_bytes = 0;
};

struct ApplyFigures {
    Duration total{}, stop{}, write{}, load{}, restore{}, resume{};
    std::size_t frames = 0, own_frames = 0, restored_frames = 0;
};

class Loopback {
public:
    // Batches of foreign frames, and what is read at once: dom0 is small, all of a domain is never in memory twice.
    static constexpr std::size_t kBatch = 512;

    // Ends the program if the two have different memory.
    Loopback(const std::string& primary, const std::string& secondary);

    // `last`: both stand still afterwards, until go_on().
    void epoch(bool last);
    void go_on(bool primary);   // the secondary, and the primary with it?
    const CutFigures& cut() const { return cut_; }          // of the last epoch
    const ApplyFigures& applied() const { return apply_; }

    // Frames whose content the shadow does not have: somebody else took them out of the log.
    void owe(const replication::PageSet& frames) { owed_.merge(frames); }
    // Through mappings made for this, so that a stale one would show. Both stand still.
    std::size_t differing();
    void end_logs();

    Side& primary() { return p_; }
    Side& secondary() { return s_; }
    const replication::PageSet& ram() const { return ram_; }
    std::uint64_t frames() const { return frames_; }
    const replication::PageSet& captured() const { return dirty_; }   // in the last epoch

private:
    std::vector<Gfn> fetch(bool final);
    std::size_t copy_ahead();
    std::size_t copy_residue();
    void read(DomainMemory& memory, std::span<const Gfn> gfns, std::uint8_t* out);
    replication::DeviceState make_cut(bool last);
    void apply(bool last, const replication::DeviceState& state);
    void write(const replication::PageSet& frames);
    std::uint8_t* shadow(Gfn gfn) { return &shadow_[slot_[gfn] * kPageSize]; }

    Side p_, s_;
    replication::PageSet ram_, owed_, dirty_;
    std::vector<std::uint64_t> slot_;   // by gfn: its place in the shadow
    std::uint64_t frames_ = 0;
    Bytes shadow_;                      // what the secondary's memory is to be
    // Read inside the pause, and not in the shadow yet: that is no work for a pause.
    std::vector<Gfn> residue_;
    Bytes arena_;
    CutFigures cut_;
    ApplyFigures apply_;
};

}  // namespace colo::xen
