// SPDX-License-Identifier: Apache-2.0
#pragma once

// How the connections of a session come into being. The primary dials: control, page channels in order, proxy last. Every
// connection starts with one ChannelHello frame; the numbering of frames starts anew behind it. The secondary's listener
// collects the connections that name the same session and hands them over when the proxy channel has come.

#include "colo/channel.h"
#include "core/error.h"
#include "core/types.h"

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace colo {

struct SessionChannels {
    SessionId session = 0;
    std::string peer;
    Fd control, proxy;
    std::vector<Fd> pages;
};

// Sockets of a session whose peer may leave a channel unread for `busy`, because it works on an epoch. Whether it lives the
// heartbeat knows earlier, and better than TCP.
SocketOptions session_sockets(Duration busy);

// Blocking, for a worker thread.
Result<SessionChannels> dial_session(const std::string& uri, SessionId session, std::uint8_t page_channels, Deadline deadline,
                                     const SocketOptions& sockets = {});

class SessionListener {
public:
    // `arrived` is called from the listener's thread. `uri` may have port 0: see uri().
    static Result<std::unique_ptr<SessionListener>> open(const std::string& uri, std::function<void(SessionChannels)> arrived,
                                                         const SocketOptions& sockets = {});
    ~SessionListener();
    const std::string& uri() const { return listener_.uri(); }

private:
    SessionListener(Listener listener, std::function<void(SessionChannels)> arrived);
    void run();
    void take(Fd fd, const std::string& peer);

    Listener listener_;
    std::function<void(SessionChannels)> arrived_;
    std::map<SessionId, SessionChannels> pending_;   // bounded: kPendingMax
    std::atomic<bool> stopping_{false};
    std::thread thread_;
};

}  // namespace colo
