// SPDX-License-Identifier: Apache-2.0
// Flows that exchange lines: echo (tcp/7), answers that always differ (tcp/13), and connect + echo + close over and over.

#include "tests/bench/load/flow.h"
#include "tests/bench/load/services.h"

#include <cerrno>
#include <cstring>
#include <string>
#include <string_view>
#include <sys/epoll.h>
#include <sys/socket.h>

namespace colo::load {
namespace {

constexpr std::size_t kMaxLine = 64 * 1024;

// One request is under way at a time. Subclasses say what to send and judge the answer.
class LineFlow : public Flow {
public:
    LineFlow(std::string kind, const std::string& guest, const Settings& settings, std::uint16_t port)
        : Flow(std::move(kind), guest), port_(port),
          interval_(static_cast<Microseconds>(number(settings, "interval_ms", 10) * 1000)),
          payload_(static_cast<std::size_t>(std::min(number(settings, "bytes", 32), 16384.0)))
    {}

    void start(Microseconds now) override { open_stream(port_, now); }
    Microseconds deadline() const override { return stats_.state == FlowState::open && !waiting_ ? next_ : 0; }
    std::uint32_t wanted() const override
    {
        if (stats_.state == FlowState::connecting) return EPOLLOUT;
        return EPOLLIN | (unsent_.empty() ? 0u : static_cast<std::uint32_t>(EPOLLOUT));
    }
    void on_ready(std::uint32_t events, Microseconds now) override
    {
        if (!established(now)) return;
        if (!unsent_.empty()) flush(now);
        if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && active()) receive(now);
        on_time(now);
    }
    void on_time(Microseconds now) override
    {
        if (stats_.state == FlowState::open && !waiting_ && now >= next_) request(now);
    }
    void stop(Microseconds now) override
    {
        stopping_ = true;
        if (active() && !waiting_) finish(now);
    }

protected:
    // The line to send, without its newline.
    virtual std::string next_request() = 0;
    // False with a reason if the answer (without newline) is wrong.
    virtual bool judge(std::string_view request, std::string_view answer, std::string& reason) = 0;
    virtual void answered(Microseconds now)
    {
        next_ = sent_at_ + interval_ > now ? sent_at_ + interval_ : now;
        if (stopping_) finish(now);
    }

    std::string payload(std::uint64_t salt)
    {
        std::string text;
        text.reserve(payload_);
        Random random(salt);
        while (text.size() < payload_) text.push_back(static_cast<char>('a' + random.next() % 26));
        return text;
    }
    virtual Microseconds latency_from() const { return sent_at_; }
    bool stopping() const { return stopping_; }
    Microseconds interval() const { return interval_; }
    Microseconds next_ = 0;

private:
    void request(Microseconds now)
    {
        request_ = next_request();
        unsent_ = request_ + "\n";
        waiting_ = true;
        sent_at_ = now;
        // A pause between two requests is the client's own choice, not a gap.
        stats_.gap.idle(now);
        stats_.gap.expect(now);
        flush(now);
    }
    void flush(Microseconds now)
    {
        const ssize_t sent = ::send(descriptor_, unsent_.data(), unsent_.size(), MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) return lose(std::string("send: ") + std::strerror(errno), now);
        if (sent > 0) unsent_.erase(0, static_cast<std::size_t>(sent));
    }
    void receive(Microseconds now)
    {
        char buffer[16384];
        const ssize_t got = ::recv(descriptor_, buffer, sizeof buffer, 0);
        if (got < 0 && errno == EAGAIN) return;
        if (got < 0) return lose(std::string("receive: ") + std::strerror(errno), now);
        if (got == 0) return lose("closed by the guest", now);
        stats_.moved_bytes += static_cast<std::uint64_t>(got);
        received_.append(buffer, static_cast<std::size_t>(got));
        const auto end = received_.find('\n');
        if (end == std::string::npos) {
            if (received_.size() > kMaxLine) lose("answer without an end", now);
            return;
        }
        if (!waiting_ || end + 1 != received_.size()) {
            wrong(received_.size(), "bytes that nobody asked for: " + received_.substr(0, 80));
            return lose(stats_.problem, now);
        }
        std::string reason;
        const std::string answer = received_.substr(0, end);
        received_.clear();
        if (!judge(request_, answer, reason)) {
            wrong(answer.size(), reason + ": " + answer.substr(0, 80));
            return lose(stats_.problem, now);
        }
        waiting_ = false;
        ++stats_.answers;
        stats_.verified_bytes += answer.size() + 1;
        stats_.latency.add(now - latency_from());
        stats_.gap.idle(now);
        answered(now);
    }

    std::uint16_t port_;
    Microseconds interval_;
    std::size_t payload_;
    bool waiting_ = false;
    bool stopping_ = false;
    Microseconds sent_at_ = 0;
    std::string request_, unsent_, received_;
};

class EchoFlow : public LineFlow {
public:
    EchoFlow(std::string kind, const std::string& guest, const Settings& settings)
        : LineFlow(std::move(kind), guest, settings, kEchoPort)
    {}

protected:
    std::string next_request() override { return "e" + std::to_string(count_) + " " + payload(count_ * 77 + 5); }
    bool judge(std::string_view request, std::string_view answer, std::string& reason) override
    {
        const std::string expected = echo_answer(count_, request);
        ++count_;
        if (answer == expected) return true;
        reason = "echo answer differs, expected '" + expected.substr(0, 60) + "', got";
        return false;
    }
    void restart_count() { count_ = 0; }

private:
    std::uint64_t count_ = 0;
};

class DifferingFlow : public LineFlow {
public:
    DifferingFlow(const std::string& guest, const Settings& settings)
        : LineFlow("differing", guest, settings, kDifferingPort)
    {}

protected:
    std::string next_request() override { return "d" + std::to_string(count_); }
    bool judge(std::string_view, std::string_view answer, std::string& reason) override
    {
        return differing_answer_valid(count_++, answer, last_, reason);
    }

private:
    std::uint64_t count_ = 0;
    std::string last_;
};

// Opens, asks once, closes, again. Each connection must come about and answer correctly; the latency is that of the
// whole, from connect to the answer.
class ConnectFlow : public EchoFlow {
public:
    ConnectFlow(const std::string& guest, const Settings& settings) : EchoFlow("connect", guest, settings) {}
    void start(Microseconds now) override
    {
        began_ = now;
        EchoFlow::start(now);
    }
    Microseconds deadline() const override { return resting_ ? rest_until_ : EchoFlow::deadline(); }
    std::uint32_t wanted() const override { return resting_ ? 0 : EchoFlow::wanted(); }
    void on_time(Microseconds now) override
    {
        if (!resting_) return EchoFlow::on_time(now);
        if (now < rest_until_) return;
        resting_ = false;
        stats_.state = FlowState::connecting;
        restart_count();
        next_ = 0;
        start(now);
    }
    void stop(Microseconds now) override
    {
        EchoFlow::stop(now);
        if (resting_ && active()) finish(now);
    }

protected:
    Microseconds latency_from() const override { return began_; }
    void answered(Microseconds now) override
    {
        ++stats_.restarted;
        if (stopping()) return finish(now);
        close_descriptor();
        resting_ = true;
        rest_until_ = began_ + interval() > now ? began_ + interval() : now;
    }

private:
    bool resting_ = false;
    Microseconds began_ = 0, rest_until_ = 0;
};

}  // namespace

std::unique_ptr<Flow> make_echo(const std::string& guest, const Settings& settings)
{
    return std::make_unique<EchoFlow>("echo", guest, settings);
}
std::unique_ptr<Flow> make_differing(const std::string& guest, const Settings& settings)
{
    return std::make_unique<DifferingFlow>(guest, settings);
}
std::unique_ptr<Flow> make_connect(const std::string& guest, const Settings& settings)
{
    return std::make_unique<ConnectFlow>(guest, settings);
}

}  // namespace colo::load
