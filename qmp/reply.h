// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "qmp/error.h"
#include "qmp/fd_store.h"
#include "schema/value.h"

#include <memory>
#include <optional>

namespace colo::qmp {

// Where answers go; implemented by the session.
class ReplyTarget {
public:
    virtual ~ReplyTarget() = default;
    virtual void deliver(schema::Object message, bool in_band) = 0;
};

// Who asked, and the descriptors that came with the request.
struct Origin {
    MonitorId monitor = 0;
    WaitingFds fds;
};

// The one answer of one request. Movable; may be completed later, on the thread of the session. Exactly one of succeed
// and fail takes effect; a Reply that is destroyed without either answers with an error, so that no client ever waits
// for nothing. If the client has gone the answer is dropped.
class Reply {
public:
    Reply(std::weak_ptr<ReplyTarget> target, std::optional<schema::Value> id, bool in_band, Origin origin = {});
    Reply(Reply&& other) noexcept;
    Reply& operator=(Reply&& other) = delete;
    Reply(const Reply&) = delete;
    Reply& operator=(const Reply&) = delete;
    ~Reply();

    MonitorId monitor() const { return origin_.monitor; }
    // The first descriptor that came with the request, once; further ones are closed. Empty: none came.
    Fd take_fd();

    void succeed(schema::Value result = schema::Object());
    void fail(QmpError error);

private:
    void deliver(std::string_view member, schema::Value value);

    std::weak_ptr<ReplyTarget> target_;
    std::optional<schema::Value> id_;
    bool in_band_;
    Origin origin_;
    bool open_ = true;
};

}  // namespace colo::qmp
