// SPDX-License-Identifier: Apache-2.0
#pragma once

// The page channels of the secondary: one thread each, which reads frames and hands the chunks over.

#include "core/error.h"
#include "core/types.h"

#include <functional>
#include <thread>
#include <vector>

namespace colo {

class PageReceiver {
public:
    // Takes the sockets. `chunk` is called from the channel's thread and may block; `failed` once per channel at most,
    // also when the peer closes.
    PageReceiver(std::vector<int> sockets, SessionId session, std::function<Result<void>(std::size_t, ByteView)> chunk,
                 std::function<void(const Error&)> failed);
    ~PageReceiver();
    void shut_down();   // any thread

private:
    void run(std::size_t channel);
    Result<void> receive(std::size_t channel);

    std::vector<int> sockets_;
    SessionId session_;
    std::function<Result<void>(std::size_t, ByteView)> chunk_;
    std::function<void(const Error&)> failed_;
    std::vector<std::thread> threads_;
};

}  // namespace colo
