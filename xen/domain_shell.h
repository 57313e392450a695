// SPDX-License-Identifier: Apache-2.0
#pragma once

// The domain of one side as the toolstack sees it: made from the operator's configuration, known again after a restart of
// the daemon, destroyed. A record in the run directory says which domain is ours (domain_record.h). It is written before
// the toolstack begins: a daemon that is killed in the middle takes the toolstack's command with it (qemu/process.h: the
// child dies with its parent), so that nobody goes on making that domain; the next daemon finds by its UUID what there is
// of it, and destroys it.

#include "xen/domain_config.h"
#include "xen/domain_record.h"
#include "xen/store.h"
#include "xen/toolstack.h"

#include <functional>
#include <optional>

namespace colo::xen {

struct HvmGuestOptions {
    std::string name;            // of the domain, as operators and the cluster know it
    std::string config_file;     // the operator's, for xl
    std::string run_directory;   // must exist; record, sockets of the device model, log of the toolstack
    std::vector<HvmNic> nics;
    ToolstackCommands commands;
    // A new domain runs alone, without network, until its firmware has laid out its memory, which is not the same before and after:
    // until a kernel runs or, of a guest that has none, the memory was calm for so long. 0: the command restores an image, in
    // which that is done.
    Duration warm_up = std::chrono::seconds(30);
};

// The name of a domain that only follows another one. Who has it has no say.
inline std::string incoming_name(const std::string& name) { return name + "--incoming"; }
std::string control_socket(const HvmGuestOptions& options);
std::string probe_socket(const HvmGuestOptions& options);

using OpenDomain = std::function<Result<std::unique_ptr<Control>>(DomainId)>;
using ListDomains = std::function<Result<std::vector<ListedDomain>>()>;

// One thread.
class DomainShell {
public:
    DomainShell(const HvmGuestOptions& options, Toolstack& toolstack, OpenDomain open, ListDomains list)
        : options_(options), toolstack_(toolstack), open_(std::move(open)), list_(std::move(list))
    {
    }

    struct Own {
        DomainId domain = 0;
        bool live = false;       // the one, not a copy that follows: what a copy contains need not be of one moment
        bool complete = false;   // false: its toolstack was killed in the middle of it, with the daemon
        bool dying = false;      // there until nobody maps its memory any more, and good for nothing
    };
    // Of the record: the domain that this daemon or one before it made or began to make, if it exists.
    Result<std::optional<Own>> ours(Store& store) const;
    // Reads the operator's configuration, unless that was done: what the other side agreed to holds until the daemon ends.
    Result<void> configure();
    // A new one, paused, and recorded; after configure(). Errc::refused: another domain has the name. After any error there is none.
    Result<DomainId> make(Store& store, const std::string& name, bool live, Deadline deadline);
    // The copy of the record is the one from now on. Any thread, beside no other call.
    Result<void> record_live();
    // Until it is gone and its memory given back. Errc::timed_out: it is not.
    Result<void> destroy(DomainId domain, Deadline deadline);
    // After configure(): the operator's configuration, as far as the other side must have it alike.
    std::string comparable() const { return comparable_config(operators_); }

private:
    Result<std::optional<Own>> half_made(Store& store, const DomainRecord& record) const;
    Result<std::optional<DomainId>> find_made(Store& store, const DomainRecord& record, bool never_ran) const;
    Result<Uuid> next_uuid() const;
    Result<DomainId> run_toolstack(Store& store, const DomainRecord& making, Deadline deadline);
    Result<void> record(const DomainRecord& record);
    std::string file(const char* name) const { return options_.run_directory + "/" + name; }

    const HvmGuestOptions& options_;
    Toolstack& toolstack_;
    OpenDomain open_;
    ListDomains list_;
    bool configured_ = false;
    std::string operators_;   // text of the operator's configuration
};

}  // namespace colo::xen
