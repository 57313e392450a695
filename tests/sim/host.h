// SPDX-License-Identifier: Apache-2.0
#pragma once

// One host: carries out its Node's actions as node.h's contract says, the way colod does it with threads: lanes stand for
// the control, proxy, heartbeat and storage threads, a Fiber for the guest thread. Everything volatile is in Life and is
// gone after a crash.

#include "client.h"
#include "colo/heartbeat.h"
#include "colo/jobs.h"
#include "colo/node.h"
#include "link.h"
#include "model.h"
#include "replication/wire.h"
#include "sim_guest.h"

#include <array>
#include <optional>

namespace colo::sim {

enum class Lane : std::uint8_t { control = 0, proxy, beat, storage, guest };
inline constexpr std::size_t kLanes = 5;
inline constexpr std::size_t kPageChannels = 2;
inline constexpr std::size_t kStreams = 2 + kPageChannels;   // control, proxy, pages
inline constexpr std::size_t kSectors = 16;

// Both directions of all connections of a session.
struct Connection {
    std::array<std::shared_ptr<Stream>, kStreams> from[2];   // by sending host
};

// One arbiter for both hosts.
struct SimArbiter {
    std::map<Generation, int> granted;
    bool hangs = false;
};

// What the run draws from its seed.
struct Settings {
    std::uint64_t pages = 64;
    std::uint32_t dirty_pages = 2;
    NodeConfig node;
    bool eager = false;             // the next epoch is begun (fetch only) while the last one is in flight
    bool extra_precapture = false;
    double port_loss = 0;           // a full frame port drops, as a network may
    Duration port_delay{90};        // until the proxy takes what the guest sent
    double clock_drift[2] = {0, 0};
    std::int64_t clock_offset[2] = {0, 0};
    replication::Compression compression = replication::Compression::none;
};

struct Surroundings {
    Scheduler& scheduler;
    Model& model;
    Switch& network;
    SimArbiter& arbiter;
    const Settings& settings;
    Path* paths[2];                 // by sending host
    std::function<void(int host, const std::string& step)> on_step;
    std::function<void(int host)> changed;   // the supervisor should look
};

class Host final : private proxy::PrimarySink, private proxy::SecondarySink, private PrimarySeal, private SecondarySeal {
public:
    Host(int index, Surroundings surroundings, std::uint64_t seed);
    ~Host() override;

    // ---- the supervisor and the faults
    void start(StartIntent intent);
    void crash(bool power_lost);
    bool alive() const { return life_ != nullptr; }
    void freeze(Duration d);
    bool frozen() const { return surroundings_.scheduler.now() < frozen_until_; }
    NodeStatus status() const;
    template <class F>
    auto with_node(F&& f)   // an operator's or the supervisor's call
    {
        auto result = f(*life_->node, local_now());
        pump();
        return result;
    }
    void connect(std::shared_ptr<Connection> connection, SessionId session, const SessionPlan* as_primary);
    bool has_connection() const { return life_ && life_->connection != nullptr; }
    std::shared_ptr<Connection> connection() const { return life_ ? life_->connection : nullptr; }
    void wire_frame(ByteView frame);
    void on_beat_datagram(std::size_t path, ByteView datagram);
    SimGuest& guest() { return *life_->guest; }
    const PersistentState& stored() const { return stored_; }
    bool serving() const;           // its output reaches clients, or does as soon as S agrees
    void inject_stale_chunk() { stale_chunk_ = true; }
    void fail_next_persist() { fail_persist_ = true; }
    void slow_next_persist(Duration d) { slow_persist_ = d; }
    void heal()
    {
        counter_hangs_until_ = {};
        fail_persist_ = false;
        slow_persist_ = {};
    }
    // An operator's stop or cont, as the daemon does it: false if the node refuses.
    bool pause(bool paused);
    void fail_port(Duration d);
    void hang_guest_counter(Duration d) { counter_hangs_until_ = local_now() + d; }
    Host* peer = nullptr;
    std::optional<Result<void>> operator_result;
    const std::vector<std::uint64_t>& disk() const { return disk_; }

private:
    struct Chunk { Epoch epoch; Bytes bytes; };
    struct Life {
        std::unique_ptr<Node> node;
        std::unique_ptr<Fiber> fiber;
        std::unique_ptr<SimGuest> guest;
        std::unique_ptr<HeartbeatCore> heartbeat;
        bool guest_created = false;
        // session
        SessionId session = 0;
        std::shared_ptr<Connection> connection;
        std::array<std::optional<replication::FrameWriter>, kStreams> writers;
        std::array<std::optional<replication::FrameDecoder>, kStreams> decoders;
        bool closed = true;
        SessionId migration = 0;   // that was begun here as the last session
        // primary
        std::unique_ptr<replication::CaptureEngine> engine;
        std::unique_ptr<proxy::PrimaryProxy> primary_proxy;
        Epoch engine_epoch = 0, base = 0;
        bool first = false;
        std::uint64_t precapture_ticket = 0;
        CutOutput cut;
        Epoch cutting = 0;
        std::uint64_t cut_writes = 0;
        std::uint64_t chunks[kPageChannels] = {};
        Epoch tag = 0;
        bool input_paused = false, sealed = false;
        std::vector<proxy::FramePtr> waiting_input;
        Epoch seal_epoch = 0;
        replication::ProxySection section;
        bool wire_frozen = false;
        // secondary
        std::unique_ptr<replication::Stager> stager;
        std::unique_ptr<proxy::SecondaryProxy> secondary_proxy;
        std::deque<Chunk> waiting_chunks[kPageChannels];
        Epoch finishing = 0;
        replication::Manifest manifest, committed_manifest;
        bool log_started = false, loading = false, proxy_step_done = false;
        Epoch apply_epoch = 0;
        std::uint64_t load_count = 0;                  // what the port holds from before a load is not output of after
        std::deque<std::uint64_t> sent_load_counts;
        Bytes last_chunk;
        // disk
        struct Write { std::uint64_t number; std::uint32_t sector; std::uint64_t value; };
        std::vector<Write> journal;                    // of P, not yet contained in a committed epoch
        std::uint64_t journal_number = 0, writes = 0, session_first_write = 0;
        std::map<std::uint32_t, std::uint64_t> own;    // S's speculative writes
        std::uint64_t progress = 0;
    };

    // host.cpp
    Time local_now() const;
    Time to_global(Time local) const;
    void after(Lane lane, Duration d, std::function<void()> run);
    void dispatch(Lane lane, std::uint64_t incarnation, std::function<void()> run);
    void on_proxy(std::function<void()> run);          // in order
    void feed(std::function<void(Node&, Time)> event);
    void pump();
    void arm_timer();
    void perform(const Action& action);
    void perform_primary(const Action& action);
    void perform_secondary(const Action& action);
    void persist(const action::Persist& a);
    void close_session(const action::CloseSession& a);
    void ask(const action::RequestGrant& a);
    void beat_timer();
    void take_heartbeat_news();
    void proxy_timer();
    void make_guest();
    void guest_job(std::function<void()> job);
    void drain_port();
    void send(std::size_t stream, Bytes bytes);
    void received(std::size_t stream, ByteView bytes);
    void on_frame(std::size_t stream, const replication::Frame& frame);
    void stream_ended(std::size_t stream);
    void step(const std::string& what);
    std::uint64_t disk_write(std::uint32_t sector, std::uint64_t value);
    std::uint64_t disk_read(std::uint32_t sector) const;
    bool is_secondary() const { return life_->secondary_proxy != nullptr; }
    void note(const std::string& text) { surroundings_.model.note(index_, text); }

    // host_primary.cpp
    void open_primary(const action::OpenSession& a);
    void start_epoch(const action::StartEpoch& a);
    void precapture_first(Epoch epoch);
    void precapture_later(Epoch epoch, Time at);
    void do_cut(const action::StartCut& a);
    void do_send(Epoch epoch);
    replication::ChunkSink sink();
    void do_seal(Epoch next, bool protect);
    void release_input();
    void start_seal(Epoch next, bool protect) override;
    Result<replication::ProxySection> finish_seal(Deadline deadline) override;
    void prepare() override;
    void cancel() override;
    void to_guest(std::uint8_t nic, const proxy::FramePtr& frame) override;
    void to_wire(std::uint8_t nic, const proxy::FramePtr& frame, const proxy::ReleaseReason& reason) override;
    void mirror(std::uint8_t nic, Epoch epoch, std::uint64_t number, const proxy::FramePtr& frame) override;
    void trigger(replication::TriggerReason reason, const std::string& detail) override;
    void own_mac_seen(std::uint8_t) override {}

    // host_secondary.cpp
    void open_secondary(const action::OpenSession& a);
    void prepare_standby();
    void stage_begin(const action::StageBegin& a);
    void chunk(std::size_t channel, ByteView bytes);
    void add_waiting_chunks();
    void check_complete();
    void commit(const action::Commit& a);
    void do_apply(Epoch epoch, replication::Mode mode, bool resume, bool roll);
    void go_live(const action::GoLive& a);
    Result<void> seal(Deadline deadline) override;
    Result<void> applied(Epoch epoch, const replication::ProxySection& section, bool paused, Deadline deadline) override;
    Result<void> proxy_step(std::function<void()> run, Deadline deadline);
    void output(std::uint8_t nic, Epoch epoch, const proxy::FramePtr& frame) override;
    void journalled(Epoch epoch, std::uint64_t number) override;

    struct LocalClock final : Clock {
        explicit LocalClock(const Host& h) : host(h) {}
        Time now() const override { return host.local_now(); }
        const Host& host;
    };

    int index_;
    Surroundings surroundings_;
    Random random_;
    LocalClock clock_{*this};
    std::unique_ptr<Life> life_;
    std::uint64_t incarnation_ = 0, timer_ticket_ = 0;
    Time frozen_until_{};
    Duration lane_delay_[kLanes] = {};
    Time last_proxy_post_{};
    bool stale_chunk_ = false, fail_persist_ = false;
    Duration slow_persist_{0};
    Time counter_hangs_until_{};
    std::string last_step_;

    // What survives a crash.
    PersistentState stored_;
    std::vector<std::uint64_t> disk_ = std::vector<std::uint64_t>(kSectors, 0);
};

}  // namespace colo::sim
