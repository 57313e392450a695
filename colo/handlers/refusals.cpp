// SPDX-License-Identifier: Apache-2.0
#include "colo/handlers/refusals.h"

#include "colo/handlers/job_table.h"
#include "colo/standby_texts.h"
#include "core/check.h"
#include "qmp/fd_store.h"

#include <algorithm>

namespace colo {
namespace {

using schema::MigrationCapability;

constexpr Refusal capability_row(MigrationCapability capability, const char* item, const char* text, const char* reason,
                                 const char* arguments)
{
    return {Refused::capability,        item,      text, reason,    Shown::answer, Situation::running,
            "migrate-set-capabilities", arguments, "",   capability};
}

// A capability that is switched on is a promise; these would be kept by nobody.
#define COLO_CAPABILITY(id, name, why, reason)                                                                       \
    capability_row(MigrationCapability::id, "capability `" name "`", "Capability '" name "' is not available: " why, \
                   reason, R"({"capabilities": [{"capability": ")" name R"(", "state": true}]})")

constexpr const char* kNoEngine = "no engine yet";
constexpr const char* kDiskEngine = "comes with disks";
constexpr const char* kNoBlockMigration = "QEMU compiled without old-style (blk/-b, inc/-i) block migration";
constexpr const char* kOneWay =
    "A guest cannot go over '%:': that needs several connections in both directions, use tcp: or unix:";
constexpr const char* kOneWayReason = "one stream, or one direction, does not carry a session";

constexpr const char* kOneMaster = "only the primary decides what the guest does";

constexpr Refusal kRefusals[] = {
    COLO_CAPABILITY(rdma_pin_all, "rdma-pin-all", "there is no RDMA transport", "not built in"),
    COLO_CAPABILITY(auto_converge, "auto-converge", "nothing here can slow the guest's CPUs down", kNoEngine),
    COLO_CAPABILITY(zero_blocks, "zero-blocks", "there is no block migration", "not built in"),
    COLO_CAPABILITY(compress, "compress", "there are no compression threads of the old kind, use multifd-compression",
                    "multifd-compression does the same work"),
    COLO_CAPABILITY(postcopy_ram, "postcopy-ram", "there is no postcopy phase", kNoEngine),
    COLO_CAPABILITY(release_ram, "release-ram", "there is no postcopy phase that could free sent pages", kNoEngine),
    capability_row(MigrationCapability::block, "capability `block` (also missing in `query-migrate-capabilities`)",
                   kNoBlockMigration, "not built in", R"({"capabilities": [{"capability": "block", "state": true}]})"),
    COLO_CAPABILITY(dirty_bitmaps, "dirty-bitmaps", "guests have no block devices with dirty bitmaps", kDiskEngine),
    COLO_CAPABILITY(postcopy_blocktime, "postcopy-blocktime", "there is no postcopy phase to measure", kNoEngine),
    COLO_CAPABILITY(late_block_activate, "late-block-activate", "guests have no block devices", kDiskEngine),
    COLO_CAPABILITY(x_ignore_shared, "x-ignore-shared", "all memory of the guest is shared memory and has to be copied",
                    "nothing would be left to copy"),
    COLO_CAPABILITY(background_snapshot, "background-snapshot", "there are no snapshots", kDiskEngine),
    {Refused::postcopy_destination, "capability `postcopy-ram` on a destination", "Postcopy is not supported",
     kNoEngine, Shown::answer, Situation::waiting, "migrate-set-capabilities",
     R"({"capabilities": [{"capability": "postcopy-ram", "state": true}]})"},

    {Refused::plain_deltas, "`migrate` without `x-colo` while `xbzrle` is on",
     "A migration sends no deltas: pages are sent whole, set the capability 'xbzrle' to false",
     "deltas are made against a checkpoint, and a migration has none", Shown::answer_and_status,
     Situation::running_xbzrle, "migrate", R"({"uri": "tcp:h:1"})"},
    {Refused::pause_in_colo, "`migrate` with `x-colo` while `pause-before-switchover` is on",
     "Protection has no switch-over that could be waited for: set the capability 'pause-before-switchover' to false",
     "the guest runs on where it is", Shown::answer_and_status, Situation::running_colo_pausing, "migrate",
     R"({"uri": "tcp:h:1"})"},
    {Refused::scheme_exec, "`migrate` to `exec:`", kOneWay, kOneWayReason, Shown::answer_and_status,
     Situation::running_colo, "migrate", R"({"uri": "exec:cat"})", "exec"},
    {Refused::scheme_fd, "`migrate` to `fd:`", kOneWay, kOneWayReason, Shown::answer_and_status,
     Situation::running_colo, "migrate", R"({"uri": "fd:x"})", "fd"},
    {Refused::scheme_vsock, "`migrate` to `vsock:`",
     "A guest cannot go over '%:': there is no such transport, use tcp: or unix:", "not built in",
     Shown::answer_and_status, Situation::running_colo, "migrate", R"({"uri": "vsock:1:2"})", "vsock"},
    {Refused::scheme_rdma, "`migrate` to `rdma:`",
     "A guest cannot go over '%:': there is no such transport, use tcp: or unix:", "not built in",
     Shown::answer_and_status, Situation::running_colo, "migrate", R"({"uri": "rdma:h:1"})", "rdma"},
    {Refused::incoming_scheme, "`migrate-incoming` on `exec:`, `fd:`, `vsock:` or `rdma:`", kOneWay, kOneWayReason,
     Shown::answer, Situation::waiting_colo, "migrate-incoming", R"({"uri": "exec:cat"})", "exec"},
    {Refused::block_option, "`migrate` with `blk` or `inc`", kNoBlockMigration, "not built in", Shown::answer,
     Situation::running, "migrate", R"({"uri": "tcp:h:1", "blk": true})"},
    {Refused::tls, "`migrate` while `tls-creds` is set", "No TLS credentials with id '%'",
     "there is no TLS between daemons; a plain stream would betray whoever set it", Shown::status,
     Situation::running_colo, "migrate", R"({"uri": "tcp:h:1"})", "tls0"},
    {Refused::tls_incoming, "`migrate-incoming` while `tls-creds` is set", "No TLS credentials with id '%'",
     "there is no TLS between daemons; a plain stream would betray whoever set it", Shown::answer,
     Situation::waiting_colo, "migrate-incoming", R"({"uri": "tcp:h:1"})", "tls0"},
    {Refused::postcopy_link, "`migrate-pause` during postcopy",
     "The link of a postcopy migration cannot be broken and resumed: there is no postcopy phase", kNoEngine,
     Shown::answer, Situation::postcopy_active, "migrate-pause", "{}"},
    {Refused::postcopy_link, "`migrate-recover` during postcopy",
     "The link of a postcopy migration cannot be broken and resumed: there is no postcopy phase", kNoEngine,
     Shown::answer, Situation::postcopy_paused, "migrate-recover", R"({"uri": "tcp:h:1"})"},
    {Refused::postcopy_link, "`migrate` with `resume` during postcopy",
     "The link of a postcopy migration cannot be broken and resumed: there is no postcopy phase", kNoEngine,
     Shown::answer, Situation::postcopy_paused, "migrate", R"({"uri": "tcp:h:1", "resume": true})"},
    {Refused::spice, "`client_migrate_info`", "SPICE is not in use", "guests have no SPICE server", Shown::answer,
     Situation::running, "client_migrate_info", R"({"protocol": "spice", "hostname": "h", "port": 1})"},

    {Refused::disks, "`snapshot-save`", "No block device node '%'", kDiskEngine, Shown::job, Situation::running,
     "snapshot-save", R"({"job-id": "j", "tag": "t", "vmstate": "d0", "devices": ["d0"]})", "d0"},
    {Refused::disks, "`snapshot-load`", "No block device node '%'", kDiskEngine, Shown::job, Situation::running,
     "snapshot-load", R"({"job-id": "j", "tag": "t", "vmstate": "d0", "devices": ["d0"]})", "d0"},
    {Refused::disks, "`snapshot-delete`", "No block device node '%'", kDiskEngine, Shown::job, Situation::running,
     "snapshot-delete", R"({"job-id": "j", "tag": "t", "devices": ["d0"]})", "d0"},

    {Refused::standby, "`system_reset` on a secondary", kAskThePrimary, kOneMaster, Shown::answer, Situation::standby,
     "system_reset", "{}"},
    {Refused::standby, "`system_powerdown` on a secondary", kAskThePrimary, kOneMaster, Shown::answer,
     Situation::standby, "system_powerdown", "{}"},
    {Refused::standby, "`calc-dirty-rate` on a secondary", kAskThePrimary,
     "its memory is written by checkpoints, so its rate says nothing", Shown::answer, Situation::standby,
     "calc-dirty-rate", R"({"calc-time": 1})"},
    {Refused::following, "`stop` on a secondary that follows", kStoppedThere, kOneMaster, Shown::answer,
     Situation::following, "stop", "{}"},
    {Refused::following, "`cont` on a secondary that follows", kStoppedThere, kOneMaster, Shown::answer,
     Situation::stopped, "cont", "{}"},
    {Refused::migrated_away, "`cont` after a completed migration", kMigratedAway,
     "the destination runs it and clients talk to it there; the reference would let both run", Shown::answer,
     Situation::postmigrate, "cont", "{}"},
    {Refused::session_state, "`xen-load-devices-state` of a protected domain", kStateOfSession,
     "the other copy would not have it; take the protection away first", Shown::answer, Situation::stopped,
     "xen-load-devices-state", R"({"filename": "/f"})"},
};

#undef COLO_CAPABILITY

constexpr Limit kLimits[] = {
    {"descriptors that `getfd` and `add-fd` keep, of all monitors", qmp::FdStore::kMaxHeld,
     "Clients already hold % file descriptors here; close or remove some first"},
    {"bytes of the `fdname` of `getfd`", qmp::FdStore::kMaxName, "Parameter 'fdname' is longer than % bytes"},
    {"bytes of the `opaque` of `add-fd`", qmp::FdStore::kMaxOpaque, "Parameter 'opaque' is longer than % bytes"},
    {"jobs that were not dismissed", JobTable::kMaxJobs,
     "There are % jobs already; remove concluded ones with job-dismiss"},
    {"bytes of the `tag` of a snapshot", kSnapshotTextMax, "Parameter 'tag' is longer than % bytes"},
    {"bytes of the `vmstate` of a snapshot", kSnapshotTextMax, "Parameter 'vmstate' is longer than % bytes"},
    {"`devices` of a snapshot", kSnapshotDevicesMax, "Parameter 'devices' has more than % elements"},
};

const char* to_text(Shown shown)
{
    switch (shown) {
    case Shown::answer: return "error of the command";
    case Shown::answer_and_status: return "error of the command; `query-migrate`: failed, the same text";
    case Shown::status: return "the command succeeds; `query-migrate`: failed, this text";
    case Shown::job: return "the command succeeds; the job fails with this text";
    }
    return "";
}

const char* to_text(Situation situation)
{
    switch (situation) {
    case Situation::running: return "";
    case Situation::running_colo: return " with `x-colo`";
    case Situation::running_colo_pausing: return " with `x-colo` and `pause-before-switchover`";
    case Situation::running_xbzrle: return " with `xbzrle`";
    case Situation::waiting: return " in run state inmigrate";
    case Situation::waiting_colo: return " in run state inmigrate, with `x-colo`";
    case Situation::postcopy_active: return " in state postcopy-active";
    case Situation::postcopy_paused: return " in state postcopy-paused";
    case Situation::standby: return " on a secondary";
    case Situation::following: return " on a secondary in run state running or colo";
    case Situation::stopped: return " in run state paused, protected";
    case Situation::postmigrate: return " in run state postmigrate";
    }
    return "";
}

}  // namespace

std::span<const Refusal> refusals()
{
    return kRefusals;
}

const Refusal& refusal(Refused what)
{
    const auto* row = std::ranges::find(kRefusals, what, &Refusal::what);
    COLO_CHECK(row != std::end(kRefusals));
    return *row;
}

const Refusal* refusal(MigrationCapability capability)
{
    const auto* row = std::ranges::find(kRefusals, std::optional(capability), &Refusal::capability);
    return row == std::end(kRefusals) ? nullptr : row;
}

std::string refusal_text(const Refusal& row, std::string_view name)
{
    std::string text = row.text;
    if (const std::size_t place = text.find('%'); place != std::string::npos) text.replace(place, 1, name);
    return text;
}

Error refusal_error(Refused what, std::string_view name)
{
    return make_error(Errc::unsupported, refusal_text(refusal(what), name));
}

std::span<const Limit> limits()
{
    return kLimits;
}

std::string limit_text(const Limit& limit)
{
    std::string text = limit.text;
    return text.replace(text.find('%'), 1, std::to_string(limit.bound));
}

std::string refusals_page()
{
    std::string page = R"(<!-- SPDX-License-Identifier: Apache-2.0 -->
# What is refused, and why

Parts of the control interface that are there, checked and listed, but refused: an engine comes later, or the guest or
this build lacks what they need. The table is printed from `colo/handlers/refusals.cpp`, which the handlers use; run
`qmp_handlers_test` with `COLO_UPDATE_DOCS=1` after a change there. A request in the second column meets the refusal.

| what | request | answer | how it shows | why |
|---|---|---|---|---|
)";
    for (const Refusal& row : kRefusals) {
        page += std::string("| ") + row.item + " | `" + row.command + "`";
        if (std::string_view(row.arguments) != "{}") page += std::string(" `") + row.arguments + "`";
        page += std::string(to_text(row.situation)) + " | " + refusal_text(row, row.name) + " | " + to_text(row.shown) +
                " | " + row.reason + " |\n";
    }
    page += R"(
Limits: what a client may make the daemon keep, and the error of the command beyond it.

| what | bound | answer |
|---|---|---|
)";
    for (const Limit& limit : kLimits)
        page +=
            std::string("| ") + limit.item + " | " + std::to_string(limit.bound) + " | " + limit_text(limit) + " |\n";
    return page;
}

}  // namespace colo
