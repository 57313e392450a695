// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.h"

#include <string_view>

namespace colo::fuzz {

// What a guest, a client or the peer can make the proxy read. Each aborts (COLO_CHECK) if a property does not hold.
void proxy_packet(ByteView input);  // one frame: the parser's offsets lie within it; rewriting there and back is nothing
// Both cores under any sequence of frames and epoch events: bounds and books hold, and nothing leaves a protected
// primary without a reason in which the secondary took part.
void proxy_cores(ByteView input);

struct ProxyTarget {
    std::string_view name;  // also the folder below tests/fuzz/corpus
    void (*run)(ByteView input);
};
inline constexpr ProxyTarget kProxyTargets[] = {{"proxy_packet", proxy_packet}, {"proxy_cores", proxy_cores}};

}  // namespace colo::fuzz
