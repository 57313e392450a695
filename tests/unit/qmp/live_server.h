// SPDX-License-Identifier: Apache-2.0
#pragma once

// A server on a real socket, with its io_context on a thread of its own.

#include "qmp/client.h"
#include "qmp/server.h"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

#include <gtest/gtest.h>

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <future>
#include <optional>
#include <string>
#include <thread>

namespace colo::qmp::test {

// Generous: on a busy machine a test must still pass.
inline Deadline soon()
{
    return now() + Duration{60'000'000};
}

class TemporaryDirectory {
public:
    TemporaryDirectory()
    {
        std::string pattern = (std::filesystem::temp_directory_path() / "colo-qmp-XXXXXX").string();
        path_ = ::mkdtemp(pattern.data());
    }
    ~TemporaryDirectory()
    {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    TemporaryDirectory(const TemporaryDirectory&) = delete;
    TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
    std::string file(const std::string& name) const { return (std::filesystem::path(path_) / name).string(); }
    const std::string& path() const { return path_; }

private:
    std::string path_;
};

class LiveServer {
public:
    // On the server's thread; waits.
    template <class Function>
    auto run(Function function)
    {
        const auto task = std::make_shared<std::packaged_task<decltype(function())()>>(std::move(function));
        auto result = task->get_future();
        boost::asio::post(io_, [task] { (*task)(); });
        return result.get();
    }

    LiveServer(const Registry& registry, const std::string& path, std::size_t max_clients = 64)
        : LiveServer(registry, [&] {
              ServerOptions options;
              options.path = path;
              options.max_clients = max_clients;
              return options;
          }())
    {
    }
    LiveServer(const Registry& registry, ServerOptions options)
    {
        options.version = {{7, 0, 0}, "test"};
        server_.emplace(io_, registry, std::move(options));
        started_ = server_->start();
        thread_ = std::thread([this] { io_.run(); });
    }
    ~LiveServer()
    {
        run([this] { server_.reset(); });
        work_.reset();
        thread_.join();
    }
    LiveServer(const LiveServer&) = delete;
    LiveServer& operator=(const LiveServer&) = delete;

    const Result<void>& started() const { return started_; }

    template <class Event>
    void emit(const Event& event)
    {
        run([&] { server_->emit(event); });
    }
    std::size_t clients()
    {
        return run([this] { return server_->clients(); });
    }
    // Waits until so many clients are connected.
    bool wait_clients(std::size_t count)
    {
        for (const Deadline deadline = soon(); now() < deadline;
             std::this_thread::sleep_for(std::chrono::milliseconds(2)))
            if (clients() == count) return true;
        return false;
    }
    Server& server() { return *server_; }

private:
    boost::asio::io_context io_;
    boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_{io_.get_executor()};
    std::optional<Server> server_;
    Result<void> started_;
    std::thread thread_;
};

}  // namespace colo::qmp::test
