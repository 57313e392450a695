// SPDX-License-Identifier: Apache-2.0
#include "core/log.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <atomic>
#include <memory>
#include <mutex>

namespace colo::log {
namespace {

std::atomic<const char*> g_role{"none"};
std::atomic<std::uint64_t> g_epoch{0};
std::mutex g_peer_mutex;
std::string g_peer = "-";
std::string g_domain = "-";

class FieldsFlag final : public spdlog::custom_flag_formatter {
public:
    void format(const spdlog::details::log_msg&, const std::tm&, spdlog::memory_buf_t& out) override
    {
        std::string peer;
        {
            const std::lock_guard lock(g_peer_mutex);
            peer = g_peer;
        }
        fmt::format_to(std::back_inserter(out), "domain={} role={} epoch={} peer={}", g_domain,
                       g_role.load(std::memory_order_relaxed), g_epoch.load(std::memory_order_relaxed), peer);
    }
    std::unique_ptr<custom_flag_formatter> clone() const override { return std::make_unique<FieldsFlag>(); }
};

}  // namespace

Result<void> init(const Options& options)
{
    std::shared_ptr<spdlog::sinks::sink> sink;
    try {
        if (options.file.empty())
            sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
        else
            sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(options.file);
    } catch (const spdlog::spdlog_ex& error) {
        return make_error(Errc::failed, std::string("log.file: ") + error.what());
    }
    g_domain = options.domain.empty() ? "-" : options.domain;
    auto formatter = std::make_unique<spdlog::pattern_formatter>();
    formatter->add_flag<FieldsFlag>('*').set_pattern("%Y-%m-%dT%H:%M:%S.%e %l %v | %*");
    auto logger = std::make_shared<spdlog::logger>("colod", sink);
    logger->set_formatter(std::move(formatter));
    logger->set_level(spdlog::level::from_str(options.level));
    logger->flush_on(spdlog::level::debug);
    spdlog::set_default_logger(logger);
    return {};
}

void set_role(const char* static_string) { g_role.store(static_string, std::memory_order_relaxed); }
void set_epoch(std::uint64_t epoch) { g_epoch.store(epoch, std::memory_order_relaxed); }
void set_peer(const std::string& peer)
{
    const std::lock_guard lock(g_peer_mutex);
    g_peer = peer.empty() ? "-" : peer;
}

}  // namespace colo::log
