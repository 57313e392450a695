// SPDX-License-Identifier: Apache-2.0
// guestd: init and whole user space of the test guest. It mounts, loads modules, configures the network from the kernel
// command line, and serves; the services are listed in tests/guest/README.md. Everything that a client can see on one
// connection depends only on what that connection carried, except tcp/13, which differs between two copies on purpose.
#define _GNU_SOURCE
#include "guestd.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char g_command_line[4096];

void sleep_us(long us)
{
    const struct timespec t = {us / 1000000, us % 1000000 * 1000};
    nanosleep(&t, NULL);
}

double uptime_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

// Value of `name=` on the kernel command line, or `fallback`.
static const char *option(const char *name, char *out, size_t size, const char *fallback)
{
    const size_t length = strlen(name);
    const char *at = g_command_line;
    while ((at = strstr(at, name)) != NULL) {
        if ((at == g_command_line || at[-1] == ' ') && at[length] == '=') {
            const char *value = at + length + 1;
            const size_t n = strcspn(value, " \n");
            snprintf(out, size, "%.*s", (int)n, value);
            return out;
        }
        at += length;
    }
    return fallback;
}

static void write_file(const char *path, const char *text)
{
    const int fd = open(path, O_WRONLY);
    if (fd < 0) return;
    if (write(fd, text, strlen(text)) < 0) perror(path);
    close(fd);
}

static void load_modules(void)
{
    char name[128], path[160];
    FILE *order = fopen("/modules/order", "r");
    if (order == NULL) return;
    while (fgets(name, sizeof name, order) != NULL) {
        name[strcspn(name, "\n")] = 0;
        snprintf(path, sizeof path, "/modules/%s", name);
        const int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || syscall(SYS_finit_module, fd, "", 0) != 0) perror(path);
        close(fd);
    }
    fclose(order);
}

static void set_address(int s, const char *interface, const char *address, int prefix)
{
    struct ifreq request = {0};
    struct sockaddr_in *in = (struct sockaddr_in *)&request.ifr_addr;
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", interface);
    in->sin_family = AF_INET;
    inet_pton(AF_INET, address, &in->sin_addr);
    if (ioctl(s, SIOCSIFADDR, &request) != 0) perror(interface);
    in->sin_addr.s_addr = prefix == 0 ? 0 : htonl(~0u << (32 - prefix));
    ioctl(s, SIOCSIFNETMASK, &request);
    memset(&request.ifr_ifru, 0, sizeof request.ifr_ifru);
    ioctl(s, SIOCGIFFLAGS, &request);
    request.ifr_flags |= IFF_UP | IFF_RUNNING;
    ioctl(s, SIOCSIFFLAGS, &request);
}

static void set_gateway(int s, const char *gateway)
{
    struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};
    struct sockaddr_in any = {.sin_family = AF_INET}, via = {.sin_family = AF_INET};
    inet_pton(AF_INET, gateway, &via.sin_addr);
    memcpy(&route.rt_dst, &any, sizeof any);
    memcpy(&route.rt_genmask, &any, sizeof any);
    memcpy(&route.rt_gateway, &via, sizeof via);
    if (ioctl(s, SIOCADDRT, &route) != 0) perror("gateway");
}

// colo.ip, colo.prefix, colo.gw; colo.ip1 and colo.prefix1 for a second NIC, and so on. IPv6 stays off without colo.ipv6=1,
// because its unsolicited chatter would make an idle guest talk.
static void configure_network(void)
{
    char value[64], key[32], interface[16];
    if (strcmp(option("colo.ipv6", value, sizeof value, "0"), "1") != 0) {
        write_file("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        write_file("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
    }
    const int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    set_address(s, "lo", "127.0.0.1", 8);
    for (int nic = 0; nic < 8; ++nic) {
        char address[64];
        snprintf(key, sizeof key, nic == 0 ? "colo.ip" : "colo.ip%d", nic);
        const char *ip = option(key, address, sizeof address, nic == 0 ? "10.77.0.2" : "");
        if (*ip == 0) continue;
        snprintf(interface, sizeof interface, "eth%d", nic);
        for (int i = 0; i < 100 && if_nametoindex(interface) == 0; ++i) sleep_us(10000);
        if (if_nametoindex(interface) == 0) continue;
        snprintf(key, sizeof key, nic == 0 ? "colo.prefix" : "colo.prefix%d", nic);
        set_address(s, interface, ip, atoi(option(key, value, sizeof value, "24")));
    }
    const char *gateway = option("colo.gw", value, sizeof value, "");
    if (*gateway != 0) set_gateway(s, gateway);
    close(s);
}

static void mount_all(void)
{
    mkdir("/proc", 0755);
    mkdir("/sys", 0755);
    mkdir("/dev", 0755);
    mkdir("/tmp", 0755);
    mount("proc", "/proc", "proc", 0, NULL);
    mount("sysfs", "/sys", "sysfs", 0, NULL);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    const int console = open("/dev/console", O_RDWR);
    if (console >= 0)
        for (int fd = 0; fd < 3; ++fd) dup2(console, fd);
    const int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
    const ssize_t n = read(fd, g_command_line, sizeof g_command_line - 1);
    g_command_line[n > 0 ? n : 0] = 0;
    close(fd);
}

void power(const char *how)
{
    if (strcmp(how, "poweroff") == 0) reboot(RB_POWER_OFF);
    if (strcmp(how, "reboot") == 0) reboot(RB_AUTOBOOT);
    if (strcmp(how, "panic") == 0) write_file("/proc/sysrq-trigger", "c");
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "exec-child") == 0) return exec_child();
    char value[64];
    signal(SIGPIPE, SIG_IGN);
    mount_all();
    load_modules();
    configure_network();
    start_loads(atol(option("colo.dirty", value, sizeof value, "0")), atol(option("colo.wset", value, sizeof value, "96")),
                atoi(option("colo.smc", value, sizeof value, "0")), atoi(option("colo.exec", value, sizeof value, "0")));
    start_power_button();
    start_services();
    printf("COLO-GUEST-READY %.2f\n", uptime_seconds());
    fflush(stdout);
    for (;;) {
        // Children of the exec load are waited for by their thread; orphans would end up here.
        pause();
    }
}
