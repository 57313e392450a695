// SPDX-License-Identifier: Apache-2.0
#pragma once

// The control channel of one session: a reading and a writing thread around one socket.

#include "core/error.h"
#include "core/types.h"
#include "replication/message.h"

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace colo {

class ControlLink {
public:
    struct Callbacks {   // from the link's threads, must only post
        std::function<void(replication::Message)> message;
        std::function<void(const Error&)> lost;        // closed or broken; once
        std::function<void(const Error&)> rubbish;     // CRC, structure, wrong session; once
    };
    ControlLink(int socket, SessionId session, Callbacks callbacks);
    ~ControlLink();

    // Any thread; never blocks. Errc::limit if the peer does not read.
    Result<void> send(replication::Message message);
    // Waits until what was queued has been written, at most until the deadline; then nothing more is sent or received.
    void shut_down(Deadline flush_until);

private:
    void read();
    void write();
    Result<void> read_frames();

    int socket_;
    SessionId session_;
    Callbacks callbacks_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<replication::Message> queue_;
    bool stopping_ = false, writing_ = false;
    std::thread reader_, writer_;
};

}  // namespace colo
