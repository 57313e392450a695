// SPDX-License-Identifier: Apache-2.0
#include "qemu/serial_log.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <thread>

namespace colo::qemu {
namespace {

constexpr std::size_t kRead = 64u << 10;
constexpr int kLastReads = 64;  // at the end: more than a socket can hold
constexpr std::chrono::seconds kFileSystem{1};

}  // namespace

struct SerialLog::Log {
    Log(Fd from_end, std::string path, std::uint64_t limit)
        : from(std::move(from_end)), file(std::move(path)), half(std::max<std::uint64_t>(limit / 2, 1))
    {
    }
    void run();
    Result<void> open_file();
    bool take();
    void store(const char* text, std::size_t size);
    template <class Is>
    bool wait(Is is)
    {
        std::unique_lock lock(mutex);
        return told.wait_for(lock, kFileSystem, is);
    }
    void tell(bool& what)
    {
        const std::lock_guard lock(mutex);
        what = true;
        told.notify_all();
    }

    const Fd from;
    const std::string file;
    const std::uint64_t half;
    Fd wake;
    std::atomic<bool> closing{false};
    std::atomic<bool> abandoned{false};  // not waited for any longer: the file may be another's by now
    std::mutex mutex;
    std::condition_variable told;
    bool begun = false, ended = false;
    Result<void> opened;  // from `begun` on
    // The thread's.
    Fd out;
    std::uint64_t size_now = 0;  // of FILE
};

Result<std::unique_ptr<SerialLog>> SerialLog::start(Fd from, std::string file, std::uint64_t limit)
{
    auto log = std::make_shared<Log>(std::move(from), std::move(file), limit);
    log->wake = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!log->wake) return errno_error("eventfd", errno);
    std::thread([log] { log->run(); }).detach();
    std::unique_ptr<SerialLog> owner(new SerialLog(log));
    if (!log->wait([&] { return log->begun; })) return owner;
    const std::lock_guard lock(log->mutex);
    if (!log->opened) return log->opened.error();
    return owner;
}

SerialLog::~SerialLog()
{
    log_->closing = true;
    const std::uint64_t one = 1;
    if (::write(log_->wake.get(), &one, sizeof one) < 0) { /* full: it is awake */
    }
    if (!log_->wait([this] { return log_->ended; })) log_->abandoned = true;
}

Result<void> SerialLog::Log::open_file()
{
    // Appended: a log that was abandoned on the same file must not leave holes in ours.
    out = Fd(::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640));
    size_now = 0;
    if (out && !abandoned) (void)::ftruncate(out.get(), 0);
    if (!out) return errno_error("open " + file, errno);
    return {};
}

// What the disk does not take is lost: the guest comes first.
void SerialLog::Log::store(const char* text, std::size_t size)
{
    while (size > 0) {
        if (size_now >= half) {
            if (abandoned) return;
            (void)std::rename(file.c_str(), (file + ".1").c_str());
            (void)open_file();
        }
        const std::size_t part = std::min<std::uint64_t>(size, half - size_now);
        const ssize_t n = out ? ::write(out.get(), text, part) : static_cast<ssize_t>(part);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return;
        size_now += static_cast<std::uint64_t>(n);
        text += n;
        size -= static_cast<std::size_t>(n);
    }
}

// False: the other end is gone, or there is nothing to read now.
bool SerialLog::Log::take()
{
    char text[kRead];
    ssize_t n = 0;
    do n = ::recv(from.get(), text, sizeof text, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n <= 0) return false;
    store(text, static_cast<std::size_t>(n));
    return true;
}

void SerialLog::Log::run()
{
    ::pthread_setname_np(::pthread_self(), "serial-log");
    Result<void> result = open_file();
    if (result && !abandoned) (void)std::remove((file + ".1").c_str());
    {
        const std::lock_guard lock(mutex);
        opened = std::move(result);
    }
    tell(begun);
    while (!closing) {
        pollfd p[] = {{from.get(), POLLIN, 0}, {wake.get(), POLLIN, 0}};
        if (::poll(p, 2, -1) < 0 && errno != EINTR) break;
        if (closing) break;
        if (p[0].revents != 0 && !take() && (p[0].revents & (POLLHUP | POLLERR)) != 0) break;
    }
    for (int i = 0; i < kLastReads && take(); ++i) {
    }
    tell(ended);
}

}  // namespace colo::qemu
