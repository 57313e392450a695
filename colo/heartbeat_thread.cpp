// SPDX-License-Identifier: Apache-2.0
#include "colo/heartbeat_thread.h"

#include "colo/heartbeat_socket.h"
#include "core/clock.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>

extern "C" {
extern const char __executable_start;  // from the linker: begin and end of our code
extern const char etext;
}

namespace colo {
namespace {

// Whoever of low priority holds it runs with the heartbeat thread's priority until it lets go.
class InheritingMutex {
public:
    InheritingMutex()
    {
        pthread_mutexattr_t attributes;
        pthread_mutexattr_init(&attributes);
        pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
        pthread_mutex_init(&mutex_, &attributes);
        pthread_mutexattr_destroy(&attributes);
    }
    ~InheritingMutex() { pthread_mutex_destroy(&mutex_); }
    InheritingMutex(const InheritingMutex&) = delete;
    InheritingMutex& operator=(const InheritingMutex&) = delete;
    void lock() { pthread_mutex_lock(&mutex_); }
    void unlock() { pthread_mutex_unlock(&mutex_); }

private:
    pthread_mutex_t mutex_;
};

// The thread's stack, locked: a page fault under memory pressure would delay beats.
class LockedStack {
public:
    static constexpr std::size_t kSize = 2u << 20;  // thread-local storage comes out of it, and sanitizers have much
    ~LockedStack()
    {
        if (memory_ != MAP_FAILED) munmap(memory_, kSize);
    }
    Result<void> allocate()
    {
        memory_ = mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
        if (memory_ == MAP_FAILED) return errno_error("stack of the heartbeat thread", errno);
        locked_ = mlock(memory_, kSize) == 0;
        return {};
    }
    void* memory() const { return memory_; }
    bool locked() const { return locked_; }

private:
    void* memory_ = MAP_FAILED;
    bool locked_ = false;
};

constexpr int kRealtimePriority = 10;
constexpr std::size_t kDatagramsPerRound = 4096;  // of one path; what a long freeze can have queued up is less

}  // namespace

struct HeartbeatThread::Loop {
    Loop(HeartbeatThread& owner_in, HeartbeatSetup setup_in, const replication::DomainId& domain)
        : owner(owner_in), setup(std::move(setup_in)), core(setup.times, setup.paths.size(), domain)
    {
    }
    Result<void> open();
    Result<void> launch();
    void stop();
    void run();
    void wake() const;
    // `always`: a new session begins without a lease, whatever the receiver believed before.
    void publish(bool always)
    {
        const Time until = core.lease_until();
        const bool changed = owner.lease_until_us_.exchange(until.us, std::memory_order_acq_rel) != until.us;
        if ((changed || always) && setup.lease) setup.lease(until);
    }
    void drain(std::size_t path);
    void round(bool timer_expired);
    int create(bool realtime_thread);

    HeartbeatThread& owner;
    HeartbeatSetup setup;
    mutable InheritingMutex mutex;  // guards core and sending
    HeartbeatCore core;
    std::vector<HeartbeatSocket> sockets;
    Fd timer, wakeup;
    std::atomic<bool> stopping{false};
    LockedStack stack;
    pthread_t thread{};
    bool running = false;
};

Result<void> HeartbeatThread::Loop::open()
{
    for (const HeartbeatEndpoints& path : setup.paths) {
        auto socket = HeartbeatSocket::open(path.local, path.peer);
        if (!socket) return socket.error();
        sockets.push_back(std::move(*socket));
    }
    wakeup = Fd(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    if (!wakeup.valid()) return errno_error("eventfd", errno);
    timer = Fd(timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC));
    if (!timer.valid()) return errno_error("timerfd_create", errno);
    const std::int64_t us = setup.times.interval.count();
    itimerspec every{};
    every.it_interval.tv_sec = us / 1'000'000;
    every.it_interval.tv_nsec = us % 1'000'000 * 1000;
    every.it_value = every.it_interval;
    if (timerfd_settime(timer.get(), 0, &every, nullptr) != 0) return errno_error("timerfd_settime", errno);
    return {};
}

Result<void> HeartbeatThread::Loop::launch()
{
    if (auto allocated = stack.allocate(); !allocated) return allocated;
    const auto code = static_cast<std::size_t>(&etext - &__executable_start);
    const bool locked = stack.locked() && mlock(&__executable_start, code) == 0 && mlock(this, sizeof *this) == 0;
    if (!locked)
        spdlog::warn(
            "heartbeat: memory is not locked ({}); under memory pressure beats may be late. Raise LimitMEMLOCK",
            std::strerror(errno));
    // Signals are for the control thread.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int status = create(setup.realtime);
    if (setup.realtime && status != 0) {
        spdlog::warn(
            "heartbeat: no real-time priority ({}); a busy machine may look dead. Give CAP_SYS_NICE or LimitRTPRIO={}",
            std::strerror(status), kRealtimePriority);
        status = create(false);
    } else {
        owner.realtime_.store(setup.realtime, std::memory_order_relaxed);
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (status != 0) return errno_error("heartbeat thread", status);
    running = true;
    return {};
}

int HeartbeatThread::Loop::create(bool realtime_thread)
{
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, stack.memory(), LockedStack::kSize);
    if (realtime_thread) {
        sched_param parameters{};
        parameters.sched_priority = kRealtimePriority;
        pthread_attr_setinheritsched(&attributes, PTHREAD_EXPLICIT_SCHED);
        pthread_attr_setschedpolicy(&attributes, SCHED_FIFO);
        pthread_attr_setschedparam(&attributes, &parameters);
    }
    const int status = pthread_create(
        &thread, &attributes,
        [](void* self) -> void* {
            static_cast<Loop*>(self)->run();
            return nullptr;
        },
        this);
    pthread_attr_destroy(&attributes);
    return status;
}

void HeartbeatThread::Loop::stop()
{
    if (!running) return;
    stopping.store(true);
    wake();
    pthread_join(thread, nullptr);
    running = false;
}

void HeartbeatThread::Loop::wake() const
{
    const std::uint64_t one = 1;
    static_cast<void>(!write(wakeup.get(), &one, sizeof one));  // full means that it is awake anyway
}

void HeartbeatThread::Loop::run()
{
    pthread_setname_np(pthread_self(), "heartbeat");
    std::array<pollfd, kMaxHeartbeatPaths + 2> waiting{};
    waiting[0] = {timer.get(), POLLIN, 0};
    waiting[1] = {wakeup.get(), POLLIN, 0};
    for (std::size_t i = 0; i < sockets.size(); ++i) waiting[i + 2] = {sockets[i].fd(), POLLIN, 0};
    const nfds_t count = sockets.size() + 2;
    while (!stopping.load()) {
        if (poll(waiting.data(), count, 1000) < 0 && errno != EINTR) {
            spdlog::error("heartbeat: poll: {}; the peer will take this side for lost", std::strerror(errno));
            return;
        }
        std::uint64_t expirations = 0, wakeups = 0;
        const bool expired = read(timer.get(), &expirations, sizeof expirations) > 0;
        const bool woken = read(wakeup.get(), &wakeups, sizeof wakeups) > 0;
        round(expired || woken);
    }
}

void HeartbeatThread::Loop::round(bool timer_expired)
{
    std::optional<PeerLost> lost;
    std::optional<Generation> higher, conflict;
    {
        const std::lock_guard lock(mutex);
        ProgressValues progress;
        for (std::size_t i = 0; i < progress.size(); ++i)
            progress[i] = owner.progress_[i].load(std::memory_order_relaxed);
        core.set_progress(progress);
        core.set_epoch(owner.epoch_.load(std::memory_order_relaxed));
        for (std::size_t path = 0; path < sockets.size(); ++path) drain(path);
        if (timer_expired)
            if (const auto beat = core.on_timer(now())) {
                const replication::BeatBytes bytes = replication::encode(*beat);
                for (HeartbeatSocket& socket : sockets) socket.send(bytes);
            }
        publish(false);
        lost = core.take_peer_lost();
        higher = core.take_higher_generation();
        conflict = core.take_conflict();
    }
    // Overtaken comes first: freezing beats everything that a lost peer asks for.
    if (higher && setup.higher_generation) setup.higher_generation(*higher);
    if (conflict && setup.conflict) setup.conflict(*conflict);
    if (lost && setup.peer_lost) setup.peer_lost(*lost);
}

void HeartbeatThread::Loop::drain(std::size_t path)
{
    std::array<std::uint8_t, replication::kBeatSize> buffer;
    for (std::size_t i = 0; i < kDatagramsPerRound; ++i) {
        std::size_t size = 0;
        const auto received = sockets[path].receive(buffer, size);
        if (received == HeartbeatSocket::Received::nothing) return;
        if (received == HeartbeatSocket::Received::foreign || size != buffer.size()) {
            core.on_malformed(path);
            continue;
        }
        const auto beat = replication::decode_beat(buffer);
        if (!beat) {
            core.on_malformed(path);
            continue;
        }
        if (const auto answer = core.on_beat(path, *beat, now())) sockets[path].send(replication::encode(*answer));
    }
}

HeartbeatThread::HeartbeatThread() = default;

Result<std::unique_ptr<HeartbeatThread>> HeartbeatThread::start(HeartbeatSetup setup)
{
    if (setup.paths.empty() || setup.paths.size() > kMaxHeartbeatPaths)
        return make_error(Errc::invalid, "heartbeat: 1 to " + std::to_string(kMaxHeartbeatPaths) + " paths are needed");
    if (setup.times.interval.count() < 1000 || setup.times.lease >= setup.times.loss)
        return make_error(Errc::invalid, "heartbeat: interval of at least 1 ms and lease < loss are needed");
    const auto domain = replication::parse_domain_id(setup.domain_uuid);
    if (!domain) return domain.error();
    std::unique_ptr<HeartbeatThread> self(new HeartbeatThread());
    self->loop_ = std::make_unique<Loop>(*self, std::move(setup), *domain);
    if (auto opened = self->loop_->open(); !opened) return opened.error();
    if (auto launched = self->loop_->launch(); !launched) return launched.error();
    return self;
}

HeartbeatThread::~HeartbeatThread()
{
    if (loop_) loop_->stop();
}

void HeartbeatThread::become(const HeartbeatIdentity& identity)
{
    {
        const std::lock_guard lock(loop_->mutex);
        loop_->core.become(identity, now());
        loop_->publish(true);
    }
    loop_->wake();
}

Time HeartbeatThread::close_session()
{
    Time last_answer;
    {
        const std::lock_guard lock(loop_->mutex);
        last_answer = loop_->core.close_session(now());
        loop_->publish(true);
    }
    loop_->wake();
    return last_answer;
}

Time HeartbeatThread::grant_not_before() const
{
    const std::lock_guard lock(loop_->mutex);
    return loop_->core.grant_not_before();
}

HeartbeatStatus HeartbeatThread::status() const
{
    const std::lock_guard lock(loop_->mutex);
    return loop_->core.status();
}

}  // namespace colo
