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
    void start_seal(Epoch next, bool protect) override { runtime_.start_seal(next, protect); }
    Result<replication::ProxySection> finish_seal(Deadline deadline) override { return runtime_.finish_seal(deadline); }

private:
    proxy::ProxyRuntime& runtime_;
};

class RuntimeSecondarySeal final : public SecondarySeal {
public:
    explicit RuntimeSecondarySeal(proxy::ProxyRuntime& runtime) : runtime_(runtime) {}
    Result<void> seal(Deadline deadline) override { return runtime_.seal_secondary(deadline); }
    Result<void> applied(Epoch epoch, const replication::ProxySection& section, bool paused, Deadline deadline) override
    {
        return runtime_.applied_secondary(epoch, section, paused, deadline);
    }

private:
    proxy::ProxyRuntime& runtime_;
};

}  // namespace colo
