/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DEVICE_POWER_H
#define SHOAL_DEVICE_POWER_H

#include "shoal/doctor.h"

/* The battery in full, for people: what device/vitals.h does not need every second. From
 * ROOT/sys/class/power_supply (Linux: Documentation/ABI/testing/sysfs-class-power), plugged and
 * screen_on from the vitals, the limit from device/charge.h. */
void shoal_power_read(const char *root, ShoalDoctorBattery *out);

/* The zones of ROOT/sys/class/thermal that hold a sensible temperature, in no order. Returns how
 * many, at most `most`. */
int shoal_power_zones(const char *root, ShoalDoctorZone *zones, int most);

#endif
