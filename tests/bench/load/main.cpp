// SPDX-License-Identifier: Apache-2.0
// colo-load: the client of the tests and benchmarks. See usage().

#include "tests/bench/load/output.h"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <sstream>
#include <stdexcept>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include <vector>

namespace colo::load {
namespace {

constexpr int kStdin = -1, kSignals = -2;   // epoll tags; flows have their id > 0
constexpr Microseconds kStopLimit = 20'000'000;
constexpr int kMaxFlowsPerCommand = 4096;

const char kUsage[] =
    "usage: colo-load --guest IP [--progress-ms N] [--add \"KIND [name=value ...]\"]... [--seconds N]\n"
    "Talks to the services of the test guest and verifies every byte. One JSON object a line on standard output.\n"
    "KIND: echo interval_ms bytes | differing interval_ms | connect interval_ms | udp interval_ms bytes |\n"
    "      upload mb_per_s total_mb block_kb window | download mb_per_s total_mb block_kb; count=N opens N\n"
    "Commands on standard input: add KIND ... | mark | report | stop. SIGTERM and the end of input are like stop.\n"
    "A flow never reconnects: a lost connection is counted and reported at once.\n"
    "Exit status: 0 nothing was lost and no byte was wrong, 1 something was, 2 wrong use.\n";

class Client {
public:
    Client(std::string guest, Microseconds progress) : guest_(std::move(guest)), progress_(progress) {}

    bool open()
    {
        sigset_t mask;
        ::sigemptyset(&mask);
        ::sigaddset(&mask, SIGTERM);
        ::sigaddset(&mask, SIGINT);
        ::sigprocmask(SIG_BLOCK, &mask, nullptr);
        signals_ = ::signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
        epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
        return signals_ >= 0 && epoll_ >= 0 && watch(signals_, kSignals);
    }
    // Standard input may be a file or /dev/null (epoll refuses those): then there are no commands.
    void open_commands() { watch(STDIN_FILENO, kStdin); }

    // Throws std::invalid_argument.
    std::vector<int> add(const std::string& text);
    int run(Microseconds limit);

private:
    bool watch(int descriptor, int tag)
    {
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.fd = tag;
        return ::epoll_ctl(epoll_, EPOLL_CTL_ADD, descriptor, &event) == 0;
    }
    void settle(int id, Flow& flow);
    void command(const std::string& line);
    void read_commands();
    void stop();
    int wait_ms(Microseconds now) const;
    bool anything_active() const
    {
        for (const auto& [id, flow] : flows_)
            if (flow->active()) return true;
        return false;
    }

    std::string guest_;
    Microseconds progress_;
    Microseconds began_ = now_us();
    Microseconds next_progress_ = 0;
    Microseconds stop_at_ = 0;     // 0: running
    int signals_ = -1, epoll_ = -1, next_id_ = 1;
    Flows flows_;
    struct Watched { int descriptor; std::uint32_t events; };
    std::map<int, Watched> watched_;
    std::map<int, bool> told_lost_;
    std::string input_;
};

std::vector<int> Client::add(const std::string& text)
{
    std::istringstream words(text);
    std::string kind, word;
    words >> kind;
    Settings settings;
    while (words >> word) {
        const auto equals = word.find('=');
        if (equals == std::string::npos) throw std::invalid_argument("'" + word + "' is not name=value");
        settings[word.substr(0, equals)] = word.substr(equals + 1);
    }
    const int count = static_cast<int>(std::min<double>(number(settings, "count", 1), kMaxFlowsPerCommand));
    std::vector<int> ids;
    for (int i = 0; i < count; ++i) {
        auto flow = make_flow(kind, guest_, settings);
        if (!flow) throw std::invalid_argument("no flow of kind '" + kind + "'");
        flow->start(now_us());
        const int id = next_id_++;
        ids.push_back(id);
        settle(id, *flows_.emplace(id, std::move(flow)).first->second);
    }
    return ids;
}

// Brings epoll in line with what the flow wants; a flow may have changed its socket.
void Client::settle(int id, Flow& flow)
{
    if (flow.stats().state == FlowState::lost && !told_lost_[id]) {
        told_lost_[id] = true;
        emit(lost_line(id, flow));
    }
    const int descriptor = flow.active() ? flow.descriptor() : -1;
    const std::uint32_t events = descriptor >= 0 ? flow.wanted() : 0;
    auto known = watched_.find(id);
    // A closed socket left epoll by itself; a new one may have the same number, so it is added again whenever it must.
    if (descriptor < 0) {
        if (known != watched_.end()) watched_.erase(known);
        return;
    }
    epoll_event event{};
    event.events = events;
    event.data.fd = id;
    const bool fresh = known == watched_.end() || known->second.descriptor != descriptor;
    if (!fresh && known->second.events == events) return;
    if (fresh || ::epoll_ctl(epoll_, EPOLL_CTL_MOD, descriptor, &event) != 0)
        ::epoll_ctl(epoll_, EPOLL_CTL_ADD, descriptor, &event);
    watched_[id] = {descriptor, events};
}

void Client::command(const std::string& line)
{
    if (line.empty()) return;
    if (line == "stop") return stop();
    if (line == "report") return emit(report_line("reply", flows_, began_, true));
    if (line == "mark") {
        for (const auto& [id, flow] : flows_) flow->mark();
        char buffer[80];
        std::snprintf(buffer, sizeof buffer, "{\"type\": \"reply\", \"now_s\": %.6f}", static_cast<double>(now_us()) / 1e6);
        return emit(buffer);
    }
    if (line.rfind("add ", 0) == 0) {
        try {
            std::string ids;
            for (const int id : add(line.substr(4))) ids += (ids.empty() ? "" : ", ") + std::to_string(id);
            return emit("{\"type\": \"reply\", \"ids\": [" + ids + "]}");
        } catch (const std::invalid_argument& problem) {
            return emit("{\"type\": \"reply\", \"error\": " + json_string(problem.what()) + "}");
        }
    }
    emit("{\"type\": \"reply\", \"error\": " + json_string("unknown command '" + line + "'") + "}");
}

void Client::read_commands()
{
    char buffer[4096];
    const ssize_t got = ::read(STDIN_FILENO, buffer, sizeof buffer);
    if (got <= 0) {
        ::epoll_ctl(epoll_, EPOLL_CTL_DEL, STDIN_FILENO, nullptr);
        return stop();
    }
    input_.append(buffer, static_cast<std::size_t>(got));
    for (auto end = input_.find('\n'); end != std::string::npos; end = input_.find('\n')) {
        const std::string line = input_.substr(0, end);
        input_.erase(0, end + 1);
        command(line);
    }
    if (input_.size() > 65536) input_.clear();
}

void Client::stop()
{
    if (stop_at_ != 0) return;
    stop_at_ = now_us();
    for (const auto& [id, flow] : flows_)
        if (flow->active()) flow->stop(stop_at_);
}

int Client::wait_ms(Microseconds now) const
{
    Microseconds until = now + 200'000;
    if (next_progress_ != 0 && next_progress_ < until) until = next_progress_;
    for (const auto& [id, flow] : flows_)
        if (flow->active())
            if (const Microseconds due = flow->deadline(); due != 0 && due < until) until = due;
    return until <= now ? 0 : static_cast<int>((until - now + 999) / 1000);
}

int Client::run(Microseconds limit)
{
    next_progress_ = progress_ > 0 ? now_us() + progress_ : 0;
    for (;;) {
        std::array<epoll_event, 64> events{};
        const int ready = ::epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), wait_ms(now_us()));
        if (ready < 0 && errno != EINTR) return 2;
        const Microseconds now = now_us();
        for (int i = 0; i < ready; ++i) {
            const int tag = events[static_cast<std::size_t>(i)].data.fd;
            if (tag == kSignals) stop();
            if (tag == kStdin) read_commands();
            if (const auto found = flows_.find(tag); found != flows_.end() && found->second->active()) {
                found->second->on_ready(events[static_cast<std::size_t>(i)].events, now);
                settle(tag, *found->second);
            }
        }
        for (const auto& [id, flow] : flows_) {
            if (const Microseconds due = flow->deadline(); flow->active() && due != 0 && due <= now) flow->on_time(now);
            settle(id, *flow);
        }
        if (next_progress_ != 0 && now >= next_progress_) {
            next_progress_ = now + progress_;
            emit(report_line("progress", flows_, began_, false));
        }
        if (limit > 0 && now - began_ > limit) stop();
        if (stop_at_ != 0 && (!anything_active() || now - stop_at_ > kStopLimit)) break;
    }
    emit(report_line("summary", flows_, began_, true));
    for (const auto& [id, flow] : flows_)
        if (flow->stats().state != FlowState::finished || flow->stats().wrong_bytes > 0) return 1;
    return 0;
}

int main_with(const std::vector<std::string>& arguments)
{
    std::string guest;
    std::vector<std::string> adds;
    Microseconds progress = 1'000'000, limit = 0;
    for (std::size_t i = 0; i < arguments.size(); ++i) {
        if (arguments[i] == "--help") {
            std::fputs(kUsage, stdout);
            return 0;
        }
        if (i + 1 == arguments.size()) throw std::invalid_argument("'" + arguments[i] + "': unknown, or its value is missing");
        const std::string& value = arguments[++i];
        const Settings one = {{arguments[i - 1], value}};
        if (arguments[i - 1] == "--guest") guest = value;
        else if (arguments[i - 1] == "--add") adds.push_back(value);
        else if (arguments[i - 1] == "--progress-ms") progress = static_cast<Microseconds>(number(one, "--progress-ms", 0) * 1e3);
        else if (arguments[i - 1] == "--seconds") limit = static_cast<Microseconds>(number(one, "--seconds", 0) * 1e6);
        else throw std::invalid_argument("unknown option '" + arguments[i - 1] + "'");
    }
    if (guest.empty()) throw std::invalid_argument("--guest is missing");
    Client client(guest, progress);
    if (!client.open()) throw std::invalid_argument(std::string("cannot start: ") + std::strerror(errno));
    client.open_commands();
    for (const auto& text : adds) client.add(text);
    return client.run(limit);
}

}  // namespace
}  // namespace colo::load

int main(int argc, char** argv)
{
    try {
        return colo::load::main_with({argv + 1, argv + argc});
    } catch (const std::invalid_argument& problem) {
        std::fprintf(stderr, "colo-load: %s\n%s", problem.what(), colo::load::kUsage);
        return 2;
    }
}
