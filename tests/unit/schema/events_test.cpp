// SPDX-License-Identifier: Apache-2.0

// Every event as it goes out, also those that nothing of ours sends so far. When they are sent is tested elsewhere:
// named-in-tests: this file does not count.

#include "qmp/event.h"
#include "qmp/json.h"
#include "schema/tables.h"

#include <gtest/gtest.h>

#include <set>

namespace colo::schema {
namespace {

class Shapes : public qmp::EventSink {
public:
    void emit_event(std::string_view name, std::optional<Object> data) override
    {
        names.insert(name);
        last = std::string(name) + (data ? " " + qmp::to_json(*data) : "");
    }
    std::set<std::string_view> names;
    std::string last;
};

TEST(Events, HaveTheirNamesAndData)
{
    Shapes sink;
    const auto sent = [&](const auto& event) {
        sink.emit(event);
        return sink.last;
    };
    EXPECT_EQ(sent(events::Stop{}), "STOP");
    EXPECT_EQ(sent(events::Resume{}), "RESUME");
    EXPECT_EQ(sent(events::Powerdown{}), "POWERDOWN");
    EXPECT_EQ(sent(events::Suspend{}), "SUSPEND");
    EXPECT_EQ(sent(events::Wakeup{}), "WAKEUP");
    EXPECT_EQ(sent(events::GuestPanicked{GuestPanicAction::pause}), R"(GUEST_PANICKED {"action": "pause"})");
    EXPECT_EQ(sent(events::Shutdown{true, ShutdownCause::guest_shutdown}),
              R"(SHUTDOWN {"guest": true, "reason": "guest-shutdown"})");
    EXPECT_EQ(sent(events::Reset{false, ShutdownCause::host_qmp_system_reset}),
              R"(RESET {"guest": false, "reason": "host-qmp-system-reset"})");
    EXPECT_EQ(sent(events::Migration{MigrationStatus::pre_switchover}), R"(MIGRATION {"status": "pre-switchover"})");
    EXPECT_EQ(sent(events::MigrationPass{3}), R"(MIGRATION_PASS {"pass": 3})");
    EXPECT_EQ(sent(events::UnplugPrimary{"net0"}), R"(UNPLUG_PRIMARY {"device-id": "net0"})");
    EXPECT_EQ(sent(events::ColoExit{COLOMode::secondary, COLOExitReason::request}),
              R"(COLO_EXIT {"mode": "secondary", "reason": "request"})");
    EXPECT_EQ(sent(events::JobStatusChange{"j", JobStatus::null}),
              R"(JOB_STATUS_CHANGE {"id": "j", "status": "null"})");
    EXPECT_EQ(sent(events::XColoStateChange{DomainRole::primary, ProtectionState::protected_,
                                            ReplicationMode::lock_step, true, "", 7}),
              R"(X_COLO_STATE_CHANGE {"role": "primary", "state": "protected", "mode": "lock-step", "healthy": true, )"
              R"("reason": "", "generation": 7})");
    EXPECT_EQ(sent(events::XColoCheckpoint{9, CheckpointTrigger::period, 1500, 20, 4096, 3000, 9000}),
              R"(X_COLO_CHECKPOINT {"epoch": 9, "trigger": "period", "pause-us": 1500, "pages": 20, "sent-bytes": 4096, )"
              R"("staged-us": 3000, "applied-us": 9000})");
    EXPECT_EQ(sink.names, std::set<std::string_view>(event_table().begin(), event_table().end()));
}

}  // namespace
}  // namespace colo::schema
