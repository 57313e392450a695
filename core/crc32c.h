// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.h"

namespace colo {

// CRC-32C (Castagnoli), reflected, initial and final inversion as in iSCSI (RFC 3720 B.4): crc32c of "123456789" is
// 0xe3069283. `seed` is the result over the bytes before, so that pieces can be chained.
std::uint32_t crc32c(ByteView data, std::uint32_t seed = 0);

}  // namespace colo
