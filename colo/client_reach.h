// SPDX-License-Identifier: Apache-2.0
#pragma once

// The order of asking the arbiter. When the hosts lose each other, the one that the clients cannot reach should not be
// the first to ask: it would win, and its peer, which could have served, would stop. So each side first finds out whether
// it hears anybody on the client network, and waits a while if it does not:
//
//   primary      hears a client (its traffic goes on, or a client answers an ARP probe): asks at once
//                knows clients and hears none of them within its wait: asks then
//                knows nobody whom it could ask: asks at once; there is nobody it could be cut off from
//   secondary    a client answers an ARP probe: asks at once; otherwise after a tenth
//
// A cut-off primary so loses to its secondary, a cut-off secondary to its primary, and a dead peer costs the round trip of
// a probe. It is an order, not a decision: what makes it safe that one side runs is the arbiter alone.
//
// Limits: stations on the same host as one of the copies (a bridge's other guests) answer there whatever the cable does;
// IPv6 and VLAN-tagged stations are not asked, and count only while they talk.

#include "colo/node.h"
#include "core/types.h"
#include "proxy/clients.h"

#include <functional>
#include <string>
#include <vector>

namespace colo {

// How long a side that hears nobody waits. `fence_delay`: by which a secondary asks later anyway (arbiter `command`).
Duration unreached_wait(Role role, Duration unreached_delay, Duration fence_delay);

struct ReachQuestion {
    Role role = Role::none;
    Duration limit{0};  // see unreached_wait; 0: nobody is asked
    std::vector<proxy::Client> clients;
    std::vector<std::string> interfaces;           // by NIC; empty: none that could be asked there
    std::function<Time()> last_heard;              // when a client was last heard on a wire; any thread
    std::function<bool()> wanted;                  // false: no longer of interest
};

struct ReachAnswer {
    bool reached = false;
    Duration took{0};
    std::string text;   // for the log; empty: nothing was done
};

// Blocks up to the limit.
ReachAnswer seek_clients(const ReachQuestion& question);

}  // namespace colo
