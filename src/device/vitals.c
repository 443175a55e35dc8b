/* SPDX-License-Identifier: Apache-2.0 */
#include "device/vitals.h"

#include <string.h>

#include "device/entries.h"
#include "device/thermal.h"

enum { VALUE_SIZE = 64 };
/* Degrees Celsius at which a kernel may begin to lower a clock. Some have trip points at room
 * temperature, where they begin to watch a zone, and beyond any temperature, where they never act.
 */
enum { TRIP_LOWEST = 60, TRIP_HIGHEST = 130 };

/* In lower case: makers differ in that. */
static bool read_line(int folder, const char *name, const char *file, char line[VALUE_SIZE]) {
    if (!shoal_entry_line_at(folder, name, file, line, VALUE_SIZE))
        return false;
    shoal_entry_lower(line);
    return true;
}

/* ---- temperature ---- */

static bool has_any(const char *text, const char *const *words) {
    for (; *words; words++)
        if (strstr(text, *words))
            return true;
    return false;
}

/* Zones that hold no temperature, but currents, voltages, loads and counts. */
static bool is_in_degrees(const char *type) {
    static const char *const NOT_DEGREES[] = {"ocp", "cycle", "power", "volt",    "vbat", "ibat",
                                              "bcl", "lvl",   "load",  "current", NULL};
    return !has_any(type, NOT_DEGREES);
}

static bool is_battery(const char *type) {
    return strstr(type, "batt") && is_in_degrees(type);
}

/* Makers name zones as they like. These words are from Qualcomm's, Samsung's, MediaTek's, Google's,
 * Rockchip's and PCs' kernels. "soc" and "socd" alone are a battery's state of charge there. */
static bool is_processor(const char *type) {
    static const char *const OURS[] = {"cpu",  "soc-",    "soc_", "tsens",  "big",    "little",
                                       "core", "cluster", "pkg",  "gold",   "silver", "prime",
                                       "gpu",  "g3d",     "npu",  "acpitz", "exynos", NULL};
    if (!strcmp(type, "ap") || !strcmp(type, "mid"))
        return true;
    return has_any(type, OURS) && !strstr(type, "batt") && is_in_degrees(type);
}

static void take_hottest(float *hottest, double degrees) {
    if (degrees < -40 || degrees > 150)
        return;
    if (*hottest == 0 || (float)degrees > *hottest)
        *hottest = (float)degrees;
}

static void visit_zone(void *context, int folder, const char *name) {
    ShoalVitals *vitals = context;
    char type[VALUE_SIZE];
    double degrees;
    if (!read_line(folder, name, "type", type) || (!is_processor(type) && !is_battery(type)) ||
        !shoal_thermal_degrees(folder, name, "temp", &degrees))
        return;
    if (is_battery(type)) {
        take_hottest(&vitals->battery_temperature, degrees);
        return;
    }
    take_hottest(&vitals->temperature, degrees);
    double limit = shoal_thermal_limit(folder, name, TRIP_LOWEST, TRIP_HIGHEST);
    if (limit > 0 && (vitals->ceiling == 0 || (float)limit < vitals->ceiling))
        vitals->ceiling = (float)limit;
}

/* ---- battery and charger ---- */

static void visit_battery(int folder, const char *name, ShoalVitals *vitals) {
    char line[VALUE_SIZE];
    long long value;
    if (shoal_entry_number_at(folder, name, "present", &value) && value == 0)
        return;
    if (shoal_entry_number_at(folder, name, "temp", &value) && value >= -400 && value <= 1500)
        take_hottest(&vitals->battery_temperature, (double)value / 10);
    if (!shoal_entry_number_at(folder, name, "capacity", &value) || value < 0 || value > 100 ||
        (vitals->battery >= 0 && value >= vitals->battery))
        return;
    vitals->battery = (int)value;
    vitals->charging = read_line(folder, name, "status", line) &&
                       (!strcmp(line, "charging") || !strcmp(line, "full"));
}

/* "usb_dcp", "usb_pd" and others are kinds of "usb" that older kernels tell apart. */
static bool is_charger(const char *type) {
    return !strcmp(type, "mains") || !strcmp(type, "wireless") || !strncmp(type, "usb", 3);
}

static void visit_supply(void *context, int folder, const char *name) {
    ShoalVitals *vitals = context;
    char type[VALUE_SIZE], scope[VALUE_SIZE];
    long long online;
    if (!read_line(folder, name, "type", type))
        return;
    if (read_line(folder, name, "scope", scope) && !strcmp(scope, "device"))
        return; /* of a mouse or a headset */
    if (!strcmp(type, "battery"))
        visit_battery(folder, name, vitals);
    else if (is_charger(type) && shoal_entry_number_at(folder, name, "online", &online) &&
             online >= 0 && vitals->plugged < 1)
        vitals->plugged = online > 0;
}

/* What a battery says where no charger says anything. One that is charged has a charger, whatever
 * that says; one that is neither charged nor discharged may have one. */
static void visit_status(void *context, int folder, const char *name) {
    ShoalVitals *vitals = context;
    char line[VALUE_SIZE];
    if (!read_line(folder, name, "type", line) || strcmp(line, "battery") ||
        (read_line(folder, name, "scope", line) && !strcmp(line, "device")) ||
        !read_line(folder, name, "status", line))
        return;
    if (!strcmp(line, "charging"))
        vitals->plugged = 1;
    else if (vitals->plugged < 0 && !strcmp(line, "discharging"))
        vitals->plugged = 0;
}

/* ---- screen ---- */

/* It is lit when all that can be read says so: bl_power is 0 for "on", and a phone that leaves it
 * there sets the brightness to 0 (the kernel's Documentation/ABI/stable/sysfs-class-backlight). */
static void visit_light(void *context, int folder, const char *name) {
    ShoalVitals *vitals = context;
    long long power, actual, asked;
    bool known = shoal_entry_number_at(folder, name, "bl_power", &power);
    bool lit = !known || power == 0;
    if (shoal_entry_number_at(folder, name, "actual_brightness", &actual)) {
        known = true;
        lit = lit && actual > 0;
    }
    if (shoal_entry_number_at(folder, name, "brightness", &asked)) {
        known = true;
        lit = lit && asked > 0;
    }
    if (known && vitals->used < 1)
        vitals->used = lit;
}

/* ---- clock ---- */

static void take_clock(ShoalVitals *vitals, double part) {
    if (vitals->clock == 0 || (float)part < vitals->clock)
        vitals->clock = (float)part;
}

static void visit_core(void *context, int folder, const char *name) {
    long long now, full;
    if (name[3] < '0' || name[3] > '9') /* cpufreq, cpuidle */
        return;
    if (!shoal_entry_number_at(folder, name, "cpufreq/scaling_max_freq", &now) || now <= 0 ||
        !shoal_entry_number_at(folder, name, "cpufreq/cpuinfo_max_freq", &full) || full <= 0)
        return;
    take_clock(context, now < full ? (double)now / (double)full : 1);
}

/* State 0 is the full clock, the last state the lowest; the steps between are about equal. */
static void visit_cooling(void *context, int folder, const char *name) {
    char type[VALUE_SIZE];
    long long state, last;
    if (!read_line(folder, name, "type", type) ||
        (!strstr(type, "cpufreq") && strcmp(type, "processor")))
        return;
    if (!shoal_entry_number_at(folder, name, "cur_state", &state) ||
        !shoal_entry_number_at(folder, name, "max_state", &last) || last <= 0 || last > 1000 ||
        state < 0 || state > last)
        return;
    take_clock(context, 1 - (double)state / (double)(last + 1));
}

void shoal_vitals_read(const char *root, ShoalVitals *out) {
    *out = (ShoalVitals){.battery = -1, .plugged = -1, .used = -1};
    shoal_entry_each(root, "sys/class/thermal", "thermal_zone", visit_zone, out);
    shoal_entry_each(root, "sys/class/power_supply", "", visit_supply, out);
    shoal_entry_each(root, "sys/class/power_supply", "", visit_status, out);
    shoal_entry_each(root, "sys/class/backlight", "", visit_light, out);
    shoal_entry_each(root, "sys/class/leds", "lcd-backlight", visit_light, out);
    shoal_entry_each(root, "sys/devices/system/cpu", "cpu", visit_core, out);
    if (out->clock == 0)
        shoal_entry_each(root, "sys/class/thermal", "cooling_device", visit_cooling, out);
}
