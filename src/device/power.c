/* SPDX-License-Identifier: Apache-2.0 */
#include "device/power.h"

#include <stdio.h>
#include <string.h>

#include "device/charge.h"
#include "device/entries.h"
#include "device/thermal.h"
#include "device/vitals.h"

#define SUPPLIES "sys/class/power_supply"
#define ZONES "sys/class/thermal"

typedef struct Search {
    const char *root;
    ShoalDoctorBattery *battery;
    ShoalDoctorZone *zones;
    int n_zones, most_zones;
} Search;

/* By the kernel's ABI current_now is in millionths of an ampere, and negative while the battery is
 * being emptied. Samsung's drivers tell thousandths, and other makers turn the sign; what the
 * status says is right. Between the two ranges nothing can be told. */
static bool milliamperes(long long value, const char *status, int *out) {
    long long size = value < 0 ? -value : value;
    if (size > 5000 && size < 10000)
        return false;
    long long ma = size >= 10000 ? size / 1000 : size;
    if (ma > 20000)
        return false;
    bool out_flows = !strcmp(status, "discharging") ||
                     (strcmp(status, "charging") && strcmp(status, "full") && value < 0);
    *out = (int)(out_flows ? -ma : ma);
    return true;
}

/* charge_full, or energy_full, as percent of what it was built for. */
static int capacity_left(const char *root, const char *name) {
    static const char *const KINDS[] = {"charge", "energy"};
    for (int i = 0; i < 2; i++) {
        long long now, design;
        if (shoal_entry_number(root, &now, SUPPLIES "/%s/%s_full", name, KINDS[i]) &&
            shoal_entry_number(root, &design, SUPPLIES "/%s/%s_full_design", name, KINDS[i]) &&
            now > 0 && design > 0 && now < 2 * design)
            return (int)(100 * now / design);
    }
    return 0;
}

static void read_battery(const char *root, const char *name, ShoalDoctorBattery *out) {
    long long value;
    out->present = 1;
    shoal_entry_line(root, out->status, sizeof out->status, SUPPLIES "/%s/status", name);
    shoal_entry_line(root, out->health, sizeof out->health, SUPPLIES "/%s/health", name);
    shoal_entry_line(root, out->technology, sizeof out->technology, SUPPLIES "/%s/technology",
                     name);
    shoal_entry_lower(out->status);
    shoal_entry_lower(out->health);
    if (shoal_entry_number(root, &value, SUPPLIES "/%s/capacity", name) && value >= 0 &&
        value <= 100)
        out->level = (int)value;
    if (shoal_entry_number(root, &value, SUPPLIES "/%s/current_now", name))
        out->current_known = milliamperes(value, out->status, &out->current_ma);
    if (shoal_entry_number(root, &value, SUPPLIES "/%s/voltage_now", name) && value > 0 &&
        value < 100000000)
        out->millivolts = (int)(value >= 100000 ? value / 1000 : value);
    if (shoal_entry_number(root, &value, SUPPLIES "/%s/cycle_count", name) && value > 0 &&
        value < 100000)
        out->cycles = (int)value;
    out->capacity_left = capacity_left(root, name);
}

static void visit_supply(void *context, int folder, const char *name) {
    (void)folder;
    Search *search = context;
    char line[32];
    long long present;
    if (!shoal_entry_line(search->root, line, sizeof line, SUPPLIES "/%s/type", name))
        return;
    if (search->battery->present < 0)
        search->battery->present = 0; /* the system does tell of supplies */
    shoal_entry_lower(line);
    if (strcmp(line, "battery") || search->battery->present > 0)
        return;
    if (shoal_entry_line(search->root, line, sizeof line, SUPPLIES "/%s/scope", name)) {
        shoal_entry_lower(line);
        if (!strcmp(line, "device"))
            return; /* of a mouse or a headset */
    }
    if (shoal_entry_number(search->root, &present, SUPPLIES "/%s/present", name) && present == 0)
        return;
    read_battery(search->root, name, search->battery);
}

void shoal_power_read(const char *root, ShoalDoctorBattery *out) {
    memset(out, 0, sizeof *out);
    out->present = out->level = out->cycles = out->plugged = out->screen_on = out->limit = -1;
    Search search = {.root = root, .battery = out};
    shoal_entry_each(root, SUPPLIES, "", visit_supply, &search);
    ShoalVitals vitals;
    shoal_vitals_read(root, &vitals);
    out->plugged = vitals.plugged;
    out->screen_on = vitals.used;
    if (out->level < 0)
        out->level = vitals.battery;
    ShoalCharge charge;
    shoal_charge_find(root, &charge);
    snprintf(out->limit_file, sizeof out->limit_file, "%s", charge.path);
    out->limit_writable = charge.path[0] && charge.writable;
    out->limit = charge.path[0] ? charge.limit : -1;
}

/* ---- thermal zones ---- */

/* Of all of them, whatever they belong to: a wider range than what counts for a processor. */
enum { LIMIT_LOWEST = 30, LIMIT_HIGHEST = 150 };

static void visit_zone(void *context, int folder, const char *name) {
    Search *search = context;
    if (search->n_zones >= search->most_zones)
        return;
    ShoalDoctorZone *zone = &search->zones[search->n_zones];
    if (!shoal_entry_line_at(folder, name, "type", zone->type, sizeof zone->type) ||
        !shoal_thermal_degrees(folder, name, "temp", &zone->celsius) || zone->celsius < -40 ||
        zone->celsius > 150)
        return;
    zone->limit = shoal_thermal_limit(folder, name, LIMIT_LOWEST, LIMIT_HIGHEST);
    search->n_zones++;
}

int shoal_power_zones(const char *root, ShoalDoctorZone *zones, int most) {
    Search search = {.root = root, .zones = zones, .most_zones = most};
    shoal_entry_each(root, ZONES, "thermal_zone", visit_zone, &search);
    return search.n_zones;
}
