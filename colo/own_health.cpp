// SPDX-License-Identifier: Apache-2.0
#include "colo/own_health.h"

namespace colo {

std::optional<OwnHealth::Verdict> OwnHealth::judge(Time now)
{
    const bool late = last_.us != 0 && now - last_ > interval_ * 3;
    last_ = now;
    std::optional<ProgressCounter> still;
    Duration longest{0};
    for (std::size_t i = 0; i < moved_.size(); ++i) {
        if (moved_[i].us == 0) continue;
        if (late && !still_) moved_[i] = now;
        if (now - moved_[i] < timeout_ || now - moved_[i] < longest) continue;
        longest = now - moved_[i];
        still = static_cast<ProgressCounter>(i);
    }
    if (still.has_value() == still_.has_value()) return std::nullopt;
    still_ = still;
    if (!still) return Verdict{};
    return Verdict{false, std::string("the ") + to_string(*still) + " of this side has not moved for " +
                              std::to_string(longest.count() / 1000) + " ms"};
}

}  // namespace colo
