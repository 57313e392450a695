// SPDX-License-Identifier: Apache-2.0
#pragma once

// CHECK stays on in release builds: a broken invariant of a fault-tolerance service must stop this copy, because the
// other copy is the one that is still right.

#include <cstdio>
#include <cstdlib>

#define COLO_CHECK(condition)                                                                        \
    do {                                                                                             \
        if (!(condition)) [[unlikely]] {                                                             \
            std::fprintf(stderr, "%s:%d: invariant broken: %s\n", __FILE__, __LINE__, #condition);   \
            std::abort();                                                                            \
        }                                                                                            \
    } while (false)
