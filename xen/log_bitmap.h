/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The part of the binding that libxenctrl's macros allow in C only: memory that a hypercall may write to. Without Xen's
 * headers, so that this one compiles where they are missing. `interface` is an xc_interface. */

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct colo_log_bitmap {
    uint64_t *words;
    int host_pages;
    void *buffer;
};

/* Room for one bit per guest page, zeroed. 0, or -1 with errno. */
int colo_log_bitmap_make(void *interface, struct colo_log_bitmap *bitmap, uint64_t pages);
/* Nothing happens to an empty one. */
void colo_log_bitmap_free(void *interface, struct colo_log_bitmap *bitmap);
/* Pages that were answered for, or -1 with errno. */
long long colo_log_read(void *interface, uint32_t domain, unsigned int op, struct colo_log_bitmap *bitmap, uint64_t pages,
                        unsigned int mode, uint32_t *dirty, uint32_t *faults);

#ifdef __cplusplus
}
#endif
