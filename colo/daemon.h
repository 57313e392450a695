// SPDX-License-Identifier: Apache-2.0
#pragma once

// The daemon of one domain: wires node, guest, proxy, heartbeat, channels and control interface together. It decides
// nothing about protection: it carries out the node's actions and reports facts back (see node.h for the contract).
//
// Threads: everything here runs on the control thread (the io_context) unless a comment says otherwise. Other threads
// reach it through post().

#include "colo/arbiter.h"
#include "colo/checkpoint_log.h"
#include "colo/config.h"
#include "colo/control_link.h"
#include "colo/dirty_rate_job.h"
#include "colo/grant_errand.h"
#include "colo/heartbeat_thread.h"
#include "colo/node.h"
#include "colo/observed_guest.h"
#include "colo/own_health.h"
#include "colo/page_receiver.h"
#include "colo/page_sender.h"
#include "colo/primary_worker.h"
#include "colo/secondary_worker.h"
#include "colo/service.h"
#include "colo/session_setup.h"
#include "colo/state_file.h"
#include "colo/stopped_as.h"
#include "colo/worker.h"
#include "proxy/runtime.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>

#include <atomic>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace colo {

class ControlInterface;   // colo/control_interface.h: QMP server and handlers around this Service

// Somebody else outside has the address of our guest, which is the one as far as this side knows.
struct AddressClash {
    bool answer = false;   // by announcing it again, so that switches and neighbours find ours
    std::string text;
};
inline constexpr const char* kAddressClash = "our guest's address is used outside";   // begins the text
AddressClash address_clash(Protection protection, std::uint8_t nic);
schema::CheckpointSample checkpoint_sample(const CheckpointRecord& record);
schema::ProtectionState state_of(const NodeStatus& status, bool powered_off);
inline constexpr Duration kProgressInterval{50'000};   // how often our own parts are looked at
inline constexpr int kProbesOfATimeout = 16;           // questions to the device model in a progress timeout

struct DaemonOptions {
    Config config;
    StartIntent intent = StartIntent::primary;
    bool qmp_stdio = false;  // a control client on standard input and output
};

class Daemon final : public Service, private proxy::RuntimeEvents {
public:
    explicit Daemon(DaemonOptions options);
    ~Daemon() override;

    // Start-up that can be refused with a reason: state directory, arbiter, ports, sockets. Then run() until quit.
    Result<void> start();
    int run();

    // ---- Service
    ServiceIdentity identity() const override;
    schema::RunState run_state() const override;
    void stop(schema::RunState as, Done done) override;
    void cont(Done done) override;
    void begin_paused(bool paused) override { node_->begin_paused(paused); }
    void quit() override;
    void migrate(const std::string& uri, const SessionPlan& plan, Done done) override;
    void migrate_incoming(const std::string& uri, std::optional<SessionKind> kind, Done done) override;
    void await_session(SessionKind kind) override { node_->await_session(kind); }
    void migrate_cancel() override;
    void migrate_continue() override;
    std::vector<schema::SocketAddress> listening() const override;
    TransferFacts transfer() const override;
    std::vector<std::string> blocked_reasons() const override;
    StatusReport status() const override;
    void lost_heartbeat(Done done) override;
    void failover(bool accept_data_loss, Done done) override;
    void unprotect(Done done) override;
    void do_checkpoint(Done done) override;
    void save_device_state(const std::string& file, bool live, Done done) override;
    void load_device_state(const std::string& file, Done done) override;
    void set_global_dirty_log(bool enable, Done done) override;
    void precheck(Checked done) override;
    void system_reset(Done done) override;
    void system_powerdown(Done done) override;
    Result<void> calc_dirty_rate(schema::DirtyRateMeasureMode mode, std::int64_t calc_time_s,
                                 std::uint64_t sample_pages) override;
    schema::DirtyRateInfo dirty_rate() const override { return dirty_rate_->info(); }
    bool counts_vcpu_dirty_pages() const override { return guest_created_ && guest_->counts_vcpu_dirty_pages(); }

    // Settings that QMP changes while running.
    void set_checkpoint_interval(Duration interval);
    void set_pause_bound(Duration bound);   // and what a migration may make the guest wait at its end
    void set_page_channels(std::uint8_t count);  // of the next session
    void set_bandwidth(std::uint64_t bytes_per_second);
    void set_delta_cache(std::uint64_t bytes);
    void set_compression(replication::Compression compression, int level);
    void set_announce(const proxy::AnnounceSchedule& schedule);

private:
    // ---- set-up (daemon_start.cpp)
    Result<void> open_state();
    Result<void> make_runtime();
    Result<void> make_guest();
    Result<void> start_heartbeat();
    Result<void> start_control();
    void make_workers();
    void watch_signals();
    void end_in_order();
    void finish();
    void guest_event(const replication::GuestEvent& event);

    // ---- the node (daemon_actions.cpp)
    template <class Event>
    void feed(Event&& event)   // event(node), then its actions
    {
        event(*node_);
        pump();
    }
    void post(std::function<void()> job);   // any thread
    void pump();
    void arm_timer();
    void perform(const Action& action);
    void on(const action::BootGuest& a);
    void on(const action::PrepareStandby& a);
    void on(const action::Send& a);
    void on(const action::Persist& a);
    void on(const action::OpenSession& a);
    void on(const action::StartEpoch& a);
    void on(const action::StartCut& a);
    void on(const action::SendEpoch& a);
    void on(const action::AbortEpoch& a);
    void on(const action::ReleaseStaged& a);
    void on(const action::OpenComparer& a);
    void on(const action::StageBegin& a);
    void on(const action::StageDrop& a);
    void on(const action::StageFinish& a);
    void on(const action::Commit& a);
    void on(const action::Apply& a);
    void on(const action::RollForward& a);
    void on(const action::CloseSession& a);
    void on(const action::SetOutput& a);
    void on(const action::RequestGrant& a);
    void on(const action::StopGuest& a);
    void on(const action::ResumeGuest& a);
    void on(const action::KillGuest& a);
    void on(const action::GoLive& a);
    void on(const action::Beat& a);
    void on(const action::Changed& a);
    void on(const action::ColoExit& a);
    void on(const action::ColoEntered& a);
    void on(const action::SessionFailed& a);
    void on(const action::SwitchOver& a);
    void on(const action::Migrated& a);
    void on(const action::OperatorDone& a);
    void on(const action::ModeChanged& a);

    void ask_arbiter(Generation generation, Role role, bool contested);
    void thaw(Generation generation);

    // ---- sessions (daemon_session.cpp)
    void check_arbiter(const std::string& uri, SessionId session);
    Duration longest_epoch() const;
    void dial(const std::string& uri, SessionId session);
    void dialled(Result<SessionChannels> channels, SessionId session);
    void open_link(SessionId session);
    void arrived(SessionChannels channels);
    void adopt_channels(SessionChannels channels);
    void drop_channels(Duration flush);
    void message(replication::Message message);
    PrimaryWorker::Callbacks primary_callbacks();
    void next_pass();
    std::uint64_t bytes_sent() const;
    SecondaryWorker::Callbacks secondary_callbacks();
    replication::CaptureOptions capture_options() const;
    replication::StagerLimits stager_limits() const;
    CopyMemory memory_for_copy() const;
    void beat_progress();

    // ---- proxy::RuntimeEvents (proxy thread)
    void trigger(replication::TriggerReason reason, const std::string& detail) override;
    void channel_lost(SessionId session, const Error& why) override;
    void own_mac_seen(std::uint8_t nic) override;
    void port_failed(std::uint8_t nic, bool wire, const Error& why) override;
    void judge_frame_port(std::uint64_t attached, int pid, const std::string& fault);
    void tell_ports();

    // ---- answers to the operator
    void answer_operator(const Result<void>& result);
    void note_failover(Generation generation);
    void carry_out_reset();
    void give_up_checkpoints(const Error& why);
    void renew_guest(std::function<Result<void>(replication::Guest&, Deadline)> renew, Done done);
    Duration boot_time() const { return std::chrono::milliseconds(config_.guest.start_timeout_ms); }   // also of one made anew
    Result<void> decides_about_guest() const;
    void with_guest(std::function<Result<void>(replication::Guest&, Deadline)> work, Duration bound, Done done);
    void pause(bool paused, std::function<Result<void>(replication::Guest&, Deadline)> work, Done done);

    DaemonOptions options_;
    const Config& config_;
    boost::asio::io_context io_;
    boost::asio::steady_timer node_timer_, progress_timer_, end_timer_, operator_timer_;
    boost::asio::signal_set signals_;

    std::unique_ptr<StateDirectory> state_directory_;
    PersistentState stored_;
    std::unique_ptr<Arbiter> arbiter_;
    std::unique_ptr<Node> node_;
    std::unique_ptr<proxy::ProxyRuntime> runtime_;
    std::unique_ptr<ObservedGuest> guest_;
    std::unique_ptr<PrimarySeal> primary_seal_;
    std::unique_ptr<SecondarySeal> secondary_seal_;
    std::unique_ptr<Worker> guest_worker_, storage_worker_, arbiter_worker_, dial_worker_;
    std::unique_ptr<GrantErrand> errand_;
    std::unique_ptr<PrimaryWorker> primary_;
    std::unique_ptr<SecondaryWorker> secondary_;
    std::unique_ptr<DirtyRateJob> dirty_rate_;
    std::unique_ptr<HeartbeatThread> heartbeat_;
    std::unique_ptr<SessionListener> listener_;
    std::unique_ptr<ControlInterface> control_;

    // One session at a time.
    SessionChannels channels_;              // until OpenSession takes them
    std::shared_ptr<SessionChannels> early_;   // arrived before the standby was ready
    std::unique_ptr<ControlLink> link_;
    std::shared_ptr<PageSender> page_sender_;
    std::unique_ptr<PageReceiver> page_receiver_;
    Fd proxy_duplicate_;                    // to cut the proxy channel at CloseSession whatever the proxy thread does
    SessionId session_ = 0;
    // Set by the heartbeat thread with its freeze(): only a decision for at least this generation lets output flow again.
    std::atomic<Generation> frozen_for_{0};
    std::atomic<SessionId> page_session_{0};   // whose chunks are still wanted; read by page-channel threads
    std::string peer_;
    Generation clients_sought_for_ = 0;   // the decision before which this side looked for its clients

    bool guest_created_ = false;
    bool guest_running_ = false;            // as told to the observer
    StoppedAs stopped_as_;
    bool powered_off_ = false;
    bool suspended_ = false;            // the guest sleeps
    bool reset_while_stopped_ = false;  // it waits to be started, as if it were new
    bool pumping_ = false;
    bool quitting_ = false, ending_ = false;
    bool incoming_failed_ = false;          // since listening began: migrate-incoming may be given again
    int exit_status_ = 0;
    bool carrier_ = true;
    std::string wire_fault_, frame_fault_;    // until the daemon, or the device model, is a new one
    std::atomic<std::uint64_t> attached_{0};  // device models whose ports were connected
    std::uint64_t died_attached_ = 0;         // attached_ when one last died
    std::uint64_t last_proxy_progress_ = 0;
    Time last_guest_progress_{};
    Time next_probe_{};
    OwnHealth own_health_;

    // Facts for people.
    CheckpointLog checkpoints_;
    Protection protection_ = Protection::idle;
    Time protection_since_{};
    std::string protection_reason_;
    int renewing_ = 0;   // how many jobs of renew_guest() are under way
    std::string held_;   // by whom the guest is kept from running; empty: by nobody
    bool seized_ = false;   // by a tool that works on it: no checkpoint is made
    std::vector<std::string> warnings_;
    std::string mode_reason_;
    Time session_begun_{}, setup_done_{}, session_ended_{}, loss_noticed_{};
    Time switch_begun_{};          // a migration stopped the guest
    std::uint64_t switch_sent_ = 0;   // bytes until then
    std::optional<Duration> switch_took_;
    std::optional<Duration> loss_detection_;   // from the peer's last beat to loss_noticed_
    CopyProgress copy_;   // the first copy of this session
    std::uint64_t passes_ = 0;   // over dirty memory, in this session
    std::optional<schema::FailoverReport> last_failover_;
    std::string last_peer_text_;
    replication::Compression compression_ = replication::Compression::none;
    int compression_level_ = 1;
    std::uint64_t bandwidth_ = 0, delta_cache_ = 0;
    std::uint8_t page_channels_ = 1;
    Done operator_waiting_;                                  // x-colo-unprotect; empty: nobody
    std::optional<schema::OperatorCommand> operator_command_;
    std::list<std::pair<Epoch, Done>> checkpoint_waiting_;   // STAGED of at least this epoch
};

}  // namespace colo
