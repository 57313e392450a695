// SPDX-License-Identifier: Apache-2.0
#include "colo/grant_errand.h"

#include "core/clock.h"

namespace colo {

void GrantErrand::ask(GrantRequest request, Duration timeout, Answer answer)
{
    // The arbiter looks once more after it has forgotten earlier cancellations: between our look and that one, cancel()
    // would have no effect.
    request.wanted = [wanted = wanted_, generation = request.generation] { return wanted->load() == generation; };
    worker_.post([this, request = std::move(request), timeout, answer = std::move(answer)] {
        if (!request.wanted()) return;
        const GrantResult result = arbiter_.request(request, now() + timeout);
        if (request.wanted()) answer(result);
    });
}

void GrantErrand::cancel()
{
    if (wanted_->exchange(0) != 0) arbiter_.cancel();
}

}  // namespace colo
