// SPDX-License-Identifier: Apache-2.0
#pragma once

// The cut's and the apply's view of the proxy thread. Guest thread.

#include "colo/jobs.h"
#include "proxy/runtime.h"

namespace colo {

class RuntimePrimarySeal final : public PrimarySeal {
public:
    explicit RuntimePrimarySeal(proxy::ProxyRuntime& runtime) : runtime_(runtime) {}
    void prepare() override { runtime_.pause_input(true); }
    void cancel() override { runtime_.pause_input(false); }
    void start_seal(Epoch next, bool protect) override
    {
        next_ = next;
        protect_ = protect;
    }
    Result<replication::ProxySection> finish_seal(Deadline deadline) override
    {
        auto section = runtime_.seal_primary(next_, deadline);
        if (!section || !protect_) return section;
        // From this cut on the guest's output is not in S's first state: nothing leaves without S (R8).
        runtime_.set_output(proxy::PrimaryProxy::Output::protect, 0);
        if (auto r = runtime_.fence(deadline); !r) return r.error();
        return section;
    }

private:
    proxy::ProxyRuntime& runtime_;
    Epoch next_ = 0;
    bool protect_ = false;
};

class RuntimeSecondarySeal final : public SecondarySeal {
public:
    explicit RuntimeSecondarySeal(proxy::ProxyRuntime& runtime) : runtime_(runtime) {}
    Result<void> seal(Deadline deadline) override { return runtime_.seal_secondary(deadline); }
    Result<void> applied(Epoch epoch, const replication::ProxySection& section, bool paused, Deadline deadline) override
    {
        if (auto r = runtime_.applied_secondary(epoch, section, deadline); !r) return r;
        runtime_.set_guest_paused(paused);
        return {};
    }

private:
    proxy::ProxyRuntime& runtime_;
};

}  // namespace colo
