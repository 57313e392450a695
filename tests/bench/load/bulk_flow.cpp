// SPDX-License-Identifier: Apache-2.0
// Bulk in both directions. Upload (tcp/9): blocks of a known length, each answered with its CRC and length. Download
// (tcp/19): blocks of a seed's stream, every byte compared. Blocks follow one another on one connection until the end.

#include "tests/bench/load/flow.h"
#include "tests/bench/load/services.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <deque>
#include <string>
#include <string_view>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <vector>

namespace colo::load {
namespace {

constexpr std::size_t kPiece = 256 * 1024;

// Common to both: rate, size of a block, end of the work.
class BulkFlow : public Flow {
public:
    BulkFlow(std::string kind, const std::string& guest, const Settings& settings, std::uint16_t port)
        : Flow(std::move(kind), guest), rate_(number(settings, "mb_per_s", 0) * 1e6),
          total_(static_cast<std::uint64_t>(number(settings, "total_mb", 0) * 1e6)),
          block_(std::max<std::uint64_t>(1, static_cast<std::uint64_t>(number(settings, "block_kb", 2048) * 1024))), port_(port)
    {}
    void start(Microseconds now) override
    {
        open_stream(port_, now);
        rate_since_ = now;
    }
    Microseconds deadline() const override { return paused_until_; }
    void stop(Microseconds now) override
    {
        stopping_ = true;
        if (stats_.state == FlowState::connecting) finish(now);
    }

protected:
    // Bytes that may be moved now; sets deadline() if none may.
    std::size_t allowance(Microseconds now, std::size_t wanted)
    {
        paused_until_ = 0;
        if (rate_ <= 0) return wanted;
        const double budget = rate_ * static_cast<double>(now - rate_since_) / 1e6 - static_cast<double>(rated_);
        if (budget >= 1) return std::min(wanted, static_cast<std::size_t>(budget) + 1);
        paused_until_ = now + 2000 + static_cast<Microseconds>(-budget / rate_ * 1e6);
        return 0;
    }
    void moved(std::size_t bytes, Microseconds now)
    {
        stats_.moved_bytes += bytes;
        rated_ += bytes;
        // What a stall cost is not caught up with a burst.
        const double due = rate_ * static_cast<double>(now - rate_since_) / 1e6;
        if (due - static_cast<double>(rated_) > rate_ / 4) {
            rate_since_ = now;
            rated_ = 0;
        }
        stats_.gap.progress(now);
    }
    bool enough() const { return stopping_ || (total_ != 0 && stats_.verified_bytes >= total_); }
    bool paused() const { return paused_until_ != 0; }
    std::uint64_t block() const { return block_; }

private:
    double rate_;
    std::uint64_t total_, block_;
    std::uint16_t port_;
    Microseconds rate_since_ = 0;
    std::uint64_t rated_ = 0;
    Microseconds paused_until_ = 0;
    bool stopping_ = false;
};

class UploadFlow : public BulkFlow {
public:
    UploadFlow(const std::string& guest, const Settings& settings)
        : BulkFlow("upload", guest, settings, kSinkPort),
          window_(static_cast<std::size_t>(std::min(std::max(number(settings, "window", 2), 1.0), 16.0))), data_(4 * kPiece + 8)
    {
        Random random(0x75706c6f6164);
        for (std::size_t i = 0; i + 8 <= data_.size(); i += 8) {
            const std::uint64_t word = random.next();
            std::memcpy(data_.data() + i, &word, 8);
        }
    }
    std::uint32_t wanted() const override
    {
        if (stats_.state == FlowState::connecting) return EPOLLOUT;
        return EPOLLIN | (sending() && !paused() ? static_cast<std::uint32_t>(EPOLLOUT) : 0u);
    }
    void on_ready(std::uint32_t events, Microseconds now) override
    {
        if (!established(now)) return;
        if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) receive(now);
        on_time(now);
    }
    void on_time(Microseconds now) override
    {
        if (stats_.state != FlowState::open) return;
        for (int blocks = 0; blocks < 2 && active(); ++blocks) {
            if (!sending() && !enough() && expected_.size() < window_) begin_block();
            if (sending()) send_some(now);
            if (sending()) break;
        }
        if (enough() && !sending() && expected_.empty()) finish(now);
    }

private:
    struct Answer { std::uint32_t crc; std::uint64_t length; Microseconds began; };

    bool sending() const { return left_ > 0 || !header_.empty(); }
    void begin_block()
    {
        left_ = block();
        crc_ = 0;
        began_ = now_us();
        for (int shift = 56; shift >= 0; shift -= 8) header_.push_back(static_cast<char>(left_ >> shift & 0xff));
    }
    void send_some(Microseconds now)
    {
        if (!header_.empty()) {
            const ssize_t sent = ::send(descriptor_, header_.data(), header_.size(), MSG_NOSIGNAL | MSG_MORE);
            if (sent < 0 && errno != EAGAIN) return lose(std::string("send: ") + std::strerror(errno), now);
            if (sent > 0) header_.erase(0, static_cast<std::size_t>(sent));
            if (!header_.empty()) return;
        }
        for (int round = 0; round < 4 && left_ > 0; ++round) {
            const std::size_t size = allowance(now, static_cast<std::size_t>(std::min<std::uint64_t>(left_, kPiece)));
            if (size == 0) return;
            // An odd offset that moves: no two pieces of a connection are alike.
            const std::uint8_t* piece = data_.data() + stats_.moved_bytes % (3 * kPiece - 7);
            const ssize_t sent = ::send(descriptor_, piece, size, MSG_NOSIGNAL);
            if (sent < 0 && errno == EAGAIN) return;
            if (sent < 0) return lose(std::string("send: ") + std::strerror(errno), now);
            crc_ = crc32(crc_, piece, static_cast<std::size_t>(sent));
            left_ -= static_cast<std::uint64_t>(sent);
            moved(static_cast<std::size_t>(sent), now);
            if (left_ == 0) expected_.push_back({crc_, block(), began_});
        }
    }
    void receive(Microseconds now)
    {
        char buffer[1024];
        const ssize_t got = ::recv(descriptor_, buffer, sizeof buffer, 0);
        if (got < 0 && errno == EAGAIN) return;
        if (got < 0) return lose(std::string("receive: ") + std::strerror(errno), now);
        if (got == 0) return lose("closed by the guest", now);
        received_.append(buffer, static_cast<std::size_t>(got));
        stats_.gap.progress(now);
        for (auto end = received_.find('\n'); end != std::string::npos && active(); end = received_.find('\n')) {
            judge(received_.substr(0, end), now);
            received_.erase(0, end + 1);
        }
        if (active() && received_.size() > 64) {
            wrong(received_.size(), "answer without an end");
            lose(stats_.problem, now);
        }
    }
    void judge(const std::string& answer, Microseconds now)
    {
        char text[64] = "an answer before the block was sent";
        if (!expected_.empty())
            std::snprintf(text, sizeof text, "%08x %llu", expected_.front().crc,
                          static_cast<unsigned long long>(expected_.front().length));
        if (expected_.empty() || answer != text) {
            wrong(block(), "checksum of an uploaded block: expected '" + std::string(text) + "', got '" + answer.substr(0, 60) + "'");
            return lose(stats_.problem, now);
        }
        stats_.verified_bytes += expected_.front().length;
        stats_.latency.add(now - expected_.front().began);
        ++stats_.answers;
        expected_.pop_front();
    }

    std::size_t window_;            // blocks without an answer; 1: the pipe runs dry at the end of each block
    std::vector<std::uint8_t> data_;
    std::string header_, received_;
    std::uint64_t left_ = 0;
    std::uint32_t crc_ = 0;
    Microseconds began_ = 0;
    std::deque<Answer> expected_;
};

class DownloadFlow : public BulkFlow {
public:
    DownloadFlow(const std::string& guest, const Settings& settings)
        : BulkFlow("download", guest, settings, kSourcePort), buffer_(kPiece), stream_(0)
    {}
    std::uint32_t wanted() const override
    {
        if (stats_.state == FlowState::connecting) return EPOLLOUT;
        return (paused() ? 0u : static_cast<std::uint32_t>(EPOLLIN)) |
               (request_.empty() ? 0u : static_cast<std::uint32_t>(EPOLLOUT));
    }
    void on_ready(std::uint32_t events, Microseconds now) override
    {
        if (!established(now)) return;
        if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && !paused()) receive(now);
        on_time(now);
    }
    void on_time(Microseconds now) override
    {
        if (stats_.state != FlowState::open) return;
        if (deadline() != 0 && now >= deadline()) receive(now);
        // The next block is asked for while the last one still flows.
        while (asked_.size() < 2 && !enough()) ask();
        if (!request_.empty()) flush(now);
        if (active() && enough() && asked_.empty()) finish(now);
    }

private:
    struct Block { std::uint64_t seed; Microseconds began; };

    void ask()
    {
        const std::uint64_t seed = seeds_.next() >> 8;
        asked_.push_back({seed, now_us()});
        request_ += std::to_string(seed) + " " + std::to_string(block()) + "\n";
        if (asked_.size() == 1) begin(asked_.front());
    }
    void begin(const Block& next)
    {
        stream_ = Random(next.seed);
        left_ = block();
        offset_ = 0;
    }
    void flush(Microseconds now)
    {
        const ssize_t sent = ::send(descriptor_, request_.data(), request_.size(), MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) return lose(std::string("send: ") + std::strerror(errno), now);
        if (sent > 0) request_.erase(0, static_cast<std::size_t>(sent));
    }
    void receive(Microseconds now)
    {
        for (int round = 0; round < 4 && active(); ++round) {
            const std::size_t size = allowance(now, buffer_.size());
            if (size == 0) return;
            const ssize_t got = ::recv(descriptor_, buffer_.data(), size, 0);
            if (got < 0 && errno == EAGAIN) return;
            if (got < 0) return lose(std::string("receive: ") + std::strerror(errno), now);
            if (got == 0) return lose("closed by the guest", now);
            moved(static_cast<std::size_t>(got), now);
            verify(static_cast<std::size_t>(got), now);
        }
    }
    void verify(std::size_t got, Microseconds now)
    {
        std::size_t at = 0;
        while (at < got && active()) {
            if (asked_.empty()) {
                wrong(got - at, "bytes that nobody asked for");
                return lose(stats_.problem, now);
            }
            const std::size_t n = static_cast<std::size_t>(std::min<std::uint64_t>(left_, got - at));
            if (const std::uint64_t bad = compare(buffer_.data() + at, n); bad != 0) {
                wrong(bad, "downloaded block of seed " + std::to_string(asked_.front().seed) + " differs near byte " +
                               std::to_string(block() - left_));
                return lose(stats_.problem, now);
            }
            at += n;
            left_ -= n;
            stats_.verified_bytes += n;
            if (left_ > 0) continue;
            ++stats_.answers;
            stats_.latency.add(now - asked_.front().began);
            asked_.pop_front();
            if (!asked_.empty()) begin(asked_.front());
        }
    }
    // Number of bytes that differ from the stream.
    std::uint64_t compare(const std::uint8_t* data, std::size_t size)
    {
        std::uint64_t bad = 0;
        for (std::size_t i = 0; i < size;) {
            if (offset_ % 8 == 0) word_ = stream_.next();
            const std::size_t n = std::min<std::size_t>(8 - offset_ % 8, size - i);
            std::uint8_t expected[8];
            std::memcpy(expected, &word_, 8);
            if (std::memcmp(expected + offset_ % 8, data + i, n) != 0)
                for (std::size_t k = 0; k < n; ++k) bad += expected[offset_ % 8 + k] != data[i + k] ? 1 : 0;
            offset_ += n;
            i += n;
        }
        return bad;
    }

    std::vector<std::uint8_t> buffer_;
    std::string request_;
    std::deque<Block> asked_;
    Random stream_;
    Random seeds_{0x646f776e};
    std::uint64_t left_ = 0, offset_ = 0, word_ = 0;
};

}  // namespace

std::unique_ptr<Flow> make_upload(const std::string& guest, const Settings& settings)
{
    return std::make_unique<UploadFlow>(guest, settings);
}
std::unique_ptr<Flow> make_download(const std::string& guest, const Settings& settings)
{
    return std::make_unique<DownloadFlow>(guest, settings);
}

}  // namespace colo::load
