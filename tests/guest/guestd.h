// SPDX-License-Identifier: Apache-2.0
#pragma once

// Parts of the test guest's only program; see tests/guest/README.md for what a client sees.

#include <stddef.h>
#include <stdint.h>

// guestd.c
void sleep_us(long us);
double uptime_seconds(void);
void power(const char *how);   // "poweroff", "reboot", "panic"

// guest_power.c
void start_power_button(void);

// guest_services.c
void start_services(void);

// guest_loads.c
void start_loads(long dirty_mb_s, long working_set_mb, int self_modifying, int exec);
void set_dirty_load(long mb_s, long working_set_mb);   // the working set is verified before it changes size
void set_self_modifying_load(int on);
void set_exec_load(int on);
int exec_child(void);
int format_status(char *out, size_t size);             // one line of JSON, without newline
