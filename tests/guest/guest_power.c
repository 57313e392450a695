// SPDX-License-Identifier: Apache-2.0
// The power button: a guest that is asked to power off does so in order.
#define _GNU_SOURCE
#include "guestd.h"

#include <fcntl.h>
#include <linux/input.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

enum { kDevices = 4 };

static void *button_thread(void *unused)
{
    (void)unused;
    struct pollfd devices[kDevices];
    for (int i = 0; i < kDevices; ++i) {
        char path[32];
        snprintf(path, sizeof path, "/dev/input/event%d", i);
        devices[i] = (struct pollfd){.fd = open(path, O_RDONLY | O_CLOEXEC), .events = POLLIN};   // -1 is not polled
    }
    for (;;) {
        if (poll(devices, kDevices, -1) <= 0) continue;
        for (int i = 0; i < kDevices; ++i) {
            struct input_event event;
            if ((devices[i].revents & POLLIN) == 0 || read(devices[i].fd, &event, sizeof event) != sizeof event) {
                if (devices[i].revents != 0) devices[i].fd = -1;
                continue;
            }
            if (event.type != EV_KEY || event.code != KEY_POWER || event.value != 1) continue;
            printf("COLO-GUEST-POWER-BUTTON\n");
            fflush(stdout);
            sync();
            power("poweroff");
        }
    }
    return NULL;
}

void start_power_button(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, button_thread, NULL) == 0) pthread_detach(thread);
}
