// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "colo/disk_engine.h"
#include "colo/service.h"

#include <string>
#include <vector>

namespace colo::test {

// Says what it is told to say and remembers what it was asked. With `hold` set, completions wait for finish().
class FakeService : public Service {
public:
    ServiceIdentity who{"9.9", "web1", "01234567-89ab-cdef-0123-456789abcdef", false, true};
    schema::RunState state = schema::RunState::running;
    TransferFacts facts;
    std::vector<schema::SocketAddress> addresses;
    std::vector<std::string> blockers;
    StatusReport report;
    mutable int status_reports = 0;  // how often it was asked for
    Result<void> outcome;
    bool hold = false;
    bool obeys = false;
    DiskEngine* engine = nullptr;
    schema::DirtyRateInfo rate;
    bool dirty_ring = false;
    std::vector<schema::GuestCheck> checks;
    std::vector<std::string> calls;
    bool begins_paused = false;
    std::vector<Done> held;

    std::vector<std::string> take_calls() { return std::exchange(calls, {}); }
    void finish(const Result<void>& result)
    {
        for (const Done& done : std::exchange(held, {})) done(result);
    }

    ServiceIdentity identity() const override { return who; }
    schema::RunState run_state() const override { return state; }
    // With `obeys`, the run state follows.
    void stop(schema::RunState as, Done done) override
    {
        if (obeys && outcome) state = as;
        operation(as == schema::RunState::paused ? "stop" : "stop " + std::string(to_string(as)), done);
    }
    void cont(Done done) override
    {
        if (obeys && outcome) state = schema::RunState::running;
        operation("cont", done);
    }
    void begin_paused(bool paused) override { begins_paused = paused; }
    void quit() override { calls.push_back("quit"); }
    void migrate(const std::string& uri, const SessionPlan& plan, Done done) override
    {
        operation((plan.kind == SessionKind::protection ? "protect " : "migrate ") + uri +
                      (plan.pause_before_switchover ? " pausing" : ""),
                  done);
    }
    void migrate_incoming(const std::string& uri, std::optional<SessionKind> kind, Done done) override
    {
        operation((kind == SessionKind::protection ? "protect-incoming " : "migrate-incoming ") + uri, done);
    }
    void await_session(SessionKind kind) override { calls.push_back(kind == SessionKind::protection ? "await protection" : "await migration"); }
    void migrate_cancel() override { calls.push_back("migrate-cancel"); }
    void migrate_continue() override { calls.push_back("migrate-continue"); }
    std::vector<schema::SocketAddress> listening() const override { return addresses; }
    TransferFacts transfer() const override { return facts; }
    std::vector<std::string> blocked_reasons() const override { return blockers; }
    StatusReport status() const override
    {
        ++status_reports;
        return report;
    }
    void lost_heartbeat(Done done) override { operation("lost-heartbeat", done); }
    void failover(bool accept, Done done) override
    {
        operation(accept ? "failover accept-data-loss" : "failover", done);
    }
    void unprotect(Done done) override { operation("unprotect", done); }
    void do_checkpoint(Done done) override { operation("checkpoint", done); }
    void precheck(Checked done) override
    {
        calls.push_back("precheck");
        if (!outcome) return done(outcome.error());
        done(checks);
    }
    void save_device_state(const std::string& file, bool live, Done done) override
    {
        operation("save " + file + (live ? " live" : ""), done);
    }
    void load_device_state(const std::string& file, Done done) override { operation("load " + file, done); }
    void set_global_dirty_log(bool enable, Done done) override
    {
        operation(enable ? "dirty-log on" : "dirty-log off", done);
    }
    void system_reset(Done done) override { operation("system-reset", done); }
    void system_powerdown(Done done) override { operation("system-powerdown", done); }
    Result<void> calc_dirty_rate(schema::DirtyRateMeasureMode mode, std::int64_t seconds,
                                 std::uint64_t samples) override
    {
        calls.push_back("calc-dirty-rate " + std::string(to_string(mode)) + " " + std::to_string(seconds) + " " +
                        std::to_string(samples));
        if (!outcome) return outcome;
        rate = {};
        rate.status = schema::DirtyRateStatus::measuring;
        rate.mode = mode;
        rate.calc_time = seconds;
        rate.sample_pages = samples;
        return {};
    }
    schema::DirtyRateInfo dirty_rate() const override { return rate; }
    bool counts_vcpu_dirty_pages() const override { return dirty_ring; }

    DiskEngine* disks() override { return engine; }

private:
    void operation(const std::string& what, const Done& done)
    {
        calls.push_back(what);
        if (hold)
            held.push_back(done);
        else
            done(outcome);
    }
};

}  // namespace colo::test
