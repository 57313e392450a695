// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the interface says about migration and COLO: the two statuses (outgoing, incoming), the COLO mode, and the
// events that go with their changes. Fed with facts by the commands and by the daemon; a report that cannot follow the
// state that is shown (it came too late) is left out. Control thread only.

#include "colo/handlers/migration_settings.h"
#include "colo/service.h"
#include "qmp/event.h"

#include <string>
#include <vector>

namespace colo {

// Whether a migration in state `from` can come to `to`, at either end.
bool follows(schema::MigrationStatus from, schema::MigrationStatus to);

class MigrationBook {
public:
    MigrationBook(qmp::EventSink& events, const MigrationSettings& settings) : events_(events), settings_(settings) {}

    // A transfer or COLO is going on; capabilities cannot change and no migration can start.
    bool in_progress() const;
    // The same, but a transfer towards us does not count.
    bool sending() const;
    schema::MigrationStatus outgoing() const { return outgoing_.status; }
    schema::MigrationStatus incoming() const { return incoming_.status; }
    bool in_colo() const { return mode_ != schema::COLOMode::none; }
    bool failing_over() const { return failing_over_; }

    void start_outgoing();
    // Ignored unless the transfer is still being set up.
    void refuse_outgoing(const std::string& error);
    // False where there is nothing to cancel: COLO is left by a failover only.
    bool cancel_outgoing();
    void start_incoming();
    void refuse_incoming();

    void outgoing(TransferPhase phase, const std::string& error);
    void incoming(TransferPhase phase, const std::string& error);
    // A pass over dirty memory begins.
    void pass(std::uint64_t number);

    void colo_entered(schema::COLOMode mode);
    void colo_peer_lost();
    void colo_failover_started();
    void colo_left(bool ok, const std::string& error);
    // The daemon reached `state`. After the loss of the peer, or with a failover under way, some states say that this
    // side has left COLO.
    void settle(schema::ProtectionState state, const std::string& reason);

    schema::MigrationInfo info(const Service& service) const;
    // query-migrate tells statistics in COLO, too, where clients expect the status alone.
    void set_live_statistics(bool on) { live_statistics_ = on; }
    schema::COLOStatus colo_status() const;

private:
    struct Side {
        schema::MigrationStatus status = schema::MigrationStatus::none;
        std::string error;
    };
    void report(Side& side, schema::MigrationStatus status, const std::string& error);
    void change(Side& side, schema::MigrationStatus status, const std::string& error = {});
    void colo_exit(schema::COLOExitReason reason);
    schema::MigrationInfo outgoing_info(const Service& service) const;
    void add_statistics(schema::MigrationInfo& info, const Service& service) const;

    qmp::EventSink& events_;
    const MigrationSettings& settings_;
    Side outgoing_;
    Side incoming_;
    schema::COLOMode mode_ = schema::COLOMode::none;
    schema::COLOMode last_mode_ = schema::COLOMode::none;
    schema::COLOExitReason reason_ = schema::COLOExitReason::none;
    bool failing_over_ = false;
    bool exit_reported_ = false;
    bool live_statistics_ = false;
};

}  // namespace colo
