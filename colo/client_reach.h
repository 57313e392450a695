// SPDX-License-Identifier: Apache-2.0
#pragma once

// The order of asking the arbiter. When the hosts lose each other, the one that the clients cannot reach should not be
// the first to ask: it would win, and its peer, which could have served, would stop. So each side first finds out whether
// it hears anybody on the client network, and waits a while if it does not:
//
//   primary      hears a client (its traffic goes on, or a client answers an ARP probe): asks at once
//                knows clients and hears none of them within `limit`: asks then
//                never heard of a client: asks at once; there is nobody it could be cut off from
//   secondary    hears a client: asks at once; otherwise after a tenth of `limit`
//
// A cut-off primary so loses to its secondary, a cut-off secondary to its primary, and a dead peer costs the round trip of
// a probe. It is an order, not a decision: what makes it safe that one side runs is the arbiter alone.

#include "colo/node.h"
#include "core/types.h"
#include "proxy/clients.h"

#include <functional>
#include <string>
#include <vector>

namespace colo {

struct ReachQuestion {
    Role role = Role::none;
    Duration limit{0};  // 0: nobody is asked
    std::vector<proxy::Client> clients;
    std::vector<std::string> interfaces;           // by NIC; empty: none that could be asked there
    std::function<Time()> last_heard;              // when a frame last came from a wire; any thread
    std::function<bool()> wanted;                  // false: no longer of interest
};

struct ReachAnswer {
    bool reached = false;
    Duration took{0};
    std::string text;   // for the log; empty: nothing was done
};

// Blocks up to the limit of its role.
ReachAnswer seek_clients(const ReachQuestion& question);

}  // namespace colo
