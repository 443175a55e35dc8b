/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_VITALS_H
#define SHOAL_TRAIN_VITALS_H

#include <stdbool.h>

/* How the device is, as far as Linux tells. Phones deny much of it. */
typedef struct ShoalVitals {
    float temperature; /* degrees Celsius of the hottest of processor and battery; 0: unknown */
    float clock;       /* 0 .. 1: part of its full clock that the most limited core may use;
                          0: unknown */
    int battery;       /* percent, of the emptiest battery; -1: unknown or none */
    bool charging;     /* that one is charged, or full */
} ShoalVitals;

/* Reads them from sysfs below root ("/" but for tests). What is missing, denied or no sensible
 * number is unknown. Some tens of small files, up to a few hundred on a large machine: meant for
 * about once a second. Allocates nothing and may be called by any thread.
 *
 * Temperature: ROOT/sys/class/thermal/thermal_zone* whose type names a processor or a battery, and
 * power_supply/.../temp of batteries. Clock: scaling_max_freq / cpuinfo_max_freq of
 * ROOT/sys/devices/system/cpu/cpu*; where no core tells, estimated from the states of the cooling
 * devices that lower clocks. */
void shoal_vitals_read(const char *root, ShoalVitals *out);

#endif
