// SPDX-License-Identifier: Apache-2.0
// The network services of the test guest, one thread per connection.
#define _GNU_SOURCE
#include "guestd.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

struct service {
    int port;
    void (*serve)(int connection);
    int listener;
};
struct job {
    int connection;
    void (*serve)(int connection);
};

static int write_all(int fd, const void *data, size_t size)
{
    const char *at = data;
    while (size > 0) {
        const ssize_t n = send(fd, at, size, 0);
        if (n <= 0) return -1;
        at += n;
        size -= (size_t)n;
    }
    return 0;
}

static int read_all(int fd, void *data, size_t size)
{
    char *at = data;
    while (size > 0) {
        const ssize_t n = recv(fd, at, size, 0);
        if (n <= 0) return -1;
        at += n;
        size -= (size_t)n;
    }
    return 0;
}

// Lines of at most 2000 bytes; what follows a longer one is a line of its own.
struct line_reader {
    int fd;
    size_t used;
    char buffer[2001];
};

static int next_line(struct line_reader *reader, char *line)
{
    for (;;) {
        char *end = memchr(reader->buffer, '\n', reader->used);
        size_t n = end != NULL ? (size_t)(end - reader->buffer) + 1 : reader->used == 2000 ? 2000 : 0;
        if (n != 0) {
            memcpy(line, reader->buffer, n);
            line[line[n - 1] == '\n' ? n - 1 : n] = 0;
            memmove(reader->buffer, reader->buffer + n, reader->used - n);
            reader->used -= n;
            return 0;
        }
        const ssize_t got = recv(reader->fd, reader->buffer + reader->used, 2000 - reader->used, 0);
        if (got <= 0) return -1;
        reader->used += (size_t)got;
    }
}

static void serve_echo(int c)
{
    struct line_reader reader = {.fd = c};
    char line[2002], answer[2100];
    for (unsigned long long n = 0; next_line(&reader, line) == 0; ++n) {
        const int size = snprintf(answer, sizeof answer, "%llu %s\n", n, line);
        if (write_all(c, answer, (size_t)size) != 0) return;
    }
}

// CRC-32 as in zlib, eight bytes at a time.
static uint32_t g_crc_table[8][256];

static void make_crc_table(void)
{
    for (uint32_t i = 0; i < 256; ++i) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; ++bit) c = (c >> 1) ^ ((c & 1) != 0 ? 0xedb88320u : 0);
        g_crc_table[0][i] = c;
    }
    for (uint32_t i = 0; i < 256; ++i)
        for (int k = 1; k < 8; ++k)
            g_crc_table[k][i] = (g_crc_table[k - 1][i] >> 8) ^ g_crc_table[0][g_crc_table[k - 1][i] & 0xff];
}

static uint32_t crc32(uint32_t crc, const unsigned char *data, size_t size)
{
    crc = ~crc;
    for (; size >= 8; data += 8, size -= 8) {
        uint64_t word;
        memcpy(&word, data, 8);
        word ^= crc;
        crc = 0;
        for (int k = 0; k < 8; ++k) crc ^= g_crc_table[7 - k][word >> (8 * k) & 0xff];
    }
    for (; size > 0; ++data, --size) crc = (crc >> 8) ^ g_crc_table[0][(crc ^ *data) & 0xff];
    return ~crc;
}

// 8 bytes length (big endian), then the data; answer "<crc32, 8 hex digits> <length>\n". Repeats.
static void serve_sink(int c)
{
    enum { kBuffer = 256 * 1024 };
    unsigned char head[8], *buffer = malloc(kBuffer);
    if (buffer == NULL) return;
    while (read_all(c, head, sizeof head) == 0) {
        uint64_t length = 0, left;
        uint32_t crc = 0;
        char answer[64];
        for (int i = 0; i < 8; ++i) length = length << 8 | head[i];
        for (left = length; left > 0;) {
            const ssize_t n = recv(c, buffer, left < kBuffer ? (size_t)left : kBuffer, 0);
            if (n <= 0) break;
            crc = crc32(crc, buffer, (size_t)n);
            left -= (uint64_t)n;
        }
        if (left != 0) break;
        const int size = snprintf(answer, sizeof answer, "%08x %llu\n", crc, (unsigned long long)length);
        if (write_all(c, answer, (size_t)size) != 0) break;
    }
    free(buffer);
}

// "seed length\n" -> length bytes: word i (64 bits, little endian) of the stream is splitmix64 number i of the seed.
static void serve_source(int c)
{
    enum { kWords = 8192 };
    struct line_reader reader = {.fd = c};
    char line[2002];
    uint64_t *buffer = malloc(kWords * 8);
    while (buffer != NULL && next_line(&reader, line) == 0) {
        unsigned long long seed, length;
        if (sscanf(line, "%llu %llu", &seed, &length) != 2) break;
        for (uint64_t state = seed; length > 0;) {
            for (int i = 0; i < kWords; ++i) {
                uint64_t x = state += 0x9e3779b97f4a7c15u;
                x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
                x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
                buffer[i] = x ^ (x >> 31);
            }
            const size_t size = length < kWords * 8 ? (size_t)length : kWords * 8;
            if (write_all(c, buffer, size) != 0) {
                free(buffer);
                return;
            }
            length -= size;
        }
    }
    free(buffer);
}

// Each line is answered with "<n> <64 random hex digits>": two copies of this guest never say the same.
static void serve_different(int c)
{
    struct line_reader reader = {.fd = c};
    char line[2002], answer[128];
    for (unsigned long long n = 0; next_line(&reader, line) == 0; ++n) {
        unsigned char random[32];
        uint32_t low, high;
        if (getrandom(random, sizeof random, 0) != sizeof random) return;
        __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
        random[0] ^= (unsigned char)low;
        int size = snprintf(answer, sizeof answer, "%llu ", n);
        for (size_t i = 0; i < sizeof random; ++i) size += sprintf(answer + size, "%02x", random[i]);
        answer[size++] = '\n';
        if (write_all(c, answer, (size_t)size) != 0) return;
    }
}

// "dirty MB/s [working set MB]", "smc 0|1", "exec 0|1", "status", "poweroff", "reboot", "panic"; answers "ok", JSON or "error".
static void serve_control(int c)
{
    struct line_reader reader = {.fd = c};
    char line[2002], answer[1024];
    while (next_line(&reader, line) == 0) {
        long a = 0, b = 96;
        int size;
        const char *done = "ok\n";
        if (sscanf(line, "dirty %ld %ld", &a, &b) >= 1) set_dirty_load(a, b);
        else if (sscanf(line, "smc %ld", &a) == 1) set_self_modifying_load(a != 0);
        else if (sscanf(line, "exec %ld", &a) == 1) set_exec_load(a != 0);
        else if (strcmp(line, "poweroff") != 0 && strcmp(line, "reboot") != 0 && strcmp(line, "panic") != 0)
            done = "error: dirty MB/s [MB] | smc 0|1 | exec 0|1 | status | poweroff | reboot | panic\n";
        if (strcmp(line, "status") == 0) {
            size = format_status(answer, sizeof answer - 1);
            answer[size++] = '\n';
        } else {
            size = snprintf(answer, sizeof answer, "%s", done);
        }
        if (write_all(c, answer, (size_t)size) != 0) return;
        if (*line == 'p' || *line == 'r') {
            sleep_us(20000);   // let the answer leave
            power(line);
        }
    }
}

static void *connection_thread(void *argument)
{
    const struct job job = *(struct job *)argument;
    const int one = 1;
    free(argument);
    setsockopt(job.connection, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    job.serve(job.connection);
    close(job.connection);
    return NULL;
}

static void *accept_thread(void *argument)
{
    const struct service *service = argument;
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 * 1024);
    for (;;) {
        struct job *job = malloc(sizeof *job);
        pthread_t thread;
        const int c = accept4(service->listener, NULL, NULL, SOCK_CLOEXEC);
        if (c < 0 || job == NULL) {
            free(job);
            continue;
        }
        *job = (struct job){c, service->serve};
        if (pthread_create(&thread, &small, connection_thread, job) != 0) {
            close(c);
            free(job);
            continue;
        }
        pthread_detach(thread);
    }
    return NULL;
}

// "<n> <payload>", n counted per peer address and port.
static void *udp_thread(void *argument)
{
    static struct {
        uint64_t peer, count;
    } peers[1024];
    const int s = *(const int *)argument;
    for (;;) {
        char data[2048], answer[2100];
        struct sockaddr_in from;
        socklen_t length = sizeof from;
        const ssize_t n = recvfrom(s, data, sizeof data, 0, (struct sockaddr *)&from, &length);
        if (n < 0) continue;
        const uint64_t peer = (uint64_t)from.sin_addr.s_addr << 16 | from.sin_port;
        size_t slot = (size_t)(peer * 0x9e3779b97f4a7c15u >> 54);
        for (int tries = 0; tries < 8 && peers[slot].peer != peer && peers[slot].peer != 0; ++tries) slot = (slot + 1) % 1024;
        if (peers[slot].peer != peer) peers[slot].peer = peer, peers[slot].count = 0;
        const int head = snprintf(answer, sizeof answer, "%llu ", (unsigned long long)peers[slot].count++);
        memcpy(answer + head, data, (size_t)n);
        sendto(s, answer, (size_t)head + (size_t)n, 0, (struct sockaddr *)&from, length);
    }
    return NULL;
}

static int bound_socket(int type, int port)
{
    const int s = socket(AF_INET, type | SOCK_CLOEXEC, 0), one = 1;
    const struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(s, (const struct sockaddr *)&address, sizeof address) != 0) perror("bind");
    return s;
}

// Every port is open when it returns: a guest that calls itself ready refuses nobody.
void start_services(void)
{
    static struct service services[] = {
        {7, serve_echo, -1}, {9, serve_sink, -1}, {13, serve_different, -1}, {19, serve_source, -1}, {2000, serve_control, -1},
    };
    static int udp;
    pthread_t thread;
    make_crc_table();
    for (size_t i = 0; i < sizeof services / sizeof *services; ++i) {
        services[i].listener = bound_socket(SOCK_STREAM, services[i].port);
        if (listen(services[i].listener, 128) != 0) perror("listen");
    }
    udp = bound_socket(SOCK_DGRAM, 7);
    for (size_t i = 0; i < sizeof services / sizeof *services; ++i)
        if (pthread_create(&thread, NULL, accept_thread, &services[i]) == 0) pthread_detach(thread);
    if (pthread_create(&thread, NULL, udp_thread, &udp) == 0) pthread_detach(thread);
}
