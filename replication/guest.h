// SPDX-License-Identifier: Apache-2.0
#pragma once

// The guest port: the one interface through which the service knows a virtual machine. Implementations: qemu/ (embedded
// guest), xen/ (HVM domain), tests/sim (deterministic). Nothing above this header knows which one it has.
//
// Threads: every call is made from the *guest thread* of the daemon, one at a time, except where a comment says "any
// thread". Calls block, never beyond their deadline: an implementation that cannot finish returns Errc::timed_out and
// the guest counts as unusable until kill() + recreate(). Answers of a device model are hostile input: sizes bounded.
//
// States: none -> (create) -> running | loadable -> (load, resume) -> running <-> stopped -> dead.

#include "core/error.h"
#include "core/types.h"
#include "replication/page_set.h"

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace colo::replication {

// RAM lies in regions of the gfn space; holes between them have no frames (Xen: 0xff000 gfns for 128 MiB).
struct MemoryRegion {
    Gfn first = 0;
    std::uint64_t pages = 0;
    bool operator==(const MemoryRegion&) const = default;
};

struct NicDescription {
    std::string id;                       // "net0"; equal on both sides
    std::array<std::uint8_t, 6> mac{};
    std::uint32_t offload_features = 0;   // what the frame port promises to the guest: must be equal on both sides
    bool operator==(const NicDescription&) const = default;
};

// Everything the other side must equal, nearly so in the case of a frequency (compared at hello, refused with the first difference that is found).
struct GuestDescription {
    std::string kind;           // "qemu", "xen-hvm", "sim"
    std::string accelerator;    // "tcg", "kvm", "xen"
    std::string machine;        // "pc-i440fx-7.2"
    std::string cpu_policy;     // CPU model, or a digest of CPUID + MSR policy
    std::string device_model;   // version of the device model, full string
    std::string device_list;    // digest of the device list in order, with slots and options
    std::string boot_digest;    // digest of kernel, initrd, command line or boot disk: ROM content must be equal
    std::uint32_t vcpus = 0;
    std::uint32_t tsc_khz = 0;  // of the time stamp counter, by which a guest may keep its clock; 0: its state brings it along
    std::vector<MemoryRegion> regions;
    std::vector<Gfn> special_frames;  // belong to the local host (store, console, ioreq rings): never copied
    std::vector<NicDescription> nics;
    // Disks get their list here with the disks issue; a configuration with one is refused until then.

    std::uint64_t ram_pages() const
    {
        std::uint64_t n = 0;
        for (const auto& r : regions) n += r.pages;
        return n;
    }
    Gfn gfn_limit() const
    {
        Gfn limit = 0;
        for (const auto& r : regions) limit = r.first + r.pages > limit ? r.first + r.pages : limit;
        return limit;
    }
};

// Device model state and, where the hypervisor keeps them apart (Xen), the CPU/platform context.
struct DeviceState {
    Bytes devices;
    Bytes cpu_context;   // empty for QEMU, whose stream contains the CPUs
};

enum class FrameStatus : std::uint8_t { ok, absent, failed };

struct PageWrite {
    Gfn gfn;
    const std::uint8_t* data;  // kPageSize bytes; nullptr = all zero
};

// One thread at a time, not necessarily the guest thread.
class GuestMemory {
public:
    virtual ~GuestMemory() = default;
    // Copies frames into out (gfns.size() * kPageSize bytes). status.size() == gfns.size(). Fails as a whole only if the
    // guest is gone. May be called while the guest runs: a page can then be torn, and its dirty bit says so.
    virtual Result<void> read(std::span<const Gfn> gfns, std::uint8_t* out, std::span<FrameStatus> status) = 0;
    // The same for somebody who only looks: no dirty log takes it for the capture of these pages (R6).
    virtual Result<void> peek(std::span<const Gfn> gfns, std::uint8_t* out, std::span<FrameStatus> status)
    {
        return read(gfns, out, status);
    }
    // Writes frames; populates absent ones. Our own writes do not appear in the dirty log.
    virtual Result<void> write(std::span<const PageWrite> pages) = 0;
    // Any thread, after create(): memory of the host that the frames take by now. They take what they need when they
    // are first written.
    virtual std::uint64_t resident_bytes() const = 0;
    // A stable read-only view of a frame, or nullptr if only read() works (Xen). The guest may write it meanwhile.
    virtual const std::uint8_t* view(Gfn gfn) const = 0;
};

class DirtyLog {
public:
    virtual ~DirtyLog() = default;
    // After start() every frame counts as dirty until it was fetched once.
    virtual Result<void> start() = 0;
    // Atomically reads and clears; adds the dirty frames to `into`. `final`: the guest is stopped, report also frames
    // that the hypervisor still maps writable (Xen FINAL). Destructive: the caller owns the bits from now on (R6).
    // An incomplete log (ENOMEM) is Errc::limit: the caller must treat every frame as dirty.
    virtual Result<void> fetch_and_clear(PageSet& into, bool final) = 0;
    // Adds the frames that a fetch would report now and leaves them in the log. The guest may run.
    virtual Result<void> peek(PageSet& into)
    {
        (void)into;
        return make_error(Errc::unsupported, method() + ": this dirty log cannot be read without clearing it");
    }
    virtual void stop() = 0;
    virtual std::string method() const = 0;  // "uffd-wp", "soft-dirty", "compare", "xen-logdirty"
};

enum class GuestEventKind : std::uint8_t {
    device_model_died,    // the process is gone or its control channel is dead or garbage
    power_off,            // the guest asked for it (R9: outputs, not failures)
    reset,
    panicked,
    power_button,         // pressed by powerdown(); what follows is the guest's business
    suspended,            // the guest put itself to sleep
    woken,
    gone,                 // after device_model_died: nothing of it is left but what is held of it here, see let_go()
    paused_outside,       // somebody outside of the service made it stand still; held() is true
    seized_outside,       // the same, and he works on it (saves it): no checkpoint can be made of it until resumed_outside
    resumed_outside,      // and lets it go on
};
struct GuestEvent {
    GuestEventKind kind;
    std::string detail;
    bool by_host = false;   // reset: by reset(), not by the guest itself
};

enum class StartMode : std::uint8_t {
    boot,       // RAM as the firmware wants it; running on return
    loadable,   // stopped, never ran, waiting for write() + load()
};

// One question about whether a guest can be protected.
struct GuestCheck {
    std::string check;   // "drivers"; stable, for scripts
    bool ok = false;
    std::string text;    // what was found; if it is not ok, also why that matters and what to do
};

// Times of one cut as the guest port saw them, for the statistics.
struct CutTimes {
    Time stop_sent, stopped, saved, cont_sent, cont_done;
};

class Guest {
public:
    virtual ~Guest() = default;

    virtual const GuestDescription& description() const = 0;  // any thread, after create()
    virtual GuestMemory& memory() = 0;
    virtual DirtyLog& dirty_log() = 0;

    virtual Result<void> create(StartMode mode, Deadline deadline) = 0;

    // The cut (design section 3, step 2). cut_begin stops the guest and may start the save in the same breath: when it
    // returns, no vCPU runs and no device writes guest RAM except what the save itself does. cut_save waits for the
    // save. Between them the caller scans, copies and seals. resume() ends the pause (also after a failed cut_save). A guest
    // that powered itself off just before the stop stays off: resume() succeeds, running() is false, the event tells.
    virtual Result<void> cut_begin(Deadline deadline) = 0;
    virtual Result<DeviceState> cut_save(Deadline deadline) = 0;
    virtual Result<void> resume(Deadline deadline) = 0;
    virtual CutTimes last_cut_times() const = 0;

    // Stops without saving (secondary before apply; freeze). Ends a cut whose guest stays stopped. Idempotent.
    virtual Result<void> stop(Deadline deadline) = 0;

    // Stopped, RAM complete. Checks what can be checked of the blob before touching the device model.
    // After a failure the device model is unusable: kill() and recreate().
    virtual Result<void> load(const DeviceState& state, Deadline deadline) = 0;
    // Checks a blob without touching the guest: magic, section list, sizes (R1, before STAGED).
    virtual Result<void> verify(const DeviceState& state) const = 0;

    // R1 roll forward: a fresh device model or domain shell, loadable, same configuration, RAM all zero and all of it
    // to be written. Also after kill().
    virtual Result<void> recreate(Deadline deadline) = 0;

    // Any thread, does not block, idempotent: the device model is gone when a later call or event says so.
    virtual void kill() noexcept = 0;

    // After the event `gone`: what is still held of it (mapped memory, handles) goes back to the host, which could not free it
    // otherwise. Nothing happens where a machine lives. Until recreate() everything is Errc::guest_died.
    virtual void let_go() noexcept {}

    // Any thread, does not block, idempotent: from now on this is the domain, not a copy that follows another one. Where a
    // domain has a name among others, it gets it; that may take until the other one is gone.
    virtual void took_over() noexcept {}

    // Any thread: when the device model last answered anything (progress counter of the heartbeat).
    virtual Time last_progress() const = 0;
    // Any thread: asks the device model something cheap in the background so that last_progress() moves.
    virtual void probe() = 0;

    virtual int device_model_pid() const = 0;   // 0 where there is none; any thread
    virtual bool running() const = 0;           // any thread; as last known
    // Any thread, as last known: it would run, but somebody outside of the service (an operator's `xl pause`) keeps it from that.
    // Cuts, loads and resume() succeed all the same.
    virtual bool held() const { return false; }

    // Called from a thread of the implementation; set before create(). The handler must not block.
    virtual void set_event_handler(std::function<void(GuestEvent)> handler) = 0;

    // Optional services for QMP; refused with the reason where a guest cannot.
    virtual Result<void> save_device_state(const std::string& file, bool live, Deadline deadline) = 0;
    virtual Result<void> load_device_state(const std::string& file, Deadline deadline) = 0;
    virtual Result<void> set_global_dirty_log(bool enable, Deadline deadline) = 0;
    // Everything about this guest that decides whether it can be protected; nothing is touched. Empty: there is nothing that
    // could stand in the way.
    virtual Result<std::vector<GuestCheck>> precheck(Deadline deadline)
    {
        (void)deadline;
        return std::vector<GuestCheck>{};
    }
    // The reset button. On return it has happened (a cut that follows sees all of it); the event `reset` tells, with
    // by_host. A guest that was off is stopped afterwards until resume().
    virtual Result<void> reset(Deadline deadline)
    {
        (void)deadline;
        return make_error(Errc::unsupported, "this kind of guest has no reset button");
    }
    // The guest asked for a reset (event `reset`, not by_host): to be called afterwards where it may run, for machines that do
    // not start again by themselves. Stopped on return, unless `run`. Nothing happens if no reset is owed. It may take as long
    // as create(); last_progress() moves meanwhile.
    virtual Result<void> carry_out_reset(bool run, Deadline deadline)
    {
        (void)run, (void)deadline;
        return {};
    }
    // The power button; the event `power_button` tells.
    virtual Result<void> powerdown(Deadline deadline)
    {
        (void)deadline;
        return make_error(Errc::unsupported, "this kind of guest has no power button");
    }
    // Pages that each vCPU wrote since the guest was created, where the hypervisor counts them.
    virtual bool counts_vcpu_dirty_pages() const { return false; }   // any thread, after create()
    virtual Result<std::vector<std::uint64_t>> vcpu_dirty_pages(Deadline deadline)
    {
        (void)deadline;
        return make_error(Errc::unsupported, "pages are not counted for each vCPU of this guest");
    }
};

}  // namespace colo::replication
