// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the rest of xen/ asks the hypervisor about one domain: a thin port over libxenctrl and libxenforeignmemory, so that
// everything above can be tested against a domain made of memory (tests/unit/xen/fake_control.h). No policy here: one
// call is one operation, and what the hypervisor answers is handed on.
//
// Errors: Errc::guest_died: no such domain (any more). busy: Errc::refused, another tool holds the operation (EBUSY), or
// permission. Errc::limit: the hypervisor or this host has no memory for it. Errc::unsupported: the hypervisor cannot.
// Errc::invalid: the domain is not in a state for it (log-dirty on twice, off twice, a context that does not fit).
//
// Threads: one at a time. A Mapping does not outlive its Control.

#include "core/error.h"
#include "core/types.h"

#include <array>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace colo::xen {

using DomainId = std::uint32_t;

struct DomainInfo {
    std::array<std::uint8_t, 16> uuid{};
    bool hvm = false;          // HVM or PVH
    bool hap = false;          // hardware assisted paging; without it there may be no dirty log
    bool paused = false;       // by the control tools
    bool dying = false;
    bool shut_down = false;
    std::uint8_t shutdown_reason = 0;   // SHUTDOWN_*: 0 poweroff, 1 reboot, 2 suspend, 3 crash
    bool suspended() const { return shut_down && shutdown_reason == 2; }   // by a toolstack, which lets it go on or destroys it
    bool ended() const { return shut_down && !suspended(); }               // by itself
    std::uint32_t vcpus = 0;            // that it has, online or not
    std::uint64_t total_pages = 0;      // it owns now
    std::uint64_t max_pages = 0;        // it may own
    std::uint64_t outstanding_pages = 0;
    std::uint64_t cpu_time_ns = 0;
};

struct TscInfo {
    std::uint32_t mode = 0;   // 0 as the hypervisor likes, 1 always emulated, 2 native
    std::uint32_t khz = 0;    // as the guest sees it: of a native one that of the host
    std::uint64_t elapsed_ns = 0;
    std::uint32_t incarnation = 0;
};

// Accesses of vCPUs to registers of the device model, which go through a page that both share.
struct InFlight {
    std::uint32_t waiting = 0;    // the device model has not answered yet
    std::uint32_t answered = 0;   // the vCPU has not taken the answer yet
};

enum class LogOp : std::uint8_t {
    clean,   // read and clear; destructive
    peek,
};

// Of one reading of the dirty log. `bitmap` belongs to the Control and is valid until its next call; bits at and beyond
// `pages` mean nothing.
struct LogAnswer {
    std::uint64_t pages = 0;   // how many the hypervisor says it answered for; not as many as asked = do not trust it
    std::uint32_t dirty = 0;   // its own statistics since the last clean
    std::uint32_t faults = 0;
    std::span<const std::uint64_t> bitmap;
};

enum class Access : std::uint8_t { read, read_write };

// Frames of the domain, one after the other in our address space. Frames that could not be mapped have no accessible
// memory. Unmaps itself. Holds a reference to each frame: one that the domain gives up stays allocated, and this keeps
// showing it, until it is unmapped.
class Mapping {
public:
    class Owner {
    public:
        virtual void unmap(std::uint8_t* data, std::size_t pages) noexcept = 0;

    protected:
        ~Owner() = default;
    };

    Mapping() = default;
    Mapping(Owner& owner, std::uint8_t* data, std::size_t pages) : owner_(&owner), data_(data), pages_(pages) {}
    Mapping(Mapping&& other) noexcept
        : owner_(std::exchange(other.owner_, nullptr)), data_(std::exchange(other.data_, nullptr)), pages_(std::exchange(other.pages_, 0))
    {
    }
    Mapping& operator=(Mapping&& other) noexcept
    {
        std::swap(owner_, other.owner_);
        std::swap(data_, other.data_);
        std::swap(pages_, other.pages_);
        return *this;
    }
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;
    ~Mapping()
    {
        if (data_ != nullptr) owner_->unmap(data_, pages_);
    }

    std::uint8_t* data() const { return data_; }   // nullptr: not one of the frames could be mapped
    std::size_t pages() const { return pages_; }

private:
    Owner* owner_ = nullptr;
    std::uint8_t* data_ = nullptr;
    std::size_t pages_ = 0;
};

// HVM parameters, by their numbers in Xen's public interface.
enum class Param : std::uint32_t {
    callback_irq = 0,   // not 0: the guest takes events of Xen, so it has PV drivers
    store_pfn = 1,
    store_evtchn = 2,
    ioreq_pfn = 5,
    bufioreq_pfn = 6,
    viridian = 9,
    identity_page_table = 12,
    acpi_s_state = 14,
    vm86_tss = 15,
    console_pfn = 17,
    console_evtchn = 18,
    acpi_ioports_location = 19,
    paging_ring_pfn = 27,
    monitor_ring_pfn = 28,
    sharing_ring_pfn = 29,
    ioreq_server_pfn = 32,
    ioreq_server_pages = 33,
    generation_id_address = 34,
    x87_fip_width = 36,
    vm86_tss_sized = 37,
    mca_capabilities = 38,
};

// How many frames one call takes; more is Errc::invalid.
inline constexpr std::size_t kMaxBatch = 1024;
// Of an HVM context; a larger one is refused with Errc::limit. 128 vCPUs need less than 1 MiB.
inline constexpr std::size_t kMaxContext = 16u << 20;

class Control {
public:
    virtual ~Control() = default;

    virtual DomainId domain() const = 0;
    virtual Result<DomainInfo> info() = 0;
    // One more than the highest gfn that ever was populated. It can grow at any time, and is far more than RAM: 0xff000 for
    // 128 MiB.
    virtual Result<Gfn> gfn_limit() = 0;

    virtual Result<void> pause() = 0;     // counted by the hypervisor: as many unpauses; returns when no vCPU runs
    virtual Result<void> unpause() = 0;
    // Ends the state in which a domain is that has shut itself down; its vCPUs go on where they were, unless it is paused.
    virtual Result<void> revive() = 0;
    // A pause may come between an access and its answer, and neither is in the CPU's context: restored elsewhere, the vCPU
    // would do the access once more. Errc::unsupported: the domain has no device model.
    virtual Result<InFlight> in_flight() = 0;

    // The dirty log. From enable on writes of vCPUs and what the device model reports are seen; writes through a Mapping are
    // not. Enable fails with invalid when it is on already or the domain has passthrough devices, with refused while
    // pages of an I/O request server are outstanding. There is one log, and nobody owns it: any tool may clear it or switch
    // it off, and a log that is off reads as one in which nothing is dirty.
    virtual Result<void> enable_log() = 0;
    virtual Result<void> disable_log() = 0;
    // `final`: the domain is paused; also the frames that are mapped writable by the hypervisor itself. The log ends at
    // `pages`; what lies beyond is neither reported nor cleared.
    virtual Result<LogAnswer> read_log(LogOp op, bool final, std::uint64_t pages) = 0;
    // Puts a frame into the log, as the device model does for its DMA. Nothing happens while the log is off or if there
    // is no such frame.
    virtual Result<void> mark_dirty(Gfn gfn) = 0;

    // errors[i]: 0 or a positive errno for gfns[i]. The call itself fails only for reasons that lie outside of the frames.
    virtual Result<Mapping> map(std::span<const Gfn> gfns, Access access, std::span<int> errors) = 0;
    // From the first frame on, as many as the result says; fewer than asked for: no memory left in the host, or above
    // the domain's maximum. The content of a new frame is undefined.
    virtual Result<std::size_t> populate(std::span<const Gfn> gfns) = 0;

    // State of CPUs and platform. Setting needs a paused domain. Up to Xen 4.18 records
    // are set one after the other: what is wrong with a later one leaves a domain that cannot run.
    virtual Result<Bytes> context() = 0;
    virtual Result<void> set_context(ByteView context) = 0;

    virtual Result<std::uint64_t> param(Param param) = 0;
    virtual Result<void> set_param(Param param, std::uint64_t value) = 0;

    // What CPUID and the feature MSRs show to the domain. Equal bytes: equal CPUs for a guest.
    virtual Result<Bytes> cpu_policy() = 0;

    virtual Result<TscInfo> tsc() = 0;
    // "4.17", of the hypervisor: what a CPU context looks like changes only with it.
    virtual Result<std::string> hypervisor() = 0;
    virtual Result<std::uint32_t> vnuma_nodes() = 0;   // 0: the domain has no NUMA topology of its own
};

struct ListedDomain {
    DomainId domain = 0;
    DomainInfo info;
};

// All that the hypervisor knows but dom0, also those that are half made, without a name, or dying.
Result<std::vector<ListedDomain>> list_domains();

// A live domain through the libraries of Xen. Only in builds with libxen-dev. Errc::refused: not a dom0, or not root.
Result<std::unique_ptr<Control>> open_domain(DomainId domain);

// An error of the hypervisor or its libraries, with the meanings above. `what` names operation and domain.
Error hypercall_error(std::string_view what, int err);

}  // namespace colo::xen
