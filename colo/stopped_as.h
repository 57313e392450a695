// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the interface calls a guest that stands still while nothing else (session, power) explains it. Control thread.

#include "schema/types.h"

namespace colo {

class StoppedAs {
public:
    // A stop has the last word, also over saves that are under way.
    void stop(schema::RunState as)
    {
        as_ = as;
        shows_save_ = false;
    }
    void resumed() { as_ = schema::RunState::paused; }

    // Saves of the device state may overlap: each stops the guest and lets it go on, one after the other.
    void begin_save(bool running)
    {
        ++saves_;
        shows_save_ = shows_save_ || running;
    }
    void end_save()
    {
        if (--saves_ == 0) shows_save_ = false;
    }

    schema::RunState value() const { return shows_save_ ? schema::RunState::save_vm : as_; }

private:
    schema::RunState as_ = schema::RunState::paused;
    bool shows_save_ = false;  // the guest ran when a save began that is not over
    int saves_ = 0;
};

}  // namespace colo
