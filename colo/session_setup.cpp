// SPDX-License-Identifier: Apache-2.0
#include "colo/session_setup.h"

#include "core/clock.h"
#include "replication/wire.h"

#include <pthread.h>
#include <spdlog/spdlog.h>

#include <array>

namespace colo {
namespace {

using replication::ChannelKind;

constexpr std::size_t kPendingMax = 4;          // half-made sessions; the oldest number goes first
constexpr Duration kHelloWait{1'000'000};       // a stranger may keep the listener busy this long
constexpr Duration kAcceptWait{200'000};

Result<Fd> dial(const std::string& uri, SessionId session, ChannelKind kind, std::uint8_t index, Deadline deadline, const SocketOptions& sockets)
{
    auto fd = connect_session(uri, deadline, sockets);
    if (!fd) return fd.error();
    replication::FrameWriter writer(kind, session);
    Bytes hello;
    writer.append_channel_hello(hello, index);
    if (auto r = send_all(fd->get(), ByteView(hello), deadline); !r) return r.error();
    return std::move(*fd);
}

// Reads exactly the one frame: what follows belongs to the channel's owner.
Result<replication::ChannelHello> read_channel_hello(int fd, Deadline deadline)
{
    replication::FrameDecoder decoder;
    while (true) {
        auto frame = decoder.next();
        if (!frame) return frame.error();
        if (*frame) return replication::decode_channel_hello(**frame);
        std::array<std::uint8_t, 1> byte{};
        if (auto r = recv_all(fd, byte, deadline); !r) return r.error();
        decoder.push(byte);
    }
}

}  // namespace

SocketOptions session_sockets(Duration busy)
{
    SocketOptions out;
    out.user_timeout += busy;
    return out;
}

Result<SessionChannels> dial_session(const std::string& uri, SessionId session, std::uint8_t page_channels, Deadline deadline,
                                     const SocketOptions& sockets)
{
    SessionChannels channels;
    channels.session = session;
    channels.peer = uri;
    auto control = dial(uri, session, ChannelKind::control, 0, deadline, sockets);
    if (!control) return control.error();
    channels.control = std::move(*control);
    for (std::uint8_t i = 0; i < page_channels; ++i) {
        auto page = dial(uri, session, ChannelKind::page, i, deadline, sockets);
        if (!page) return page.error();
        channels.pages.push_back(std::move(*page));
    }
    auto proxy = dial(uri, session, ChannelKind::proxy, 0, deadline, sockets);
    if (!proxy) return proxy.error();
    channels.proxy = std::move(*proxy);
    return channels;
}

Result<std::unique_ptr<SessionListener>> SessionListener::open(const std::string& uri, std::function<void(SessionChannels)> arrived,
                                                               const SocketOptions& sockets)
{
    auto listener = Listener::open(uri, sockets);
    if (!listener) return listener.error();
    return std::unique_ptr<SessionListener>(new SessionListener(std::move(*listener), std::move(arrived)));
}

SessionListener::SessionListener(Listener listener, std::function<void(SessionChannels)> arrived)
    : listener_(std::move(listener)), arrived_(std::move(arrived)), thread_([this] { run(); })
{
}

SessionListener::~SessionListener()
{
    stopping_ = true;
    thread_.join();
}

void SessionListener::run()
{
    pthread_setname_np(pthread_self(), "session-listen");
    while (!stopping_) {
        std::string peer;
        auto fd = listener_.accept(now() + kAcceptWait, &peer);
        if (fd)
            take(std::move(*fd), peer);
        else if (fd.error().code != Errc::timed_out)
            std::this_thread::sleep_for(kAcceptWait);   // out of descriptors and the like
    }
}

void SessionListener::take(Fd fd, const std::string& peer)
{
    const auto hello = read_channel_hello(fd.get(), now() + kHelloWait);
    if (!hello) return spdlog::warn("connection from {} dropped: {}", peer, hello.error().text);
    if (hello->kind == ChannelKind::control) {
        while (pending_.size() >= kPendingMax) pending_.erase(pending_.begin());
        SessionChannels& fresh = pending_[hello->session];
        fresh = {};
        fresh.session = hello->session;
        fresh.peer = peer;
        fresh.control = std::move(fd);
        return;
    }
    const auto found = pending_.find(hello->session);
    if (found == pending_.end()) return spdlog::warn("connection from {} names a session that it did not open", peer);
    SessionChannels& channels = found->second;
    if (hello->kind == ChannelKind::page) {
        if (hello->index == channels.pages.size()) channels.pages.push_back(std::move(fd));
        return;
    }
    channels.proxy = std::move(fd);
    SessionChannels done = std::move(channels);
    pending_.erase(found);
    arrived_(std::move(done));
}

}  // namespace colo
