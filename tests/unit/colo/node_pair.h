// SPDX-License-Identifier: Apache-2.0
#pragma once

// Two nodes on a desk: every action is answered at once unless the test holds it, messages arrive in order, time moves
// only when the test says so.

#include "colo/node.h"

#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace colo::test {

replication::GuestDescription small_guest();
NodeConfig small_config();

struct Desk;

class Host {
public:
    Host(Desk& desk, std::string name, const NodeConfig& config);

    void restart(const NodeConfig& config);   // a crash: nothing but `stored` survives
    void pump();                              // carries out the actions; answers are queued on the desk
    // Answers of this kind ("persist", "cut", "transfer", "stage", "apply", "closed", "grant", "live", "boot", "standby",
    // "copy", "stop") wait until release().
    void hold(const std::string& what) { held_.insert(what); }
    void release(const std::string& what);
    // The next answer of this kind is this error.
    void fail(const std::string& what, Error error) { failures_[what] = std::move(error); }

    bool did(const std::string& what) const { return index(what) >= 0; }
    int index(const std::string& what, int from = 0) const;   // position in trace, -1: never
    int count(const std::string& what) const;
    NodeStatus status() const { return node->status(); }

    Desk& desk;
    std::string name;
    std::unique_ptr<Node> node;
    std::vector<std::string> trace;
    PersistentState stored;
    Host* peer = nullptr;
    std::optional<Result<void>> operator_result;
    std::string failed_session;
    std::string last_close;
    std::uint64_t memory_told = 0;  // with the last HelloAck
    int channels_told = 0;          // with the last Hello
    std::uint64_t persist_token = 0;  // of the last Persist
    Time last_answer{};
    bool connected = false;
    bool guest_runs = false, wire_on = false;   // what the driver would have done
    int output = -1;
    bool crashed = false;

private:
    void perform(const Action& action);
    void answer(const std::string& what, std::function<void(Node&, std::optional<Error>)> call);
    std::set<std::string> held_;
    std::map<std::string, std::vector<std::function<void()>>> waiting_;
    std::map<std::string, Error> failures_;
    std::uint64_t incarnation_ = 0;
};

struct Desk {
    explicit Desk(const NodeConfig& config = small_config());
    void run();                       // until nothing happens any more
    void advance(Duration d);         // in steps, ticking both nodes at their deadlines
    void start();                     // a boots as primary, b as standby
    void connect(SessionId session);  // channels are up
    void protect();                   // start, connect, until in_sync
    void migrate(const SessionPlan& plan = {SessionKind::migration, false});   // start, connect, as far as it gets
    void cut_link();                  // both notice at once
    void checkpoint();                // the next period

    Time now{1'000'000};
    std::deque<std::function<void()>> queue;
    std::map<Generation, const Host*> granted;   // the arbiter
    bool arbiter_hangs = false;
    bool beats = true;           // a side that serves is heard by a source that wants to know what became of its guest
    Host a, b;
};

}  // namespace colo::test
