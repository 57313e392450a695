// SPDX-License-Identifier: Apache-2.0
// Loads that check themselves: memory dirtier, self-modifying code, exec.
#define _GNU_SOURCE
#include "guestd.h"

#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum { kPage = 4096, kLine = 64, kLinesPerPage = kPage / kLine };

static volatile long g_dirty_mb_s, g_wanted_mb, g_actual_mb;
static volatile int g_self_modifying, g_exec;
static volatile uint64_t g_pages_written, g_pages_bad, g_code_ok, g_code_bad, g_exec_ok, g_exec_bad;
static pthread_mutex_t g_change = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t g_changed = PTHREAD_COND_INITIALIZER;

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

// First word of every cache line of a page. The sequence number is also kept outside of the page, so that a page that is
// whole but stale is found too.
static void write_page(uint64_t *page, uint64_t index, uint64_t sequence)
{
    const uint64_t tag = mix(index * 0x9e3779b97f4a7c15u + sequence);
    page[0] = sequence;
    for (uint64_t line = 1; line < kLinesPerPage; ++line) page[line * 8] = tag + line;
}

static int page_is_good(const uint64_t *page, uint64_t index, uint64_t sequence)
{
    const uint64_t tag = mix(index * 0x9e3779b97f4a7c15u + sequence);
    if (page[0] != sequence) return 0;
    for (uint64_t line = 1; line < kLinesPerPage; ++line)
        if (page[line * 8] != tag + line) return 0;
    return 1;
}

struct working_set {
    uint64_t *memory;
    uint64_t *sequence;
    size_t pages;
};

static void open_set(struct working_set *set, long mb)
{
    set->pages = (size_t)mb << 8;
    set->memory = mmap(NULL, set->pages * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    set->sequence = calloc(set->pages + 1, sizeof *set->sequence);
    if (set->memory == MAP_FAILED || set->sequence == NULL) {
        printf("no memory for a working set of %ld MB\n", mb);
        free(set->sequence);
        memset(set, 0, sizeof *set);
        return;
    }
    for (size_t i = 0; i < set->pages; ++i) write_page(set->memory + i * 512, i, 0);
}

static void close_set(struct working_set *set)
{
    for (size_t i = 0; i < set->pages; ++i)
        if (!page_is_good(set->memory + i * 512, i, set->sequence[i])) ++g_pages_bad;
    if (set->pages != 0) munmap(set->memory, set->pages * kPage);
    free(set->sequence);
    memset(set, 0, sizeof *set);
}

// Rewrites random pages at the wanted rate until the load changes.
static void run_set(struct working_set *set, uint64_t *random)
{
    const long mb = g_wanted_mb, rate = g_dirty_mb_s;
    double budget = 0, last = uptime_seconds();
    while (g_wanted_mb == mb && g_dirty_mb_s == rate && set->pages != 0) {
        const double t = uptime_seconds();
        budget += (t - last > 0.1 ? 0.1 : t - last) * (double)rate * 256.0;
        last = t;
        for (; budget >= 1; budget -= 1) {
            *random ^= *random << 13, *random ^= *random >> 7, *random ^= *random << 17;
            const size_t i = *random % set->pages;
            uint64_t *page = set->memory + i * 512;
            if (!page_is_good(page, i, set->sequence[i])) ++g_pages_bad;
            write_page(page, i, ++set->sequence[i]);
            ++g_pages_written;
        }
        sleep_us(2000);
    }
}

static void *dirty_thread(void *unused)
{
    (void)unused;
    struct working_set set = {0};
    uint64_t random = 88172645463325252u;
    for (;;) {
        pthread_mutex_lock(&g_change);
        while (g_dirty_mb_s == 0 && g_actual_mb == g_wanted_mb) pthread_cond_wait(&g_changed, &g_change);
        pthread_mutex_unlock(&g_change);
        if (g_actual_mb != g_wanted_mb) {
            const long mb = g_wanted_mb;
            close_set(&set);
            open_set(&set, mb);
            g_actual_mb = mb;
        }
        if (g_dirty_mb_s != 0 && set.pages != 0) run_set(&set, &random);
        else if (g_dirty_mb_s != 0) sleep_us(100000);
    }
    return NULL;
}

// Four functions `mov eax, imm32; ret` in one page, rewritten and called: finds stale translations.
static void *code_thread(void *unused)
{
    (void)unused;
    unsigned char *code = mmap(NULL, kPage, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint32_t value = 1;
    for (;;) {
        if (!g_self_modifying) {
            sleep_us(200000);
            continue;
        }
        value = value * 1664525u + 1013904223u;
        for (uint32_t slot = 0; slot < 4; ++slot) {
            const uint32_t number = value + slot;
            code[slot * 64] = 0xb8;
            memcpy(code + slot * 64 + 1, &number, 4);
            code[slot * 64 + 5] = 0xc3;
        }
        for (int round = 0; round < 50; ++round) {
            for (uint32_t slot = 0; slot < 4; ++slot) {
                uint32_t (*function)(void);
                void *at = code + slot * 64;
                memcpy(&function, &at, sizeof function);
                if (function() == value + slot) ++g_code_ok;
                else ++g_code_bad;
            }
            if (round % 10 == 9) sleep_us(500);   // lets a cut fall between write and call
        }
    }
    return NULL;
}

// A fresh process: computes something with a known result and says so by its exit status.
int exec_child(void)
{
    uint64_t sum = 0;
    uint64_t *numbers = malloc(20000 * sizeof *numbers);
    if (numbers == NULL) return 1;
    for (uint64_t i = 0; i < 20000; ++i) numbers[i] = mix(i);
    for (uint64_t i = 0; i < 20000; ++i) sum += numbers[i] ^ mix(i);
    return sum == 0 ? 42 : 1;
}

static void *exec_thread(void *unused)
{
    (void)unused;
    char *arguments[] = {"/init", "exec-child", NULL}, *environment[] = {NULL};
    for (;;) {
        if (!g_exec) {
            sleep_us(200000);
            continue;
        }
        pid_t pid;
        int status = 0;
        if (posix_spawn(&pid, "/init", NULL, NULL, arguments, environment) == 0 && waitpid(pid, &status, 0) == pid &&
            WIFEXITED(status) && WEXITSTATUS(status) == 42)
            ++g_exec_ok;
        else
            ++g_exec_bad;
        sleep_us(20000);
    }
    return NULL;
}

static void start(void *(*function)(void *))
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, function, NULL) == 0) pthread_detach(thread);
}

// The two optional threads start with their first use, so that an idle guest has no timer of theirs.
void set_self_modifying_load(int on)
{
    static int started;
    g_self_modifying = on;
    if (on && !started) started = 1, start(code_thread);
}

void set_exec_load(int on)
{
    static int started;
    g_exec = on;
    if (on && !started) started = 1, start(exec_thread);
}

void set_dirty_load(long mb_s, long working_set_mb)
{
    pthread_mutex_lock(&g_change);
    g_dirty_mb_s = mb_s < 0 ? 0 : mb_s > 4000 ? 4000 : mb_s;
    g_wanted_mb = working_set_mb < 0 ? 0 : working_set_mb > 65536 ? 65536 : working_set_mb;
    pthread_cond_signal(&g_changed);
    pthread_mutex_unlock(&g_change);
}

void start_loads(long dirty_mb_s, long working_set_mb, int self_modifying, int exec)
{
    start(dirty_thread);
    set_dirty_load(dirty_mb_s, dirty_mb_s > 0 ? working_set_mb : 0);
    set_self_modifying_load(self_modifying);
    set_exec_load(exec);
}

int format_status(char *out, size_t size)
{
    return snprintf(out, size,
                    "{\"uptime\": %.3f, \"dirty_mb_s\": %ld, \"working_set_mb\": %ld, \"pages_written\": %llu, "
                    "\"pages_bad\": %llu, \"code_ok\": %llu, \"code_bad\": %llu, \"exec_ok\": %llu, \"exec_bad\": %llu}",
                    uptime_seconds(), g_dirty_mb_s, g_actual_mb, (unsigned long long)g_pages_written,
                    (unsigned long long)g_pages_bad, (unsigned long long)g_code_ok, (unsigned long long)g_code_bad,
                    (unsigned long long)g_exec_ok, (unsigned long long)g_exec_bad);
}
