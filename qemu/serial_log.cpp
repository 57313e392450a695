// SPDX-License-Identifier: Apache-2.0
#include "qemu/serial_log.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <cstdio>

namespace colo::qemu {
namespace {

constexpr std::size_t kRead = 64u << 10;
constexpr int kLastReads = 64;  // at the end: more than a socket can hold

}  // namespace

Result<std::unique_ptr<SerialLog>> SerialLog::start(Fd from, std::string file, std::uint64_t limit)
{
    std::unique_ptr<SerialLog> log(new SerialLog(std::move(from), std::move(file), limit));
    log->wake_ = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!log->wake_) return errno_error("eventfd", errno);
    log->open_file();
    if (!log->out_) return errno_error("open " + log->file_, errno);
    (void)std::remove((log->file_ + ".1").c_str());
    log->thread_ = std::thread([self = log.get()] { self->run(); });
    return log;
}

SerialLog::SerialLog(Fd from, std::string file, std::uint64_t limit)
    : from_(std::move(from)), file_(std::move(file)), half_(std::max<std::uint64_t>(limit / 2, 1))
{
}

SerialLog::~SerialLog()
{
    closing_ = true;
    const std::uint64_t one = 1;
    if (wake_ && ::write(wake_.get(), &one, sizeof one) < 0) { /* full: it is awake */
    }
    if (thread_.joinable()) thread_.join();
}

void SerialLog::open_file()
{
    out_ = Fd(::open(file_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640));
    size_ = 0;
}

// What the disk does not take is lost: the guest comes first.
void SerialLog::store(const char* text, std::size_t size)
{
    while (size > 0) {
        if (size_ >= half_) {
            (void)std::rename(file_.c_str(), (file_ + ".1").c_str());
            open_file();
        }
        const std::size_t part = std::min<std::uint64_t>(size, half_ - size_);
        const ssize_t n = out_ ? ::write(out_.get(), text, part) : static_cast<ssize_t>(part);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return;
        size_ += static_cast<std::uint64_t>(n);
        text += n;
        size -= static_cast<std::size_t>(n);
    }
}

// False: the other end is gone, or there is nothing to read now.
bool SerialLog::take()
{
    char text[kRead];
    ssize_t n = 0;
    do n = ::recv(from_.get(), text, sizeof text, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n <= 0) return false;
    store(text, static_cast<std::size_t>(n));
    return true;
}

void SerialLog::run()
{
    ::pthread_setname_np(::pthread_self(), "serial-log");
    while (!closing_) {
        pollfd p[] = {{from_.get(), POLLIN, 0}, {wake_.get(), POLLIN, 0}};
        if (::poll(p, 2, -1) < 0 && errno != EINTR) return;
        if (closing_) break;
        if (p[0].revents != 0 && !take() && (p[0].revents & (POLLHUP | POLLERR)) != 0) return;
    }
    for (int i = 0; i < kLastReads && take(); ++i) {
    }
}

}  // namespace colo::qemu
