// SPDX-License-Identifier: Apache-2.0
#include "colo/client_reach.h"

#include "core/clock.h"

#include <poll.h>

#include <map>

namespace colo {
namespace {

// Younger than the shortest silence that counts as a loss: what was heard while the peer already was silent.
constexpr Duration kFresh{30'000};
constexpr Duration kLook{1'000};        // at last_heard, between answers
constexpr Duration kAskAgain{20'000};

class Probes {
public:
    explicit Probes(const ReachQuestion& question) : clients_(question.clients)
    {
        for (const proxy::Client& client : clients_) {
            if (client.nic >= question.interfaces.size()) continue;
            const std::string& interface = question.interfaces[client.nic];
            if (interface.empty() || probes_.contains(interface)) continue;
            if (auto probe = proxy::ArpProbe::open(interface)) probes_.emplace(interface, std::move(*probe));
        }
        for (auto& [interface, probe] : probes_) fds_.push_back({probe.fd(), POLLIN, 0});
        interfaces_ = question.interfaces;
    }
    bool empty() const { return probes_.empty(); }
    // What cannot be sent is not answered either.
    void ask()
    {
        for (const proxy::Client& client : clients_) {
            if (client.nic >= interfaces_.size()) continue;
            const auto at = probes_.find(interfaces_[client.nic]);
            if (at != probes_.end()) (void)at->second.ask(client);
        }
    }
    bool answered(Duration wait)
    {
        const std::int64_t us = wait.count();
        const timespec timeout{us / 1'000'000, us % 1'000'000 * 1000};
        (void)::ppoll(fds_.data(), fds_.size(), &timeout, nullptr);
        bool found = false;
        for (auto& [interface, probe] : probes_) found = probe.answered(clients_) || found;
        return found;
    }

private:
    std::vector<proxy::Client> clients_;
    std::vector<std::string> interfaces_;
    std::map<std::string, proxy::ArpProbe> probes_;
    std::vector<pollfd> fds_;
};

std::string ms(Duration d)
{
    return std::to_string(d.count() / 1000) + "." + std::to_string(d.count() / 100 % 10) + " ms";
}

}  // namespace

Duration unreached_wait(Role role, Duration unreached_delay, Duration fence_delay)
{
    if (role != Role::primary) return unreached_delay / 10;
    return unreached_delay == Duration{0} ? unreached_delay : unreached_delay + fence_delay;
}

ReachAnswer seek_clients(const ReachQuestion& question)
{
    const Duration limit = question.limit;
    if (limit == Duration{0}) return {};
    const Time begun = now();
    if (question.last_heard() >= begun - kFresh) return {true, Duration{0}, "clients are heard"};
    Probes probes(question);
    if (probes.empty() && question.role == Role::primary) return {};
    Time again = begun;
    for (Time at = begun; at < begun + limit && question.wanted(); at = now()) {
        if (at >= again) {
            probes.ask();
            again = at + kAskAgain;
        }
        const bool answered = probes.answered(kLook);
        if (answered || question.last_heard() >= begun) {
            const Duration took = now() - begun;
            return {true, took, std::string(answered ? "a client answers" : "a client is heard") + " after " + ms(took)};
        }
    }
    return {false, now() - begun,
            "no client is heard within " + ms(limit) + " (" + std::to_string(question.clients.size()) +
                " known): the other side could go first"};
}

}  // namespace colo
