/* SPDX-License-Identifier: Apache-2.0 */
#include "device/thermal.h"

#include <stdio.h>
#include <string.h>

#include "device/entries.h"

enum { TRIPS_MAX = 12 };

bool shoal_thermal_degrees(int folder, const char *zone, const char *file, double *degrees) {
    long long value;
    if (!shoal_entry_number_at(folder, zone, file, &value))
        return false;
    bool whole = value >= -40 && value <= 150;
    if (!whole && value < 1000 && value > -1000)
        return false;
    *degrees = whole ? (double)value : (double)value / 1000;
    return true;
}

double shoal_thermal_limit(int folder, const char *zone, double least, double most) {
    double lowest = 0;
    for (int i = 0; i < TRIPS_MAX; i++) {
        char file[32], type[64];
        double degrees;
        snprintf(file, sizeof file, "trip_point_%d_type", i);
        if (!shoal_entry_line_at(folder, zone, file, type, sizeof type))
            break;
        shoal_entry_lower(type);
        snprintf(file, sizeof file, "trip_point_%d_temp", i);
        if (!strcmp(type, "passive") && shoal_thermal_degrees(folder, zone, file, &degrees) &&
            degrees >= least && degrees <= most && (lowest == 0 || degrees < lowest))
            lowest = degrees;
    }
    return lowest;
}
