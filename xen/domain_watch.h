// SPDX-License-Identifier: Apache-2.0
#pragma once

// Looks after a domain beside the guest thread: what it does of its own (goes off, reboots, dies), whether its device model
// lives and answers, and the slow errands at the toolstack that nobody may wait for (destroy at once, take the name over).

#include "qemu/process.h"
#include "qemu/qmp_link.h"
#include "replication/guest.h"
#include "xen/control.h"
#include "xen/domain_cut.h"
#include "xen/toolstack.h"

#include <atomic>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

namespace colo::xen {

struct DomainWatchOptions {
    std::unique_ptr<Control> control;            // its own
    std::unique_ptr<qemu::QmpLink> model;        // its own channel, negotiated
    qemu::Fd model_pidfd;                        // empty: ends are seen by the channel alone
    std::shared_ptr<Toolstack> toolstack;
    std::function<void(replication::GuestEvent)> on_event;   // from the watch's thread
    std::atomic<std::int64_t>* progress_us = nullptr;        // set to now() whenever the device model says anything; outlives it
    std::atomic<bool>* running = nullptr;                    // set to false when the domain has ended; outlives it
    const Intent* intent = nullptr;                          // outlives it; nullptr: nobody asks for pauses of others
    std::atomic<bool>* held = nullptr;                       // set to whether others keep it from running; outlives it
    Duration look_every = std::chrono::milliseconds(50);
    // Between two tries to take a name over, or to destroy: at first, then twice as long each time, up to the last.
    Duration retry_first = std::chrono::seconds(1), retry_last = std::chrono::seconds(30);
};

class DomainWatch {
public:
    static Result<std::unique_ptr<DomainWatch>> start(DomainWatchOptions options);
    // Waits for an errand that is under way.
    ~DomainWatch();
    DomainWatch(const DomainWatch&) = delete;
    DomainWatch& operator=(const DomainWatch&) = delete;

    // Any thread; none of these blocks.
    void probe();                                // asks the device model something, so that progress_us moves
    void destroy();                              // the domain, until it is gone (an event tells) or this object is
    void rename(const std::string& name);        // tried until it succeeds: the name may be another domain's for now
    // How often another tool was seen to take the domain (GuestEventKind::seized_outside), or to have let it go.
    std::uint32_t seizures() const { return seizures_; }
    bool gone() const { return gone_; }          // the device model or the domain; the last event is `gone`
    bool domain_gone() const { return domain_gone_; }   // nothing of it is left, or only what somebody maps

    // A domain that had gone off goes on, through the caller's control; the next end is an event again. Waits for a look.
    Result<void> revive(Control& control);

private:
    enum class Holder : std::uint8_t { nobody, pause, suspend };
    struct Retry {
        Time next{};
        Duration wait{0};
    };
    void count_try(Retry& retry) const;
    explicit DomainWatch(DomainWatchOptions options) : options_(std::move(options)) {}
    void wake();
    void run();
    bool look_at_model();
    bool look_at_domain();
    std::optional<Holder> who_holds(const DomainInfo& info, bool meant_to_run) const;
    void look_whether_gone();
    void look_at_pauses();
    bool do_errands();
    void do_destroy();
    void do_rename();
    void renamed(const Result<void>& result);
    void report(replication::GuestEventKind kind, std::string detail);
    bool died(const std::string& detail);

    DomainWatchOptions options_;
    qemu::Fd wake_;
    std::atomic<bool> probe_wanted_ = false, destroy_wanted_ = false, closing_ = false, gone_ = false, domain_gone_ = false;
    std::mutex mutex_;            // guards new_name_
    std::string new_name_;
    Retry rename_again_, destroy_again_;
    std::string tried_name_;              // by the attempt that runs
    std::future<Result<void>> renaming_;  // its end waits for that
    bool rename_failed_ = false, destroy_failed_ = false;  // said once
    std::mutex look_mutex_;       // guards ended_, and that it fits what the domain is
    bool ended_ = false;          // the end of the domain was reported
    Holder told_ = Holder::nobody;
    Time next_look_{};
    std::atomic<std::uint32_t> seizures_ = 0;
    std::optional<Holder> holder_;   // nullopt: not known now
    std::thread thread_;
};

}  // namespace colo::xen
