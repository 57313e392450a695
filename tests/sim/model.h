// SPDX-License-Identifier: Apache-2.0
#pragma once

// The observer: sees both hosts and the wire, knows what must never happen (spec invariants in the messages), and keeps the
// trace of the run.

#include "client.h"
#include "colo/node.h"
#include "proxy/proxy.h"
#include "replication/engine.h"
#include "service.h"

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace colo::sim {

class Model {
public:
    explicit Model(Scheduler& scheduler) : scheduler_(scheduler) {}

    void violation(const std::string& text);
    bool failed() const { return !violations_.empty(); }
    const std::vector<std::string>& violations() const { return violations_; }

    // What happened, for --trace and for the replay test.
    void note(int host, const std::string& text);
    void frame(int host, const char* what, Epoch epoch, ByteView bytes)   // only printed
    {
        if (tracing) print(host, std::string(what) + " " + std::to_string(epoch) + " " + describe(bytes));
    }
    bool tracing = false;
    std::uint64_t trace_hash() const { return hash_; }

    // ---- checkpoints
    void session_opened(SessionId session);
    void epoch_begun(SessionId session, Epoch epoch);
    void cut_started(SessionId session, Epoch epoch);
    void cut_state(SessionId session, Epoch epoch, ByteView ram, const Registers& registers);
    void sealed(SessionId session, const replication::ProxySection& section);
    void committed(SessionId session, Epoch epoch, const replication::Manifest& manifest, const replication::Stager& stager);
    void applied(SessionId session, Epoch epoch, bool loaded, ByteView ram, const Registers& registers);
    void applied_known(SessionId session, Epoch epoch);   // P has APPLIED
    void staged_sent(SessionId session, Epoch epoch);
    void going_live(SessionId session, Epoch applied);
    void source_said(SessionId migration, bool completed);   // at its end

    // ---- output
    void secondary_received(const proxy::FramePtr& input);
    void secondary_produced(const proxy::FramePtr& output);
    void released(int host, Generation generation, const proxy::FramePtr& frame, const proxy::ReleaseReason& reason);
    void guest_started(int host, const PersistentState& stored, bool accepted);

    std::uint64_t epochs = 0;        // committed, over all sessions
    std::uint64_t sessions = 0;
    std::uint64_t migrations = 0;    // that ended with a guest that runs elsewhere
    bool data_loss_accepted = false;

private:
    struct Cut {
        Bytes ram;
        Registers registers;
    };
    struct Flow {
        std::uint32_t released_end = 0;
        bool any_released = false;
        std::map<std::uint32_t, Bytes> produced;      // S's output of the session, wire numbers, by start
        std::optional<std::uint32_t> covered, acked;  // of the last STAGED
        std::optional<std::uint32_t> received, secondary_ack;   // client's numbers
    };
    void print(int host, const std::string& text) const;
    void forget_session();
    void contains(const replication::ProxySection& section);
    void contains_input(ByteView ram);
    bool produced(const Flow& flow, std::uint32_t seq, std::uint8_t byte) const;
    void check_protected(Flow& flow, const Segment& s, const proxy::ReleaseReason& reason);

    Scheduler& scheduler_;
    std::vector<std::string> violations_;
    std::uint64_t hash_ = 0;
    SessionId session_ = 0;
    Epoch begun_ = 0, committed_ = 0, cut_ = 0, applied_known_ = 0, staged_sent_ = 0;
    std::map<Epoch, Cut> cuts_;
    std::map<std::uint16_t, Flow> flows_;             // by the client's port
    SessionId live_session_ = 0;                      // the last one whose secondary went live
    std::map<SessionId, bool> said_;                  // migrations by their sources' word: completed or not
    Generation wire_generation_ = 0;                  // highest that released without protection
    int wire_host_ = -1;
};

}  // namespace colo::sim
