// SPDX-License-Identifier: Apache-2.0
// UDP echo (udp/7). The guest counts datagrams of each peer, so an answer is "<count> <payload>". As with any network,
// datagrams and answers may be lost or come twice; both are counted. Wrong is what no history of arrivals explains: a
// payload that was never sent, or one count for two datagrams (a guest that went back behind what it had answered).

#include "tests/bench/load/flow.h"
#include "tests/bench/load/services.h"

#include <cerrno>
#include <charconv>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <sys/epoll.h>
#include <sys/socket.h>

namespace colo::load {
namespace {

constexpr Microseconds kGiveUp = 2'000'000;
constexpr std::size_t kRemembered = 4096;

class DatagramFlow : public Flow {
public:
    DatagramFlow(const std::string& guest, const Settings& settings)
        : Flow("udp", guest), interval_(static_cast<Microseconds>(number(settings, "interval_ms", 20) * 1000)),
          payload_(static_cast<std::size_t>(std::min(number(settings, "bytes", 64), 1300.0)))
    {}
    void start(Microseconds now) override
    {
        if (open_datagram(kEchoPort, now)) next_ = now;
    }
    Microseconds deadline() const override { return next_; }
    std::uint32_t wanted() const override { return EPOLLIN; }
    void on_ready(std::uint32_t, Microseconds now) override
    {
        char buffer[2048];
        for (int round = 0; round < 16 && active(); ++round) {
            const ssize_t got = ::recv(descriptor_, buffer, sizeof buffer, 0);
            // An ICMP error (guest just not there) is a loss like any other.
            if (got < 0) return;
            judge(std::string_view(buffer, static_cast<std::size_t>(got)), now);
        }
    }
    void on_time(Microseconds now) override
    {
        if (stopping_ && (waiting_ == 0 || now > stop_at_ + kGiveUp)) return finish(now);
        forget(now);
        if (now < next_) return;
        next_ = now + (stopping_ ? 10'000 : interval_);
        if (stopping_) return;
        const std::string text = request(sent_);
        stats_.gap.expect(now);
        if (::send(descriptor_, text.data(), text.size(), 0) >= 0) under_way_[sent_] = {now, false}, ++waiting_;
        else ++stats_.missing;
        ++sent_;
    }
    void stop(Microseconds now) override
    {
        stopping_ = true;
        stop_at_ = now;
        stats_.gap.idle(now);   // what is still missing will not come; waiting for it is no gap
    }

private:
    struct Sent { Microseconds at; bool answered; };

    std::string request(std::uint64_t sequence) const
    {
        std::string text = "u" + std::to_string(sequence) + " ";
        Random random(sequence * 131 + 7);
        while (text.size() < payload_) text.push_back(static_cast<char>('a' + random.next() % 26));
        return text;
    }
    static bool take_number(std::string_view& text, std::uint64_t& value)
    {
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        if (error != std::errc{} || end == text.data() + text.size() || *end != ' ') return false;
        text.remove_prefix(static_cast<std::size_t>(end - text.data()) + 1);
        return true;
    }
    void judge(std::string_view answer, Microseconds now)
    {
        const std::string_view whole = answer;
        std::uint64_t count = 0, sequence = 0;
        std::string_view digits;
        bool good = take_number(answer, count) && answer.size() > 1 && answer[0] == 'u';
        if (good) {
            digits = answer.substr(1);
            good = take_number(digits, sequence) && sequence < sent_ && answer == request(sequence);
        }
        if (!good) return bad(whole, "datagram that nobody asked for", now);
        const auto [known, fresh] = by_count_.emplace(count, sequence);
        if (!fresh && known->second != sequence)
            return bad(whole, "the guest went back: this count was the one of u" + std::to_string(known->second), now);
        if (by_count_.size() > kRemembered) by_count_.erase(by_count_.begin());
        const auto found = under_way_.find(sequence);
        if (found == under_way_.end()) return;   // long given up
        if (found->second.answered) {
            ++stats_.repeated;
            return;
        }
        found->second.answered = true;
        --waiting_;
        ++stats_.answers;
        stats_.verified_bytes += whole.size();
        stats_.moved_bytes += whole.size();
        stats_.latency.add(now - found->second.at);
        stats_.gap.progress(now);
    }
    void bad(std::string_view answer, const std::string& what, Microseconds now)
    {
        wrong(answer.size(), what + ": " + std::string(answer.substr(0, 60)));
        lose(stats_.problem, now);
    }
    void forget(Microseconds now)
    {
        while (!under_way_.empty()) {
            const auto& [sequence, sent] = *under_way_.begin();
            if (now - sent.at < kGiveUp && under_way_.size() < kRemembered) break;
            if (!sent.answered) ++stats_.missing, --waiting_;
            under_way_.erase(under_way_.begin());
        }
    }

    Microseconds interval_;
    std::size_t payload_;
    Microseconds next_ = 0, stop_at_ = 0;
    bool stopping_ = false;
    std::uint64_t sent_ = 0, waiting_ = 0;
    std::map<std::uint64_t, Sent> under_way_;
    std::map<std::uint64_t, std::uint64_t> by_count_;   // count -> sequence, the latest
};

}  // namespace

std::unique_ptr<Flow> make_datagram(const std::string& guest, const Settings& settings)
{
    return std::make_unique<DatagramFlow>(guest, settings);
}

}  // namespace colo::load
