// SPDX-License-Identifier: Apache-2.0
#pragma once

// One monitor, sans-I/O: bytes in, bytes out. The driver feeds what it read, runs one request at a time (so that
// several monitors take turns), and writes what take_output() gives. All calls on one thread.
//
// Back pressure instead of loss: while a request runs (or 8 are queued, with oob), or while the client does not read
// its answers, no further request is taken up and wants_input() is false. Only events can pile up; beyond
// kMaxPendingOutput overflowed() says that the client must be dropped.
//
// Descriptors belong to the request whose last byte came with or after them (white space at the end aside). They are
// closed with it if its command does not take them, also if it was broken.

#include "qmp/json.h"
#include "qmp/registry.h"

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <variant>

namespace colo::qmp {

inline constexpr std::size_t kMaxQueuedRequests = 8;
inline constexpr std::size_t kBusyOutput = 1u << 20;         // not read so far: no new request
inline constexpr std::size_t kMaxPendingOutput = 16u << 20;  // not read so far: too slow for events
inline constexpr std::size_t kMaxWaitingFds = 16;            // came before their request did; the oldest go first

class Session : public ReplyTarget, public std::enable_shared_from_this<Session> {
public:
    // `registry` must outlive the session. `version` is the answer of query-version.
    static std::shared_ptr<Session> make(const Registry& registry, const schema::VersionInfo& version);

    // Called when an answer or event came outside of feed() and run_one(); must not call back into the session.
    std::function<void()> on_activity;

    void feed(std::string_view bytes, std::vector<Fd> fds = {});
    ~Session() override;
    bool runnable() const;
    void run_one();
    bool wants_input() const;
    bool idle() const;  // nothing unparsed, queued, running or unsent

    std::string take_output();
    std::size_t pending_output() const { return output_.size(); }
    bool overflowed() const { return overflowed_; }

    // One line, CR LF included. Dropped in negotiation mode.
    void send_event(std::string_view line);

    void deliver(schema::Object message, bool in_band) override;

private:
    struct Request {
        std::string name;
        schema::Object arguments;
        std::optional<schema::Value> id;
        bool oob = false;
        WaitingFds fds;
    };
    struct Arrival {  // descriptors and the part of the stream that they came with
        std::uint64_t start;
        std::uint64_t end;
        WaitingFds fds;
    };
    struct Failure {
        QmpError error;
        std::optional<schema::Value> id;
    };
    using Entry = std::variant<Request, Failure>;

    explicit Session(const Registry& registry);
    void send(const schema::Object& message);
    bool may_parse() const;
    std::string_view unparsed() const { return std::string_view(input_).substr(input_at_); }
    void drop_parsed();
    void parse();
    void keep_fds(std::string_view bytes, std::vector<Fd> fds);
    WaitingFds fds_of_message(std::uint64_t end);
    void accept(Result<schema::Value> message, WaitingFds fds);
    void refuse(const schema::Object& object, QmpError error);
    std::optional<QmpError> envelope_error(const schema::Object& object) const;
    static Request take_request(schema::Object& object);
    void dispatch(Request request);
    void negotiate(const schema::Object& arguments, Reply reply);

    const Registry& registry_;
    std::shared_ptr<FdStore> fds_;
    MonitorId id_;
    MessageParser parser_;
    std::string input_;
    std::size_t input_at_ = 0;  // the part before it was parsed
    std::uint64_t parsed_ = 0;  // bytes of the stream that were
    std::deque<Arrival> arrivals_;
    std::deque<Entry> queue_;
    std::string output_;
    bool busy_ = false;  // an in-band request runs
    bool negotiated_ = false;
    bool oob_ = false;
    bool overflowed_ = false;
    bool in_call_ = false;
};

}  // namespace colo::qmp
