/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DEVICE_THERMAL_H
#define SHOAL_DEVICE_THERMAL_H

#include <stdbool.h>

/* Thermal zones (the kernel's Documentation/driver-api/thermal/sysfs-api.rst). Nothing here
 * allocates. */

/* The degrees Celsius that FOLDER/ZONE/FILE tells, in thousandths as it should be, or whole; false:
 * neither. A zone that is broken may tell anything. folder: open. */
bool shoal_thermal_degrees(int folder, const char *zone, const char *file, double *degrees);

/* The lowest temperature from `least` to `most` at which the kernel begins to lower clocks for a
 * zone (a trip point of the type "passive"; "active" has a fan, "hot" and "critical" are worse); 0:
 * not told. */
double shoal_thermal_limit(int folder, const char *zone, double least, double most);

#endif
