/* SPDX-License-Identifier: Apache-2.0 */
#include "xen/log_bitmap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <xenctrl.h>

#define HOST_PAGE 4096

int colo_log_bitmap_make(void *interface, struct colo_log_bitmap *bitmap, uint64_t pages)
{
    const uint64_t bytes = (pages + 63) / 64 * 8, host_pages = (bytes + HOST_PAGE - 1) / HOST_PAGE;
    DECLARE_HYPERCALL_BUFFER(uint64_t, words);
    memset(bitmap, 0, sizeof *bitmap);
    if (host_pages == 0 || host_pages > 1u << 20) { /* 128 TiB of guest memory */
        errno = EINVAL;
        return -1;
    }
    bitmap->buffer = malloc(sizeof(xc_hypercall_buffer_t));
    if (bitmap->buffer == NULL) return -1;
    words = xc_hypercall_buffer_alloc_pages(interface, words, (int)host_pages);
    if (words == NULL) {
        free(bitmap->buffer);
        bitmap->buffer = NULL;
        return -1;
    }
    memset(words, 0, host_pages * HOST_PAGE);
    memcpy(bitmap->buffer, HYPERCALL_BUFFER(words), sizeof(xc_hypercall_buffer_t));
    bitmap->words = words;
    bitmap->host_pages = (int)host_pages;
    return 0;
}

void colo_log_bitmap_free(void *interface, struct colo_log_bitmap *bitmap)
{
    if (bitmap->words == NULL) return;
    xc__hypercall_buffer_free_pages(interface, bitmap->buffer, bitmap->host_pages);
    free(bitmap->buffer);
    memset(bitmap, 0, sizeof *bitmap);
}

long long colo_log_read(void *interface, uint32_t domain, unsigned int op, struct colo_log_bitmap *bitmap, uint64_t pages,
                        unsigned int mode, uint32_t *dirty, uint32_t *faults)
{
    xc_shadow_op_stats_t stats = {0};
    const long long answered = xc_logdirty_control(interface, domain, op, bitmap->buffer, pages, mode, &stats);
    *dirty = stats.dirty_count;
    *faults = stats.fault_count;
    return answered;
}
