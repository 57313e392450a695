// SPDX-License-Identifier: Apache-2.0
// Entry point of one libFuzzer binary; COLO_FUZZ_TARGET names the function of proxy_targets.h.
#include "proxy_targets.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
{
    colo::fuzz::COLO_FUZZ_TARGET({data, size});
    return 0;
}
