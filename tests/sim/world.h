// SPDX-License-Identifier: Apache-2.0
#pragma once

// One run: two hosts, a network, clients, an operator who restarts what died and protects again, and one planned fault.
//
//   act 1  protect, at least 20 epochs       act 3  recover: somebody serves, protected again, epochs go on
//   act 2  the planned fault at the planned step   act 4  maybe a second loss of the primary; every client is served to the end

#include "faults.h"
#include "host.h"

#include <map>

namespace colo::sim {

struct Outcome {
    std::vector<std::string> violations;
    std::uint64_t trace_hash = 0, epochs = 0, answers = 0, events = 0, sessions = 0, faults = 0, takeovers = 0, migrations = 0;
    bool cell_hit = false;
    std::size_t cell = 0;
};

struct RunOptions {
    std::uint64_t seed = 1;
    bool trace = false;
};

class World {
public:
    explicit World(const RunOptions& options);
    Outcome run();

private:
    void draw_settings();
    // One condition after the other; each returns true when the next may come.
    void act();
    bool until(bool condition, Duration patience, const char* what);
    void enter(int act);
    void approach();
    void on_step(int host, const std::string& step);
    void fire(int host);
    void strike(int host, FaultKind kind);
    void crash(int host, bool power_lost);
    void lose_copy(int host);
    void lose_guest();
    void block(int from, Duration d);
    void block_both(Duration d);
    void command_failover(int host);
    void pause_domain(int victim);
    void resume_domain();
    void check_paused(int i);
    void want_migration(int host);
    void run_migration();
    void supervise();
    void supervise_host(int i);
    void operator_decides(int i);
    void protect_again();
    void lose_primary();
    bool has_copy(int i) const;
    bool may_take_back(int i) const;
    int server() const;   // -1: nobody
    void power_off();
    void lose_everything();
    void epilogue();

    RunOptions options_;
    Random random_;
    Scheduler scheduler_;
    Model model_;
    Settings settings_;
    Path paths_[2];
    Switch network_;
    SimArbiter arbiter_;
    std::map<Generation, int> vouched_;   // by the operator, for a manual arbiter
    std::unique_ptr<Host> hosts_[2];
    std::unique_ptr<Client> client_;
    const Cell* cell_ = nullptr;
    std::size_t cell_index_ = 0;

    int act_ = 0;
    Time act_since_{};
    std::uint64_t act_epochs_ = 0;
    bool armed_ = false, fired_ = false, done_ = false, guest_lost_ = false, approached_ = false;
    int countdown_ = 1;
    void disaster()
    {
        ++disasters_;
        last_disaster_ = scheduler_.now();
    }
    Time last_disaster_{};
    int disasters_ = 0;           // hosts, guests and paths lost since both sides were whole
    std::uint64_t faults_ = 0, takeovers_ = 0;
    Time resume_after_ = kNever, paused_runs_since_[2] = {kNever, kNever};
    Time restart_at_[2] = {kNever, kNever}, stopped_since_[2] = {kNever, kNever};
    SessionId next_session_ = 100;
    bool protect_ = true;
    Time protect_after_{};
    int last_server_ = -1;
    std::uint64_t sessions_before_ = 0;
    bool second_loss_ = false;
    bool migrate_next_ = false;   // instead of protecting again
    bool client_uploads_ = false;
    int attempts_ = 0, victim_ = -1;
};

}  // namespace colo::sim
