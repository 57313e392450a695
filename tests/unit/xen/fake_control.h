// SPDX-License-Identifier: Apache-2.0
#pragma once

// A domain made of memory, as nasty as the real one where it counts: reading the dirty log destroys it, a mapping keeps showing
// the frame that it was made of, frames are missing, and each operation fails when it is told to.

#include "xen/control.h"

#include <atomic>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace colo::test {

class FakeControl final : public xen::Control, private xen::Mapping::Owner {
public:
    FakeControl();
    ~FakeControl();

    // ---- what the "guest" and other tools do -------------------------------------------------------------------------
    void add_ram(Gfn first, std::uint64_t pages);
    void guest_write(Gfn gfn, std::uint8_t fill);      // marks it dirty
    void hypervisor_write(Gfn gfn, std::uint8_t fill); // dirty only for FINAL: mapped writable by the hypervisor
    void another_clears_the_log() { dirty_.clear(); }
    void exchange(Gfn gfn, std::uint8_t fill);         // the gfn gets another frame, as after balloon out and in
    void give_up(std::span<const Gfn> gfns);           // back to the host
    std::uint8_t content(Gfn gfn) const;               // first byte of what the gfn is now
    bool has(Gfn gfn) const { return frames_.count(gfn) != 0; }
    bool log_is_on() const { return log_on_; }
    int mappings() const { return mappings_; }
    bool is_gone();                                    // to be asked instead of `died`
    int pauses() const { return pauses_; }

    // ---- how it fails ------------------------------------------------------------------------------------------------
    // Errors (errno) that the next calls of an operation get, in order; 0 lets one pass.
    std::map<std::string, std::deque<int>> fail;
    std::set<Gfn> unmappable;              // with EPERM
    bool absent_run_fails_as_a_whole = true;
    std::uint64_t free_frames = 1u << 20;  // of the host
    std::uint64_t answer_short = 0;        // the next reading answers for that many frames less
    bool log_by_another = false;           // the mode is on already
    bool another_insists = false;          // and switching it off is of no use
    bool failed_allocations = false;       // ENOMEM at each reading until it is switched off
    bool died = false;
    bool ends_when_unmapped = false;       // dying: it is gone as soon as nobody maps its memory
    int enables = 0, reads = 0, maps = 0, unmaps = 0, infos = 0;
    Bytes cpu_context{1, 2, 3, 4};
    Bytes policy{5, 6, 7};
    std::map<xen::Param, std::uint64_t> params;
    xen::DomainInfo described;
    std::deque<xen::InFlight> accesses;    // what the next questions find; none in flight when it is empty
    std::vector<std::string>* trace = nullptr;   // gets the name of each operation
    xen::TscInfo clock{2, 2'000'000, 0, 0};
    std::uint32_t numa_nodes = 0;

    // ---- the port ----------------------------------------------------------------------------------------------------
    xen::DomainId id = 7;
    xen::DomainId domain() const override { return id; }
    Result<xen::DomainInfo> info() override;
    Result<Gfn> gfn_limit() override;
    Result<void> pause() override;
    Result<void> unpause() override;
    Result<void> revive() override;
    Result<xen::InFlight> in_flight() override;
    Result<void> enable_log() override;
    Result<void> disable_log() override;
    Result<xen::LogAnswer> read_log(xen::LogOp op, bool final, std::uint64_t pages) override;
    Result<void> mark_dirty(Gfn gfn) override;
    Result<xen::Mapping> map(std::span<const Gfn> gfns, xen::Access access, std::span<int> errors) override;
    Result<std::size_t> populate(std::span<const Gfn> gfns) override;
    Result<Bytes> context() override;
    Result<void> set_context(ByteView context) override;
    Result<std::uint64_t> param(xen::Param param) override;
    Result<void> set_param(xen::Param param, std::uint64_t value) override;
    Result<Bytes> cpu_policy() override;
    Result<xen::TscInfo> tsc() override;
    Result<std::string> hypervisor() override;
    Result<std::uint32_t> vnuma_nodes() override;

private:
    void unmap(std::uint8_t* data, std::size_t pages) noexcept override;
    Result<void> step(const std::string& name);
    std::uint64_t new_frame();
    void fill_frame(std::uint64_t frame, std::uint8_t fill);
    void set(Gfn gfn, std::uint64_t frame);

    int file_ = -1;                          // all frames ever made, one after the other
    std::uint64_t made_ = 0;
    std::map<Gfn, std::uint64_t> frames_;    // gfn -> number of its frame in the file
    Gfn limit_ = 0;
    bool log_on_ = false;
    std::set<Gfn> dirty_, dirty_at_the_end_;
    std::vector<std::uint64_t> bitmap_;
    std::atomic<int> mappings_ = 0;   // unmapped by whoever has it
    int pauses_ = 0;
};

}  // namespace colo::test
