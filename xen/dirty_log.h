// SPDX-License-Identifier: Apache-2.0
#pragma once

// The guest port's dirty log on Xen's log-dirty mode.
//
// What it adds to one hypercall: nothing that was cleared is lost. A reading that failed after it may have cleared bits, or
// whose answer cannot be trusted, is owed: it is Errc::limit ("treat every frame as dirty"), or the next successful one
// reports every frame. The mode is off again when this object is gone.
//
// The hypervisor has one log and no owner of it. Were another tool (xl save, a second daemon) to clear it or to switch it
// off, and perhaps on again, the next reading would be a success without these frames. So after each reading a special frame,
// which is never copied, is put into the log: one that is not there at the next reading tells that somebody was at it.

#include "replication/guest.h"
#include "xen/memory_layout.h"

#include <optional>

namespace colo::xen {

class LogDirty final : public replication::DirtyLog {
public:
    // The layout says what "every frame" means, and which one is special. `control` outlives it.
    LogDirty(Control& control, const MemoryLayout& layout);
    ~LogDirty() override { stop(); }
    LogDirty(const LogDirty&) = delete;
    LogDirty& operator=(const LogDirty&) = delete;

    // A mode that somebody left on is taken over: off, then on. Errc::unsupported: no log-dirty for this domain (no hardware
    // assisted paging). Errc::invalid: it does not come on; passthrough devices, or another tool that insists.
    Result<void> start() override;
    // Errc::limit: incomplete, see replication/guest.h; the log works on. Errc::refused: another tool reads the log and did
    // not finish; nothing was cleared.
    Result<void> fetch_and_clear(replication::PageSet& into, bool final) override;
    Result<void> peek(replication::PageSet& into) override;
    void stop() override;
    std::string method() const override { return "xen-logdirty"; }

    // How often another tool was found to have been at it; it may have told the device model to log nothing, too.
    std::uint32_t interferences() const { return interferences_; }
    // start() found the mode on: by a device model that tracks its video RAM, or by a tool that died. For the log.
    bool taken_over() const { return taken_over_; }
    // Of the last successful fetch: the gfn space it covered, and what the hypervisor counted.
    std::uint64_t last_limit() const { return last_limit_; }
    std::uint32_t last_dirty() const { return last_dirty_; }

private:
    Result<LogAnswer> read(LogOp op, bool final, Gfn limit);
    Result<void> incomplete(const std::string& cause);
    Result<void> plant();
    void hand_out(const LogAnswer& answer, Gfn limit, replication::PageSet& into);

    Control& control_;
    replication::PageSet ram_;
    std::optional<Gfn> marker_;   // the special frame
    bool planted_ = false;
    bool on_ = false;
    bool owe_everything_ = false;
    bool taken_over_ = false;
    std::uint32_t interferences_ = 0;
    std::uint64_t last_limit_ = 0;
    std::uint32_t last_dirty_ = 0;
};

}  // namespace colo::xen
