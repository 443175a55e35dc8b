/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DEVICE_VITALS_H
#define SHOAL_DEVICE_VITALS_H

#include <stdbool.h>

/* How the device is, as far as Linux tells. Phones deny much of it. */
typedef struct ShoalVitals {
    float temperature;         /* degrees Celsius of the hottest processor; 0: unknown */
    float ceiling;             /* at which the kernel begins to lower the clock of one of them: the
                                  lowest passive trip point of their zones; 0: unknown */
    float battery_temperature; /* degrees Celsius of the hottest battery; 0: unknown */
    float clock;               /* 0 .. 1: part of its full clock that the most limited core may
                                  use; 0: unknown */
    int battery;               /* percent, of the emptiest battery; -1: unknown or none */
    bool charging;             /* that one is charged, or full */
    int plugged;               /* 1: a charger is connected; 0: none is; -1: unknown */
    int used;                  /* 1: the screen is on; 0: it is off; -1: unknown */
} ShoalVitals;

/* Reads them from sysfs below root ("/" but for tests). What is missing, denied or no sensible
 * number is unknown. Some tens of small files, up to a few hundred on a large machine: meant for
 * about once a second. Allocates nothing and may be called by any thread.
 *
 * Temperatures: ROOT/sys/class/thermal/thermal_zone* whose type names a processor or a battery, and
 * power_supply/.../temp of batteries. A ceiling below 60 or above 130 degrees is none. Charger:
 * `online` of power supplies that are Mains, USB or Wireless, and what batteries say. Screen: the
 * backlight, which is off while the screen is. Clock: scaling_max_freq / cpuinfo_max_freq of
 * ROOT/sys/devices/system/cpu/cpu*; where no core tells, estimated from the states of the cooling
 * devices that lower clocks. */
void shoal_vitals_read(const char *root, ShoalVitals *out);

#endif
