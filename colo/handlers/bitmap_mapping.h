// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/error.h"
#include "schema/types.h"

#include <vector>

namespace colo {

// Checks the parameter block-bitmap-mapping: well-formed and short enough names, nothing mapped or used twice.
Result<void> check_bitmap_mapping(const std::vector<schema::BitmapMigrationNodeAlias>& mapping);

}  // namespace colo
