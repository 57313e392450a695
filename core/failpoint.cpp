// SPDX-License-Identifier: Apache-2.0
#include "core/failpoint.h"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <csignal>
#include <iterator>
#include <mutex>
#include <string>
#include <unistd.h>

namespace colo::failpoint {
namespace {

struct Armed {
    std::string point;
    std::string action;
    int countdown = 1;
};

std::atomic<bool> g_any{false};
std::mutex g_mutex;
Armed g_armed;

// True once, when the armed point is passed for the n-th time.
bool take(std::string_view point, std::string& action)
{
    const std::lock_guard lock(g_mutex);
    if (g_armed.point != point || --g_armed.countdown > 0) return false;
    action = g_armed.action;
    g_armed = {};
    g_any.store(false, std::memory_order_relaxed);
    return true;
}

Result<void> perform(std::string_view point, const std::string& action, int device_model_pid)
{
    if (action == "kill") ::kill(::getpid(), SIGKILL);
    if (action == "stop") ::kill(::getpid(), SIGSTOP);
    if (action == "device-model-kill" && device_model_pid > 0) ::kill(device_model_pid, SIGKILL);
    if (action == "hang")
        for (;;) ::pause();
    if (action.starts_with("delay:")) ::usleep(static_cast<useconds_t>(std::stoul(action.substr(6)) * 1000));
    if (action == "error") return make_error(Errc::failed, "injected fault at " + std::string(point));
    return {};
}

}  // namespace

Result<void> arm(std::string_view spec)
{
    const auto equals = spec.find('=');
    if (equals == std::string_view::npos) return make_error(Errc::invalid, "fault '" + std::string(spec) + "': expected point=action");
    std::string_view point = spec.substr(0, equals);
    const std::string action(spec.substr(equals + 1));
    int countdown = 1;
    if (const auto hash = point.find('#'); hash != std::string_view::npos) {
        const auto digits = point.substr(hash + 1);
        const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), countdown);
        if (error != std::errc{} || end != digits.data() + digits.size() || countdown < 1)
            return make_error(Errc::invalid, "fault '" + std::string(spec) + "': the count after # must be 1 or more");
        point = point.substr(0, hash);
    }
    if (std::find(std::begin(kPoints), std::end(kPoints), point) == std::end(kPoints))
        return make_error(Errc::invalid, "fault point '" + std::string(point) + "' does not exist");
    static constexpr std::string_view kActions[] = {"kill", "stop", "hang", "error", "device-model-kill"};
    const bool delay = action.starts_with("delay:") && action.size() > 6 && action.size() < 13 &&
                       action.find_first_not_of("0123456789", 6) == std::string::npos;
    if (!delay && std::find(std::begin(kActions), std::end(kActions), action) == std::end(kActions))
        return make_error(Errc::invalid, "fault action '" + action + "' does not exist");
    const std::lock_guard lock(g_mutex);
    g_armed = {std::string(point), action, countdown};
    g_any.store(true, std::memory_order_relaxed);
    return {};
}

Result<void> pass(std::string_view point, int device_model_pid)
{
    if (!g_any.load(std::memory_order_relaxed)) return {};
    std::string action;
    if (!take(point, action)) return {};
    return perform(point, action, device_model_pid);
}

}  // namespace colo::failpoint
